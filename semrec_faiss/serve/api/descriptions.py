"""What docstrings say of types and their attributes, written into the schemas that are made of these types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

_HEADING = "\n\nAttributes:\n"
_ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


def describe(schemas: dict[str, dict[str, Any]], kinds: Iterable[type]) -> None:
    """Describe the schemas of ``kinds`` and their properties; without, only the names of fields were told."""
    for kind in kinds:
        schema = schemas[kind.__name__]
        schema["description"] = _doc(kind).partition("\n\n")[0]
        said = attributes_of(kind)
        for field in _fields(kind):
            if field.name in said:
                schema["properties"][field.encode_name]["description"] = said[field.name]


def attributes_of(kind: type) -> dict[str, str]:
    """Return what is said of a type's attributes, and of those of the types before it."""
    found = {}
    for one in reversed(kind.__mro__):
        for names, words in _ATTRIBUTE.findall(_doc(one).partition(_HEADING)[2]):
            found.update(dict.fromkeys(names.split(", "), " ".join(words.split())))
    return found


def _doc(kind: type) -> str:
    return inspect.cleandoc(vars(kind).get("__doc__") or "")


def _fields(kind: type) -> Iterable[Any]:
    described = msgspec.inspect.type_info(kind)
    fields: Iterable[Any] = described.fields  # type: ignore[attr-defined]
    return fields
