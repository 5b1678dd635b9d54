"""Records that are kept as JSON and judged by later: exact types, finite numbers, the field named that is not so."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MOST = 10**15
"""More of anything than a machine has: bytes, milliseconds, titles."""

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=MOST)]
Time = Annotated[float, Field(gt=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a record: exact types, finite numbers; keys that a later version adds are let through."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def mistakes_by(model: type[BaseModel], values: Any) -> Iterator[str]:
    """Yield what a model finds wrong: the dotted field, what it should be and what it is."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors():
            yield mistake_told(dict(mistake), mistake["loc"])


def mistake_told(mistake: dict[str, Any], place: tuple[int | str, ...]) -> str:
    """Say one of pydantic's errors: the dotted field, what it should be and what it is."""
    name = ".".join(map(str, place))
    if mistake["type"] == "missing":
        return f"{name} is missing"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ")
    got = "" if mistake["type"] == "value_error" else f", not {reprlib.repr(mistake['input'])}"
    return f"{name}: {message[:1].lower()}{message[1:]}{got}"


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
    elif isinstance(value, str) and not _is_text(value):
        yield f"{place!a}: {value[:40]!a} holds half of a character"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
