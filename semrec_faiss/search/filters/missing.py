"""Why nothing matches: the conditions of a filter that no title satisfies by itself, and what titles have instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.limits import within_time
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.data.titles.filters.parts import parts_of
from semrec_faiss.data.titles.spelling import COMPARED
from semrec_faiss.errors import quoted
from semrec_faiss.search.filters.field_filters import any_of_clause, known_field, range_clause
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.filters.values import has_order

LEAST_ALIKE = 0.8
"""The Jaro-Winkler similarity, from 0 to 1, of a text that may have been meant: of Acme and Acmee it is 0.96."""

MOST_LOOKED_UP = 20
"""Conditions that are told of: each is looked up by itself, and a question may have thousands of values."""

_TEXTS = ("VARCHAR", "VARCHAR[]")


@dataclass(frozen=True)
class Condition:
    """One of the conditions of a filter.

    Attributes:
        told: what is said where no title satisfies it.
        clause: SQL that holds for those that do.
        field: the field that it is about; None where it is about several.
        text: what that field is to be, or to hold; None where that is no one text.
    """

    told: str
    clause: str
    field: str | None
    text: str | None = None


@dataclass(frozen=True)
class Instead:
    """What titles have of which none satisfies a condition.

    Attributes:
        near: how much the text that looks most like the wanted one does, from 0 to 1, and that text.
        span: the least and the greatest value.
    """

    near: tuple[float, str] | None = None
    span: tuple[str, str] | None = None


def conditions(catalog: Catalog, wanted: Filter) -> list[Condition]:
    """Return the first of a filter's conditions that titles may all fail; a genre that none has is refused before.

    Example:
        >>> from semrec_faiss import Filter, Recommender
        >>> from semrec_faiss.search.filters.missing import conditions
        >>> wanted = Filter(years=(1980, None), where="franchise = 'Alien'")
        >>> [one.told for one in conditions(Recommender.open("indexes/demo").catalog, wanted)]
        ["no title satisfies franchise = 'Alien'", "no title's year is from 1980 on"]
    """
    return list(islice(_conditions(catalog, wanted), MOST_LOOKED_UP))


def _conditions(catalog: Catalog, wanted: Filter) -> Iterator[Condition]:
    for part in [] if wanted.where is None else parts_of(catalog, wanted.where):
        if part.fields:
            field = part.fields[0] if len(part.fields) == 1 else None
            yield Condition(f"no title satisfies {part.written}", part.clause, field, part.text)
    for field, values in wanted.any_of:
        name, _ = known_field(catalog, field)
        for value in values:
            told = f"no title has the {field} {quoted(value)}"
            yield Condition(told, any_of_clause(catalog, field, [value]), name, value)
    first, last = (None if year is None else str(year) for year in wanted.years or (None, None))
    years = [("year", first, last)] if wanted.years else []
    for field, least, most in (*years, *wanted.ranges):
        name, _ = known_field(catalog, field)
        told = f"no title's {field} is {_as_span(least, most)}"
        yield Condition(told, range_clause(catalog, field, least, most), name)


def _as_span(first: str | None, last: str | None) -> str:
    if first is None:
        return f"up to {last}"
    return f"from {first} on" if last is None else f"from {first} to {last}"


def instead_of(catalog: Catalog, condition: Condition) -> Instead | None:
    """Return what titles have, where none satisfies a condition; None where one does."""
    if len(matching_rows(catalog, condition.clause)):
        return None
    if condition.field is None:
        return Instead()
    kind = catalog.fields[condition.field]
    if condition.text is not None and kind in _TEXTS:
        return Instead(near=_nearest(catalog, condition.field, kind, condition.text))
    return Instead(span=_span(catalog, condition.field)) if has_order(kind) else Instead()


def together(catalog: Catalog, condition: Condition, parts: Sequence[Instead | None]) -> Instead | None:
    """Return `instead_of` all titles, of whose parts it is known; ``catalog`` knows the fields' types."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    nears = [part.near for part in known if part.near is not None]
    spans = [value for part in known if part.span is not None for value in part.span]
    near = min(nears, key=lambda one: (-one[0], one[1]), default=None)
    if condition.field is None or not spans:
        return Instead(near)
    kind = catalog.fields[condition.field]
    values = f"SELECT unnest($1::VARCHAR[])::{kind} AS value"
    sql = f"SELECT min(value)::VARCHAR, max(value)::VARCHAR FROM ({values})"
    return Instead(near, _ends(catalog, sql, [spans]))


def notes(found: Sequence[tuple[Condition, Instead | None]]) -> tuple[str, ...]:
    """Say of each condition that no title satisfies so, and what titles have instead.

    Example:
        >>> from semrec_faiss.search.filters.missing import Condition, Instead, notes
        >>> late = Condition("no title's year is from 3000 on", "year >= 3000", "year")
        >>> notes([(late, Instead(span=("1920", "2024")))])
        ("no title's year is from 3000 on; year goes from 1920 to 2024",)
    """
    return tuple(one.told + _hint(one, instead) for one, instead in found if instead is not None)


def _hint(condition: Condition, instead: Instead) -> str:
    if instead.near is not None:
        return f"; did you mean {quoted(instead.near[1])}?"
    if instead.span is not None:
        return f"; {condition.field} goes from {instead.span[0]} to {instead.span[1]}"
    return ""


def _nearest(catalog: Catalog, field: str, kind: str, text: str) -> tuple[float, str] | None:
    values = f"unnest({quoted_name(field)})" if kind.endswith("[]") else quoted_name(field)
    sql = (
        f"SELECT jaro_winkler_similarity(lower(text[:{COMPARED}]), lower($1)) AS alike, text"
        f" FROM (SELECT DISTINCT {values} AS text FROM titles) WHERE alike >= {LEAST_ALIKE} ORDER BY alike DESC, text"
    )
    found = _first(catalog, sql, [text[:COMPARED]])
    return None if found is None else (float(found[0]), str(found[1]))


def _span(catalog: Catalog, field: str) -> tuple[str, str] | None:
    name = quoted_name(field)
    return _ends(catalog, f"SELECT min({name})::VARCHAR, max({name})::VARCHAR FROM titles", [])


def _ends(catalog: Catalog, sql: str, values: list[Any]) -> tuple[str, str] | None:
    found = _first(catalog, sql, values)
    return None if found is None else (str(found[0]), str(found[1]))


def _first(catalog: Catalog, sql: str, values: list[Any]) -> tuple[Any, ...] | None:
    """Return the first row that a query finds; None where there is none, or it holds nothing."""
    import duckdb

    cursor = catalog.cursor()
    try:
        row = within_time(cursor, lambda: cursor.execute(sql, values).fetchone())
    except duckdb.Error:  # memory, say: a hint is not worth an error
        return None
    return None if row is None or row[0] is None else row
