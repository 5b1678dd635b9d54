"""Searching for one query on a CPU by bounds first: FAISS reads those, and only titles that may be among the best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.cpu.products import best_of_one, in_threads
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.index.screening.bounds import SINGLE, Rounding

PART_ROWS = 16_384
"""Titles whose bounds one thread looks through at a time."""

FIRST = 32
"""The best bounds of each part that are looked at in any case; more where more results are wanted."""

MORE = 8
"""How many times as many are looked at where those do not suffice; if these do not either, all titles of the part."""

MOST_RESULTS = 128
"""With more results than this all titles are compared: too many bounds would have to be kept in order."""

DEAR_SHARE, MEMORY, TRIED_AGAIN = 1 / 16, 0.9, 16
"""Where queries leave more than this share of the titles on average over some ten of them, only every so-manieth is
searched by bounds."""


class Screen:
    """The bounds of an index's titles; safe from many threads."""

    def __init__(self, directions: NDArray[np.float64], bounds: NDArray[np.float16], rounding: Rounding) -> None:
        """Search ``bounds``.

        Args:
            directions: float64 (kept, dim), orthonormal.
            bounds: float16 (count, width), C-contiguous, in memory or mapped; see `write_bounds`.
            rounding: how they were made.
        """
        self._directions, self._bounds, self._rounding = directions, bounds, rounding
        self._width = int(bounds.shape[1])
        starts = range(0, len(bounds), PART_ROWS)
        self._parts = [(start, _half_precision(bounds[start : start + PART_ROWS])) for start in starts]
        self._left, self._asked = 0.0, 0

    @property
    def kept(self) -> int:
        """How many directions there are."""
        return len(self._directions)

    def suits(self, k: int) -> bool:
        """Tell whether ``k`` results are searched for by bounds."""
        return k <= min(MOST_RESULTS, len(self._bounds) // FIRST)

    def search(self, query: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
        """Find the k best titles, proven: whatever is not scored cannot reach the k-th score.

        Args:
            query: float32 (1, dim).
            k: one that `suits`.
            vectors: float32 (count, dim), C-contiguous, of all titles.

        Returns:
            scores float32, as FAISS adds them up, and rows int64 (1, k), best first, ties by row.
        """
        self._asked += 1
        length = math.sqrt(float(np.einsum("d,d->", query[0], query[0], dtype=np.float64)))
        dear = self._left > DEAR_SHARE * len(vectors) and self._asked % TRIED_AGAIN
        if dear or not 0.0 < length < math.inf:
            return best_of_one(query, k, vectors)
        bound, slack = self._bound_of(query[0].astype(np.float64) / length)
        unit = length / self._rounding.scale
        rows, scores = self._search(query, bound, slack, unit, k, vectors)
        self._left = MEMORY * self._left + (1.0 - MEMORY) * len(rows)
        best = np.lexsort((rows, -scores))[:k]
        return scores[best][None, :], rows[best][None, :]

    def _bound_of(self, query: NDArray[np.float64]) -> tuple[Vectors, float]:
        """Return the query's side of the bounds, float32 (1, width), and by how much a score may exceed its bound.

        For q of length 1, its coordinates q̂ and its rest: |rest|² = |q|² - |q̂|². The scaled title's rest may have a
        part along the directions, ``error``; float32 sums are off by n·u·|q|·|x| (Higham, 3.1).
        """
        along = np.einsum("pd,d->p", self._directions, query)
        bound = np.zeros((1, self._width), np.float32)
        bound[0, : self.kept] = along
        square = float(along @ along)
        rest = math.sqrt(max(0.0, 1.0 - square) + 1e-12)
        bound[0, self.kept] = rest * 1.000001
        rounding = 1.01 * (self._width + 3) * SINGLE * math.sqrt(square + rest * rest) * self._rounding.norm
        return bound, self._rounding.error * math.sqrt(square) + rounding + 1e-12

    def _search(
        self, query: Vectors, bound: Vectors, slack: float, unit: float, k: int, vectors: Vectors
    ) -> tuple[Rows, Scores]:
        """Score every title that may be among the k best: rows int64 and scores float32, in no order."""
        first = max(FIRST, k)
        found = in_threads(lambda part: _best_bounds(part, bound, first), self._parts)
        highest = np.concatenate([bounds for bounds, _ in found])
        rows = np.concatenate([rows for _, rows in found])
        sure = np.argpartition(-highest, k - 1)[:k] if k < len(rows) else np.arange(len(rows))
        scores = _scores(query, rows[sure], vectors)
        least = _rounded_down(float(scores.min()) / unit - slack)  # k titles have a score of at least that
        others = highest >= least
        others[sure] = False
        rows_found, scores_found = [rows[sure]], [scores]
        if others.any():
            rows_found.append(rows[others])
            scores_found.append(_scores(query, rows[others], vectors))
            least = max(least, _kth(scores_found, k, unit, slack))
        cut = [part for part, (bounds, _) in zip(self._parts, found, strict=True) if bounds[-1] >= least]
        if cut:  # where the bounds looked at do not go down as far
            more = np.concatenate(in_threads(lambda part: _bounds_above(part, bound, least, MORE * first), cut))
            more = np.setdiff1d(more, np.concatenate(rows_found), assume_unique=True)
            rows_found.append(more)
            scores_found.append(_scores(query, more, vectors))
        return np.concatenate(rows_found), np.concatenate(scores_found)


def _half_precision(bounds: NDArray[np.float16]) -> Any:
    """Let FAISS search bounds where they lie: what it calls fp16 codes are float16 numbers."""
    faiss = load_faiss()
    index = faiss.IndexScalarQuantizer(bounds.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.ntotal = True, len(bounds)
    held = bounds.view(np.uint8)
    codes, at = index.codes, faiss.swig_ptr(held)
    codes.is_owned, codes.view_data, codes.view_size, codes.c_ptr, codes.c_size = False, at, held.size, at, held.size
    return index


def _best_bounds(part: tuple[int, Any], bound: Vectors, first: int) -> tuple[Scores, Rows]:
    start, index = part
    with one_core():
        bounds, rows = index.search(bound, min(first, int(index.ntotal)))
    return bounds[0], rows[0] + start


def _bounds_above(part: tuple[int, Any], bound: Vectors, least: float, most: int) -> Rows:
    """List the titles whose bounds reach ``least``; all of them where those are more than ``most``."""
    bounds, rows = _best_bounds(part, bound, most)
    if len(bounds) < part[1].ntotal and bounds[-1] >= least:
        return np.arange(part[0], part[0] + part[1].ntotal, dtype=np.int64)
    return rows[bounds >= least]


def _kth(scores: list[Scores], k: int, unit: float, slack: float) -> float:
    every = np.concatenate(scores)
    return _rounded_down(float(np.partition(every, len(every) - k)[len(every) - k]) / unit - slack)


def _rounded_down(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def _scores(query: Vectors, rows: Rows, vectors: Vectors) -> Scores:
    faiss = load_faiss()
    scores = np.empty(len(rows), np.float32)
    rows = np.ascontiguousarray(rows)
    pointers = map(faiss.swig_ptr, (scores, query, vectors, rows))
    with one_core():
        faiss.fvec_inner_products_by_idx(*pointers, query.shape[1], 1, len(rows))
    return scores
