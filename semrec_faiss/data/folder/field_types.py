"""Which DuckDB type holds all values of a metadata field exactly, and which field names can be columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from semrec_faiss.data.folder.json_values import is_said_in_json, says
from semrec_faiss.errors import DataError

ROW = "_semrec_row"
"""The column that holds a title's row; no field may have this name."""

LEADING_FIELDS = {"media_id": "VARCHAR", "title": "VARCHAR", "year": "BIGINT", "genres": "VARCHAR[]"}
"""Fields whose type is fixed, in the order in which they lead every record."""

MAX_FIELDS = 1000

INT64 = 1 << 63
"""The first integer that 64 bits with a sign cannot hold."""

EXACT_IN_DOUBLE = 1 << 53
"""Whole numbers up to this are all doubles."""

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
INTEGERS = (*_SIGNED, *(f"U{name}" for name in _SIGNED))

_KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a decimal number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


_HELD: dict[str, tuple[type, ...]] = {
    "VARCHAR": (str,),
    "BOOLEAN": (bool,),
    "BIGINT": (int,),
    "DOUBLE": (float,),
    "JSON": (dict,),
}
"""What a field of each type has held; an object can only be kept as JSON."""


def is_no_name(name: str) -> bool:
    """Whether a field cannot be called so: it is empty or holds control characters."""
    return not name or any(ord(character) < 32 or ord(character) == 127 for character in name)


def refuse_bytes(path: Path | str, column: str, kind: Any) -> None:
    """Refuse a column of DuckDB's type ``kind`` that has bytes anywhere: to tell them as text would be to make some up.

    Raises:
        DataError: it has.
    """
    if _holds(kind, lambda part: part.id == "blob"):
        raise DataError(
            f"{path}: column {column} has type {kind}; bytes are neither text nor numbers",
            fix="leave the column out, or write it as text: decoded where the bytes spell some, else as base64",
        )


