"""Finding a title's row by its id or by any spelling of its title, in a catalog's DuckDB table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.spelling import COMPARED, TitleQuery, core, nearest, split_year, squeezed, words
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

# A name of a title is as long as the whole, give or take a year and an article, unless the title has brackets.
_SLACK = 24
_MAY_HAVE_ALTERNATIVES = "(title LIKE '%(%' AND NOT (title LIKE '%(____)' AND title NOT LIKE '%(%(%'))"


class TitleFinder:
    """Looks titles up; prepares its table of squeezed titles when one is first needed."""

    def __init__(self, cursor: Callable[[], DuckDBPyConnection], *, has_year: bool) -> None:
        """Look in the table ``titles`` of the connections that ``cursor`` gives."""
        self._cursor = cursor
        self._year = "year" if has_year else "NULL"
        self._lock = threading.Lock()
        self._prepared = False

    def find(self, text: str, *, ids: bool = True) -> int:
        """Return the row of the title with this title or, where ``ids`` may be meant, with this media_id.

        Raises:
            AmbiguousTitleError: several titles answer equally well.
            NotFoundError: none does; ``candidates`` are the nearest five.
        """
        # A command line may hold bytes that are no text; no title does.
        text = text.encode("utf-8", "replace").decode("utf-8")
        rows = self._find_exactly(text, ids) or self._find_spelled_otherwise(text)
        rows = rows or (self._find_by_number(text) if ids else [])
        if len(rows) == 1:
            return rows[0]
        raise self._ambiguous(text, rows) if rows else self._not_found(text)

    def _find_exactly(self, text: str, ids: bool) -> list[int]:
        if not ids:
            return [row for (row,) in self._rows(f"SELECT {ROW} FROM titles WHERE title = $1 ORDER BY {ROW}", [text])]
        sql = f"SELECT {ROW}, media_id = $1 FROM titles WHERE media_id = $1 OR title = $1 ORDER BY {ROW}"
        found = self._rows(sql, [text])
        by_id = [row for row, is_id in found if is_id]
        return by_id or [row for row, _ in found]

    def _find_spelled_otherwise(self, text: str) -> list[int]:
        query = TitleQuery(text)
        cores = [part for part in query.cores if part]
        if not cores:
            return []
        self._prepare()
        # contains() finds in the squeezed titles; a query of symbols alone has to be looked for in the title itself.
        where = " OR ".join(
            f"(contains({'key' if words(part) else 'lower(title)'}, ${number})"
            f" AND (length(key) <= {len(part) + _SLACK} OR {_MAY_HAVE_ALTERNATIVES}))"
            for number, part in enumerate(cores, start=1)
        )
        sql = f"SELECT {ROW}, title, {self._year} FROM titles JOIN title_keys USING ({ROW}) WHERE {where}"
        return query.best_rows(self._rows(sql, cores))

    def _find_by_number(self, text: str) -> list[int]:
        """Find the title whose media_id is ``text``, a number, behind other characters and zeros: 1 is ml_00000001."""
        if not (text.isascii() and text.isdigit()):
            return []
        sql = f"SELECT {ROW} FROM titles WHERE regexp_full_match(media_id, '[^0-9]*0*' || $1) ORDER BY {ROW} LIMIT 2"
        found = [row for (row,) in self._rows(sql, [text.lstrip("0") or "0"])]
        return found if len(found) == 1 else []

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

    def _rows(self, sql: str, values: list[Any]) -> list[Any]:
        return self._cursor().execute(sql, values).fetchall()

    def _ambiguous(self, text: str, rows: list[int]) -> AmbiguousTitleError:
        shown = self._named(rows[:MATCHES_SHOWN])
        more = f"\n  … and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else ""
        listed = "".join(f"\n  {name}" for name in shown)
        alike = len({name.rpartition(" [")[0] for name in shown}) == 1
        return AmbiguousTitleError(
            f"{len(rows)} titles answer to {text!r}:{listed}{more}",
            fix="give the media_id" if alike else "give the year in brackets after the title, or the media_id",
            candidates=tuple(shown),
        )

    def _not_found(self, text: str) -> NotFoundError:
        rows = self._nearest(text)
        titles = self._titles(rows)
        listed = "".join(f"\n  {name}" for name in self._named(rows))
        problem = f"no title answers to {text!r}"
        return NotFoundError(
            f"{problem}; the nearest are:{listed}" if listed else problem,
            fix="give one of these titles, or a media_id" if listed else "give a title or a media_id",
            candidates=tuple(titles[row][0] for row in rows),
        )

    def _nearest(self, text: str) -> list[int]:
        asked = core(TitleQuery(text).readings[-1].whole)[:COMPARED]
        if not asked:
            return []
        self._prepare()
        # The squeezed title ends with the year and may begin with an article: both forms of it are compared.
        plain = f"left(regexp_replace(key, '[0-9]{{4}}$', ''), {COMPARED})"
        begun = f"left({plain}, {len(asked) + 1})"
        found = self._rows(
            f"SELECT {ROW}, title FROM titles JOIN title_keys USING ({ROW}) ORDER BY greatest("
            f"jaro_winkler_similarity({plain}, $1), jaro_winkler_similarity({begun}, $1)) DESC, {ROW}"
            f" LIMIT {_NEAR_CANDIDATES}",
            [asked],
        )
        return nearest(text, found, NEAREST)

    def _titles(self, rows: list[int]) -> dict[int, tuple[str, str, int | None]]:
        """Return title, media_id and year by row."""
        sql = f"SELECT {ROW}, title, media_id, {self._year} FROM titles WHERE {ROW} IN (SELECT unnest(?::BIGINT[]))"
        return {row: (title, media_id, year) for row, title, media_id, year in self._rows(sql, [rows])}

    def _named(self, rows: list[int]) -> list[str]:
        titles = self._titles(rows)
        return [_name(*titles[row]) for row in rows]


def _name(title: str, media_id: str, year: int | None) -> str:
    shown = title if year is None or split_year(title)[1] is not None else f"{title} ({year})"
    return f"{shown} [{media_id}]"
