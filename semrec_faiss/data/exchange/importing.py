"""Benchmarks' vectors to a data folder: what is searched become titles, what is asked become users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.exchange.formats import HDF5_ERRORS, KNOWN_DISTANCES, AnnVectors
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA, USER_IDS, USER_VECTORS
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.data.folder.vectors import UNIT_TOLERANCE
from semrec_faiss.errors import DataError, StorageError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_folder, save_json

BLOCK_BYTES = 16 << 20

_SHOWN = 10


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        titles: how many vectors to search.
        users: how many to ask.
        dim: dimensions of each.
        distance: what the file says its distances are; None where it does not say.
        normalize: whether an index must normalise to rank as the file does.
    """

    titles: int
    users: int
    dim: int
    distance: str | None
    normalize: bool


def write_data_folder(
    found: AnnVectors, out: Path, *, name: str, overwrite: bool = False, progress: Progress = silent
) -> Imported:
    """Write a data folder whose titles and users are named by their row.

    Args:
        found: an open file's content.
        out: the folder to make; it appears only when everything is written.
        name: the file's name, for messages.
        overwrite: replace ``out`` when it exists.
        progress: told the vectors done.

    Raises:
        DataError: the file ranks by a distance that inner products cannot answer.
        UsageError: ``out`` is something else than a data folder, or exists.
        StorageError: the disk refuses.
    """
    check_out_folder(out, overwrite=overwrite)
    titles, dim = found.train.shape
    users = 0 if found.test is None else found.test.shape[0]
    if found.distance not in (None, *KNOWN_DISTANCES):
        raise DataError(
            f"{name} ranks by {found.distance} distance, which inner products cannot answer",
            fix=f"import a file of {', '.join(KNOWN_DISTANCES)}",
        )
    try:
        with new_folder(out) as folder:
            _write_vectors(folder / MEDIA_VECTORS, found.train, found, name, progress)
            with (folder / METADATA).open("w", encoding="utf-8") as file:
                for row in range(titles):
                    file.write(json.dumps({"media_id": f"row_{row}", "title": f"Vector {row}"}) + "\n")
            if found.test is not None and users:
                _write_vectors(folder / USER_VECTORS, found.test, found, name, progress)
                ids = [f"query_{row}" for row in range(users)]
                save_json(folder / USER_IDS, ids)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}", fix="name another folder") from error
    return Imported(titles, users, dim, found.distance, found.distance not in ("ip", "dot"))


def _write_vectors(path: Path, vectors: Any, found: AnnVectors, name: str, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, dim = vectors.shape
    with path.open("wb") as file, NpyWriter(file, (rows, dim), np.float32) as writer:
        unusable = _Unusable()
        for first, block in float32_blocks(vectors):
            unusable.look_at(block, first)
            if found.distance == "euclidean" and not unusable.count:
                _check_unit(block, first, name)
            writer.write(block)
            progress("importing", first + len(block), rows)
    unusable.refuse(name)


class _Unusable:
    """Collects the vectors that no search can use, over all blocks."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []

    def look_at(self, block: NDArray[np.float32], first: int) -> None:
        """Count those of a block of vectors, float32 (rows, dim), whose first row is ``first``."""
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(block).all(axis=1))
        wrong = np.flatnonzero(~finite | ~block.any(axis=1))
        self.count += len(wrong)
        for row in wrong[: _SHOWN - len(self._shown)].tolist():
            self._shown.append(f"{first + row} {'is all zero' if finite[row] else 'holds NaN or infinity'}")

    def refuse(self, name: str) -> None:
        """Raise DataError where there were any."""
        if self.count:
            more = f" and {self.count - len(self._shown):,} more" if self.count > len(self._shown) else ""
            raise DataError(
                f"{name}: vectors that no search can use: {self.count:,}: {', '.join(self._shown)}{more}",
                fix="leave such vectors out",
            )


def _check_unit(block: NDArray[np.float32], first: int, name: str) -> None:
    norms = np.linalg.norm(block.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.abs(norms - 1) > UNIT_TOLERANCE)
    if len(wrong):
        raise DataError(
            f"{name} ranks by euclidean distance and vectors[{first + wrong[0]}] has length {norms[wrong[0]]:.4g}:"
            " inner products rank the same only where every vector has length 1",
            fix="import a file of angular distance",
        )


def float32_blocks(vectors: Any) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, float32 (rows, dim)) over an array (n, dim) that is read on access.

    Raises:
        DataError: the file ends before its last row, or is damaged.
    """
    rows, dim = vectors.shape
    step = max(1, BLOCK_BYTES // (4 * dim))
    for first in range(0, rows, step):
        try:
            block = np.ascontiguousarray(vectors[first : first + step], dtype=np.float32)
        except HDF5_ERRORS as error:
            raise DataError(
                f"vectors[{first}] and those after it cannot be read: {error}", fix="copy the file again"
            ) from error
        yield first, block
