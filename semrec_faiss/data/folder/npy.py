"""Writes a .npy file block by block."""

from __future__ import annotations

import math
import os
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray


class NpyWriter:
    """Writes an .npy file a block of rows at a time, holding none of it in memory.

    Args:
        file: open for writing in binary, at its start.
        shape: (n, d) of the whole array.
        dtype: what the rows are stored as.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self.file = file
        self._shape = shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._written = 0
        np.lib.format.write_array_header_1_0(
            file, {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(self._dtype)}
        )

    @property
    def name(self) -> str:
        """The path of the file."""
        return self.file.name

    def write(self, rows: NDArray[Any]) -> None:
        """Append ``rows``, shape (any, d)."""
        self.file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self._written += len(rows)

    def begin(self) -> int:
        """Write the header out; return its bytes, at which others may write the rows in this one's place.

        The file has its full size at once: where several write to a growing one, each waits for the others to grow it.
        """
        self.file.flush()
        header = self.file.tell()
        os.ftruncate(self.file.fileno(), header + math.prod(self._shape) * self._dtype.itemsize)
        return header

    def count(self, rows: int) -> None:
        """Count rows that others have written."""
        self._written += rows

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._written != self._shape[0]:
            raise RuntimeError(f"wrote {self._written} rows of the {self._shape[0]} that the header promises")
