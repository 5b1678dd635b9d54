"""Records that are kept as JSON and judged by later: exact types, finite numbers, the field named that is not so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from semrec_faiss.arguments import is_whole
from semrec_faiss.config.index_types import INDEX_TYPES
from semrec_faiss.errors import quoted

MOST = 10**15
"""More of anything than a machine has: bytes, milliseconds, titles."""

TAGS = frozenset({*INDEX_TYPES, "measured", "failed"})
"""Names that tell the members of a union apart, and are no fields."""

Checked = TypeVar("Checked")
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=MOST)]
Time = Annotated[float, Field(gt=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a record: exact types, finite numbers; keys that a later version adds are let through."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return it as a file holds it, what an earlier version did not write left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class Unsound(ValueError):  # noqa: N818 - what a document is, and not how a program failed
    """A document that is not what it must be; the message names the field."""


def checked(kind: TypeAdapter[Checked], document: object) -> Checked:
    """Return a document, as it came from a file, as its model.

    Raises:
        Unsound: the first field that is not as it must be, and why.
    """
    if not isinstance(document, dict):
        raise Unsound("it is not a JSON object")
    for mistake in unsound_values(document):
        raise Unsound(mistake)
    try:
        return kind.validate_python(document)
    except ValidationError as error:
        raise Unsound(mistake_told(dict(error.errors()[0]))) from None


def mistake_told(mistake: dict[str, Any]) -> str:
    """Say one of pydantic's errors: the dotted field, what it should be and what it is."""
    if mistake["type"].startswith("union_tag"):
        field = mistake["ctx"]["discriminator"].strip("'")
        expected = mistake["ctx"].get("expected_tags")
        if expected is None:
            return f"{field} is missing"
        return f"{field}: should be {expected.replace(', ', ' or ')}, not {quoted(mistake['ctx']['tag'])}"
    name = ".".join(str(part) for part in mistake["loc"] if part not in TAGS)
    if mistake["type"] == "missing":
        return f"{name} is missing"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ")
    got = "" if mistake["type"] == "value_error" else f", not {quoted(mistake['input'])}"
    return f"{name}{': ' if name else ''}{message[:1].lower()}{message[1:]}{got}"


def unsound_values(value: Any, place: str = "") -> Iterator[str]:
    """Yield the places, however deep, of numbers that are not finite and of texts that no file can hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from unsound_values(key, f"a key of {place}" if place else "a key")
            yield from unsound_values(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from unsound_values(inner, f"{place}.{position}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: should be a finite number, not {value}"
    elif isinstance(value, str) and not is_whole(value):
        yield f"{place!a}: {value[:40]!a} holds half of a character"


def check_digest(told: str, of_settings: str) -> None:
    """Raise ValueError where the digest that a record tells is not that of the settings beside it."""
    if told != of_settings:
        raise ValueError("digest is not that of the settings beside it: one of them was changed after it was measured")
