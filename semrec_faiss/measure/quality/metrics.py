"""How good an answer is: plain functions on arrays, one value per query, -1 where an answer or the truth has no title.

A title is judged by its exact score and not by its row, so that one which ties with the last of the exact list is as
good as that one. Ties fill only as many places as the exact list has for them: they cannot stand in for better titles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores, Values, Vectors

TIE_TOLERANCE = 2e-6
"""Scores this near, in proportion from 1 up, are one: float32 sums of a few hundred products differ by less."""

LEVEL = 0.95
"""How often an interval holds the true mean."""

GATHER_BYTES = 64 << 20
"""Vectors gathered at once while titles are scored."""

RESAMPLES = 2000
"""Of a bootstrap: its bounds are then steady in the third digit."""


def exact_scores(queries: Vectors, rows: Rows, vectors_of: Callable[[Rows], Vectors]) -> Scores:
    """Score titles exactly, whatever the index that found them thinks of them.

    Args:
        queries: float32 (queries, dim), prepared.
        rows: int64 (queries, k); -1 where there is none.
        vectors_of: returns the original vectors of rows, float32 (rows, dim).

    Returns:
        float32 (queries, k), inner products; -inf where there is no title.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    if not rows.size:
        return scores
    step = max(1, GATHER_BYTES // (4 * queries.shape[1] * rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        found, inverse = np.unique(np.maximum(block, 0), return_inverse=True)
        gathered = vectors_of(found)[inverse.reshape(block.shape)]
        products = np.matmul(gathered, queries[start : start + step, :, None])[:, :, 0]
        scores[start : start + step] = np.where(block < 0, -np.inf, products)
    return scores


def descending(scores: Scores) -> Scores:
    """Order scores, float32 (queries, k), the largest first: a GPU's and a CPU's sums of a list can differ in order."""
    return np.asarray(-np.sort(-scores, axis=1), dtype=np.float32)


def recall_at_k(rows: Rows, scores: Scores, truth_scores: Scores, *, tolerance: float = TIE_TOLERANCE) -> Values:
    """Return the share of each query's exact list that was found, ties credited.

    A title counts when its exact score is above the last one of the exact list, or ties with it while the list has
    places for ties. A title that is returned twice counts once.

    Args:
        rows: int64 (queries, k), what was found; -1 where there is none.
        scores: float (queries, k), its exact scores; see `exact_scores`.
        truth_scores: float (queries, k'), the exact list's, descending; -inf where fewer titles match.
        tolerance: scores that differ by less tie.

    Returns:
        float64 (queries,); NaN for a query that no title matches.
    """
    last, size, slack = _last_of_list(truth_scores, tolerance)
    counts = (rows >= 0) & ~_repeats(rows)
    above = counts & (scores > (last + slack)[:, None])
    tied = counts & ~above & (scores >= (last - slack)[:, None])
    places = size - (truth_scores > (last + slack)[:, None]).sum(axis=1)
    hits = np.minimum(above.sum(axis=1) + np.minimum(tied.sum(axis=1), places), size)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(size > 0, hits / np.maximum(size, 1), np.nan), dtype=np.float64)


def ndcg_at_k(rows: Rows, scores: Scores, truth_scores: Scores) -> Values:
    """Return each query's normalised discounted cumulative gain against the exact list.

    Järvelin and Kekäläinen (2002) with linear gain: of n exact titles the best gains n, the next n - 1, … and a title
    below them nothing; titles of equal score gain the same. The gain at rank r is divided by log2(r + 1), and the sum
    by that of the exact list.

    Args:
        rows: int64 (queries, k), what was found, best first; -1 where there is none.
        scores: float (queries, k), its exact scores.
        truth_scores: float (queries, k'), the exact list's, descending; -inf where fewer titles match.

    Returns:
        float64 (queries,); NaN for a query that no title matches.
    """
    last, size, slack = _last_of_list(truth_scores, TIE_TOLERANCE)
    counts = (rows >= 0) & ~_repeats(rows) & (scores >= (last - slack)[:, None])
    gains = np.where(counts, _gains(scores, truth_scores, size, slack), 0.0)
    ideal = np.where(np.isfinite(truth_scores), _gains(truth_scores, truth_scores, size, slack), 0.0)
    best = _discounted(ideal)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(size > 0, _discounted(gains) / best, np.nan), dtype=np.float64)


