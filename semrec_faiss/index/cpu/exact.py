"""Exact scores from the original vectors: rescoring candidates, scanning everything, settling what is nearly tied.

A matrix product rounds a score another way for every shape of batch and every kind of processor. So what it cannot tell
apart is scored again in one way, and then ordered by score and row: the same titles on any machine, in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.index.cpu.products import best_of_batch
from semrec_faiss.index.hardware.device import load_faiss

VectorsOf = Callable[[Rows], Vectors]
Search = Callable[[Vectors, int], tuple[Scores, Rows]]
"""Queries float32 (queries, dim) and how many; scores float32 and rows int64 (queries, how many), best first."""

GATHER_BYTES = 1 << 19
"""Candidate vectors gathered at once while rescoring."""

SCAN_ROWS = 65_536
"""Titles scored at once while scanning."""

UNIT_ROUNDOFF = 2.0**-24
"""The largest relative error of one float32 operation."""

TINY = 1e-30
"""Of a sum of float32 squares that is larger, what has vanished does not count; of a smaller one it may."""

SPARE = 4
"""Candidates beyond those wanted that a search is asked for: what is nearly tied hardly ever goes on past them."""

MORE_CANDIDATES = 4
"""How many times as many candidates are looked at where what is nearly tied goes on past the last."""


def original_vectors(index: Any) -> Vectors | None:
    """Return a view of the vectors that a CPU index holds in one piece, row order: float32 (count, dim).

    For inverted lists, which hold them scattered, it prepares ``reconstruct_batch`` and returns None.
    """
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
        return None
    flat = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    view: Vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return view


def rescore(queries: Vectors, candidates: Rows, k: int, vectors_of: VectorsOf) -> tuple[Scores, Rows]:
    """Score candidates exactly and keep the k best.

    Args:
        queries: float32 (queries, dim).
        candidates: int64 (queries, candidates); -1 where there is none.
        k: at most the number of candidates.
        vectors_of: returns the vectors of rows.

    Returns:
        scores float32 (queries, k) and rows int64 (queries, k), best first; -1 and -inf where candidates ran out.
    """
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    step = max(1, GATHER_BYTES // (4 * queries.shape[1] * candidates.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        block = candidates[part]
        exact = _scores_of(queries[part], block, vectors_of)
        if not (exact[:, 1:] < exact[:, :-1]).all():  # hardly ever, of candidates that a search has ordered
            best = np.lexsort((block, -exact), axis=1)
            best = best + np.arange(0, block.size, block.shape[1])[:, None]  # numpy's take_along_axis takes longer
            block, exact = block.take(best), exact.take(best)
        rows[part], scores[part] = block[:, :k], exact[:, :k]
    return scores, rows


def _scores_of(queries: Vectors, candidates: Rows, vectors_of: VectorsOf) -> Scores:
    """Score candidates in one way: float32 (queries, candidates); -inf where there is none."""
    scores = np.empty(candidates.shape, np.float32)
    width = max(1, GATHER_BYTES // (4 * queries.shape[1] * max(1, len(queries))))
    for start in range(0, candidates.shape[1], width):
        block = candidates[:, start : start + width]
        gathered = vectors_of(np.maximum(block, 0).ravel()).reshape(*block.shape, -1)
        scores[:, start : start + width] = inner_products(queries, gathered)
    scores[candidates < 0] = -np.inf
    return scores


def inner_products(queries: Vectors, vectors: Vectors) -> Scores:
    """Multiply each query with vectors of its own, the same way whatever the batch and the processor.

    Products of two float32 are exact in float64, and their sum is off by some 1e-16: rounded to float32 it is the same
    in any order of adding.

    Args:
        queries: float32 (queries, dim).
        vectors: float32 (queries, vectors, dim).

    Returns:
        float32 (queries, vectors).
    """
    with np.errstate(over="ignore"):  # what a float32 cannot hold is told by who asked
        scores: Scores = wide_products(queries, vectors).astype(np.float32)
    return scores


def wide_products(queries: Vectors, vectors: Vectors) -> NDArray[np.float64]:
    """Do what `inner_products` does, not rounded: float64 (queries, vectors), which no two float32 vectors overflow."""
    products: NDArray[np.float64] = np.einsum(
        "qd,qvd->qv", queries, vectors, dtype=np.float64
    )  # without BLAS's threads
    return products


def rounding_error(queries: Vectors, largest_norm: float) -> Scores:
    """Bound what float32 arithmetic adds to or takes from a score, in whatever order it sums.

    n·u·|q|·|x| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), for n dimensions and a unit roundoff u.

    Args:
        queries: float32 (queries, dim).
        largest_norm: of the vectors that they are compared with.

    Returns:
        float32 (queries,).
    """
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("qd,qd->q", queries, queries)  # to which the hundredth below is enough
    if not (squares.min(initial=1.0) > TINY and squares.max(initial=1.0) < 1 / TINY):
        squares = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
    norms = np.sqrt(squares)
    with np.errstate(over="ignore"):  # an infinite bound holds, too
        return np.asarray(1.01 * queries.shape[1] * UNIT_ROUNDOFF * largest_norm * norms, dtype=np.float32)


def settled(
    search: Search,
    queries: Vectors,
    k: int,
    limit: int,
    error: Scores,
    vectors_of: VectorsOf,
    *,
    ties_alone: bool = False,
) -> tuple[Scores, Rows]:
    """Search exactly, and order by score and row what the search's rounding may have ordered otherwise.

    Args:
        search: scores every title, each score off by at most ``error``.
        queries: float32 (queries, dim).
        k: how many; at most ``limit``.
        limit: the most that ``search`` can be asked for.
        error: float32 (queries,), see `rounding_error`.
        vectors_of: returns the vectors of rows.
        ties_alone: leave scores that are not nearly tied as the search gave them, where scoring again on a CPU would
            take longer than the search.

    Returns:
        scores float32 and rows int64 (queries, k), best first, ties by row. Where ``limit`` titles are nearly tied,
        those that ``search`` found are ordered.
    """
    fetch = min(k + SPARE, limit)
    scores, rows = search(queries, fetch)
    settle = ties_rescored if ties_alone else _all_rescored
    best_scores, best_rows = settle(queries, scores, rows, k, error, vectors_of)
    active = np.flatnonzero(nearly_equal(scores[:, k - 1 : k], scores[:, -1:], error))
    while fetch < limit and len(active):
        fetch = min(limit, MORE_CANDIDATES * fetch)
        asked = np.ascontiguousarray(queries[active])
        scores, rows = search(asked, fetch)
        best_scores[active], best_rows[active] = settle(asked, scores, rows, k, error[active], vectors_of)
        active = active[nearly_equal(scores[:, k - 1 : k], scores[:, -1:], error[active])[:, 0]]
    return best_scores, best_rows


def _all_rescored(
    queries: Vectors, scores: Scores, rows: Rows, k: int, error: Scores, vectors_of: VectorsOf
) -> tuple[Scores, Rows]:
    """Score the k best again, and those after them where one of these may be better."""
    best_scores, best_rows = rescore(queries, np.ascontiguousarray(rows[:, :k]), k, vectors_of)
    near = np.flatnonzero(nearly_equal(scores[:, k - 1 : k], scores[:, k : k + 1], error).any(axis=1))
    if len(near):
        best_scores[near], best_rows[near] = rescore(queries[near], rows[near], k, vectors_of)
    return best_scores, best_rows


def ties_rescored(
    queries: Vectors, scores: Scores, rows: Rows, k: int, error: Scores, vectors_of: VectorsOf
) -> tuple[Scores, Rows]:
    """Score again only what is nearly tied with a neighbour, and leave the other scores as they are.

    Args:
        queries: float32 (queries, dim).
        scores: float32 (queries, candidates), descending.
        rows: int64 (queries, candidates); -1 where there is no title.
        k: how many to keep.
        error: float32 (queries,), see `rounding_error`.
        vectors_of: returns the vectors of rows.

    Returns:
        scores float32 and rows int64 (queries, k), best first, ties by row.
    """
    pairs = nearly_equal(scores[:, :-1], scores[:, 1:], error)
    tied = np.zeros(scores.shape, np.bool_)
    tied[:, :-1] |= pairs
    tied[:, 1:] |= pairs
    near = np.flatnonzero(tied.any(axis=1))
    best_scores, best_rows = np.ascontiguousarray(scores[:, :k]), np.ascontiguousarray(rows[:, :k])
    if len(near):
        mixed, candidates = scores[near], rows[near]
        at, place = np.nonzero(tied[near] & (candidates >= 0))
        mixed[at, place] = scores_of_pairs(queries, near[at], candidates[at, place], vectors_of)
        order = np.lexsort((candidates, -mixed), axis=1)[:, :k]
        best_scores[near] = np.take_along_axis(mixed, order, axis=1)
        best_rows[near] = np.take_along_axis(candidates, order, axis=1)
    return best_scores, best_rows


def scores_of_pairs(queries: Vectors, of: Rows, rows: Rows, vectors_of: VectorsOf) -> Scores:
    """Score single titles for single queries in one way.

    Args:
        queries: float32 (queries, dim).
        of: int64 (pairs,), which query.
        rows: int64 (pairs,), which title.
        vectors_of: returns the vectors of rows.

    Returns:
        float32 (pairs,).
    """
    scores = np.empty(len(rows), np.float32)
    step = max(1, GATHER_BYTES // (4 * queries.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scores[part] = inner_products(queries[of[part]], vectors_of(rows[part])[:, None, :])[:, 0]
    return scores


def nearly_equal(higher: Scores, lower: Scores, error: Scores) -> Mask:
    """Tell which scores rounding may have put in the wrong order; what was not found, -inf, is equal to nothing.

    Args:
        higher, lower: float32 (queries, n), or (queries, 1) for one that all are held against.
        error: float32 (queries,), see `rounding_error`.

    Returns:
        bool (queries, n).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(higher - lower <= 2 * error[:, None])


def scan(queries: Vectors, k: int, count: int, vectors_of: VectorsOf) -> tuple[Scores, Rows]:
    """Compare queries with every vector.

    Returns:
        scores float32 and rows int64 (queries, k), best first; ``k`` is at most ``count``.
    """
    faiss = load_faiss()
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, count, SCAN_ROWS):
        rows = np.arange(start, min(start + SCAN_ROWS, count), dtype=np.int64)
        scores, found = best_of_batch(queries, min(k, len(rows)), vectors_of(rows))
        heap.add_result(scores, found + start)
    heap.finalize()
    return heap.D, heap.I


def order_ties(scores: Scores, rows: Rows) -> None:
    """Put titles of equal score in row order, in place: float32 and int64 (queries, k), descending already."""
    flat = scores.ravel()
    if not (flat[1:] == flat[:-1]).any():  # many times cheaper than to look at each query apart, and nearly always all
        return
    tied = (scores[:, 1:] == scores[:, :-1]) & (rows[:, 1:] < rows[:, :-1])
    for query in np.flatnonzero(tied.any(axis=1)):
        order = np.lexsort((rows[query], -scores[query]))
        rows[query] = rows[query][order]
        scores[query] = scores[query][order]
