"""A benchmark's file of vectors, opened by its ending."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from semrec_faiss.data.exchange.formats import AnnVectors, check_parts, is_hdf5, read_bin
from semrec_faiss.data.exchange.hdf5_process import open_guarded
from semrec_faiss.errors import NotFoundError, UsageError
from semrec_faiss.paths import refuse_special


@contextmanager
def open_ann_file(path: Path, *, queries: Path | None = None, neighbors: Path | None = None) -> Iterator[AnnVectors]:
    """Open an HDF5 file, or an fbin with the fbin of questions and the ibin of neighbours beside it.

    Raises:
        NotFoundError: a file is not there.
        DataError: one is none of these files, or counts and dimensions do not agree.
        MissingPackageError: h5py is missing.
        UsageError: another ending, files beside an HDF5 file, or neighbours without the questions.
    """
    for given in (path, queries, neighbors):
        if given is not None and not given.is_file():
            refuse_special(given, "a file of vectors or neighbours")
            raise NotFoundError(f"there is no file {given}")
    if is_hdf5(path):
        if queries is not None or neighbors is not None:
            raise UsageError(f"{path} holds its questions and neighbours itself", fix="leave out the other files")
        with open_guarded(path) as found:
            yield found
        return
    if path.suffix.lower() != ".fbin":
        raise UsageError(f"{path} is neither .hdf5 nor .fbin", fix="import a file of one of these kinds")
    if neighbors is not None and queries is None:
        raise UsageError(
            f"{neighbors} holds the neighbours of questions, but no questions are given",
            fix="give their .fbin with --queries, or leave out --neighbors",
        )
    train = read_bin(path, np.float32)
    test = None if queries is None else read_bin(queries, np.float32)
    near = None if neighbors is None else read_bin(neighbors, np.int32)
    found = AnnVectors(train, test, near, None, None)
    check_parts(found, path)
    yield found
