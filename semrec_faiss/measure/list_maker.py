"""Lists for users whose vectors are made anew: candidates from the index, a prior, and several interests merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.baselines import top
from semrec_faiss.measure.holdout import Split
from semrec_faiss.measure.profiles import Profile, interest_vectors, merge_lists, rating_weights
from semrec_faiss.progress import Progress
from semrec_faiss.search.restriction import Exclusions, Restriction
from semrec_faiss.search.topk import restricted_top_k

Rows = NDArray[np.int64]
Values = NDArray[np.float64]

LENGTH = 100
"""Titles of a list."""

QUERY_BLOCK = 1024


@dataclass
class _Candidates:
    """What the interests of a run of users found: rows and scores (queries, pool), and whose interest each query is."""

    rows: Rows
    scores: NDArray[np.float32]
    offsets: Rows


class ListMaker:
    """Makes lists by a profile; the candidates of the latest one are kept for those that only merge them otherwise."""

    def __init__(self, index: VectorIndex, liked: float, seed: int) -> None:
        """Search ``index``; titles rated at least ``liked`` count for popularity, and ``seed`` is of the clustering."""
        self._index = index
        self._liked = liked
        self._seed = seed
        self._kept: tuple[Any, _Candidates] | None = None

    def candidates_key(self, profile: Profile) -> tuple[Any, ...]:
        """Return what the candidates depend on, in a form that can be sorted by."""
        half_life = -1.0 if profile.half_life_days is None else profile.half_life_days
        return (half_life, profile.centre, profile.interests, bool(profile.popularity), self._fetch(profile))

    def _fetch(self, profile: Profile) -> int:
        wanted = max(profile.pool, LENGTH) if profile.popularity else LENGTH
        return min(wanted, self._index.count, self._index.k_limit or self._index.count)

    def lists(self, split: Split, users: Rows, profile: Profile, progress: Progress) -> Rows:
        """Return the users' lists: int64 (users, 100), -1 after the last title."""
        key = (id(split), self.candidates_key(profile))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._candidates(split, users, profile, progress))
        candidates = self._kept[1]
        scores = candidates.scores.astype(np.float64)
        if profile.popularity:
            counts = np.log1p(np.bincount(split.rest.rows[split.rest.ratings >= self._liked],
                                          minlength=self._index.count))  # fmt: skip
            prior = profile.popularity * counts / max(float(counts.max()), 1e-9)
            scores += np.where(candidates.rows >= 0, prior[np.maximum(candidates.rows, 0)], 0.0)
        lists = np.full((len(users), LENGTH), -1, np.int64)
        for position in range(len(users)):
            mine = slice(int(candidates.offsets[position]), int(candidates.offsets[position + 1]))
            rows, own = candidates.rows[mine], scores[mine]
            if profile.popularity:
                rows, own = _best_of_each(rows, own, LENGTH)
            lists[position] = merge_lists(rows, own, LENGTH, profile.merge)
        return lists

    def _candidates(self, split: Split, users: Rows, profile: Profile, progress: Progress) -> _Candidates:
        vectors: list[Values] = []
        for position, user in enumerate(users.tolist()):
            part = split.rest.part(user)
            weights = rating_weights(split.rest.ratings[part], split.rest.times[part], profile)
            own = self._index.vectors(split.rest.rows[part])
            vectors.append(interest_vectors(own, weights, profile.interests, self._seed)[0])
            if position % 100 == 0:
                progress("user vectors", position, len(users))
        progress("user vectors", len(users), len(users))
        counts = np.array([len(own) for own in vectors])
        offsets = np.concatenate(([0], np.cumsum(counts)))
        queries = self._index.prepare(np.concatenate(vectors)) if offsets[-1] else np.empty((0, 0), np.float32)
        seen = Exclusions.of([np.unique(split.rest.rows[split.rest.part(user)]).tolist() for user in users.tolist()])
        seen_by_query = seen.take(np.repeat(np.arange(len(users)), counts))
        fetch, is_pool = self._fetch(profile), bool(profile.popularity)
        rows, scores = self._search(queries, seen_by_query, fetch, is_pool, progress)
        return _Candidates(rows, scores, offsets)

    def _search(
        self, queries: NDArray[np.float32], seen: Exclusions, fetch: int, is_pool: bool, progress: Progress
    ) -> tuple[Rows, NDArray[np.float32]]:
        """Find each query's ``fetch`` best titles that are not seen: rows and scores (queries, fetch).

        Best first, but a pool that is to be reordered comes in the order of rows.
        """
        rows = np.full((len(queries), fetch), -1, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        # An exact index gives what a plain product gives, which is far faster when most titles are wanted.
        titles = self._index.vectors(np.arange(self._index.count)) if is_pool and self._index.exact else None
        for start in range(0, len(rows), QUERY_BLOCK):
            block = slice(start, min(start + QUERY_BLOCK, len(rows)))
            own, excluded = np.ascontiguousarray(queries[block]), seen.take(np.arange(block.start, block.stop))
            if titles is not None:
                rows[block], scores[block] = _scan(own, titles, excluded, fetch)
            else:
                found = restricted_top_k(self._index, own, fetch, Restriction(self._index.count, None, excluded))
                rows[block], scores[block] = found.rows, found.scores
            progress("searching", block.stop, len(rows))
        if is_pool and titles is None:
            order = np.argsort(rows, axis=1)
            rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return rows, scores


def _scan(
    queries: NDArray[np.float32], titles: NDArray[np.float32], seen: Exclusions, fetch: int
) -> tuple[Rows, NDArray[np.float32]]:
    """Return the ``fetch`` best titles that are not seen, in the order of rows; -1 and -inf where there are fewer."""
    scores = queries @ titles.T
    scores[np.repeat(np.arange(len(queries)), seen.counts), seen.rows] = -np.inf
    rows = np.broadcast_to(np.arange(len(titles)), scores.shape)
    if fetch < len(titles):
        rows = np.sort(np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch], axis=1)
        scores = np.take_along_axis(scores, rows, axis=1)
    return np.where(np.isneginf(scores), -1, rows), scores


def _best_of_each(rows: Rows, scores: Values, k: int) -> tuple[Rows, Values]:
    """Take the k best titles of each interest, best first, from pools in the order of rows."""
    width = min(k, rows.shape[1])
    best_rows = np.full((len(rows), width), -1, np.int64)
    best_scores = np.full((len(rows), width), -np.inf)
    for interest, (own, value) in enumerate(zip(rows, scores, strict=True)):
        best = top(np.where(own >= 0, value, -np.inf), width)
        best = best[own[best] >= 0]
        best_rows[interest, : len(best)], best_scores[interest, : len(best)] = own[best], value[best]
    return best_rows, best_scores
