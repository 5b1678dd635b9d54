"""The arguments of public methods: one text where a list is meant, integers for their text, and nothing guessed."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.paths import path_from

Name: TypeAlias = str | int | UUID
"""A media_id, a title or a user id; an integer and a UUID stand for their texts."""

Names: TypeAlias = Name | Iterable[Name]
"""Several, or one, which is a list of one."""


def is_name(value: object) -> bool:
    """Tell a single name from a list of them, and from what is neither."""
    return type(value) is str or (isinstance(value, str | int | np.integer | UUID) and not isinstance(value, bool))


def is_whole(text: str) -> bool:
    """Tell whether a text holds whole characters alone: half of a surrogate pair is none, and no file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_of(value: Any, what: str, *, several: str | None = None) -> str:
    """Return one name as text; raises UsageError where ``value`` is no text, integer or UUID.

    ``several`` is how to ask for more than one, for who has given a list.
    """
    if not is_name(value):
        is_list = isinstance(value, Iterable) and not isinstance(value, Mapping | bytes | bytearray)
        raise UsageError(
            f"{what} is {_shown(value)}; a text or an integer is expected", fix=several if is_list else None
        )
    return str(value)


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """Return names as texts; a single one is a list of one.

    Raises:
        UsageError: ``value`` is no list of texts or integers; a mapping and bytes are none.
    """
    if is_name(value):
        return (str(value),)
    if isinstance(value, list | tuple) and set(map(type, value)) <= {str}:  # a thousand users at once
        return tuple(value)
    if isinstance(value, Mapping | bytes | bytearray) or not isinstance(value, Iterable):
        raise UsageError(f"{what} is {_shown(value)}; a list of texts or integers is expected")
    try:
        return tuple(name_of(one, f"one of {what}") for one in value)
    except TypeError as error:  # an array without dimensions says only here that it cannot be gone through
        raise UsageError(f"{what} is {_shown(value)}; a list of texts or integers is expected") from error


def text_of(value: Any, what: str, *, fix: str | None = None) -> str:
    """Return a text as it is; raises UsageError, with ``fix``, for anything else."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is {_shown(value)}; a text is expected", fix=fix)
    return value


def path_of(value: Any, what: str) -> Path:
    """Return a path, read as `path_from` does; raises UsageError for what is no path."""
    if not isinstance(value, str | PathLike):
        raise UsageError(f"{what} is {_shown(value)}; a path is expected")
    try:
        return path_from(value)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def flag_of(value: Any, what: str) -> bool:
    """Return True or False as it is; raises UsageError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{what} is {_shown(value)}; True or False is expected")
    return bool(value)


def number_of(value: Any, what: str) -> float:
    """Return a number as a float; raises UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{what} is {_shown(value)}; a number is expected")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{what} is larger than a float can hold") from error


def number_from(value: Any, what: str, least: float, most: float = math.inf) -> float:
    """Return a number as a float; raises UsageError for anything else, and outside ``least`` to ``most``."""
    number = number_of(value, what)
    if not least <= number <= most:
        within = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{what} is {number:g}; it must be {within}")
    return number


def mapping_of(value: Any, what: str) -> dict[str, Any]:
    """Return a mapping's names and values, its names as texts; None is an empty one.

    Raises:
        UsageError: it is no mapping, or has a name that is neither a text nor an integer.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is {_shown(value)}; a mapping is expected")
    return {name_of(name, f"a name in {what}"): number for name, number in value.items()}


def array_of(value: Any, what: str) -> NDArray[Any]:
    """Return ``value`` as numpy has it; raises UsageError where it is ragged, of no type of numpy's, or masked.

    A column of a frame holds a vector in each value, which numpy leaves alone: these become the rows of an array.
    """
    try:
        array = np.asarray(value)
        if array.dtype == object and array.ndim == 1 and len(array):
            array = np.stack(array.tolist())
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UsageError(f"{what} are not an array of numbers: {error}", fix="give a numpy array of floats") from error
    if masked := _masked_values(value):
        raise UsageError(
            f"{what} hold {masked:,} masked values, which are not numbers",
            fix="leave their rows out, or fill them: vectors.filled(0)",
        )
    return array


def _masked_values(value: object) -> int:
    """Count them; where nobody has imported numpy.ma, which takes a megabyte, there are none."""
    if "numpy.ma" not in sys.modules or not isinstance(value, np.ma.MaskedArray):
        return 0
    return int(np.ma.getmaskarray(value).sum())


def _shown(value: object) -> str:
    return f"{quoted(value)} ({type(value).__name__})"


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """Offer the nearest known key; nothing where none is near."""
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
