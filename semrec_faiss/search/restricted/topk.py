"""Top-k under a restriction: k results whenever k titles match, and an account of how they were found.

Four strategies, each usable by name:

- ``overfetch``: ask the index for more than k, drop what may not be returned, and ask again for more until every query
  of the batch is full. The only one that keeps an approximate index's speed under a mild filter on a GPU.
- ``subset``: gather the matching vectors once a batch and compare the queries with them exactly.
- ``selector``: FAISS's own, on CPU indexes; never on a GPU, where FAISS ignores it silently.
- ``masked``: inside the kernels of type fused on a GPU, which score nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.cpu.exact import SPARE
from semrec_faiss.index.exclusions import either
from semrec_faiss.index.search_result import SearchResult, score_overflow
from semrec_faiss.index.subset import scan_rows, search_selected
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.restricted.allowed import MARGIN, Way, best_allowed, score_one_way, since, take_first
from semrec_faiss.search.restricted.found import CountedLater, Stage, TopK, summed
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.strategy import Costs, choose_strategy

if TYPE_CHECKING:
    from semrec_faiss.index.fused.titles.users import HeldUsers
    from semrec_faiss.search.user_rows import UserRows

Strategy = Literal["auto", "overfetch", "subset", "selector", "masked"]
_STRATEGIES: tuple[str, ...] = get_args(Strategy)

QUERY_BLOCK = 4096
"""Queries restricted at once: bounds the candidate tables of an over-fetching search."""

GATHER_AT_ONCE_BYTES = 512 << 20
"""Matching vectors are gathered in one piece up to this size, and piece by piece beyond."""


FEW_EXCLUDED = 8
"""Up to so many rows that a query must not return, ``masked`` fetches as many more and drops those."""


def restricted_top_k(
    index: VectorIndex,
    queries: Vectors,
    k: int,
    restriction: Restriction,
    *,
    strategy: Strategy = "auto",
    gathered: Vectors | None = None,
    costs: Costs | None = None,
    prepared: bool = True,
) -> TopK:
    """Find the k best titles that each query may return.

    Args:
        index: where to look.
        queries: float32 (queries, dim), prepared by the index.
        k: how many, at least 1.
        restriction: what may be returned.
        strategy: how; ``auto`` chooses by matching count, batch, index type and device.
        gathered: the vectors of ``restriction.rows``, float32, where the caller keeps them.
        costs: measured costs to choose by; the built-in ones by default.
        prepared: False for numbers that an exact index prepares as it searches for them: nothing is restricted then.

    Raises:
        UsageError: k is out of range, where ``subset`` takes any; the strategy is unknown, is masked where the index is
            not of type fused on a GPU, or selector where FAISS has none.
        DataError: a score is larger than a float32 can hold.
    """
    if strategy not in _STRATEGIES:
        raise UsageError(f"unknown strategy {quoted(strategy)}; known: {', '.join(_STRATEGIES)}")
    k_limit = index.k_limit
    if k < 1 or (k_limit is not None and k > k_limit and strategy != "subset"):
        fix = None if k < 1 else index.out_of_k_limit
        raise UsageError(f"k is {k}; it must be from 1 to {k_limit or index.count}", fix=fix)
    k = min(k, index.count)
    groups = _answered_together(index, restriction, len(queries))
    if len(groups) > 1:
        parts = [
            restricted_top_k(
                index, queries[group], k, restriction.take(group), strategy=strategy, gathered=gathered, costs=costs
            )
            for group in groups
        ]
        return _joined(parts, groups, k)
    matching = restriction.allowed - restriction.excluded_counts(len(queries))
    if restriction.is_empty and (k_limit is None or k <= k_limit):
        result = _plain(index, queries, k, matching, prepared=prepared)
    elif strategy == "auto" and restriction.excludes_one_at_most and k < min(index.count, k_limit or index.count):
        result = _but_one(index, queries, k, restriction, matching)
    else:
        result = TopK.empty(len(queries), k, index.exact)
        result.matching = matching
        if strategy == "auto":
            strategy = choose_strategy(index, len(queries), k, restriction, costs, is_gathered=gathered is not None)
        _by_strategy(index, queries, restriction, strategy, gathered, result)
    _check_finite(index, result)
    return result


def _check_finite(index: VectorIndex, result: TopK) -> None:
    if not index.config.normalize and not np.isfinite(result.scores[result.rows >= 0]).all():
        raise score_overflow()


def users_top_k(index: VectorIndex, held: HeldUsers, asked: UserRows, k: int, restriction: Restriction) -> TopK:
    """Find the k best titles that users may be given whose vectors and seen titles are on the GPU.

    Args:
        index: of type fused, which holds them.
        held: the users there.
        asked: which of them.
        k: how many; at most the index's limit.
        restriction: the mask that they share, and few rows that they must not be given besides what they have seen.
    """
    started = time.perf_counter()
    besides = restriction.exclusions
    few = 0 if besides is None else int(besides.counts.max(initial=0))
    found = index.search_users(held, asked.rows, k + few, restriction.mask, without_seen=not asked.include_seen)
    rows, scores = found.rows, found.scores
    if few:  # as many more are found sooner than a bitmap is made
        kept = TopK.empty(len(asked), k)
        take_first(rows, scores, restriction.allows(rows), np.arange(len(asked)), kept)
        rows, scores = kept.rows, kept.scores
    stages = [Stage("masked", len(asked), k + few, since(started))]
    excluded = asked.excluded_counts
    is_plain = restriction.mask is None and excluded.max(initial=0) + few <= 1
    strategy = "index" if is_plain else "masked"

    def matching() -> Rows:
        if restriction.mask is None and besides is None:
            return restriction.allowed - excluded
        mine = replace(restriction, exclusions=either(asked.exclusions, besides))
        return restriction.allowed - mine.excluded_counts(len(asked))

    nothing = np.empty(0, np.int64)
    result = CountedLater(rows, scores, nothing, index.exact, strategy, stages, count=matching)
    _add_unproven(result, found.repeated, found.scanned, restriction.allowed)
    _check_finite(index, result)
    return result


def _answered_together(index: VectorIndex, restriction: Restriction, queries: int) -> list[Rows]:
    """Divide a batch into queries of one kind, so that each is answered as if it were asked alone; [] for one kind.

    How much is fetched, and how, hangs on how many titles the queries of a batch exclude. An exact search finds the
    same whatever is fetched; an approximate one does not.
    """
    if index.exact or index.fused is not None or restriction.exclusions is None or queries < 2:
        return []
    kinds = _up_to(restriction.exclusions.counts)
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]


def _up_to(counts: Rows) -> Rows:
    """Round up to 0 or a power of two."""
    exponents = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
    return np.where(counts == 0, 0, np.left_shift(np.int64(1), exponents))


def _joined(parts: Sequence[TopK], groups: Sequence[Rows], k: int) -> TopK:
    result = TopK.empty(sum(map(len, groups)), k)
    for part, group in zip(parts, groups, strict=True):
        result.rows[group], result.scores[group], result.matching[group] = part.rows, part.scores, part.matching
    result.exact = all(part.exact for part in parts)
    result.strategy = "+".join(dict.fromkeys(name for part in parts for name in part.strategy.split("+")))
    result.stages = summed([stage for part in parts for stage in part.stages])
    return result


def _by_strategy(
    index: VectorIndex,
    queries: Vectors,
    restriction: Restriction,
    strategy: Strategy,
    gathered: Vectors | None,
    result: TopK,
) -> None:
    """Fill the result in one of the four ways, and tell which."""
    run = {"overfetch": _over_fetch, "subset": _subset, "selector": _selector, "masked": _masked}[strategy]
    result.strategy = strategy
    step = max(1, len(queries)) if strategy == "masked" else QUERY_BLOCK  # the kernels' searcher has blocks of its own
    for start in range(0, len(queries), step):
        block = np.arange(start, min(start + step, len(queries)))
        run(index, queries, block, restriction, gathered, result)
    if strategy == "subset":
        result.exact = True
    if strategy in ("overfetch", "masked") and restriction.excludes_one_at_most:
        result.strategy = "index"  # k + 1 and the title itself left out is no more than a search of the index
    if any(stage.name == "subset" for stage in result.stages) and strategy != "subset":
        result.strategy += "+subset"
    result.stages = summed(result.stages)


def _plain(index: VectorIndex, queries: Vectors, k: int, matching: Rows, *, prepared: bool) -> TopK:
    started = time.perf_counter()
    found = index.search(queries, k, prepared=prepared)
    stage = Stage("index", len(queries), k, since(started))
    return _as_found(index, queries, found, matching, stage)


def _but_one(index: VectorIndex, queries: Vectors, k: int, restriction: Restriction, matching: Rows) -> TopK:
    """Search for one more and leave out the title that a query excludes: what every question about a title comes to."""
    started = time.perf_counter()
    found = index.search(queries, k + 1, prepared=True)
    excluded = restriction.excluded_one(len(queries))
    if (found.rows[:, 0] == excluded).all():  # nothing is more like a title than itself
        kept = replace(found, rows=found.rows[:, 1:], scores=found.scores[:, 1:])
    else:
        keep = found.rows != excluded[:, None]
        keep[keep.all(axis=1), -1] = False
        kept = replace(found, rows=found.rows[keep].reshape(-1, k), scores=found.scores[keep].reshape(-1, k))
    stage = Stage("overfetch" if index.fused is None else "masked", len(queries), k + 1, since(started))
    return _as_found(index, queries, kept, matching, stage)


def _as_found(index: VectorIndex, queries: Vectors, found: SearchResult, matching: Rows, stage: Stage) -> TopK:
    """Return what a search of the index has found, and the account of it."""
    result = TopK(found.rows, found.scores, matching, found.exact, found.strategy, [stage])
    _add_unproven(result, found.repeated, found.scanned, index.count)
    score_one_way(index, queries, slice(None), result, stage.fetched, exact=index.exact)
    return result


def _masked(
    index: VectorIndex, queries: Vectors, block: Rows, restriction: Restriction, gathered: Vectors | None, result: TopK
) -> None:
    """Let the kernels score only what may be returned: k titles whenever k match."""
    started = time.perf_counter()
    k = result.rows.shape[1]
    is_whole = len(block) == len(queries)  # as it nearly always is: nothing is copied then
    mine, asked = (restriction, queries) if is_whole else (restriction.take(block), queries[block])
    few = 0 if mine.exclusions is None else int(mine.exclusions.counts.max(initial=0))
    if few <= FEW_EXCLUDED and k + few <= min(index.count, index.k_limit or index.count):
        # The title that was asked about: one more is found sooner than a bitmap is made.
        found = index.search_allowed(asked, k + few, restriction.mask)
        take_first(found.rows, found.scores, mine.allows(found.rows), block, result)
    else:
        few = 0
        found = index.search_allowed(asked, k, restriction.mask, mine.exclusions)
        result.rows[block], result.scores[block] = found.rows, found.scores
    result.stages.append(Stage("masked", len(block), k + few, since(started)))
    _add_unproven(result, found.repeated, found.scanned, restriction.allowed)


def _add_unproven(result: TopK, repeated: int, scanned: int, titles: int) -> None:
    """Tell how many queries type fused searched again before it could prove their answers; part of the time before."""
    if repeated:
        result.stages.append(Stage("more candidates", repeated, 8 * result.rows.shape[1], 0.0))
    if scanned:
        result.stages.append(Stage("all titles", scanned, titles, 0.0))


def _over_fetch(
    index: VectorIndex, queries: Vectors, block: Rows, restriction: Restriction, gathered: Vectors | None, result: TopK
) -> None:
    def search(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
        found = index.search(asked, fetch, prepared=True)
        return found.scores, found.rows

    limit = min(index.count, index.k_limit or index.count)
    fetch = _first_fetch(index, result.rows.shape[1], block, restriction)
    if index.is_screened(len(queries), fetch + MARGIN - SPARE):
        result.exact = "proven"
    way = Way("overfetch", search, index.unsettled if index.exact and index.fused is None else None, limit, None)
    short = best_allowed(index, queries, block, restriction, result, way, fetch)
    if len(short):
        _subset(index, queries, short, restriction, gathered, result)


def _first_fetch(index: VectorIndex, k: int, block: Rows, restriction: Restriction) -> int:
    """Ask for what fills most queries at once: k over the share allowed, and what they may exclude of the best."""
    share = max(restriction.allowed, 1) / index.count
    excluded = _excluded_by_most(index, block, restriction)
    if index.exact:
        excluded = _among_the_best(k, excluded)
    return math.ceil(((k if share == 1 else 1.25 * k) + excluded) / share)


def _among_the_best(k: int, excluded: int) -> int:
    """Return how many more than k to ask for at first, of queries that exclude so many: few of them are near the top.

    Fetching all that a user has seen would take a GPU five times as long; whom that leaves short is asked about again.
    FAISS's selection there takes as long for any number up to the next power of two.
    """
    wanted = k + MARGIN
    return min(excluded, (1 << (wanted + wanted // 2 - 1).bit_length()) - wanted)


def _excluded_by_most(index: VectorIndex, block: Rows, restriction: Restriction) -> int:
    """Return what nine in ten queries exclude; of an approximate index what all of their kind may exclude."""
    is_whole = restriction.exclusions is None or len(block) == len(restriction.exclusions)
    mine = restriction if is_whole else restriction.take(block)
    if index.exact or mine.exclusions is None:
        return int(np.percentile(mine.excluded_counts(len(block)), 90))
    return int(_up_to(mine.exclusions.counts).max(initial=0))


def _subset(
    index: VectorIndex, queries: Vectors, block: Rows, restriction: Restriction, gathered: Vectors | None, result: TopK
) -> None:
    """Scan the matching rows; queries that exclude some of them take as many more and drop those."""
    rows = restriction.rows
    if not len(rows) or not len(block):
        return
    if gathered is None and 4 * index.dim * len(rows) <= GATHER_AT_ONCE_BYTES:
        gathered = index.vectors(rows)

    def search(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
        return scan_rows(index, asked, fetch, rows, gathered)

    def unsettled(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
        return scan_rows(index, asked, fetch, rows, gathered, settle=False)

    k = result.rows.shape[1]
    excluded = _among_the_best(k, int(np.percentile(restriction.excluded_counts(len(queries))[block], 90)))
    way = Way("subset", search, unsettled, len(rows), len(rows))
    best_allowed(index, queries, block, restriction, result, way, k + excluded)


def _selector(
    index: VectorIndex, queries: Vectors, block: Rows, restriction: Restriction, gathered: Vectors | None, result: TopK
) -> None:
    k = result.rows.shape[1]
    mask = np.ones(index.count, np.bool_) if restriction.mask is None else restriction.mask
    started = time.perf_counter()
    fetch = min(index.count, k + _excluded_by_most(index, block, restriction))
    scores, found = search_selected(index, np.ascontiguousarray(queries[block]), fetch, mask)
    keep = restriction.take(block).allows(found)
    take_first(found, scores, keep, block, result)
    result.stages.append(Stage("selector", len(block), fetch, since(started)))
    score_one_way(index, queries, block, result, fetch, exact=index.exact)
    short = block[keep.sum(axis=1) < np.minimum(k, result.matching[block])]
    if len(short):
        _subset(index, queries, short, restriction, gathered, result)
