"""Searching for one query on a CPU by bounds first: FAISS reads those, and only titles that may be among the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.index.cpu.exact import UNIT_ROUNDOFF
from semrec_faiss.index.cpu.products import in_threads
from semrec_faiss.index.cpu.views import halves_over
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.index.screening.bounds import Rounding

PART_ROWS = 16_384
"""Titles whose bounds one thread looks through at a time."""

FIRST = 48
"""The best bounds of each part that are looked at in any case; more where more results are wanted."""

MORE = 8
"""How many times as many are looked at where those do not suffice; if these do not either, all titles of the part."""

MOST_RESULTS, TITLES_A_RESULT = 128, 32
"""With more results than this, or fewer titles for each, all are compared: too many bounds would have to be kept in
order."""

DEAR_SHARE, MEMORY, TRIED_AGAIN = 1 / 16, 0.9, 16
"""A query that leaves more than this share of the titles is given up, as to compare all is cheaper; where queries do so
on average over some ten of them, only every so-manieth is searched by bounds."""


@dataclass(frozen=True)
class _Part:
    """Bounds that one thread looks through at a time.

    Attributes:
        start: the place of the first.
        index: FAISS's view of ``bounds``, which have to be kept.
        bounds: float16 (titles, width), C-contiguous.
        left: bool (titles,), which are titles still; None where all are.
    """

    start: int
    index: Any
    bounds: NDArray[np.float16]
    left: Mask | None = None

    @property
    def count(self) -> int:
        """How many titles there are."""
        return len(self.bounds)

    def places(self, found: Rows) -> tuple[Mask | slice, Rows]:
        """Tell which of the titles found are such still, and the places of those."""
        if self.left is None:
            return slice(None), found + self.start
        kept = self.left[found]
        return kept, found[kept] + self.start


def _parts_of(bounds: NDArray[np.float16], first: int, left: Mask | None = None) -> list[_Part]:
    """Cut the bounds of the titles from place ``first`` on into parts; ``left`` is bool (titles,), see `_Part`."""
    slices = [slice(start, start + PART_ROWS) for start in range(0, len(bounds), PART_ROWS)]
    return [
        _Part(first + own.start, halves_over(bounds[own]), bounds[own], None if left is None else left[own])
        for own in slices
    ]


class Screen:
    """The bounds of an index's titles; safe from many threads.

    A title's place is its row, unless there are segments: these come after all titles of the base, removed ones, too.

    Attributes:
        width: how many numbers a bound is.
    """

    def __init__(self, directions: NDArray[np.float64], bounds: NDArray[np.float16], rounding: Rounding) -> None:
        """Search ``bounds``.

        Args:
            directions: float64 (kept, dim), orthonormal.
            bounds: float16 (count, width), C-contiguous, in memory or mapped; see `write_bounds`.
            rounding: how they were made.
        """
        self._directions, self._bounds, self._rounding = directions, bounds, rounding
        self.width = int(bounds.shape[1])
        self._parts = _parts_of(bounds, 0)
        self._count = len(bounds)
        self._left, self._asked = 0.0, 0

    def with_segments(self, left: Rows, bounds: NDArray[np.float16], rounding: Rounding) -> Screen:
        """Return a screen of what is left of the titles, and of the segments' beside them.

        Args:
            left: int64, ascending, the titles that are left.
            bounds: float16 (titles, width), the segments'; see `bounds_of`.
            rounding: how they were made.
        """
        is_left = np.zeros(len(self._bounds), np.bool_)
        is_left[left] = True
        screen = Screen(self._directions, self._bounds, self._rounding.with_others(rounding))
        screen._parts = _parts_of(self._bounds, 0, is_left) + _parts_of(bounds, len(self._bounds))
        screen._count = len(left) + len(bounds)
        return screen

    @property
    def kept(self) -> int:
        """How many directions there are."""
        return len(self._directions)

    def suits(self, k: int) -> bool:
        """Tell whether ``k`` results are searched for by bounds."""
        return k <= min(MOST_RESULTS, self._count // TITLES_A_RESULT)

    def search(self, query: Vectors, k: int, *vectors: Vectors) -> tuple[Scores, Rows] | None:
        """Find the k best titles, proven: whatever is not scored cannot reach the k-th score.

        Args:
            query: float32 (1, dim).
            k: how many; at most as many as there are titles.
            vectors: float32 (count, dim), C-contiguous, of all titles of the base; and of the segments, if any.

        Returns:
            scores float32, as FAISS adds them up, and places int64 (1, k), best first, ties by place; None where
            ``k`` does not suit, or to compare all titles is cheaper.
        """
        if not self.suits(k):
            return None
        self._asked += 1
        length = math.sqrt(float(np.einsum("d,d->", query[0], query[0], dtype=np.float64)))
        dear = self._left > DEAR_SHARE * self._count and self._asked % TRIED_AGAIN
        if dear or not 0.0 < length < math.inf:
            return None
        bound, slack = self._bound_of(query[0].astype(np.float64) / length)
        unit = length / self._rounding.scale
        places, scores = self._search(query, bound, slack, unit, k, vectors)
        self._left = MEMORY * self._left + (1.0 - MEMORY) * len(places)
        if scores is None:
            return None
        best = np.lexsort((places, -scores))[:k]
        return scores[best][None, :], places[best][None, :]

    def _bound_of(self, query: NDArray[np.float64]) -> tuple[Vectors, float]:
        """Return the query's side of the bounds, float32 (1, width), and by how much a score may exceed its bound.

        For q of length 1, its coordinates q̂ and its rest: |rest|² = |q|² - |q̂|². The scaled title's rest may have a
        part along the directions, ``error``; float32 sums are off by n·u·|q|·|x| (Higham, 3.1).
        """
        along = np.einsum("pd,d->p", self._directions, query)
        bound = np.zeros((1, self.width), np.float32)
        bound[0, : self.kept] = along
        square = float(along @ along)
        rest = math.sqrt(max(0.0, 1.0 - square) + 1e-12)
        bound[0, self.kept] = rest * 1.000001
        rounding = 1.01 * (self.width + 3) * UNIT_ROUNDOFF * math.sqrt(square + rest * rest) * self._rounding.norm
        return bound, self._rounding.error * math.sqrt(square) + rounding + 1e-12

    def _search(
        self, query: Vectors, bound: Vectors, slack: float, unit: float, k: int, vectors: Sequence[Vectors]
    ) -> tuple[Rows, Scores | None]:
        """Score every title that may be among the k best, those of the highest bounds first, until no other can be.

        Returns:
            places int64 and scores float32, in no order; None for scores where to compare all titles is cheaper.
        """
        first = max(FIRST, k)
        found = in_threads(lambda part: _best_bounds(part, bound, first), self._parts)
        highest = np.concatenate([bounds for bounds, _, _ in found])
        order = np.argsort(-highest)
        highest, places = highest[order], np.concatenate([own for _, own, _ in found])[order]
        places_found, scores_found = [places[:0]], [np.empty(0, np.float32)]
        least, end, step = -math.inf, 0, k  # k titles have a score of at least ``least``
        while end < len(places) and highest[end] >= least:
            few = slice(end, end + int(np.count_nonzero(highest[end : end + step] >= least)))
            places_found.append(places[few])
            scores_found.append(_scores(query, places[few], vectors))
            least, end, step = _least(scores_found, k, unit, slack), end + step, 2 * step
        cut = [part for part, (_, _, last) in zip(self._parts, found, strict=True) if last >= least]
        if cut:  # where the bounds looked at do not go down as far
            more = np.concatenate(in_threads(lambda part: _bounds_above(part, bound, least, MORE * first), cut))
            more = np.setdiff1d(more, np.concatenate(places_found), assume_unique=True)
            if len(more) > max(PART_ROWS, DEAR_SHARE * self._count):
                return more, None
            places_found.append(more)
            scores_found.append(_scores(query, more, vectors))
        return np.concatenate(places_found), np.concatenate(scores_found)


def _best_bounds(part: _Part, bound: Vectors, first: int) -> tuple[Scores, Rows, float]:
    """Return the best bounds, without those of removed titles, and their places; and the least that was looked at."""
    with one_core():
        bounds, found = part.index.search(bound, min(first, part.count))
    kept, places = part.places(found[0])
    return bounds[0][kept], places, float(bounds[0, -1])


def _bounds_above(part: _Part, bound: Vectors, least: float, most: int) -> Rows:
    """List the titles whose bounds reach ``least``; all of them where those are more than ``most``."""
    bounds, places, last = _best_bounds(part, bound, most)
    if most < part.count and last >= least:
        return part.places(np.arange(part.count, dtype=np.int64))[1]
    return places[bounds >= least]


def _least(scores: list[Scores], k: int, unit: float, slack: float) -> float:
    """Return what a bound has to reach for its title to be among the k best, where these scores are some titles'."""
    every = np.concatenate(scores)
    if len(every) < k:
        return -math.inf
    return _rounded_down(float(np.partition(every, len(every) - k)[len(every) - k]) / unit - slack)


def _rounded_down(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def _scores(query: Vectors, places: Rows, vectors: Sequence[Vectors]) -> Scores:
    """Score titles by place, float32 (places,); ``vectors`` are the base's and then the segments'."""
    scores, first = np.empty(len(places), np.float32), 0
    for own in vectors:
        here = slice(None) if len(vectors) == 1 else (places >= first) & (places < first + len(own))
        scores[here] = _products(query, places[here] - first, own)
        first += len(own)
    return scores


def _products(query: Vectors, rows: Rows, vectors: Vectors) -> Scores:
    faiss = load_faiss()
    scores = np.empty(len(rows), np.float32)
    rows = np.ascontiguousarray(rows)
    pointers = map(faiss.swig_ptr, (scores, query, vectors, rows))
    with one_core():
        faiss.fvec_inner_products_by_idx(*pointers, query.shape[1], 1, len(rows))
    return scores
