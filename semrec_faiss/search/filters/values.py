"""Values as SQL compares them with a field: numbers exactly, other types as such, all others as texts."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

import numpy as np

from semrec_faiss.data.folder.database import quoted_text
from semrec_faiss.data.folder.field_types import EXACT_IN_DOUBLE, INTEGERS
from semrec_faiss.errors import UsageError, quoted

_FLOATS = ("FLOAT", "DOUBLE")
_OTHERS = ("BOOLEAN", "DATE", "TIME", "TIMESTAMP", "UUID")

_TIMES = ("DATE", "TIMESTAMP")
_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?")

_DIGITS = 200
"""Significant digits of a number that are looked at; those of a field's are 39 at most."""


def one_of(column: str, values: list[str], kind: str, field: str) -> str:
    """Return the clause that holds where a column is one of some values; where it is a list, where it holds one.

    Raises:
        UsageError: a value that is not a number, of a field of numbers; or a field that holds no single values.
    """
    if holds_parts(kind):
        raise UsageError(f"the field {quoted(field)} has type {kind}, which is no single value", fix="use `where`")
    if kind == "JSON":
        return _one_of_mixture(column, values)
    is_list = kind.endswith("[]")
    literals, cast = _literals(values, kind.removesuffix("[]"), field)
    if not literals:  # a field of whole numbers is never 5.5
        return "false"
    listed = ", ".join(literals)
    if is_list:
        return f"list_has_any({column}{'::VARCHAR[]' if cast else ''}, [{listed}])"
    return f"{column}{'::VARCHAR' if cast else ''} IN ({listed})"


def _one_of_mixture(column: str, values: list[str]) -> str:
    """Return the clause of `one_of` for a field of several types: of a value by itself, or of a list that holds it."""
    texts = dict.fromkeys(text for value in values for text in _spellings(value))
    listed = ", ".join(map(quoted_text, texts))
    return f"list_has_any([{column}->>'$'] || ({column}->>'$[*]'), [{listed}])"


def _spellings(value: str) -> list[str]:
    """Return the texts that a value may have in JSON, where 1 and 1.0 are one number."""
    try:
        number = number_of(value, "")
    except UsageError:
        return [value]
    if abs(number) < EXACT_IN_DOUBLE and number == number.to_integral_value():
        return [value, f"{number:.0f}", f"{number:.1f}"]
    shortest = repr(float(number))
    return [value, shortest] if Decimal(shortest) == number else [value]


def bounded(column: str, sign: str, value: str, kind: str, field: str) -> str:
    """Return the clause that holds where a column is ``>=`` or ``<=`` a value, of which a day, month or year is all.

    Raises:
        UsageError: as `one_of`.
    """
    span = days_of(value, kind)
    if span is not None:
        sign, value = (">=", span[0]) if sign == ">=" else ("<", span[1])
    if not holds_numbers(kind):
        return f"{column} {sign} {quoted_text(value)}::{kind}"
    number = number_of(value, field)
    if kind in _FLOATS:
        return f"{column} {sign} {_float(number, kind)}"
    rounded = _rounded(number, kind, ROUND_CEILING if sign == ">=" else ROUND_FLOOR)
    lowest, highest = _limits(kind)
    if lowest <= rounded <= highest:
        return f"{column} {sign} {_literal(rounded, kind)}"
    holds_all = (rounded < lowest) == (sign == ">=")
    return f"{column} IS NOT NULL" if holds_all else "false"


def days_of(text: str, kind: str) -> tuple[str, str] | None:
    """Return the first day of a year, month or day, and the day after its last; None where it is none, or no time."""
    given = _DATE.fullmatch(text) if kind.startswith(_TIMES) else None
    if given is None:
        return None
    year, month, day = (None if part is None else int(part) for part in given.groups())
    try:
        first = dt.date(year or 0, month or 1, day or 1)
        if day is not None:
            return f"{first}", f"{first + dt.timedelta(days=1)}"
        after = first.replace(year=first.year + 1) if month is None else first + dt.timedelta(days=31)
        return f"{first}", f"{after.replace(day=1)}"
    except (ValueError, OverflowError):  # the database knows more years than these, and says what is no day
        return None


def holds_numbers(kind: str) -> bool:
    """Tell whether a field of this type holds numbers."""
    return kind in INTEGERS or kind in _FLOATS or kind.startswith("DECIMAL")


def has_order(kind: str) -> bool:
    """Tell whether a field of this type holds numbers or times, of which there is a least and a greatest."""
    return holds_numbers(kind) or kind.startswith(("DATE", "TIME"))


def holds_parts(kind: str) -> bool:
    """Tell whether a field's values, or those of its lists, have parts of their own."""
    return kind.startswith(("STRUCT", "MAP")) or kind.endswith("[][]")


def number_of(text: str, field: str) -> Decimal:
    """Read a number, as many digits as it has; raises UsageError for what is none."""
    try:
        is_none = math.isnan(float(text)) or "_" in text  # 1_0 is Python's way to write a number, and nobody else's
        number = math.nan if is_none else Decimal(text)
    except (ValueError, ArithmeticError):
        number = math.nan
    if isinstance(number, float):
        raise UsageError(
            f"{quoted(text)} is not a number, as {quoted(field)} holds",
            fix=f"give numbers, such as {field} from 5 to 10",
        )
    return number


def _literals(values: list[str], kind: str, field: str) -> tuple[list[str], bool]:
    """Return values as SQL writes them, without those that the type cannot hold, and whether as texts."""
    if kind.startswith(_OTHERS):
        return [f"{quoted_text(value)}::{kind}" for value in values], False
    if not holds_numbers(kind):
        return [quoted_text(value) for value in values], True
    numbers = [number_of(value, field) for value in values]
    if kind in _FLOATS:
        return [_float(number, kind) for number in numbers], False
    lowest, highest = _limits(kind)
    within = [number for number in numbers if lowest <= number <= highest]
    held = [number for number in within if _rounded(number, kind, ROUND_FLOOR) == number]
    return [_literal(number, kind) for number in held], False


def _float(number: Decimal, kind: str) -> str:
    with np.errstate(over="ignore"):
        return f"'{np.float32(float(number)) if kind == 'FLOAT' else float(number)}'::{kind}"


def _literal(number: Decimal, kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return f"'{number:f}'::DECIMAL(38,{_scale(kind)})"
    return f"'{number:f}'::{kind if kind == 'UHUGEINT' else 'HUGEINT'}"


def _rounded(number: Decimal, kind: str, rounding: str) -> Decimal:
    """Round to what the type holds; infinity stays."""
    scale = _scale(kind)
    if number.is_infinite() or number.adjusted() > 2 * _scale(kind) + 60:
        return number
    with localcontext() as context:
        context.prec = _DIGITS
        return number.scaleb(scale).to_integral_value(rounding).scaleb(-scale)


def _scale(kind: str) -> int:
    """Return the digits after the point: those of DECIMAL(10,2) are 2."""
    return int(kind.rstrip(")").partition(",")[2] or 0)


def _limits(kind: str) -> tuple[Decimal, Decimal]:
    """Return the least and the greatest number that a literal of `_literal` may be."""
    if kind.startswith("DECIMAL"):
        most = Decimal((0, (9,) * 38, -_scale(kind)))
        return -most, most
    if kind == "UHUGEINT":
        return Decimal(0), Decimal(2**128 - 1)
    return Decimal(-(2**127)), Decimal(2**127 - 1)
