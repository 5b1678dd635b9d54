"""Vectors out of a column: lists, lists of fixed size, tensors, or texts that spell them; each one checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import is_text


class VectorReader:
    """Takes vectors from batches; the first usable one says how many dimensions all must have.

    Attributes:
        dim: dimensions; None before the first.
    """

    def __init__(self, column: str, mistakes: Mistakes) -> None:
        """Read ``column``, and note there what is wrong."""
        self.column = column
        self.dim: int | None = None
        self._mistakes = mistakes

    def read(self, array: Any, first: int) -> NDArray[Any]:
        """Return the usable vectors of an Arrow array whose first row is ``first``: float (usable, dim)."""
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        if is_text(array.type):
            return self._checked(*self._spelled(array, first), first)
        return self._checked(*self._listed(array, first), first)

    def _listed(self, array: Any, first: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        empty = array.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_fixed_size_list(array.type):
            lengths = np.full(len(array), array.type.list_size)
        else:
            offsets = array.offsets.to_numpy()
            lengths = np.diff(offsets)
        if self.dim is None:
            some = lengths[~empty & (lengths > 0)]
            self.dim = int(some[0]) if len(some) else None
        wrong = empty | (lengths != self.dim) | (lengths == 0)
        for row in np.flatnonzero(wrong):
            what = "is null" if empty[row] else self._of_length(int(lengths[row]))
            self._mistakes.note(first + int(row), self.column, what)
        usable = np.flatnonzero(~wrong)
        kept = array.take(pa.array(usable)) if wrong.any() else array
        values = kept.flatten()
        numbers = values.to_numpy(zero_copy_only=False)
        if numbers.dtype.kind != "f":  # floats that hold them exactly
            numbers = numbers.astype(np.float32 if numbers.dtype.itemsize < 4 else np.float64)
        return numbers.reshape(len(usable), self.dim or 0), usable

    def _spelled(self, array: Any, first: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        found, rows = [], []
        for row, text in enumerate(array.to_pylist()):
            numbers = None if text is None else _numbers_in(text)
            if numbers is not None and self.dim is None and len(numbers):
                self.dim = len(numbers)
            if numbers is None or len(numbers) != self.dim:
                what = "is null" if text is None else "is no list of numbers"
                said = what if numbers is None else self._of_length(len(numbers))
                self._mistakes.note(first + row, self.column, said)
                continue
            found.append(numbers)
            rows.append(row)
        return np.array(found, np.float64).reshape(len(found), self.dim or 0), np.array(rows, np.int64)

    def _of_length(self, length: int) -> str:
        return f"has {length} dimensions" + ("" if self.dim is None else f", the first vector has {self.dim}")

    def _checked(self, vectors: NDArray[Any], rows: NDArray[np.int64], first: int) -> NDArray[Any]:
        return vectors[note_unusable(vectors, first, self.column, self._mistakes, rows)]


def note_unusable(
    vectors: NDArray[Any], first: int, column: str | None, mistakes: Mistakes, rows: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Note vectors (n, dim) not finite or all zero, row ``rows[i]`` after ``first``; return bool (n,): of use."""
    finite = np.isfinite(vectors).all(axis=1)
    usable: NDArray[np.bool_] = finite & vectors.any(axis=1)
    for at in np.flatnonzero(~usable):
        row = first + int(at if rows is None else rows[at])
        mistakes.note(row, column, "is all zero" if finite[at] else "holds NaN or infinity")
    return usable


def _numbers_in(text: str) -> NDArray[np.float64] | None:
    try:
        return np.array(text.strip("[](){} \t").replace(",", " ").replace(";", " ").split(), np.float64)
    except ValueError:
        return None
