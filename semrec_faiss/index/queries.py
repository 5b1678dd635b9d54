"""Query vectors as the index compares them: checked, float32, of unit length where the index normalises."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import array_of
from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DataError, UsageError
from semrec_faiss.index.hardware.device import load_faiss

LEAST_SQUARE = 1e-30
"""Below this sum of squares, small components may have vanished in float32."""

UNIT_SQUARE_TOLERANCE = 1e-6
"""Vectors whose square is this near one are of unit length already: dividing would only cost a copy."""

SQUARES_BY_FAISS = 256
"""From so many queries on FAISS pays for being called."""

_LEAVE_OUT = "leave that query out, or mend what made it"

THREADED_BY_FAISS, THREADED_BYTES = 10_000, 2 << 20
"""FAISS takes all its threads for more vectors than this; fewer are cut into pieces, where they have as many bytes."""


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
    """By numpy, and much of it by FAISS."""

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the squared length of each row; FAISS computes a large float32 batch with all threads."""
        if len(vectors) < SQUARES_BY_FAISS or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
            return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
        faiss = load_faiss()
        pieces = _pieces(*vectors.shape)
        squares = np.empty((len(vectors), pieces), np.float32)
        dim = vectors.shape[1] // pieces
        faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), faiss.swig_ptr(vectors), dim, squares.size)
        return squares[:, 0] if pieces == 1 else squares.sum(axis=1)

    def divided(self, vectors: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Divide rows by lengths."""
        return np.asarray(vectors / lengths)


ON_HOST: Arithmetic = OnHost()


def prepared_block(given: NDArray[Any], first: int, *, normalize: bool, by: Arithmetic = ON_HOST) -> Vectors:
    """Prepare part of a batch.

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
        wide = given if given.dtype == np.float64 and normalize else np.asarray(given, dtype=np.float32)
        squares = by.squares(wide)
    if not np.isfinite(squares).all() or (normalize and squares.min(initial=1.0) < LEAST_SQUARE):
        wide = scaled_to_sane_range(given, first, normalize=normalize)
        squares = np.einsum("ij,ij->i", wide, wide)
    if normalize and (np.abs(squares - 1.0) > UNIT_SQUARE_TOLERANCE).any():
        wide = by.divided(wide, np.sqrt(squares)[:, None])
    return np.ascontiguousarray(wide, dtype=np.float32)


def _pieces(count: int, dim: int) -> int:
    """Return into how many pieces of the same length vectors are cut, so that FAISS takes all its threads for them."""
    if count > THREADED_BY_FAISS or 4 * count * dim < THREADED_BYTES:
        return 1
    enough = (pieces for pieces in range(2, dim + 1) if dim % pieces == 0 and count * pieces > THREADED_BY_FAISS)
    return next(enough, 1)


def scaled_to_sane_range(queries: NDArray[Any], first: int, *, normalize: bool) -> NDArray[np.float64]:
    """Bring rows whose squares overflow or vanish near length 1, or say which row is at fault.

    Args:
        queries: float (queries, dim).
        first: the number of the first row, for messages.
        normalize: whether only their direction counts; where it does not, they stay as they are.

    Raises:
        DataError: a NaN, an infinite value, what float32 cannot hold, or an all-zero row that has to be normalised.
    """
    wide = queries.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise DataError(
            f"queries[{first + int(np.flatnonzero(~finite)[0])}] holds a NaN or an infinite value", fix=_LEAVE_OUT
        )
    largest = np.abs(wide).max(axis=1)
    if not normalize:
        if (largest > np.finfo(np.float32).max).any():
            row = int(np.argmax(largest))
            raise DataError(f"queries[{first + row}] holds {largest[row]:.3g}, more than a float32 can", fix=_LEAVE_OUT)
        return wide
    if (largest == 0).any():
        row = first + int(np.flatnonzero(largest == 0)[0])
        raise DataError(f"queries[{row}] is all zeros: it has no direction to compare", fix=_LEAVE_OUT)
    scaled: NDArray[np.float64] = wide / largest[:, None]
    return scaled


def checked_count(k: Any) -> int:
    """Return ``k`` as an int; raises UsageError when it is not a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(f"k is {k!r}; it must be at least 1, and a whole number")
    return int(k)
