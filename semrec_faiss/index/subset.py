"""Searching part of an index: an exact scan of some rows, and FAISS's own selector where FAISS honours it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.config.index_types import GPU_LIMIT
from semrec_faiss.errors import UsageError
from semrec_faiss.index.cpu.exact import SCAN_ROWS, order_ties, rescore
from semrec_faiss.index.cpu.products import best_of_batch
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.on_gpu import gpu_resources, held
from semrec_faiss.index.vector_index import VectorIndex


def scan_rows(
    index: VectorIndex, queries: Vectors, k: int, rows: Rows, gathered: Vectors | None = None, *, settle: bool = True
) -> tuple[Scores, Rows]:
    """Find the k best of ``rows`` exactly, on the device of the index.

    Args:
        index: where the vectors are.
        queries: float32 (queries, dim), prepared.
        k: how many; fewer rows give -1 with -inf at the end.
        rows: int64, distinct rows to look among.
        gathered: their vectors, float32 (len(rows), dim), where the caller has them.
        settle: whether what is nearly tied is put in order.

    Returns:
        scores float32 and rows int64 (queries, k), best first, ties by row where they are settled.
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    take = min(k, len(rows))

    def search(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
        best, positions = _best_of(index, asked, fetch, rows, gathered)
        return best, rows[positions]

    if take and len(queries):
        best = index.settled(search, queries, take, len(rows)) if settle else search(queries, take)
        scores[:, :take], found[:, :take] = best
    return scores, found


def _best_of(index: VectorIndex, queries: Vectors, k: int, rows: Rows, gathered: Vectors | None) -> tuple[Scores, Rows]:
    if len(rows) <= SCAN_ROWS:
        return _knn(index, queries, k, index.vectors(rows) if gathered is None else gathered)
    heap = load_faiss().ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, len(rows), SCAN_ROWS):
        part = slice(start, start + SCAN_ROWS)
        vectors = index.vectors(rows[part]) if gathered is None else gathered[part]
        scores, positions = _knn(index, queries, min(k, len(vectors)), vectors)
        heap.add_result(scores, positions + start)
    heap.finalize()
    return heap.D, heap.I


def _knn(index: VectorIndex, queries: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    if not index.device.gpus or k > GPU_LIMIT:
        return best_of_batch(queries, k, vectors)
    faiss = load_faiss()
    gpu = gpu_resources(index.device.gpus[0], index.device.temp_memory_mb)
    with held([gpu]):
        scores, positions = faiss.knn_gpu(
            gpu.handle, queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT, device=gpu.gpu
        )
    return scores, positions


def honours_selector(index: VectorIndex) -> bool:
    """Tell whether FAISS looks at a selector in this index: never on a GPU, where it ignores one without a word."""
    faiss = load_faiss()
    kinds = (faiss.IndexFlat, faiss.IndexIVF, faiss.IndexHNSW)
    return not index.device.gpus and isinstance(faiss.downcast_index(index.cpu_index), kinds)


def search_selected(index: VectorIndex, queries: Vectors, k: int, mask: NDArray[np.bool_]) -> tuple[Scores, Rows]:
    """Search a CPU index with FAISS's selector: only rows that ``mask`` allows are considered.

    Args:
        index: one that `honours_selector`.
        queries: float32 (queries, dim), prepared.
        k: how many.
        mask: bool (count,).

    Returns:
        scores float32 and rows int64 (queries, k), best first; -1 where an approximate index found fewer.

    Raises:
        UsageError: the index is on a GPU, or of a type that knows no selector.
    """
    if not honours_selector(index):
        of = f"type {index.config.type} on {index.device}"
        raise UsageError(
            f"the selector strategy needs a flat, inverted-list or graph index on a CPU, not {of}",
            fix="take another strategy",
        )
    faiss = load_faiss()
    selector = faiss.IDSelectorBitmap(np.packbits(index.base_mask(mask), bitorder="little"))
    refine = getattr(index.config.search, "refine", None) or 1

    def search(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
        return index.search_by(_parameters(index, selector, fetch), asked, fetch, mask)

    if index.exact:
        limit = int(mask.sum())
        if not limit:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        return index.settled(search, queries, min(k, limit), limit)
    scores, rows = search(queries, min(refine * k, index.count))
    if refine > 1:
        scores, rows = rescore(queries, rows, min(k, rows.shape[1]), index.vectors)
    order_ties(scores, rows)
    return scores, rows


def _parameters(index: VectorIndex, selector: Any, k: int) -> Any:
    faiss = load_faiss()
    kind = faiss.downcast_index(index.cpu_index)
    if isinstance(kind, faiss.IndexIVFPQ):
        return faiss.IVFPQSearchParameters(sel=selector, nprobe=kind.nprobe)
    if isinstance(kind, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=kind.nprobe)
    if isinstance(kind, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(kind.hnsw.efSearch, k))
    return faiss.SearchParameters(sel=selector)
