"""Exact neighbours, cached by what they were computed from: the vectors, the queries, the metric, k and the filter."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FlatIndex
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.index.hardware.device import Device, gpu_count
from semrec_faiss.index.subset import scan_rows
from semrec_faiss.index.train import VectorBlocks, build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_file

FORMAT = "truth-1"
"""Part of every key: another way of computing or storing gets another name."""

HASH_BYTES = 16 << 20
"""Of an array that lies on disk, hashed at once."""


@dataclass(frozen=True)
class Truth:
    """The exact neighbours of some queries.

    Attributes:
        rows: int64 (queries, k), by descending score, ties by row; -1 where fewer titles match.
        scores: float32 (queries, k), inner products; -inf where there is no title.
        matching: how many titles a query might have returned.
        digest: SHA-256 in hex of what they were computed from.
        from_cache: whether they were read and not computed.
    """

    rows: Rows
    scores: Scores
    matching: int
    digest: str
    from_cache: bool


class ExactNeighbours:
    """Finds the exact neighbours among one set of titles, each question once.

    Attributes:
        data_digest: of the titles' vectors; see `digest_of_array`.
    """

    def __init__(
        self, make_index: Callable[[], VectorIndex], data_digest: str, *, cache: Path | None = None, metric: str = ""
    ) -> None:
        """Remember how to make the exact index; it is made at the first question that the cache cannot answer.

        Args:
            make_index: makes an exact index over the titles; see `exact_index`.
            data_digest: of the titles' vectors.
            cache: a folder to keep answers in; None keeps none.
            metric: how scores are computed, ``inner_product,normalize=True`` say: part of the key.
        """
        self._make_index = make_index
        self._cache = cache
        self._metric = metric
        self.data_digest = data_digest

    def release(self) -> None:
        """Let go of the exact index and its memory; a further question that needs it makes it again."""
        self.__dict__.pop("index", None)

    @cached_property
    def index(self) -> VectorIndex:
        """The exact index; raises UsageError for one that is not."""
        index = self._make_index()
        if not index.exact:
            raise UsageError(f"a {index.config.type} index on {index.device} is not exact: it cannot make ground truth")
        return index

    def find(self, queries: Vectors, k: int, mask: Mask | None = None) -> Truth:
        """Find the k best titles of each query among those that ``mask`` allows.

        Args:
            queries: float32 (queries, dim), prepared by an index of the same settings.
            k: how many, at least 1.
            mask: bool (titles,); None allows all.

        Raises:
            UsageError: k or the queries' shape is out of range.
            DeviceError: not even one query fits the device's memory.
            StorageError: the cache's disk is full or refuses.
        """
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        digest = self._digest(queries, k, mask)
        path = None if self._cache is None else self._cache / f"{digest}.npz"
        kept = None if path is None else _read(path, (len(queries), k))
        if kept is not None:
            return Truth(*kept, digest, from_cache=True)
        rows, scores, matching = self._search(queries, k, mask)
        if path is not None:
            _write(path, rows, scores, matching)
        return Truth(rows, scores, matching, digest, from_cache=False)

    def _digest(self, queries: Vectors, k: int, mask: Mask | None) -> str:
        hashed = hashlib.sha256()
        hashed.update(f"{FORMAT}\n{self.data_digest}\n{digest_of_array(queries)}\n{self._metric}\nk={k}\n".encode())
        if mask is not None:  # the mask and not its words: they mean something else over other metadata
            hashed.update(b"mask " + digest_of_array(mask).encode())
        return hashed.hexdigest()

    def _search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Rows, Scores, int]:
        matching = self.index.count if mask is None else int(mask.sum())
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        take = min(k, matching)
        if take and len(queries):
            if mask is None:
                found = self.index.search(queries, take, prepared=True)
                rows[:, :take], scores[:, :take] = found.rows, found.scores
            else:
                scores[:, :take], rows[:, :take] = scan_rows(self.index, queries, take, np.flatnonzero(mask))
        return rows, scores, matching


def exact_index(
    blocks: VectorBlocks,
    count: int,
    dim: int,
    *,
    normalize: bool,
    device: Device | None = None,
    k: int = 1,
    progress: Progress = silent,
) -> VectorIndex:
    """Make a flat index over vectors, on the GPU where there is one and it may return k titles.

    Args:
        blocks: the vectors, float32 (count, dim) in all, of unit length where the index normalises.
        count: the number of titles.
        dim: dimensions of a vector.
        normalize: whether queries are brought to unit length.
        device: where; the first GPU by default, the CPU where there is none.
        k: the most titles that will be asked for.
        progress: told the vectors done.

    Raises:
        MissingPackageError: FAISS is missing.
        DeviceError: the device's memory does not suffice.
    """
    config = FlatIndex(normalize=normalize)
    cpu_index = build_faiss_index(config, blocks, count, dim, Device(), progress)
    chosen = device if device is not None else Device((0,)) if gpu_count() else Device()
    index = VectorIndex(cpu_index, config, chosen)
    too_many = index.k_limit is not None and k > index.k_limit
    return VectorIndex(cpu_index, config, Device()) if too_many and device is None else index


def digest_of_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 in hex of dtype, shape and values of any array, read in blocks where it lies on disk."""
    hashed = hashlib.sha256(f"{array.dtype.newbyteorder('<').str} {array.shape}\n".encode())
    step = max(1, HASH_BYTES // max(1, array[:1].nbytes))
    little = array.dtype.newbyteorder("<")
    for start in range(0, len(array), step):
        block = np.ascontiguousarray(array[start : start + step], dtype=little)
        hashed.update(block.data.cast("B") if block.size else b"")
    return hashed.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> tuple[Rows, Scores, int] | None:
    """Read an answer; None where there is none or its checksums are wrong, so that it is computed again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            rows, scores, matching = kept["rows"], kept["scores"], int(kept["matching"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    right = rows.shape == scores.shape == shape and (rows.dtype, scores.dtype) == (np.int64, np.float32)
    return (rows, scores, matching) if right else None


def _write(path: Path, rows: Rows, scores: Scores, matching: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            np.savez(file, rows=rows, scores=scores, matching=np.int64(matching))
    except OSError as error:
        raise StorageError(
            f"cannot keep the exact neighbours in {path}: {error.strerror or error}", fix="name another folder"
        ) from error
