"""Vectors as benchmarks exchange them: the HDF5 of ann-benchmarks, and the fbin and ibin of big-ann-benchmarks.

HDF5 holds ``train`` (n, d), ``test`` (m, d), ``neighbors`` (m, k) and ``distances`` (m, k), and an attribute
``distance``. An fbin is two int32, n and d, and n × d float32; an ibin the same with int32; all little-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import DataError, MissingPackageError, StorageError
from semrec_faiss.storage import flush_to_disk, new_file

HEADER_BYTES = 8
HDF5_ENDINGS = (".hdf5", ".h5")
BIN_ENDINGS = (".fbin", ".ibin", ".u8bin", ".i8bin")
ANGULAR = "angular"
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for damaged files."""

_MOST_TIMES = 1_100
"""How many times smaller HDF5's compression can make numbers, at most."""

KNOWN_DISTANCES = ("angular", "euclidean", "ip", "dot")
"""What the attribute ``distance`` may be, of those that inner products can answer; euclidean for unit vectors."""


@dataclass(frozen=True)
class AnnVectors:
    """What such files hold.

    Attributes:
        train: float (n, d), what is searched; mapped or read on access, so slice it in blocks.
        test: float (m, d), what is asked; None where there is none.
        neighbors: int (m, k), the rows of ``train`` nearest to each question, best first; None where there is none.
        distances: float (m, k), theirs; None where there is none.
        distance: what they are in: ``angular`` (1 - cosine), ``euclidean``, ``ip`` or ``dot``; None where not said.
    """

    train: Any
    test: Any
    neighbors: Any
    distances: Any
    distance: str | None


def load_h5py() -> Any:
    """Import h5py.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            f"h5py is not installed, which HDF5 files need ({error})", fix="pip install 'semrec-faiss[hdf5]'"
        ) from error
    return h5py


def is_hdf5(path: Path) -> bool:
    """Tell by its ending whether a path is an HDF5 file's."""
    return path.suffix.lower() in HDF5_ENDINGS


@contextmanager
def open_hdf5(path: Path) -> Iterator[AnnVectors]:
    """Open an HDF5 file in this process, which a damaged one may end; raises DataError as `open_ann_file` does.

    Yields:
        its arrays, float (n, dim) and int (queries, neighbours), read from disk by slices of rows.
    """
    h5py = load_h5py()
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from error
    with file:
        try:
            found = _read_hdf5(file, path)
        except HDF5_ERRORS as error:
            raise DataError(f"{path} cannot be read as HDF5: {error}", fix="copy or download it again") from error
        yield found


def _read_hdf5(file: Any, path: Path) -> AnnVectors:
    parts = {name: _dataset(file, name, path) for name in ("train", "test", "neighbors", "distances")}
    if parts["train"] is None:
        raise DataError(f"{path} has no dataset 'train'; it has {', '.join(file) or 'none'}")
    distance = file.attrs.get("distance")
    told = distance.decode() if isinstance(distance, bytes) else None if distance is None else str(distance)
    found = AnnVectors(**parts, distance=told)
    check_parts(found, path)
    return found


def _dataset(file: Any, name: str, path: Path) -> Any:
    """Return a dataset, or None where nothing has its name."""
    h5py = load_h5py()
    if name not in set(file):
        return None
    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise DataError(f"{path}: dataset {name} lies in another file", fix=f"write {name} into this one")
    found = file.get(name)  # None where it is a link to nothing
    if not isinstance(found, h5py.Dataset):
        kind = "not there: the file only links to it" if found is None else "a group"
        raise DataError(f"{path}: dataset {name} is {kind}", fix=f"write {name} as a dataset, or leave it out")
    if found.is_virtual or found.external:
        raise DataError(f"{path}: dataset {name} lies in another file", fix=f"write {name} into this one")
    if found.shape is not None and found.nbytes > _MOST_TIMES * path.stat().st_size:
        raise DataError(
            f"{path}: dataset {name} says it has {found.nbytes:,} bytes, in a file of {path.stat().st_size:,}",
            fix="copy or download it again",
        )
    return found


