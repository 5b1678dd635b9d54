"""Filters: what a person asks for becomes one WHERE clause, and a clause asked for again costs microseconds."""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import names_of, text_of
from semrec_faiss.data.folder.database import quoted_text
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.data.titles.spelling import caseless
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.paths import as_typed
from semrec_faiss.search.filters.field_filters import (
    AnyOf,
    Ranges,
    any_of_clause,
    any_of_from,
    range_clause,
    ranges_from,
)

CACHE_BYTES = 256 << 20
"""Masks and gathered vectors that are kept."""

GATHERED_BYTES = 64 << 20
"""Vectors of one filter that are worth keeping."""


@dataclass(frozen=True)
class Filter:
    """What titles must satisfy; all parts hold together.

    Attributes:
        where: a SQL boolean expression over the titles' fields; null counts as no match.
        genres: genres that a title must all have; here and below one text is a list of one.
        any_genres: genres of which a title must have one.
        not_genres: genres that a title must not have.
        years: the first and the last year, either None for open.
        any_of: by field, the values of which a title must have one, such as ``{"brand": ["Sony", "LG"]}``.
        ranges: by field, the first and the last value, such as ``{"price": (5, None)}``; of dates a day, month or year,
            ``("2003", "2004-02")``, to its end.

    Example:
        >>> from semrec_faiss import Filter, Recommender
        >>> demo = Recommender.open("indexes/demo")
        >>> funny = Filter(genres="Comedy", years=(1980, 1989))
        >>> [film.title for film in demo.similar("Alien", k=2, where=funny)]
        ['Ghostbusters II (1989)', 'An American Werewolf in London (1981)']
    """

    where: str | None = None
    genres: tuple[str, ...] = ()
    any_genres: tuple[str, ...] = ()
    not_genres: tuple[str, ...] = ()
    years: tuple[int | None, int | None] | None = None
    any_of: AnyOf = ()
    ranges: Ranges = ()

    def __post_init__(self) -> None:
        """Take lists for tuples and one genre for a list of one; refuse what is neither, and a span that is none."""
        if self.where is not None:
            text_of(
                self.where,
                "where",
                fix='where="year < 1980", say, or where=Filter(genres=["Crime"], years=(1970, 1979))',
            )
        for name in ("genres", "any_genres", "not_genres"):
            object.__setattr__(self, name, names_of(getattr(self, name), name))
        if self.years is not None:
            object.__setattr__(self, "years", _span(self.years))
        object.__setattr__(self, "any_of", any_of_from(self.any_of))
        object.__setattr__(self, "ranges", ranges_from(self.ranges))

    @cached_property
    def says_something(self) -> bool:
        """Whether there is anything that a title must satisfy."""
        return self != EVERYTHING

    def clauses(self, catalog: Catalog) -> tuple[str, ...]:
        """Return the WHERE clauses that together say this; none when everything matches.

        Raises:
            UsageError: no title has such a genre, or the titles have no genres or years.

        Example:
            >>> from semrec_faiss import Filter, Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> Filter(genres="comedy", years=(1980, None)).clauses(demo.catalog)
            ("list_contains(genres, 'Comedy')", 'year >= 1980')
        """
        known = _Genres(catalog) if self.genres or self.any_genres or self.not_genres else None
        clauses = [] if self.where is None else [self.where]
        if known is not None:
            clauses += [known.any_of([name]) for name in self.genres]
            if self.any_genres:
                clauses.append(known.any_of(self.any_genres))
            clauses += [known.none_of(name) for name in self.not_genres]
        if self.years is not None:
            _need_field(catalog, "year")
            first, last = self.years
            clauses += [f"year >= {int(first)}"] if first is not None else []
            clauses += [f"year <= {int(last)}"] if last is not None else []
        clauses += [any_of_clause(catalog, field, values) for field, values in self.any_of]
        clauses += [range_clause(catalog, *span) for span in self.ranges]
        return tuple(clauses)


EVERYTHING = Filter()


