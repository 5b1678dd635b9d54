"""Writing so that a reader, or a machine that loses power, sees the old or the new, never half of it.

Everything is written under a temporary name beside its place, flushed to the disk and then renamed.
"""

from __future__ import annotations

import errno
import glob
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        OSError: the disk refuses, or what lies at ``path`` is no file: a device would be replaced like one.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is no regular file")
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
            flush_to_disk(file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``out`` when the block ends well, and vanishes when it does not.

    What ``out`` held before is gone afterwards, so the caller asks first.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(out)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        yield partial
        sync_tree(partial)
        move_over(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out.parent)


def _remove_remains(out: Path) -> None:
    """Remove what runs that were killed left beside ``out``; those of a process that still runs are not touched."""
    if os.name == "nt":  # there, asking whether a process is alive ends it
        return
    for remains in out.parent.glob(f"{glob.escape(out.name)}.partial-*"):
        pid = remains.name.rpartition("-")[2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(remains, ignore_errors=True)
        except (PermissionError, OverflowError, ValueError):
            continue


def move_over(new: Path, place: Path) -> None:
    """Rename ``new`` to ``place``; a folder cannot be replaced in one step, so the old one steps aside first."""
    if not place.exists():
        new.rename(place)
        return
    old = place.with_name(f"{place.name}.old-{os.getpid()}")
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def flush_to_disk(file: BinaryIO) -> None:
    """Return only when what was written to ``file`` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the renames inside ``folder`` last; a system that cannot open folders (Windows) needs no such step."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush to the disk what others have written to a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Flush every file and folder under ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


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
