"""Query vectors as the index compares them: checked, float32, of unit length where the index normalises."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import array_of
from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.errors import DataError, UsageError

LEAST_SQUARE = 1e-30
"""Below this sum of squares, small components may have vanished in float32."""

UNIT_SQUARE_TOLERANCE = 1e-6
"""Vectors whose square is this near one are of unit length already: dividing would only cost a copy."""

_LEAVE_OUT = "leave that query out, or mend what made it"


def as_batch(queries: Any, dim: int, *, or_one: bool = False) -> NDArray[Any]:
    """Check kind and shape; ``or_one`` takes a single vector for a batch of one.

    Raises:
        UsageError: not numbers, or not (queries, ``dim``).
    """
    given = array_of(queries, "queries")
    given = given[None, :] if or_one and given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != dim or given.dtype.kind not in "fiu":
        raise UsageError(f"queries are {given.dtype} {given.shape}, the index takes float (queries, {dim})")
    return given


class Arithmetic(Protocol):
    """What preparing queries takes."""

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the squared length of each row of floats (queries, dim)."""
        ...

    def divided(self, vectors: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Divide the rows of floats (queries, dim) by lengths, float (queries, 1)."""
        ...


class OnHost:
    """By numpy, which sums a row in the same order whatever rows stand beside it."""

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the squared length of each row."""
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors))

    def divided(self, vectors: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Divide rows by lengths."""
        return np.asarray(vectors / lengths)


ON_HOST: Arithmetic = OnHost()


def prepared_block(given: NDArray[Any], first: int, *, normalize: bool, by: Arithmetic = ON_HOST) -> Vectors:
    """Prepare part of a batch: each row as it is prepared alone.

    Args:
        given: numbers (queries, dim).
        first: the number of its first row, for messages.
        normalize: whether to bring each row to unit length.
        by: what computes.

    Returns:
        float32 (queries, dim), contiguous.

    Raises:
        DataError: a NaN, an infinite value, what float32 cannot hold, or an all-zero row that has to be normalised.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.ascontiguousarray(given, dtype=np.float64 if given.dtype == np.float64 and normalize else np.float32)
        squares = by.squares(wide)
    is_strange = ~np.isfinite(squares) | (squares < (LEAST_SQUARE if normalize else 0))
    if is_strange.any():
        return _prepared_apart(given, first, is_strange, normalize=normalize)
    is_long = np.abs(squares - 1.0) > UNIT_SQUARE_TOLERANCE
    if normalize and is_long.any():
        wide = by.divided(wide, np.where(is_long, np.sqrt(squares), squares.dtype.type(1))[:, None])
    return np.ascontiguousarray(wide, dtype=np.float32)


def _prepared_apart(given: NDArray[Any], first: int, is_strange: Mask, *, normalize: bool) -> Vectors:
    """Prepare a batch of which some rows' squares overflow or vanish, these by themselves; see `prepared_block`."""
    prepared, strange = np.empty(given.shape, np.float32), np.flatnonzero(is_strange)
    prepared[~is_strange] = prepared_block(given[~is_strange], first, normalize=normalize)
    wide = scaled_to_sane_range(given[strange], first + strange, normalize=normalize)
    if normalize:
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    prepared[strange] = wide
    return prepared


def scaled_to_sane_range(queries: NDArray[Any], numbers: Rows, *, normalize: bool) -> NDArray[np.float64]:
    """Bring rows whose squares overflow or vanish near length 1, or say which row is at fault.

    Args:
        queries: float (queries, dim).
        numbers: int64 (queries,), the number of each, for messages.
        normalize: whether only their direction counts; where it does not, they stay as they are.

    Raises:
        DataError: a NaN, an infinite value, what float32 cannot hold, or an all-zero row that has to be normalised.
    """
    wide = queries.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise DataError(f"queries[{numbers[np.argmin(finite)]}] holds a NaN or an infinite value", fix=_LEAVE_OUT)
    largest = np.abs(wide).max(axis=1)
    if not normalize:
        if (largest > np.finfo(np.float32).max).any():
            row = int(np.argmax(largest))
            raise DataError(
                f"queries[{numbers[row]}] holds {largest[row]:.3g}, more than a float32 can", fix=_LEAVE_OUT
            )
        return wide
    if (largest == 0).any():
        row = numbers[np.argmin(largest)]
        raise DataError(f"queries[{row}] is all zeros: it has no direction to compare", fix=_LEAVE_OUT)
    scaled: NDArray[np.float64] = wide / largest[:, None]
    return scaled


def checked_count(k: Any) -> int:
    """Return ``k`` as an int; raises UsageError when it is not a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(f"k is {k!r}; it must be at least 1, and a whole number")
    return int(k)
