"""Finding a title's row by its id or by any spelling of its title, in a catalog's DuckDB table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.spelling import (
    COMPARED,
    LEFT_OUT,
    TitleQuery,
    core,
    nearest,
    split_year,
    squeezed,
    words,
)
from semrec_faiss.deadline import TooLateError, time_left
from semrec_faiss.errors import AmbiguousTitleError, NotFoundError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MATCHES_SHOWN = 10
NEAREST = 5

# Looked at more closely, in Python, to find the nearest few.
_NEAR_CANDIDATES = 200

# An ASCII title squeezed in SQL is what titles.squeezed() makes of it; the others, few, are squeezed in Python.
_SQUEEZED_ASCII = "regexp_replace(lower(replace(title, '&', ' and ')), '[^a-z0-9]+', '', 'g')"
_IS_ASCII = "strlen(title) = length(title)"

# What near misses are told by: the squeezed title without its year, and that without the article that it begins with.
_PLAIN = f"left(regexp_replace(key, '[0-9]{{4}}$', ''), {COMPARED})"
_ARTICLE = rf"regexp_extract(lower(title), '^[^\pL\pN]*({'|'.join(sorted(LEFT_OUT))})[^\pL\pN]', 1)"
_COMPARED_FORMS = f"{_PLAIN} AS plain, {_ARTICLE} AS article, substr(plain, nullif(length(article), 0) + 1) AS bare"

# A name of a title is as long as the whole, give or take a year and an article, unless the title has brackets.
_SLACK = 24
_MAY_HAVE_ALTERNATIVES = "(title LIKE '%(%' AND NOT (title LIKE '%(____)' AND title NOT LIKE '%(%(%'))"


BY_ID, BY_TITLE, SPELLED, BY_NUMBER = 0, 1, 2, 1000
"""How near what is found is to what was asked, nearest first; between the last two, by how it is spelled."""


@dataclass(frozen=True)
class Answering:
    """The titles that answer to a text best, of all or of some: ``rank`` tells how near they are, less is nearer."""

    rank: int
    rows: list[int]


class Called(NamedTuple):
    """What a message calls a title: itself, with its year, and its media_id."""

    shown: str
    media_id: str

    def __str__(self) -> str:
        return f"{self.shown} [{self.media_id}]"


@dataclass(frozen=True)
class Near:
    """A title that looks like a text: how much at first sight, and what a message calls it."""

    alike: float
    row: int
    title: str
    called: Called


class TitleFinder:
    """Looks titles up; prepares its table of squeezed titles when one is first needed."""

    def __init__(self, cursor: Callable[[], DuckDBPyConnection], *, has_year: bool) -> None:
        """Look in the table ``titles`` of the connections that ``cursor`` gives."""
        self._cursor = cursor
        self._year = "year" if has_year else "NULL"
        self._lock = threading.Lock()
        self._prepared = False
        self._compared = False

    def find(self, text: str, *, ids: bool = True) -> int:
        """Return the row of the title with this title or, where ``ids`` may be meant, with this media_id.

        Raises:
            AmbiguousTitleError: several titles answer equally well.
            NotFoundError: none does; ``candidates`` are the nearest five.
        """
        text = readable(text)
        return decided(text, [self.answering(text, ids=ids)], self.named, lambda: self.near(text))

    def answering(self, text: str, *, ids: bool = True) -> Answering:
        """Find the titles that answer to a `readable` text best; none where none does.

        Raises:
            TooLateError: nobody waits any more: a question may name thousands, and each takes a look at all titles.
        """
        if (left := time_left()) is not None and left <= 0:
            raise TooLateError("the titles that are left were not looked up")
        found = self._exactly(text, ids)
        found = found if found.rows else self._spelled_otherwise(text)
        return found if found.rows or not ids else Answering(BY_NUMBER, self._find_by_number(text))

    def _exactly(self, text: str, ids: bool) -> Answering:
        if not ids:
            sql = f"SELECT {ROW} FROM titles WHERE title = $1 ORDER BY {ROW}"
            return Answering(BY_TITLE, [row for (row,) in self._rows(sql, [text])])
        sql = f"SELECT {ROW}, media_id = $1 FROM titles WHERE media_id = $1 OR title = $1 ORDER BY {ROW}"
        found = self._rows(sql, [text])
        by_id = [row for row, is_id in found if is_id]
        return Answering(BY_ID, by_id) if by_id else Answering(BY_TITLE, [row for row, _ in found])

    def _spelled_otherwise(self, text: str) -> Answering:
        query = TitleQuery(text)
        cores = [part for part in query.cores if part]
        if not cores:
            return Answering(SPELLED, [])
        self._prepare()
        # contains() finds in the squeezed titles; a query of symbols alone has to be looked for in the title itself.
        where = " OR ".join(
            f"(contains({'key' if words(part) else 'lower(title)'}, ${number})"
            f" AND (length(key) <= {len(part) + _SLACK} OR {_MAY_HAVE_ALTERNATIVES}))"
            for number, part in enumerate(cores, start=1)
        )
        sql = f"SELECT {ROW}, title, {self._year} FROM titles JOIN title_keys USING ({ROW}) WHERE {where}"
        rank, rows = query.best_rows(self._rows(sql, cores))
        return Answering(SPELLED + rank, rows)

    def _find_by_number(self, text: str) -> list[int]:
        """Find titles whose media_id is ``text``, a number, behind other characters and zeros: 1 is ml_00000001."""
        if not (text.isascii() and text.isdigit()):
            return []
        sql = f"SELECT {ROW} FROM titles WHERE regexp_full_match(media_id, '[^0-9]*0*' || $1) ORDER BY {ROW} LIMIT 2"
        return [row for (row,) in self._rows(sql, [text.lstrip("0") or "0"])]

    def _prepare(self) -> None:
        """Squeeze all titles, once: 62,423 take about 0.1 s."""
        with self._lock:
            if self._prepared:
                return
            cursor = self._cursor()
            in_sql = f"SELECT {ROW}, {_SQUEEZED_ASCII} AS key FROM titles WHERE {_IS_ASCII}"
            cursor.execute(f"CREATE OR REPLACE TABLE title_keys AS {in_sql}")
            others = cursor.execute(f"SELECT {ROW}, title FROM titles WHERE NOT ({_IS_ASCII})").fetchall()
            if others:
                rows = np.array([row for row, _ in others], dtype=np.int64)
                keys = np.array([squeezed(title) for _, title in others], dtype=object)
                cursor.register("other_keys", {ROW: rows, "key": keys})
                cursor.execute(f"INSERT INTO title_keys SELECT {ROW}, key FROM other_keys")
                cursor.unregister("other_keys")
            self._prepared = True

    def _prepare_forms(self) -> None:
        """Make the forms that near misses are told by, once."""
        self._prepare()
        with self._lock:
            if not self._compared:
                forms = f"SELECT {ROW}, {_COMPARED_FORMS} FROM titles JOIN title_keys USING ({ROW})"
                sql = f"CREATE OR REPLACE TABLE title_forms AS SELECT {ROW}, plain, bare FROM ({forms})"
                self._cursor().execute(sql)
                self._compared = True

    def _rows(self, sql: str, values: list[Any]) -> list[Any]:
        return self._cursor().execute(sql, values).fetchall()

    def near(self, text: str) -> list[Near]:
        """Return the titles that look most like ``text`` at first sight, for `decided` to choose from."""
        asked = core(TitleQuery(text).readings[-1].whole, LEFT_OUT)[:COMPARED]
        if not asked:
            return []
        self._prepare_forms()
        # Each form whole, and as much of it as was typed; a title without an article has no bare form, and greatest()
        # takes no notice of NULL.
        forms = [form for name in ("plain", "bare") for form in (name, f"left({name}, {len(asked) + 1})")]
        alike = ", ".join(f"jaro_winkler_similarity({form}, $1)" for form in forms)
        found = self._rows(
            f"SELECT greatest({alike}) AS alike, {ROW}, title, media_id, {self._year}"
            f" FROM titles JOIN title_forms USING ({ROW}) ORDER BY alike DESC, {ROW} LIMIT {_NEAR_CANDIDATES}",
            [asked],
        )
        return [Near(alike, row, title, _called(title, *more)) for alike, row, title, *more in found]

    def named(self, rows: Sequence[int]) -> list[Called]:
        """Return what a message calls each of ``rows``."""
        sql = f"SELECT {ROW}, title, media_id, {self._year} FROM titles WHERE {ROW} IN (SELECT unnest(?::BIGINT[]))"
        names = {row: _called(*more) for row, *more in self._rows(sql, [list(rows)])}
        return [names[row] for row in rows]


def readable(text: str) -> str:
    """Return a text without what is none: a command line may hold such bytes, and no title does."""
    return text.encode("utf-8", "replace").decode("utf-8")


def decided(
    text: str,
    found: Sequence[Answering],
    named: Callable[[Sequence[int]], list[Called]],
    near: Callable[[], Sequence[Near]],
) -> int:
    """Decide on one title of what all parts of a catalogue have found.

    Args:
        text: what was asked.
        found: what answers to it in each part.
        named: tells what a message calls each of several rows.
        near: the titles that look like it, asked for where none answers.

    Raises:
        AmbiguousTitleError: several titles answer equally well.
        NotFoundError: none does; ``candidates`` are the nearest five.
    """
    rank = min((one.rank for one in found if one.rows), default=BY_NUMBER)
    rows = sorted(row for one in found if one.rank == rank for row in one.rows)
    if len(rows) == 1:
        return rows[0]
    if rank == BY_NUMBER:  # several media_ids that end with a number are none that was meant
        raise _not_found(text, near())
    raise _ambiguous(text, len(rows), named(rows[:MATCHES_SHOWN]))


def nearest_of(text: str, near: Sequence[Near], count: int = NEAREST) -> list[Near]:
    """Return the ``count`` titles that look most like ``text``, best first.

    Args:
        text: what was asked, or as much of it as is typed.
        near: what `TitleFinder.near` found, of each part of a catalogue.
        count: how many.
    """
    best = sorted(near, key=lambda one: (-one.alike, one.row))[:_NEAR_CANDIDATES]
    by_row = {one.row: one for one in best}
    return [by_row[row] for row in nearest(text, [(one.row, one.title) for one in best], count)]


def _ambiguous(text: str, count: int, shown: list[Called]) -> AmbiguousTitleError:
    more = f"\n  … and {count - len(shown):,} more" if count > len(shown) else ""
    listed = "".join(f"\n  {one}" for one in shown)
    alike = len({one.shown for one in shown}) == 1
    return AmbiguousTitleError(
        f"{count} titles answer to {text!r}:{listed}{more}",
        fix="give the media_id" if alike else "give the year in brackets after the title, or the media_id",
        candidates=tuple(map(str, shown)),
        media_ids=tuple(one.media_id for one in shown),
    )


def _not_found(text: str, near: Sequence[Near]) -> NotFoundError:
    shown = nearest_of(text, near)
    listed = "".join(f"\n  {one.called}" for one in shown)
    problem = f"no title answers to {text!r}"
    return NotFoundError(
        f"{problem}; the nearest are:{listed}" if listed else problem,
        fix="give one of these titles, or a media_id" if listed else "give a title or a media_id",
        candidates=tuple(one.title for one in shown),
        media_ids=tuple(one.called.media_id for one in shown),
    )


def _called(title: str, media_id: str, year: int | None) -> Called:
    return Called(title if year is None or split_year(title)[1] is not None else f"{title} ({year})", media_id)
