"""Which values of JSON say exactly a value of a DuckDB type that JSON itself has not, as tables bring them."""

from __future__ import annotations

import datetime as dt
import re
from fractions import Fraction
from typing import Any
from uuid import UUID

_WHOLE = {
    **{f"{name}INT": (-(1 << bits - 1), (1 << bits - 1) - 1) for name, bits in {"TINY": 8, "SMALL": 16}.items()},
    **{"INTEGER": (-(1 << 31), (1 << 31) - 1), "HUGEINT": (-(1 << 127), (1 << 127) - 1)},
    **{"UTINYINT": (0, (1 << 8) - 1), "USMALLINT": (0, (1 << 16) - 1), "UINTEGER": (0, (1 << 32) - 1)},
    **{"UBIGINT": (0, (1 << 64) - 1), "UHUGEINT": (0, (1 << 128) - 1)},
}
_FLOAT_MOST = (2 - 2**-23) * 2.0**127
_DAY, _TIME, _OFFSET = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d", r"(Z|[+-]\d\d(:\d\d)?)"
_TEXTS = {
    "DATE": _DAY,
    "TIME": rf"{_TIME}(\.\d{{1,6}})?",
    "TIME_NS": rf"{_TIME}(\.\d{{1,9}})?",
    "TIMESTAMP_S": rf"{_DAY}([ T]{_TIME})?",
    "TIMESTAMP_MS": rf"{_DAY}([ T]{_TIME}(\.\d{{1,3}})?)?",
    "TIMESTAMP": rf"{_DAY}([ T]{_TIME}(\.\d{{1,6}})?)?",
    "TIMESTAMP_NS": rf"{_DAY}([ T]{_TIME}(\.\d{{1,9}})?)?",
    "TIMESTAMP WITH TIME ZONE": rf"{_DAY}[ T]{_TIME}(\.\d{{1,6}})?{_OFFSET}",
    "TIMESTAMPTZ_NS": rf"{_DAY}[ T]{_TIME}(\.\d{{1,9}})?{_OFFSET}",
    "UUID": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def is_said_in_json(kind: str) -> bool:
    """Tell whether values of JSON may say those of a DuckDB type."""
    kind = kind.removesuffix("[]")
    return kind in _WHOLE or kind in _TEXTS or kind == "FLOAT" or _DECIMAL.fullmatch(kind) is not None


def says(value: Any, kind: str) -> bool:
    """Tell whether a value of JSON says one of a DuckDB type that `is_said_in_json`; of floats, one that is near it."""
    if kind.endswith("[]"):
        return isinstance(value, list) and all(each is None or says(each, kind[:-2]) for each in value)
    if kind in _TEXTS:
        return isinstance(value, str) and re.fullmatch(_TEXTS[kind], value) is not None and _is_there(value, kind)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "FLOAT":
        return abs(value) <= _FLOAT_MOST
    if kind in _WHOLE:
        return isinstance(value, int) and _WHOLE[kind][0] <= value <= _WHOLE[kind][1]
    digits, after = map(int, _DECIMAL.fullmatch(kind).groups())  # type: ignore[union-attr]  # see above
    number = Fraction(repr(value)) * 10**after
    return bool(number.denominator == 1 and abs(number) < 10**digits)


def _is_there(text: str, kind: str) -> bool:
    """Tell whether there is such a day and time of day."""
    reads = {
        "DATE": dt.date.fromisoformat,
        "TIME": dt.time.fromisoformat,
        "TIME_NS": dt.time.fromisoformat,
        "UUID": UUID,
    }
    try:
        reads.get(kind, dt.datetime.fromisoformat)(text)
    except ValueError:
        return False
    return True