def check_parts(found: AnnVectors, path: Path) -> None:
    """Hold shapes and types against each other; raises DataError where they do not agree."""
    for name, kinds in (("train", "f"), ("test", "f"), ("neighbors", "iu"), ("distances", "f")):
        array = getattr(found, name)
        if array is None:
            continue
        if array.shape is None:
            raise DataError(
                f"{path}: dataset {name} is empty: it has a type and no shape", fix="write (count, n) numbers into it"
            )
        if len(array.shape) != 2 or array.dtype.kind not in kinds:
            expected = "floats" if "f" in kinds else "whole numbers"
            raise DataError(f"{path}: {name} is {array.dtype} {tuple(array.shape)}; {expected} (count, n) are expected")
    rows, dim = found.train.shape
    if not rows or not dim:
        raise DataError(f"{path}: train is {(rows, dim)}; at least one vector of one dimension is expected")
    if found.test is not None and found.test.shape[1] != dim:
        raise DataError(f"{path}: the questions have {found.test.shape[1]} dimensions, train has {dim}")
    questions = None if found.test is None else found.test.shape[0]
    for name in ("neighbors", "distances"):
        array = getattr(found, name)
        if array is not None and questions is not None and array.shape[0] != questions:
            raise DataError(f"{path}: {name} is for {array.shape[0]} questions, but there are {questions}")
    if found.neighbors is not None and found.neighbors.size:
        near = found.neighbors[:]
        if near.min() < 0 or near.max() >= rows:
            raise DataError(f"{path}: neighbors names rows {near.min()} to {near.max()}, train has {rows}")


def read_bin(path: Path, dtype: type[np.float32] | type[np.int32]) -> NDArray[Any]:
    """Map an fbin (float32) or ibin (int32): shape (n, d), read-only.

    Raises:
        DataError: there is no such file, or its size does not agree with its header.
    """
    try:
        size = path.stat().st_size
        header = np.fromfile(path, "<i4", 2)
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from error
    if len(header) < 2:
        raise DataError(f"{path} has {size} bytes; its header alone takes {HEADER_BYTES}")
    rows, columns = map(int, header)
    expected = HEADER_BYTES + 4 * rows * columns
    if rows < 1 or columns < 1 or size != expected:
        raise DataError(f"{path}: its header says {rows} × {columns}, which takes {expected} bytes; it has {size}")
    return np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r", HEADER_BYTES, (rows, columns))


@dataclass(frozen=True)
class BinRows:
    """What goes into an fbin (float32) or ibin (int32).

    Attributes:
        blocks: rows, (any, columns) each, in order.
        shape: (rows, columns) of all blocks together.
        dtype: what the values are written as, little-endian.
    """

    blocks: Iterator[NDArray[Any]]
    shape: tuple[int, int]
    dtype: type[Any]

    def write(self, file: BinaryIO) -> None:
        """Write them, block by block, to the disk."""
        file.write(np.array(self.shape, "<i4").tobytes())
        for block in self.blocks:
            file.write(np.ascontiguousarray(block, np.dtype(self.dtype).newbyteorder("<")).data.cast("B"))
        flush_to_disk(file)


def write_bins(folder: Path, tables: Mapping[str, BinRows]) -> list[Path]:
    """Write files into a folder that belong together, all of them or none; return their paths.

    Raises:
        StorageError: the disk refuses; what was there is as it was.
    """
    paths = [folder / name for name in tables]
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as together:
            files = [together.enter_context(new_file(path)) for path in paths]
            for file, rows in zip(files, tables.values(), strict=True):
                rows.write(file)
    except OSError as error:
        if not was_there:
            with suppress(OSError):
                folder.rmdir()
        raise StorageError(f"cannot write {folder}: {error.strerror or error}", fix="name another place") from error
    return paths


@contextmanager
def new_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for writing that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        MissingPackageError: h5py is missing.
        StorageError: the disk refuses.
    """
    h5py = load_h5py()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as raw:
            guarded = _GuardedFile(raw)
            with h5py.File(guarded, "w") as file:
                yield file
            if guarded.error is not None:
                raise guarded.error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", fix="free space or name another place"
        ) from error


class _GuardedFile:
    """A file that HDF5 can close even when the disk is full: it ends the process where a write fails while closing.

    Attributes:
        error: the first that a write has met; nothing is written after it, and HDF5 is told that all is well.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        return int(self._guarded(lambda: self._file.write(data), memoryview(data).nbytes))

    def truncate(self, size: int) -> int:
        return int(self._guarded(lambda: self._file.truncate(size), size))

    def flush(self) -> None:
        self._guarded(self._file.flush, None)

    def _guarded(self, work: Callable[[], Any], otherwise: Any) -> Any:
        if self.error is None:
            try:
                return work()
            except OSError as error:
                self.error = error
        return otherwise
