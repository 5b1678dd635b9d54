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
"""Scores that share one maximum while the best are looked for; more than `FEW` results take `NARROW_BLOCK`."""

NARROW_BLOCK = 16
FEW = 32

PRODUCT_ROWS = 8_192
"""Vectors that one thread multiplies at a time with a single query."""

QUERY_TILE, TITLE_TILE = 256, 2048
"""Queries and titles that one thread multiplies at a time: their scores stay in its caches."""

LEAST_BATCH = 32
"""Below so many queries the memory is what limits either product."""

LEAST_TITLES = 8_192
MOST_RESULTS = 256
"""Fewer titles are multiplied soon anyway, and the selection of more results is FAISS's to make."""


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
    FAISS's, which then wait for one another.
    """
    threads = _product_threads()
    tiles = [slice(start, start + QUERY_TILE) for start in range(0, len(queries), QUERY_TILE)]
    ranges = max(1, min(-(-int(load_faiss().omp_get_max_threads()) // len(tiles)), len(vectors) // LEAST_TITLES))
    bounds = np.linspace(0, len(vectors), ranges + 1).astype(np.int64).tolist()
    parts = [slice(*pair) for pair in pairwise(bounds)]
    with _numpy_alone():
        work = list(product(tiles, parts))
        found = list(threads.map(lambda unit: _best_of_tile(queries[unit[0]], k, vectors, unit[1]), work))
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for number, tile in enumerate(tiles):
        own = found[number * ranges : (number + 1) * ranges]
        _joined(own, len(queries[tile]), k, scores[tile], rows[tile])
    short = np.flatnonzero(rows[:, -1] < 0)
    if len(short):  # a score is no number
        scores[short], rows[short] = _best_by_faiss(np.ascontiguousarray(queries[short]), k, vectors)
    return scores, rows


@dataclass
class _Candidates:
    """Scores that may be among the k best of their query: three arrays side by side."""

    queries: list[Rows] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)

    def add(self, queries: Rows, rows: Rows, scores: Scores) -> None:
        self.queries.append(queries)
        self.rows.append(rows)
        self.scores.append(scores)


def _best_of_tile(queries: Vectors, k: int, vectors: Vectors, part: slice) -> _Candidates:
    """Find what may be among the k best of part of the titles: a little more than k a query.

    The k-th largest maximum of the blocks seen so far is a bound that at least k scores reach.
    """
    block = SCORE_BLOCK if k <= FEW else NARROW_BLOCK
    bound = np.full(len(queries), -np.inf, np.float32)
    highest = np.empty((len(queries), 0), np.float32)
    found = _Candidates()
    for start in range(part.start, part.stop, TITLE_TILE):
        titles = np.require(vectors[start : min(start + TITLE_TILE, part.stop)], requirements="A")
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number, FAISS looks for again
            products = queries @ titles.T
        scores = _padded(products, block).reshape(len(queries), -1, block)
        maxima = scores.max(axis=2)
        highest = np.concatenate([highest, maxima], axis=1)
        if highest.shape[1] >= k:
            highest = np.partition(highest, highest.shape[1] - k, axis=1)[:, -k:]
            bound = highest.min(axis=1)
        of, at = np.nonzero(maxima >= bound[:, None])
        near = scores[of, at]
        pair, place = np.nonzero(near >= bound[of, None])
        found.add(of[pair], start + at[pair] * block + place, near[pair, place])
    return found


def _padded(scores: Scores, block: int) -> Scores:
    missing = -scores.shape[1] % block
    if not missing:
        return scores
    return np.pad(scores, ((0, 0), (0, missing)), constant_values=np.float32(-np.inf))


def _joined(found: list[_Candidates], count: int, k: int, scores: Scores, rows: Rows) -> None:
    """Sort the candidates of all parts of the titles, and write the k best of each query."""
    of = np.concatenate([one for part in found for one in part.queries])
    at = np.concatenate([one for part in found for one in part.rows])
    score = np.concatenate([one for part in found for one in part.scores])
    real = score > -np.inf  # the last block was filled up
    of, at, score = of[real], at[real], score[real]
    order = np.lexsort((at, -score, of))
    firsts = np.searchsorted(of[order], np.arange(count + 1))
    places = firsts[:-1, None] + np.arange(k)
    places = np.where(places < firsts[1:, None], places, len(order))
    rows[:] = np.append(at[order], -1)[places]
    scores[:] = np.append(score[order], np.float32(-np.inf))[places]


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
    scores = _products(query, vectors)
    blocks = len(scores) // SCORE_BLOCK
    if k < blocks:
        maxima = scores[: blocks * SCORE_BLOCK].reshape(blocks, SCORE_BLOCK).max(axis=1)
        rows = np.flatnonzero(scores >= np.partition(maxima, blocks - k)[blocks - k])
    else:
        rows = np.arange(len(scores))
    best = rows[np.lexsort((rows, -scores[rows]))[:k]]
    return scores[best][None, :], best[None, :].astype(np.int64)


def _products(query: Vectors, vectors: Vectors) -> Scores:
    """Multiply all vectors with one query.

    By FAISS, in threads: a mapped index file holds its vectors at odd addresses, and numpy would copy them all first.
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
    return ThreadPoolExecutor(int(load_faiss().omp_get_max_threads()), thread_name_prefix=f"{OWN_THREADS}products")


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
def _numpy_alone() -> Iterator[None]:
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