def parse_years(text: str) -> tuple[int | None, int | None]:
    """Read ``1990..1999``, ``1990..``, ``..1999`` or ``1994``.

    Raises:
        UsageError: it is none of these, or the first year is after the last.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    try:
        years = (int(first) if first else None, int(last) if last else None) if dots else (int(first), int(first))
    except ValueError as error:
        raise UsageError(
            f"{quoted(text)} is not a span of years", fix="for example: 1990..1999, 1990.., ..1999 or 1994"
        ) from error
    if years == (None, None) or (years[0] is not None and years[1] is not None and years[0] > years[1]):
        raise UsageError(
            f"{quoted(text)} is an empty span of years", fix="for example: 1990..1999, 1990.., ..1999 or 1994"
        )
    return years


def _span(years: Any) -> tuple[int | None, int | None]:
    """Return a first and a last year as a tuple; raises UsageError where they are no such thing."""
    fix = "the first year and then the last, such as 1990 and 1999; none of one leaves that end open"
    pair = tuple(years) if isinstance(years, tuple | list) else ()
    if len(pair) != 2 or not all(year is None or type(year) is int or isinstance(year, np.integer) for year in pair):
        raise UsageError(f"years is {quoted(years)}; a first and a last year are expected", fix=fix)
    first, last = (None if year is None else int(year) for year in pair)
    if first is not None and last is not None and first > last:
        raise UsageError(f"{first} to {last} is an empty span of years", fix=fix)
    return first, last


GENRES_NAMED = 40
"""The genres that an error names at most: a shop may have thousands of tags."""


GENRES_OFFERED = 5
"""The nearest of them that may have been meant."""


class _Genres:
    """The genres of a catalog, found without regard to case and Unicode form, each in all of its spellings."""

    def __init__(self, catalog: Catalog) -> None:
        _need_field(catalog, "genres")
        sql = "SELECT DISTINCT unnest(genres) FROM titles"
        names = [name for (name,) in catalog.cursor().execute(sql).fetchall() if name is not None]
        self._spellings: dict[str, list[str]] = {}
        for name in sorted(names):
            self._spellings.setdefault(caseless(name), []).append(name)

    def any_of(self, names: Sequence[str]) -> str:
        """Return the clause that holds for titles of at least one of these genres."""
        found = [quoted_text(spelling) for name in names for spelling in self._all_spellings(name)]
        return (
            f"list_contains(genres, {found[0]})" if len(found) == 1 else f"list_has_any(genres, [{', '.join(found)}])"
        )

    def none_of(self, name: str) -> str:
        """Return the clause that holds for titles without a genre.

        One that no title has is refused here, too, as a misspelt one would leave nothing out. Who leaves out genres
        that come and go with the titles is told how.
        """
        try:
            return f"NOT coalesce({self.any_of([name])}, false)"
        except UsageError as error:
            where = f"NOT coalesce({quoted_text(name)} IN genres, false)"
            fix = f"{error.fix}; to leave it out as soon as a title has it: where {where}"
            raise UsageError(error.message, fix=fix, candidates=error.candidates) from error

    def _all_spellings(self, name: str) -> list[str]:
        asked = caseless(name)
        if not self._spellings:
            raise UsageError(f"no title has the genre {quoted(name)}, nor any other", fix="leave the genre out")
        if asked not in self._spellings:
            alike = difflib.get_close_matches(asked, self._spellings, n=GENRES_OFFERED, cutoff=0.5)
            near = tuple(self._spellings[name][0] for name in alike)
            offer = f"did you mean {quoted(near[0])}? " if near else ""
            known = sorted(spelling for spellings in self._spellings.values() for spelling in spellings)
            more = f", … and {len(known) - GENRES_NAMED:,} more" if len(known) > GENRES_NAMED else ""
            listed = ", ".join(known[:GENRES_NAMED]) + more
            raise UsageError(f"no title has the genre {quoted(name)}", fix=f"{offer}genres: {listed}", candidates=near)
        return self._spellings[asked]


def _need_field(catalog: Catalog, name: str) -> None:
    if name not in catalog.fields:
        raise UsageError(
            f"the titles have no field {quoted(name)}",
            fix=f"fields: {', '.join(catalog.fields)}; where one of them plays this part, build the index with"
            f" --set dataset.fields.{name}={_likeliest(name, catalog.fields)}",
        )


def _likeliest(part: str, fields: Iterable[str]) -> str:
    """The only field whose name holds the part's, such as release_year, in the way a command takes it."""
    able = [field for field in fields if part.removesuffix("s") in field.lower()]
    return as_typed(able[0]) if len(able) == 1 else "FIELD"


class Selection:
    """The titles that a filter lets through.

    Attributes:
        mask: bool (titles,).
        rows: int64, the rows let through, ascending.
    """

    def __init__(self, rows: NDArray[np.int64], titles: int, index: VectorIndex) -> None:
        self.rows = rows
        self.mask = np.zeros(titles, np.bool_)
        self.mask[rows] = True
        self._index = index
        self._uses = 0

    @property
    def bytes(self) -> int:
        """Memory that it may come to hold."""
        return int(self.mask.nbytes + self.rows.nbytes + self._gathered_bytes)

    @property
    def _gathered_bytes(self) -> int:
        size = 4 * self._index.dim * len(self.rows)
        return size if size <= GATHERED_BYTES else 0

    @cached_property
    def gathered(self) -> NDArray[np.float32] | None:
        """The vectors of the rows, float32 (rows, dim), copied together on first use; None where they are too many."""
        return self._index.vectors(self.rows) if self._gathered_bytes else None

    def gathers_soon(self) -> bool:
        """Tell whether the vectors are at hand, or this filter is asked for again and so worth gathering."""
        self._uses += 1
        return "gathered" in self.__dict__ or self._uses > 1


class Selections:
    """The selections of an open index by what was asked, the latest used kept; safe from many threads.

    A new generation of the index is another Recommender with selections of its own, so none is ever stale.
    """

    def __init__(self, catalog: Catalog, index: VectorIndex) -> None:
        self._catalog = catalog
        self._index = index
        self._kept: OrderedDict[Any, Selection] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, wanted: Filter) -> Selection | None:
        """Return what ``wanted`` lets through; None when it lets everything through.

        Raises:
            UsageError: the filter is not understood.
        """
        with self._lock:
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
                return self._kept[wanted]
        clauses = wanted.clauses(self._catalog)
        if not clauses:
            return None
        rows = matching_rows(self._catalog, *clauses)
        selection = Selection(rows, self._catalog.count, self._index)
        self._keep(wanted, selection)
        return selection

    def _keep(self, wanted: Filter, selection: Selection) -> None:
        with self._lock:
            self._kept[wanted] = selection
            total = sum(kept.bytes for kept in self._kept.values())
            while total > CACHE_BYTES and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                total -= dropped.bytes
