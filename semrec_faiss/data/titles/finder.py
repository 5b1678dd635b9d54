"""Finding a title's row by its id or by any spelling of its title, in a catalog's DuckDB table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.near_misses import Called, Near, NearMisses, nearest_of
from semrec_faiss.data.titles.spelling import TitleParts, TitleQuery, squeezed
from semrec_faiss.data.titles.squeezing import IS_ASCII, NAMES_OF_ASCII
from semrec_faiss.deadline import raise_if_late
from semrec_faiss.errors import AmbiguousTitleError, NotFoundError, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MATCHES_SHOWN = 10
BY_ID, BY_TITLE, SPELLED, BY_NUMBER = 0, 1, 2, 1000
"""How near what is found is to what was asked, nearest first; between the last two, by how it is spelled."""


@dataclass(frozen=True)
class Answering:
    """The titles that answer to a text best, of all or of some: ``rank`` tells how near they are, less is nearer."""

    rank: int
    rows: list[int]


class TitleFinder:
    """Looks titles up; prepares its table of all names of titles, squeezed, when that is first needed."""

    def __init__(self, cursor: Callable[[], DuckDBPyConnection], *, has_year: bool) -> None:
        """Look in the table ``titles`` of the connections that ``cursor`` gives."""
        self._cursor = cursor
        self._year = "year" if has_year else "NULL"
        self._lock = threading.Lock()
        self._longest = -1  # name, in characters; until it is known none is prepared
        self._near_misses = NearMisses(cursor, self._year)

    def find(self, text: str, *, ids: bool = True) -> int:
        """Return the row of the title with this title or, where ``ids`` may be meant, with this media_id.

        Raises:
            AmbiguousTitleError: several titles answer equally well.
            NotFoundError: none does; ``candidates`` are the nearest five, or fewer that look like it at all.
        """
        text = readable(text)
        return decided(text, [self.answering(text, ids=ids)], self.named, lambda: self.near(text))

    def answering(self, text: str, *, ids: bool = True) -> Answering:
        """Find the titles that answer to a `readable` text best; none where none does.

        Raises:
            TooLateError: nobody waits any more: a question may name thousands, and each takes a look at all titles.
        """
        raise_if_late("the titles that are left were not looked up")
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
        longest = self._prepare()
        query = TitleQuery(text)
        asked = [name for name in query.squeezed_names if len(name) <= longest]
        if not asked:
            return Answering(SPELLED, [])
        named = f"SELECT {ROW} FROM title_names WHERE name IN (SELECT unnest($1::VARCHAR[]))"
        sql = f"SELECT {ROW}, title, {self._year} FROM titles WHERE {ROW} IN ({named})"
        rank, rows = query.best_rows(self._rows(sql, [asked]))
        return Answering(SPELLED + rank, rows)

    def _find_by_number(self, text: str) -> list[int]:
        """Find titles whose media_id is ``text``, a number, behind other characters and zeros: 1 is ml_00000001."""
        if not (text.isascii() and text.isdigit()):
            return []
        before = "regexp_full_match(left(media_id, length(media_id) - length($1)), '[^0-9]*0*')"
        sql = f"SELECT {ROW} FROM titles WHERE suffix(media_id, $1) AND {before} ORDER BY {ROW} LIMIT 2"
        return [row for (row,) in self._rows(sql, [text.lstrip("0") or "0"])]

    def _prepare(self) -> int:
        """Squeeze all names of all titles, once; return the length of the longest."""
        with self._lock:
            if self._longest < 0:
                cursor = self._cursor()
                cursor.execute(f"CREATE OR REPLACE TABLE title_names AS {NAMES_OF_ASCII}")
                others = cursor.execute(f"SELECT {ROW}, title FROM titles WHERE NOT ({IS_ASCII})").fetchall()
                names = [(row, squeezed(name)) for row, title in others for name in TitleParts.of(title).names]
                if names:
                    rows, texts = zip(*names, strict=True)
                    columns = {ROW: np.array(rows, dtype=np.int64), "name": np.array(texts, dtype=object)}
                    cursor.register("other_names", columns)
                    cursor.execute(f"INSERT INTO title_names SELECT {ROW}, name FROM other_names")
                    cursor.unregister("other_names")
                (found,) = cursor.execute("SELECT coalesce(max(length(name)), 0) FROM title_names").fetchall()
                self._longest = int(found[0])
            return self._longest

    def _rows(self, sql: str, values: list[Any]) -> list[Any]:
        return self._cursor().execute(sql, values).fetchall()

    def near(self, text: str) -> list[Near]:
        """Return the titles that look most like ``text`` at first sight, for `decided` to choose from."""
        return self._near_misses.of(text)

    def near_ids(self, text: str) -> list[Near]:
        """Return those of them whose media_id looks like ``text``."""
        return list(self._near_misses.of_id(text))

    def named(self, rows: Sequence[int]) -> list[Called]:
        """Return what a message calls each of ``rows``."""
        sql = f"SELECT {ROW}, title, media_id, {self._year} FROM titles WHERE {ROW} IN (SELECT unnest(?::BIGINT[]))"
        names = {row: Called.of(*more) for row, *more in self._rows(sql, [list(rows)])}
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
        NotFoundError: none does; ``candidates`` are the nearest five, or fewer that look like it at all.
    """
    rank = min((one.rank for one in found if one.rows), default=BY_NUMBER)
    rows = sorted(row for one in found if one.rank == rank for row in one.rows)
    if len(rows) == 1:
        return rows[0]
    if rank == BY_NUMBER:  # several media_ids that end with a number are none that was meant
        raise _not_found(text, near())
    raise _ambiguous(text, len(rows), named(rows[:MATCHES_SHOWN]))


def _ambiguous(text: str, count: int, shown: list[Called]) -> AmbiguousTitleError:
    more = f"\n  … and {count - len(shown):,} more" if count > len(shown) else ""
    listed = "".join(f"\n  {one}" for one in shown)
    alike = len({one.shown for one in shown}) == 1
    return AmbiguousTitleError(
        f"{count} titles answer to {quoted(text)}:{listed}{more}",
        fix="give the media_id" if alike else "give the year in brackets after the title, or the media_id",
        candidates=tuple(map(str, shown)),
        media_ids=tuple(one.media_id for one in shown),
    )


def _not_found(text: str, near: Sequence[Near]) -> NotFoundError:
    shown = nearest_of(text, near)
    listed = "".join(f"\n  {one.called}" for one in shown)
    problem = f"no title answers to {quoted(text)}"
    return NotFoundError(
        f"{problem}; the nearest are:{listed}" if listed else f"{problem}, and none looks like it",
        fix="give one of these titles, or a media_id" if listed else "give a title or a media_id",
        candidates=tuple(one.name for one in shown),
        media_ids=tuple(one.called.media_id for one in shown),
    )


def unknown_id(media_id: str, titles: int, near: Sequence[Near], known: Sequence[str]) -> NotFoundError:
    """Make the error about a media_id that none of so many titles has.

    Args:
        media_id: what was asked.
        titles: how many there are.
        near: what `TitleFinder.near_ids` found, of each part of a catalogue.
        known: what ids look like.
    """
    shown = nearest_of(media_id, near)
    offer = f"did you mean {quoted(shown[0].called.media_id)}? " if shown else ""
    return NotFoundError(
        f"media_id {quoted(media_id)} is not among the {titles:,} titles",
        fix=f"{offer}ids look like {', '.join(map(quoted, known))}",
        candidates=tuple(one.name for one in shown),
        media_ids=tuple(one.called.media_id for one in shown),
    )
