"""The best titles of one query or a batch on a CPU, by the matrix product that is fastest on the machine at hand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from typing import TypeVar

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.forking import OWN_THREADS, renewed_after_fork
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.kernels import Blas, numpy_is_faster

Part = TypeVar("Part")
Result = TypeVar("Result")

SCORE_BLOCK = 64
"""Scores of a query that share one maximum while its best are looked for."""

PRODUCT_ROWS = 8_192
"""Vectors that one thread multiplies at a time with a single query."""

QUERY_TILE, TITLE_TILE = 256, 4096
"""Queries and titles that one thread multiplies at a time: their scores stay in its caches."""

UNITS_A_THREAD = 4
"""Pieces of a batch's work for each thread, so that none waits long for the last; fewer where they would be small."""

LEAST_BATCH = 32
"""Below so many queries the memory is what limits either product."""

LEAST_TITLES = 8_192
MOST_RESULTS = 100
"""Fewer titles are multiplied soon anyway, and for more results FAISS has a better selection than its heaps."""

BLAS_BYTES = 5 << 18
"""What numpy's BLAS packs such a tile in, a buffer for each thread that multiplies: 0.9 to 1.5 MiB of OpenBLAS."""


def best_of_batch(queries: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    """Compare queries with every vector, by numpy's product where that is the faster one, and else by FAISS's.

    Args:
        queries: float32 (queries, dim), C-contiguous.
        k: at most ``len(vectors)``.
        vectors: float32 (count, dim), C-contiguous.

    Returns:
        scores float32 and rows int64 (queries, k), best first.
    """
    if len(queries) == 1:
        return best_of_one(queries, k, vectors)
    if multiplies_by_numpy(len(queries), k, len(vectors)):
        return best_by_numpy(queries, k, vectors)
    return _best_by_faiss(queries, k, vectors)


def multiplies_by_numpy(queries: int, k: int, count: int) -> bool:
    """Tell whether a batch is multiplied by numpy."""
    worth = queries >= LEAST_BATCH and k <= MOST_RESULTS and count >= LEAST_TITLES
    return worth and numpy_is_faster()


def _best_by_faiss(queries: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    faiss = load_faiss()
    scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def best_by_numpy(queries: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    """Compare a batch with every vector by numpy's product; see `best_of_batch`.

    The threads are ours, and each multiplies alone: numpy's would keep their cores for a while after a product, from
    FAISS's, which then wait for one another. FAISS's heaps select, in few calls: threads that call often wait for the
    interpreter's lock longer than they multiply.
    """
    tiles = _parts(len(queries), -(-len(queries) // QUERY_TILE))
    ranges = _parts(len(vectors), _title_ranges(len(queries), k, len(vectors), int(load_faiss().omp_get_max_threads())))
    scores = np.empty((len(ranges), len(queries), k), np.float32)
    rows = np.empty(scores.shape, np.int64)

    def search(unit: tuple[slice, tuple[int, slice]]) -> None:
        tile, (number, titles) = unit
        scores[number, tile], rows[number, tile] = _best_of_tile(queries[tile], k, vectors, titles)

    with numpy_alone():
        list(_product_threads().map(search, product(tiles, enumerate(ranges))))
    if len(ranges) == 1:
        return scores[0], rows[0]
    merged: tuple[Scores, Rows] = load_faiss().merge_knn_results(scores, rows, keep_max=True)
    return merged


def numpy_bytes(queries: int, k: int, count: int, dim: int, threads: int) -> int:
    """Return how many bytes `best_by_numpy` takes beside its result.

    Args:
        queries, k, count, dim: how many of each are multiplied.
        threads: that FAISS searches with; each has scores of a tile, a copy of its titles and BLAS's buffer.
    """
    rows, ranges = min(count, TITLE_TILE), _title_ranges(queries, k, count, threads)
    results = (4 + 8) * ranges * queries * k if ranges > 1 else 0
    at_once = min(threads, ranges * -(-queries // QUERY_TILE))
    return at_once * (4 * rows * (min(queries, QUERY_TILE) + dim) + BLAS_BYTES) + results


def _title_ranges(queries: int, k: int, count: int, threads: int) -> int:
    """Return in how many ranges titles are searched, so that there is work for all threads where queries are few."""
    tiles = -(-queries // QUERY_TILE)
    return max(1, min(-(-UNITS_A_THREAD * threads // tiles), count // max(k, TITLE_TILE)))


def _parts(count: int, parts: int) -> list[slice]:
    bounds = np.linspace(0, count, parts + 1).astype(np.int64).tolist()
    return [slice(*pair) for pair in pairwise(bounds)]


def _best_of_tile(queries: Vectors, k: int, vectors: Vectors, titles: slice) -> tuple[Scores, Rows]:
    """Find the k best of a slice of the titles; -1 where fewer of their scores are numbers."""
    faiss = load_faiss()
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    rows = min(TITLE_TILE, titles.stop - titles.start)
    # The same memory for every tile: what is made anew is there beside what it replaces, and its pages are, too.
    scores = np.empty(len(queries) * rows, np.float32)
    copied = None if vectors.flags.aligned else np.empty((rows, vectors.shape[1]), np.float32)
    for start in range(titles.start, titles.stop, TITLE_TILE):
        tile = vectors[start : min(start + TITLE_TILE, titles.stop)]
        if copied is not None:
            np.copyto(copied[: len(tile)], tile)
            tile = copied[: len(tile)]
        products = scores[: len(queries) * len(tile)].reshape(len(queries), len(tile))
        with np.errstate(invalid="ignore", over="ignore"):
            np.matmul(queries, tile.T, out=products)
        best.heaps.addn(len(tile), faiss.swig_ptr(products), start, 0, len(queries))
    best.finalize()
    return best.D, best.I


def best_of_one(query: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    """Compare a single query with every vector: FAISS gives it one thread, a matrix-vector product takes them all.

    The k-th largest of the blocks' maxima is a bound that at least k scores reach, so only those few are sorted.

    Args:
        query: float32 (1, dim).
        k: at most ``len(vectors)``.
        vectors: float32 (count, dim), C-contiguous.

    Returns:
        scores float32 and rows int64 (1, k), best first, ties by row.
    """
    scores = products_of_one(query, vectors)
    blocks = len(scores) // SCORE_BLOCK
    if k < blocks:
        maxima = scores[: blocks * SCORE_BLOCK].reshape(blocks, SCORE_BLOCK).max(axis=1)
        rows = np.flatnonzero(scores >= np.partition(maxima, blocks - k)[blocks - k])
    else:
        rows = np.arange(len(scores))
    best = rows[np.lexsort((rows, -scores[rows]))[:k]]
    return scores[best][None, :], best[None, :].astype(np.int64)


def products_of_one(query: Vectors, vectors: Vectors) -> Scores:
    """Multiply vectors, float32 (count, dim), C-contiguous, with one query, float32 (1, dim): float32 (count,).

    By FAISS, in threads of ours: a mapped index file holds its vectors at odd addresses, and numpy would copy them all
    first; its threads would wait for those of others, too.
    """
    faiss = load_faiss()
    scores = np.empty(len(vectors), np.float32)

    def multiply(start: int) -> None:
        part = vectors[start : start + PRODUCT_ROWS]
        ours = scores[start : start + PRODUCT_ROWS]
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(ours), faiss.swig_ptr(query), faiss.swig_ptr(part), query.shape[1], len(part)
        )

    in_threads(multiply, range(0, len(vectors), PRODUCT_ROWS))
    return scores


def in_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do something of FAISS's, which lets go of the interpreter's lock, to several parts, each in a thread of ours."""
    return [work(parts[0])] if len(parts) == 1 else list(_product_threads().map(work, parts))


@lru_cache(maxsize=1)
def _product_threads() -> ThreadPoolExecutor:
    """Return threads of ours, in each of which FAISS's loops take no others."""
    faiss = load_faiss()
    threads, name = int(faiss.omp_get_max_threads()), f"{OWN_THREADS}products"
    return ThreadPoolExecutor(threads, name, faiss.omp_set_num_threads, (1,))


renewed_after_fork(_product_threads.cache_clear)


@dataclass
class _Alone:
    """How many searches keep numpy's BLAS to one thread, and how many threads it had before the first of them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    searches: int = 0
    threads: int | None = None
    blas: Blas | None = None

    def keep(self) -> None:
        """Keep numpy's BLAS to one thread."""
        self.blas = self.blas or Blas.of("numpy")
        self.threads = None if self.blas is None else self.blas.threads
        if self.blas is not None and self.threads is not None:
            self.blas.threads = 1

    def let_go(self) -> None:
        """Give it its threads back."""
        if self.blas is not None and self.threads is not None:
            self.blas.threads = self.threads


_alone = _Alone()


@contextlib.contextmanager
def numpy_alone() -> Iterator[None]:
    """Keep numpy's BLAS to the calling thread; the last of several searches gives it its threads back."""
    with _alone.lock:
        if _alone.searches == 0:
            _alone.keep()
        _alone.searches += 1
    try:
        yield
    finally:
        with _alone.lock:
            _alone.searches -= 1
            if _alone.searches == 0:
                _alone.let_go()


@renewed_after_fork
def _forget_searches() -> None:
    """Let numpy's BLAS have its threads in a forked child, whatever its parent's were searching."""
    _alone.lock = threading.Lock()
    if _alone.searches:
        _alone.searches = 0
        _alone.let_go()