def fill_rate(rows: Rows, matching: Rows | int) -> Values:
    """Return how much of what each query could have got it got: returned / min(k, matching).

    Args:
        rows: int64 (queries, k); -1 where there is none.
        matching: how many titles each query may return: int64 (queries,), or one number for all.

    Returns:
        float64 (queries,); NaN for a query that no title matches.
    """
    possible = np.minimum(rows.shape[1], np.broadcast_to(matching, len(rows)))
    returned = ((rows >= 0) & ~_repeats(rows)).sum(axis=1)
    return np.asarray(np.where(possible > 0, returned / np.maximum(possible, 1), np.nan), dtype=np.float64)


def mean_of(values: Values) -> float | None:
    """Return the mean of those of float64 (n,) that are numbers; None when there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


@dataclass(frozen=True)
class Latency:
    """What a list of times says, in milliseconds; percentiles are linearly interpolated between the nearest two."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Latency:
        """Summarise times; raises ValueError when there is none."""
        if not len(times_ms):
            raise ValueError("no times to summarise")
        p50, p95, p99 = np.percentile(np.asarray(times_ms, dtype=np.float64), (50, 95, 99))
        return cls(float(np.mean(times_ms)), float(p50), float(p95), float(p99))


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean.

    Attributes:
        low: its lower bound.
        high: its upper bound.
        level: how often such an interval holds the true mean, 0.95 say.
        method: ``bootstrap`` or ``wilson``.
    """

    low: float
    high: float
    level: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as a results file holds it."""
        return {"low": round(self.low, 6), "high": round(self.high, 6), "level": self.level, "method": self.method}


def confidence_interval(values: Values, *, seed: int = 0) -> Interval | None:
    """Bound the mean of a share, such as recall, over all queries that might have been asked.

    Queries are what is drawn independently, not their k hits: Efron's percentile bootstrap over queries. Where all
    are 0 or all are 1 a bootstrap would claim certainty, so there it is Wilson's score interval with n = queries.

    Args:
        values: float (queries,), each from 0 to 1; NaN is left out.
        seed: of the resampling.

    Returns:
        The interval, or None when no value is a number.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    if (known == 0).all() or (known == 1).all():
        return wilson_interval(float(known.sum()), len(known))
    return _bootstrap(known, seed)


def difference_interval(differences: Values, *, seed: int = 0) -> Interval:
    """Bound the mean of differences that are paired, such as one's less another's ndcg for each user.

    Efron's percentile bootstrap over the pairs. Where all differences are 0 so is the interval: two methods that answer
    every user alike differ by nothing, however few users there are.

    Args:
        differences: float (queries,), at least one.
        seed: of the resampling.
    """
    return _bootstrap(differences, seed)


def _bootstrap(known: Values, seed: int) -> Interval:
    random = np.random.default_rng(seed)
    means = known[random.integers(0, len(known), (RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(low), float(high), LEVEL, "bootstrap")


def wilson_interval(successes: float, trials: int) -> Interval:
    """Return Wilson's (1927) score interval of a proportion."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(max(0.0, centre - half), min(1.0, centre + half), LEVEL, "wilson")


def _last_of_list(truth_scores: Scores, tolerance: float) -> tuple[Values, Rows, Values]:
    """Return the exact lists' last scores, their sizes, and how near a score must be to tie: all (queries,)."""
    size = np.isfinite(truth_scores).sum(axis=1).astype(np.int64)
    last = np.full(len(truth_scores), np.inf)
    some = size > 0
    last[some] = truth_scores[some, size[some] - 1]
    slack = tolerance * np.maximum(1.0, np.where(some, np.abs(last), 1.0))
    return last, size, np.asarray(slack, dtype=np.float64)


def _gains(scores: Scores, truth_scores: Scores, size: Rows, slack: Values) -> Values:
    """Gain of each title: the exact list's size less the number of its titles that score higher."""
    better = np.empty(scores.shape, np.float64)
    for query, (own, exact) in enumerate(zip(scores, truth_scores, strict=True)):
        ascending = exact[: size[query]][::-1]
        better[query] = size[query] - np.searchsorted(ascending, own + slack[query], side="right")
    return np.asarray(size[:, None] - better, dtype=np.float64)


def _discounted(gains: Values) -> Values:
    return np.asarray((gains / np.log2(np.arange(2, gains.shape[1] + 2))).sum(axis=1), dtype=np.float64)


def _repeats(rows: Rows) -> NDArray[np.bool_]:
    """Mark every title that its query returned at an earlier rank already: bool (queries, k)."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    marks = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(marks, order, again, axis=1)
    return marks & (rows >= 0)
