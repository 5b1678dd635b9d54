"""What a user likes as several vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.faiss_threads import one_core

TITLES_AN_INTEREST = 2
"""A user has at most one interest for this many liked titles."""

LEAST_WEIGHT = 1e-30
"""What a title weighs in a clustering at least: FAISS divides by a cluster's weight, and ends the process where that
overflows float32."""

_ITERATIONS = 15


@dataclass(frozen=True)
class Weighed:
    """What users have seen; user i's is from ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        offsets: int64 (users + 1,).
        rows: int64 (n,), titles.
        weights: float64 (n,), from `profile_weights`.
    """

    offsets: Rows
    rows: Rows
    weights: Values


@dataclass(frozen=True)
class Interests:
    """What users are interested in.

    Attributes:
        queries: float32 (interests, dim), one user's after another's.
        counts: int64 (users,), how many each has; 0 of whom nothing is known.
    """

    queries: Vectors
    counts: Rows

    @property
    def owners(self) -> Rows:
        """Whose each interest is: int64 (interests,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, users: Rows) -> Interests:
        """Return those of some users, whose places ascend."""
        mine = slice(None) if len(users) == len(self.counts) else np.isin(self.owners, users)
        return Interests(self.queries[mine], self.counts[users])


def interest_vectors(vectors: Vectors, weights: Values, interests: int, seed: int) -> tuple[Values, Values]:
    """Make the vectors of one user's interests.

    Args:
        vectors: float32 (n, dim), the rated titles'.
        weights: float64 (n,), from `profile_weights`.
        interests: how many at most.
        seed: of the clustering.

    Returns:
        float64 (interests, dim), weighted means of titles, and their weights (interests,) in proportion, heaviest
        first; empty where no title has a positive weight or the titles cancel out.
    """
    wide = vectors.astype(np.float64)
    positive = np.flatnonzero(weights > 0)
    wanted = min(interests, max(1, len(positive) // TITLES_AN_INTEREST))
    if not len(positive):
        return np.empty((0, vectors.shape[1])), np.empty(0)
    if wanted == 1:
        mean = (weights @ wide)[None, :] / np.abs(weights).sum()
        return (mean, np.array([weights[positive].sum()])) if np.linalg.norm(mean) > 1e-9 else (mean[:0], np.empty(0))
    liked = np.ldexp(weights[positive], 1 - np.frexp(weights.max())[1])  # the largest from 1 to 2: they may be all old
    nearest = _clusters(np.ascontiguousarray(vectors[positive]), liked, wanted, seed)
    weighted = liked[:, None] * wide[positive]
    sums = np.stack([weighted[nearest == cluster].sum(axis=0) for cluster in range(wanted)])
    heaviness = np.bincount(nearest, weights=liked, minlength=wanted).astype(np.float64)
    order = np.argsort(-heaviness, kind="stable")
    order = order[np.linalg.norm(sums[order], axis=1) > 1e-9]
    return sums[order] / heaviness[order, None], heaviness[order]


def _clusters(vectors: Vectors, weights: Values, wanted: int, seed: int) -> Rows:
    """Tell to which of ``wanted`` clusters each of a user's titles belongs, by spherical k-means: int64 (n,).

    A history is so small that other cores would be waited for longer than they work.
    """
    faiss = load_faiss()
    settings = faiss.ClusteringParameters()
    settings.niter, settings.spherical, settings.seed, settings.min_points_per_centroid = _ITERATIONS, True, seed, 1
    clustering, centroids = faiss.Clustering(vectors.shape[1], wanted, settings), faiss.IndexFlatIP(vectors.shape[1])
    with one_core():
        clustering.train(vectors, centroids, np.maximum(weights, LEAST_WEIGHT).astype(np.float32))
        _, nearest = centroids.search(vectors, 1)
    return np.asarray(nearest[:, 0])