_IDS = (
    *("varchar", "enum", "uuid", "null", "tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
)
"""DuckDB's types of ids; nothing but nulls, as of an empty table, is of any type."""


def refuse_what_is_no_id(path: Path | str, column: str, kind: Any, *, floats: bool = False) -> None:
    """Refuse a column of ids of DuckDB's type ``kind`` that are neither texts nor whole numbers nor UUIDs.

    Args:
        path: the file or the table, for the message.
        column: its name.
        kind: its type.
        floats: whether floats pass, which whoever reads them holds against whole numbers.

    Raises:
        DataError: they are not; True, 7.0 and a date were told as the texts "true", "7.0" and "2020-01-01".
    """
    refuse_bytes(path, column, kind)
    whole_decimal = kind.id == "decimal" and dict(kind.children)["scale"] == 0
    if not (kind.id in _IDS or whole_decimal or (floats and kind.id in ("float", "double"))):
        raise DataError(
            f"{path}: column {column} has type {kind}; a text or a whole number is expected",
            fix="write the ids as texts or whole numbers",
        )


def refuse_objects_without_fields(path: Path | str, column: str, kind: Any) -> None:
    """Refuse a column of DuckDB's type ``kind`` of objects that are all empty, which no Parquet file can hold.

    Raises:
        DataError: it is one.
    """
    if _holds(kind, lambda part: part.id == "struct" and not part.children):
        raise DataError(f"{path}: column {column} holds nothing but empty objects", fix="leave the column out")


def _holds(kind: Any, is_one: Callable[[Any], bool]) -> bool:
    """Tell whether a type of DuckDB's, or one of its parts, is one."""
    parts = kind.children if kind.id in ("list", "array", "map", "struct", "union") else []
    return is_one(kind) or any(_holds(part, is_one) for _, part in parts if not isinstance(part, int))


class FieldTypes:
    """Which types of value each field has held so far, each with the first of the titles, from 1, that has it."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        """Begin with nothing, or with the types that ``known`` fields of other titles have."""
        self._values: dict[str, dict[type, int]] = {}
        self._elements: dict[str, dict[type, int]] = {}
        self._too_large: dict[str, int] = {}
        self._seen = 0
        self._largest: dict[str, int] = {}
        self._spelled: dict[str, str] = {ROW.lower(): ROW, **{name: name for name in LEADING_FIELDS}}
        self._fixed: dict[str, str] = {}
        for name, kind in (known or {}).items():
            self._admit(name)
            element = kind.removesuffix("[]")
            if element not in _HELD:
                self._fixed[name] = kind
            elif element == kind:
                self._values[name] = dict.fromkeys(_HELD[kind], 0)
            else:
                self._values[name], self._elements[name] = {list: 0}, dict.fromkeys(_HELD[element], 0)

    def see(self, entry: dict[str, Any]) -> list[str]:
        """Take note of one title's fields; return what is wrong with names seen for the first time."""
        mistakes = []
        self._seen += 1
        for name, value in entry.items():
            if name not in self._values:
                mistakes += self._admit(name)
            if name in self._fixed and value is not None:
                mistakes += _unsaid(name, value, self._fixed[name])
            kind = type(value)
            self._values[name].setdefault(kind, self._seen)
            if kind is list:
                kinds = set(map(type, value))
                for each in kinds:
                    self._elements[name].setdefault(each, self._seen)
                if int in kinds:
                    self._see_integers(name, [item for item in value if type(item) is int])
            elif kind is int:
                self._see_integers(name, [value])
        return mistakes

    def _see_integers(self, name: str, values: list[int]) -> None:
        # The magnitude as int64 counts it: -2**63 fits, 2**63 does not.
        largest = max(value if value >= 0 else -value - 1 for value in values)
        self._largest[name] = max(self._largest[name], largest)
        if largest >= INT64:
            self._too_large.setdefault(name, self._seen)

    def _admit(self, name: str) -> list[str]:
        self._values[name], self._elements[name], self._largest[name] = {}, {}, 0
        spelled = self._spelled.setdefault(name.lower(), name)
        if is_no_name(name):
            return [f"the field name {name!r} is empty or holds control characters"]
        if spelled == ROW:
            return [f"the field name {name!r} is kept for the row number; rename it"]
        if spelled != name:
            return [f"the field names {spelled!r} and {name!r} differ only in case; rename one"]
        if len(self._values) == MAX_FIELDS + 1:
            return [f"more than {MAX_FIELDS:,} different field names; put values into values, not into names"]
        return []

    def columns(self) -> dict[str, str]:
        """Return the DuckDB type of every field, the leading ones first."""
        leading = {name: kind for name, kind in LEADING_FIELDS.items() if name in self._values}
        return leading | {name: self._type(name) for name in self._values if name not in leading}

    def mixtures(self) -> dict[str, str]:
        """Say of every field that is kept as JSON what it holds, and the first line of each kind."""
        return {name: self._mixture(name) for name, kind in self.columns().items() if kind == "JSON"}

    def _mixture(self, name: str) -> str:
        found = {_KINDS[kind]: line for kind, line in self._values[name].items()}
        found |= {f"{_KINDS[kind]} in a list": line for kind, line in self._elements[name].items()}
        if name in self._too_large:
            found["a whole number beyond 64 bits"] = self._too_large[name]
        return ", ".join(f"{kind} on line {line:,}" for kind, line in found.items())

    def _type(self, name: str) -> str:
        if name in self._fixed:
            return self._fixed[name]
        kinds = self._values[name].keys() - {type(None)}
        if kinds == {list}:
            element = _scalar_type(self._elements[name].keys() - {type(None)}, self._largest[name])
            return "JSON" if element == "JSON" else f"{element}[]"
        return _scalar_type(kinds, self._largest[name])


def _unsaid(name: str, value: Any, kind: str) -> list[str]:
    """Return what is wrong with a value of JSON where the index has a type that JSON has not."""
    if not is_said_in_json(kind):
        return [f"{name} has type {kind} in the index, which JSON lines do not hold; give a metadata.parquet"]
    return [] if says(value, kind) else [f"{name} is {json.dumps(value)[:60]}, which is no {kind} as the index has it"]


def _scalar_type(kinds: set[type], largest: int) -> str:
    """Return the DuckDB type that holds all values of these types exactly; JSON text where only that does."""
    if kinds <= {str}:
        return "VARCHAR"
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int} and largest < INT64:
        return "BIGINT"
    if kinds <= {int, float} and largest <= EXACT_IN_DOUBLE:
        return "DOUBLE"
    return "JSON"
