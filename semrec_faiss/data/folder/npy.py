"""Writes a .npy file block by block, whether it is known beforehand how many rows there will be, or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Writable(Protocol):
    """Takes bytes: a file open for writing in binary, or what stands for one."""

    def write(self, data: Any, /) -> object:
        """Write all of ``data``."""


class NpyWriter:
    """Writes an .npy file a block of rows at a time, holding none of it in memory.

    Args:
        file: nothing is written to it yet.
        shape: (n, d) of the whole array.
        dtype: what the rows are stored as.
    """

    def __init__(self, file: Writable, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self._file = file
        self._rows = shape[0]
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._written = 0
        _write_header(file, shape, self._dtype)

    def write(self, rows: NDArray[Any]) -> None:
        """Append ``rows``, shape (any, d); raises OSError as the file does."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).ravel().data)
        self._written += len(rows)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._written != self._rows:
            raise RuntimeError(f"wrote {self._written} rows of the {self._rows} that the header promises")


@dataclass(frozen=True)
class NpyFile:
    """An .npy file of full size, whose rows are written in any order, by any process.

    Attributes:
        path: where it is.
        dtype: what the rows are stored as.
        dim: d, numbers per row.
        start: bytes of the header.
    """

    path: Path
    dtype: np.dtype[Any]
    dim: int
    start: int

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], dtype: DTypeLike) -> NpyFile:
        """Make the file at ``path``, of ``shape`` (n, d), all zeros.

        Raises:
            OSError: the disk refuses.
        """
        stored = np.dtype(dtype).newbyteorder("<")
        with path.open("wb") as file:
            _write_header(file, shape, stored)
            start = file.tell()
            # At once: where several write to a growing file, each waits for the others to grow it.
            file.truncate(start + math.prod(shape) * stored.itemsize)
        return cls(path, stored, shape[1], start)

    def write(self, row: int, rows: NDArray[Any]) -> None:
        """Write ``rows``, shape (any, d), from ``row`` on.

        Raises:
            OSError: the disk refuses.
        """
        with self.path.open("r+b") as file:
            file.seek(self.start + row * self.dim * self.dtype.itemsize)
            file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)


class GrowingNpy:
    """Writes an .npy file of as many rows as come; the header, which has room for any number, is written at the end.

    Attributes:
        rows: how many were written.
        shape: (rows, dim); dim is 0 before the first.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Write to ``file``, open for writing in binary, at its start."""
        self._file = file
        self._dtype: np.dtype[Any] | None = None
        self.shape = (0, 0)

    @property
    def rows(self) -> int:
        """How many were written."""
        return self.shape[0]

    @property
    def dtype_name(self) -> str:
        """The dtype's name; empty before the first rows."""
        return "" if self._dtype is None else self._dtype.newbyteorder("=").name

    def write(self, rows: NDArray[Any]) -> None:
        """Append ``rows``, shape (any, d), of the dtype of the first."""
        if self._dtype is None:
            self._dtype = rows.dtype.newbyteorder("<")
            self.shape = (0, rows.shape[1])
            self._header()
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self.shape = (self.shape[0] + len(rows), self.shape[1])

    def finish(self) -> None:
        """Write the header with the number of rows; nothing is written where there were none."""
        if self._dtype is not None:
            end = self._file.tell()
            self._file.seek(0)
            self._header()
            self._file.seek(end)

    def _header(self) -> None:
        assert self._dtype is not None
        _write_header(self._file, self.shape, self._dtype)


def _write_header(file: Writable, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
