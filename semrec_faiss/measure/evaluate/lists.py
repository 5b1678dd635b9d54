"""Lists for users whose vectors are made anew: candidates from the index, a prior, and several interests merged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.profiles import profile_weights
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.evaluate.holdout import Split
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.profile.interests import interest_vectors
from semrec_faiss.search.profile.merging import added_by_popularity, blocks_of_users, merged
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.topk import restricted_top_k

LENGTH = 100
"""Titles of a list."""

SCANNED_BYTES = 1 << 30
"""Vectors that are scanned for a pool; of larger indexes a pool is found by their own search."""

BLOCK_CELLS = 8 << 20
"""Titles looked at for a block of users, all queries together: bounds the memory."""


@dataclass(frozen=True)
class _Queries:
    """The interests of some users: float32 (queries, dim); user i's are from ``offsets[i]`` to ``offsets[i + 1]``."""

    vectors: Vectors
    offsets: Rows


class ListMaker:
    """Makes lists by a profile; the queries of the latest one are kept for those that only merge or reorder."""

    def __init__(self, index: VectorIndex, liked: float, seed: int) -> None:
        """Search ``index``; titles rated at least ``liked`` count for popularity, and ``seed`` is of the clustering."""
        self._index = index
        self._liked = liked
        self._seed = seed
        self._kept: tuple[Any, _Queries] | None = None

    @property
    def _can_scan(self) -> bool:
        """Whether a product with all titles gives what the index would, and their vectors may be held once more."""
        return self._index.exact and 4 * self._index.count * self._index.dim <= SCANNED_BYTES

    @cached_property
    def _titles(self) -> Vectors:
        return self._index.vectors(np.arange(self._index.count))

    def lists(self, split: Split, profile: Profile, progress: Progress = silent) -> Rows:
        """Return the lists of the split's users: int64 (users, 100), -1 after the last title."""
        users = split.users
        key = (id(split), queries_key(profile))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._queries(split, profile, progress))
        queries = self._kept[1]
        fetch = self._fetch(profile)
        prior = self._prior(split, profile) if profile.popularity else None
        lists = np.full((len(users), LENGTH), -1, np.int64)
        looked_at = self._index.count if prior is not None and self._can_scan else fetch
        for block in blocks_of_users(queries.offsets, max(1, BLOCK_CELLS // looked_at)):
            seen = [np.unique(split.known.rows[split.known.part(user)]).tolist() for user in users[block].tolist()]
            offsets = queries.offsets[block.start : block.stop + 1]
            exclusions = Exclusions.of(seen).take(np.repeat(np.arange(len(seen)), np.diff(offsets)))
            own = np.ascontiguousarray(queries.vectors[offsets[0] : offsets[-1]])
            restriction = Restriction(self._index.count, split.candidates, exclusions)
            rows, scores = self.find(own, restriction, fetch, is_pool=prior is not None)
            values = scores.astype(np.float64)
            if prior is not None:
                values += prior[np.maximum(rows, 0)]
            lists[block], _ = merged(rows, values, np.diff(offsets), LENGTH, profile.merge)
            progress("searching", block.stop, len(users))
        return lists

    def _fetch(self, profile: Profile) -> int:
        wanted = max(profile.pool, LENGTH) if profile.popularity else LENGTH
        return min(wanted, self._index.count, self._index.k_limit or self._index.count)

    def _prior(self, split: Split, profile: Profile) -> Values:
        liked = split.rest.rows[split.rest.ratings >= self._liked]
        return added_by_popularity(profile, np.bincount(liked, minlength=self._index.count))

    def _queries(self, split: Split, profile: Profile, progress: Progress) -> _Queries:
        vectors: list[Values] = []
        users = split.users
        known = split.known.of_users(users)
        weights = profile_weights(known.history, profile)
        with one_core():
            for position in range(len(users)):
                part = known.part(position)
                # In the order of rows, as an index holds a history: the clustering starts from it.
                order = np.argsort(known.rows[part], kind="stable")
                own = self._index.vectors(known.rows[part][order])
                vectors.append(interest_vectors(own, weights[part][order], profile.interests, self._seed)[0])
                if position % 100 == 0:
                    progress("user vectors", position, len(users))
        progress("user vectors", len(users), len(users))
        offsets = np.concatenate(([0], np.cumsum([len(own) for own in vectors])))
        made = np.concatenate(vectors)
        return _Queries(self._index.prepare(made) if len(made) else made.astype(np.float32), offsets)

    def find(self, queries: Vectors, restriction: Restriction, fetch: int, *, is_pool: bool) -> tuple[Rows, Vectors]:
        """Find each query's ``fetch`` best titles that it may return: rows and scores, both (queries, fetch).

        Best first; but a pool, which is to be reordered, comes in the order of rows.
        """
        if not len(queries):
            return np.empty((0, fetch), np.int64), np.empty((0, fetch), np.float32)
        if is_pool and self._can_scan:
            # What its search gives, a plain product gives, which is far faster when most titles are wanted.
            return _scan(queries, self._titles, restriction, fetch)
        found = restricted_top_k(self._index, queries, fetch, restriction)
        if not is_pool:
            return found.rows, found.scores
        order = np.argsort(found.rows, axis=1)
        return np.take_along_axis(found.rows, order, axis=1), np.take_along_axis(found.scores, order, axis=1)


def queries_key(profile: Profile) -> tuple[Any, ...]:
    """Return what a user's queries depend on, in a form that can be sorted by."""
    lives = [-1.0 if life is None else life for life in (profile.half_life, profile.half_life_days)]
    return (profile.weights, profile.liked, *lives, profile.interests)


def _scan(queries: Vectors, titles: Vectors, restriction: Restriction, fetch: int) -> tuple[Rows, Vectors]:
    """Return the ``fetch`` best titles that it may return, in the order of rows; -1 and -inf where there are fewer."""
    scores = queries @ titles.T
    seen = restriction.exclusions
    if seen is not None:
        scores[np.repeat(np.arange(len(queries)), seen.counts), seen.rows] = -np.inf
    if restriction.mask is not None:
        scores[:, ~restriction.mask] = -np.inf
    rows = np.broadcast_to(np.arange(len(titles)), scores.shape)
    if fetch < len(titles):
        rows = np.sort(np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch], axis=1)
        scores = np.take_along_axis(scores, rows, axis=1)
    return np.where(np.isneginf(scores), -1, rows), scores
