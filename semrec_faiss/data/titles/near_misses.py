"""The titles that look like a text which none answers to: by their names, or by their ids, and only if they do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.spelling import (
    COMPARED,
    LEFT_OUT,
    TitleQuery,
    core,
    id_likeness,
    likenesses,
    split_year,
    squeezed,
)
from semrec_faiss.data.titles.squeezing import IS_ASCII, squeezed_ascii

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEAREST = 5

LEAST_ALIKE = 0.5
"""The likeness from which on a title may have been meant: with three letters wrong, few of real titles have less."""

# Looked at more closely, in Python, to find the nearest few.
_CANDIDATES = 200
_CANDIDATES_BY_ID = 20

# What near misses are told by: the squeezed title without its year, and that without the article that it begins with.
_PLAIN = f"left(regexp_replace(key, '[0-9]{{4}}$', ''), {COMPARED})"
_ARTICLE = rf"regexp_extract(lower(title), '^[^\pL\pN]*({'|'.join(sorted(LEFT_OUT))})[^\pL\pN]', 1)"
_FORMS = f"{_PLAIN} AS plain, {_ARTICLE} AS article, substr(plain, nullif(length(article), 0) + 1) AS bare"


class Called(NamedTuple):
    """What a message calls a title: itself, with its year, and its media_id."""

    shown: str
    media_id: str

    @classmethod
    def of(cls, title: str, media_id: str, year: int | None) -> Called:
        """Name a title, with the year of its field where it has none in brackets."""
        return cls(title if year is None or split_year(title)[1] is not None else f"{title} ({year})", media_id)

    def __str__(self) -> str:
        return " ".join(f"{self.shown} [{self.media_id}]".splitlines())  # a title may hold line breaks


@dataclass(frozen=True)
class Near:
    """A title that looks like a text.

    Attributes:
        alike: how much, at first sight.
        row: the title's.
        title: as it is.
        called: what a message calls it.
        by_id: whether its media_id looks like the text, and not its title.
    """

    alike: float
    row: int
    title: str
    called: Called
    by_id: bool

    @property
    def name(self) -> str:
        """What to offer for the text: the title or, where its id was mistyped, what a message calls it."""
        return str(self.called) if self.by_id else self.title


class NearMisses:
    """Looks for titles that look like a text; prepares what they are told by when that is first needed."""

    def __init__(self, cursor: Callable[[], DuckDBPyConnection], year: str) -> None:
        """Look in the table ``titles`` of the connections that ``cursor`` gives; ``year`` is SQL of a title's year."""
        self._cursor = cursor
        self._year = year
        self._lock = threading.Lock()
        self._prepared = False

    def of(self, text: str) -> list[Near]:
        """Return the titles that look most like ``text`` at first sight, for `nearest_of` to choose from."""
        return [*self._by_title(text), *self.of_id(text)]

    def _by_title(self, text: str) -> Iterator[Near]:
        asked = core(TitleQuery(text).readings[-1].whole, LEFT_OUT)[:COMPARED]
        if not asked:
            return iter(())
        self._prepare()
        # Each form whole, and as much of it as was typed; a title without an article has no bare form, and greatest()
        # takes no notice of NULL.
        forms = [form for name in ("plain", "bare") for form in (name, f"left({name}, {len(asked) + 1})")]
        alike = ", ".join(f"jaro_winkler_similarity({form}, $1)" for form in forms)
        return self._most_alike(f"greatest({alike})", f"titles JOIN title_forms USING ({ROW})", asked, _CANDIDATES)

    def of_id(self, text: str) -> Iterator[Near]:
        """Return those of them whose media_id looks like it."""
        alike = f"jaro_winkler_similarity(left(lower(media_id), {COMPARED}), $1)"
        textual = "titles WHERE NOT regexp_full_match(media_id, '[0-9]+')"  # near to a number is every other number
        return self._most_alike(alike, textual, text.strip().casefold()[:COMPARED], _CANDIDATES_BY_ID, by_id=True)

    def _most_alike(self, alike: str, source: str, asked: str, count: int, *, by_id: bool = False) -> Iterator[Near]:
        columns = f"{alike} AS alike, {ROW}, title, media_id, {self._year}"
        sql = f"SELECT {columns} FROM {source} ORDER BY alike DESC, {ROW} LIMIT {count}"
        found = self._cursor().execute(sql, [asked]).fetchall()
        return (Near(much, row, title, Called.of(title, *more), by_id) for much, row, title, *more in found)

    def _prepare(self) -> None:
        """Make the forms that titles are told by, once: 62,423 take about 0.2 s."""
        with self._lock:
            if self._prepared:
                return
            cursor = self._cursor()
            others = cursor.execute(f"SELECT {ROW}, title FROM titles WHERE NOT ({IS_ASCII})").fetchall()
            keys = np.array([squeezed(title) for _, title in others], dtype=object)
            cursor.register("other_keys", {ROW: np.array([row for row, _ in others], dtype=np.int64), "key": keys})
            keyed = (
                f"SELECT {ROW}, title, {squeezed_ascii('title')} AS key FROM titles WHERE {IS_ASCII} UNION ALL"
                f" SELECT {ROW}, title, key::VARCHAR FROM titles JOIN other_keys USING ({ROW})"
            )
            forms = f"SELECT {ROW}, {_FORMS} FROM ({keyed})"
            cursor.execute(f"CREATE OR REPLACE TABLE title_forms AS SELECT {ROW}, plain, bare FROM ({forms})")
            cursor.unregister("other_keys")
            self._prepared = True


def nearest_of(text: str, near: Sequence[Near], count: int = NEAREST) -> list[Near]:
    """Return up to ``count`` titles that look most like ``text``, best first; none that looks less than half like it.

    Args:
        text: what was asked, or as much of it as is typed.
        near: what `NearMisses.of` found, of each part of a catalogue.
        count: how many.
    """
    by_title = _first((one for one in near if not one.by_id), _CANDIDATES)
    by_id = _first((one for one in near if one.by_id), _CANDIDATES_BY_ID)
    titles_alike = likenesses(text, [one.title for one in by_title])
    ids_alike = [id_likeness(text, one.called.media_id) for one in by_id]
    best: dict[int, tuple[float, Near]] = {}
    for alike, one in zip([*titles_alike, *ids_alike], [*by_title, *by_id], strict=True):
        if alike >= LEAST_ALIKE and (one.row not in best or alike > best[one.row][0]):
            best[one.row] = (alike, one)
    return [one for _, one in sorted(best.values(), key=lambda found: (-found[0], found[1].row))[:count]]


def _first(near: Iterable[Near], count: int) -> list[Near]:
    return sorted(near, key=lambda one: (-one.alike, one.row))[:count]
