"""Candidates that single queries may still exclude: fetched until enough are left, and ordered among those."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.index.cpu.exact import Search, nearly_equal, rescore, scores_of_pairs, ties_rescored
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.index.vector_index import MOST_RESCORED, VectorIndex
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.restricted.restriction import Restriction

MARGIN = 8
"""Candidates over k among which what is nearly tied is put in order; where ties go on past them, all are settled."""


OVERFETCH_GROWTH = 4
"""How much more is asked for when a query came up short."""

PROBED, PROBED_OF = 64, 1024
"""So many queries of at least so many show how much the others need."""


def score_one_way(
    index: VectorIndex, queries: Vectors, block: Rows | slice, result: TopK, fetched: int, *, exact: Exactness
) -> None:
    """Score what is left of many candidates again: a CPU's search of many orders them, but scores few of them anew."""
    if exact and not index.device.gpus and fetched > MOST_RESCORED:
        result.scores[block] = _rescored(index, queries[block], result.rows[block])


def _rescored(index: VectorIndex, queries: Vectors, rows: Rows) -> Scores:
    """Score titles in one way, the same in any batch: float32 (queries, k); -inf where there is no title."""
    scores = np.full(rows.shape, -np.inf, np.float32)
    of, place = np.nonzero(rows >= 0)
    scores[of, place] = scores_of_pairs(queries, of, rows[of, place], index.vectors)
    return scores


@dataclass(frozen=True)
class Way:
    """How candidates are found that single queries may still exclude.

    Attributes:
        name: of the stage.
        search: the best of some queries, in their order.
        unsettled: the same without ordering what is nearly tied; None where nothing is ordered anew.
        limit: the most that can be asked for.
        looked_at: titles compared with a query, where that is not what is asked for.
    """

    name: str
    search: Search
    unsettled: Search | None
    limit: int
    looked_at: int | None


def best_allowed(
    index: VectorIndex, queries: Vectors, block: Rows, restriction: Restriction, result: TopK, way: Way, fetch: int
) -> Rows:
    """Put the best that each query may return into the result; return the queries for which they are too few.

    What is nearly tied is put in order among the few that are left, not among the many that are fetched.
    """
    k = result.rows.shape[1]
    if way.unsettled is None:
        found = _collected(queries, block, restriction, result, way, way.search, fetch, k)
        result.rows[block], result.scores[block] = found.rows, found.scores
    else:
        found = _collected(queries, block, restriction, result, way, way.unsettled, fetch + MARGIN, k + MARGIN)
        scores, rows, goes_on = _settled_among(index, queries[block], found.scores, found.rows, k)
        result.rows[block], result.scores[block] = rows, scores
        rest = block[goes_on]
        if len(rest):
            found = _collected(queries, rest, restriction, result, way, way.search, fetch, k)
            result.rows[rest], result.scores[rest] = found.rows, found.scores
            score_one_way(index, queries, rest, result, way.limit, exact=True)
    short: Rows = block[(result.rows[block] >= 0).sum(axis=1) < np.minimum(k, result.matching[block])]
    return short


def _settled_among(
    index: VectorIndex, queries: Vectors, scores: Scores, rows: Rows, k: int
) -> tuple[Scores, Rows, Mask]:
    """Put candidates of an exact search in order where they are nearly tied, and keep the best.

    Args:
        index: where they were found.
        queries: float32 (queries, dim), prepared.
        scores: float32 (queries, candidates), descending.
        rows: int64 (queries, candidates); -1 where there are no more.
        k: how many to keep.

    Returns:
        scores and rows (queries, k), and for which queries the ties go on to the last candidate: bool (queries,).
    """
    error = index.rounding_error(queries)
    goes_on = nearly_equal(scores[:, k - 1 : k], scores[:, -1:], error)[:, 0]
    if index.device.gpus:
        best_scores, best_rows = ties_rescored(queries, scores, rows, k, error, index.vectors)
    else:
        best_scores, best_rows = rescore(queries, rows, k, index.vectors)
    return best_scores, best_rows, goes_on


def _collected(
    queries: Vectors,
    block: Rows,
    restriction: Restriction,
    result: TopK,
    way: Way,
    search: Search,
    fetch: int,
    width: int,
) -> TopK:
    """Ask for more and more until each query has ``width`` titles that it may return, or all that match.

    Of many queries of an exact search, which finds the same however much is fetched, a few are asked first: as much
    as nine in ten of them needed, the others are asked for at once.
    """
    found = TopK.empty(len(block), width)
    wanted = np.minimum(width, result.matching[block])

    def fill(active: Rows, fetch: int) -> Rows:
        """Fill in the lists of some of the queries, and return how much each had to be asked for."""
        needed = np.full(len(found.rows), fetch, np.int64)
        asked = active
        while len(active):
            started = time.perf_counter()
            mine = block[active]
            is_whole = len(mine) == len(queries)  # nothing is copied then
            scores, rows = search(np.ascontiguousarray(queries if is_whole else queries[mine]), fetch)
            keep = (restriction if is_whole else restriction.take(mine)).allows(rows)
            take_first(rows, scores, keep, active, found)
            result.stages.append(Stage(way.name, len(active), way.looked_at or fetch, since(started)))
            active = active[keep.sum(axis=1) < wanted[active]]
            if fetch == way.limit:
                break
            fetch = min(way.limit, OVERFETCH_GROWTH * fetch)
            needed[active] = fetch
        return needed[asked]

    active, fetch = np.flatnonzero(wanted > 0), min(way.limit, fetch)
    if way.unsettled is not None and len(active) >= PROBED_OF:
        fetch = int(np.percentile(fill(active[:PROBED], fetch), 90, method="higher"))
        active = active[PROBED:]
    fill(active, fetch)
    return found


def take_first(rows: Rows, scores: Scores, keep: NDArray[np.bool_], queries: Rows, result: TopK) -> None:
    """Move the first k kept candidates of each query to the result."""
    place = np.cumsum(keep, axis=1) - 1
    of, at = np.nonzero(keep & (place < result.rows.shape[1]))
    to = queries[of], place[of, at]
    result.rows[queries], result.scores[queries] = -1, -np.inf
    result.rows[to], result.scores[to] = rows[of, at], scores[of, at]


def since(started: float) -> float:
    """Return the milliseconds since a moment of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1e3
