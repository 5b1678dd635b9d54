"""Conditions on any field of the titles, in the words of any trade: one of some values, or a span."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from semrec_faiss.arguments import did_you_mean, mapping_of, names_of
from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.search.filters.values import bounded, days_of, holds_numbers, holds_parts, number_of, one_of

AnyOf = tuple[tuple[str, tuple[str, ...]], ...]
Ranges = tuple[tuple[str, str | None, str | None], ...]

_VALUES = (bool, np.bool_, float, np.floating, Decimal, dt.date, dt.time)
"""What a value may be besides a name; it stands for its text."""


def any_of_from(value: Any) -> AnyOf:
    """Return values by field as a tuple; one value is a list of one; raises UsageError for what is no mapping."""
    if isinstance(value, tuple):
        return value
    return tuple((field, _values_of(values, field)) for field, values in mapping_of(value, "any_of").items())


def _values_of(values: Any, field: str) -> tuple[str, ...]:
    what = f"any_of[{quoted(field)}]"
    if isinstance(values, _VALUES):
        return (_text_of(values),)
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | bytearray | Mapping)
    if not is_list or (isinstance(values, np.ndarray) and not values.ndim):
        return names_of(values, what)
    return names_of([_text_of(one) if isinstance(one, _VALUES) else one for one in values], what)


def _text_of(value: Any) -> str:
    """Return a value's text; of truth values that of JSON, which fields of mixed types hold."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def ranges_from(value: Any) -> Ranges:
    """Return first and last by field as a tuple, either None for open; raises UsageError for what is no such thing."""
    if isinstance(value, tuple):
        return value
    found = []
    for field, span in mapping_of(value, "ranges").items():
        pair = tuple(span) if isinstance(span, tuple | list) else ()
        if len(pair) != 2 or pair == (None, None):
            raise UsageError(
                f"the range of {quoted(field)} is {quoted(span)}; a first and a last value are expected",
                fix="for example: {'price': (5, 10)}, (5, None), (None, 10)",
            )
        first, last = (None if one is None else str(one) for one in pair)
        found.append((field, first, last))
    return tuple(found)


def any_of_clause(catalog: Catalog, field: str, values: Sequence[str]) -> str:
    """Return the clause that holds for titles whose field is, or, where it is a list, holds one of the values."""
    name, kind = known_field(catalog, field)
    return one_of(quoted_name(name), list(values), kind, field)


def range_clause(catalog: Catalog, field: str, first: str | None, last: str | None) -> str:
    """Return the clause that holds for titles whose field lies in a span, its ends included."""
    name, kind = known_field(catalog, field)
    if kind.endswith("[]") or holds_parts(kind) or kind == "JSON":
        fix = "use `where`" if holds_parts(kind) else "use `any_of`, or `where`"
        raise UsageError(f"the field {quoted(field)} has type {kind}, which has no order", fix=fix)
    if first is not None and last is not None and _are_turned_round(first, last, kind, field):
        raise UsageError(
            f"{first} to {last} is an empty span of {quoted(field)}", fix=f"the lower first: {last} to {first}"
        )
    bounds = [(">=", first), ("<=", last)]
    return " AND ".join(bounded(quoted_name(name), sign, one, kind, field) for sign, one in bounds if one is not None)


def _are_turned_round(first: str, last: str, kind: str, field: str) -> bool:
    """Tell an empty span of numbers, days or texts; what else there is, such as times, is written in several ways."""
    if holds_numbers(kind):
        return number_of(first, field) > number_of(last, field)
    begins, ends = days_of(first, kind), days_of(last, kind)
    if begins is not None and ends is not None:
        return begins[0] >= ends[1]
    return kind == "VARCHAR" and first > last


def known_field(catalog: Catalog, field: str) -> tuple[str, str]:
    """Return the name and the type of a field as the titles have it; raises UsageError where they have none."""
    name = catalog.field_of(field)
    if name is None:
        fix = f"{did_you_mean(field, list(catalog.names))}fields: {', '.join(catalog.names)}"
        raise UsageError(f"the titles have no field {quoted(field)}", fix=fix)
    return name, catalog.fields[name]


def parse_any_of(assignments: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Read ``FIELD=VALUE`` as ``--any-of`` gives it; a field that is named again has more values."""
    found: dict[str, tuple[str, ...]] = {}
    for text in assignments:
        field, value = _split(text, "--any-of", "brand=Sony")
        found[field] = (*found.get(field, ()), value)
    return found


def parse_ranges(assignments: Sequence[str]) -> Mapping[str, tuple[str | None, str | None]]:
    """Read ``FIELD=a..b``, ``FIELD=a..`` or ``FIELD=..b`` as ``--range`` gives it."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for text in assignments:
        field, span = _split(text, "--range", "price=5..10")
        first, dots, last = (part.strip() for part in span.partition(".."))
        if not (first or last) or field in found:
            raise UsageError(
                f"--range {quoted(text)} is not a span, or a second one of its field", fix="--range price=5..10"
            )
        found[field] = (first or None, (last if dots else first) or None)
    return found


def parse_max_per(assignments: Sequence[str]) -> dict[str, int]:
    """Read ``FIELD=N`` as ``--max-per`` gives it."""
    found: dict[str, int] = {}
    for text in assignments:
        field, number = _split(text, "--max-per", "brand=2")
        if field in found:
            raise UsageError(f"--max-per {quoted(text)} is a second one of its field", fix="give one for each field")
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            raise UsageError(
                f"--max-per {quoted(text)}: {quoted(number)} is not a whole number from 1 on", fix="--max-per brand=2"
            )
        found[field] = int(number)
    return found


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    field, equals, value = (part.strip() for part in text.partition("="))
    if not (field and equals and value):
        raise UsageError(f"{option} {quoted(text)} is not of the form {option} FIELD=…", fix=f"{option} {example}")
    return field, value
