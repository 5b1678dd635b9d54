"""What a user likes as several vectors, and the lists that these find as one."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.index.hardware.device import load_faiss

TITLES_AN_INTEREST = 2
"""A user has at most one interest for this many liked titles."""

_ITERATIONS = 15


def interest_vectors(vectors: Vectors, weights: Values, interests: int, seed: int) -> tuple[Values, Values]:
    """Make the vectors of one user's interests.

    Args:
        vectors: float32 (n, dim), the rated titles'.
        weights: float64 (n,), from `profile_weights`.
        interests: how many at most.
        seed: of the clustering.

    Returns:
        float64 (interests, dim), weighted means of titles, and their weights (interests,), heaviest first; empty where
        no title has a positive weight or the titles cancel out.
    """
    wide = vectors.astype(np.float64)
    positive = np.flatnonzero(weights > 0)
    wanted = min(interests, max(1, len(positive) // TITLES_AN_INTEREST))
    if not len(positive):
        return np.empty((0, vectors.shape[1])), np.empty(0)
    if wanted == 1:
        mean = (weights @ wide)[None, :] / np.abs(weights).sum()
        return (mean, np.array([weights[positive].sum()])) if np.linalg.norm(mean) > 1e-9 else (mean[:0], np.empty(0))
    faiss = load_faiss()
    kmeans = faiss.Kmeans(
        vectors.shape[1], wanted, niter=_ITERATIONS, spherical=True, seed=seed, min_points_per_centroid=1
    )
    chosen = np.ascontiguousarray(vectors[positive])
    kmeans.train(chosen, weights=weights[positive].astype(np.float32))
    _, nearest = kmeans.index.search(chosen, 1)
    sums = np.zeros((wanted, vectors.shape[1]))
    np.add.at(sums, nearest[:, 0], weights[positive, None] * wide[positive])
    heaviness = np.bincount(nearest[:, 0], weights=weights[positive], minlength=wanted).astype(np.float64)
    order = [c for c in np.argsort(-heaviness, kind="stable") if np.linalg.norm(sums[c]) > 1e-9]
    return sums[order] / heaviness[order, None], heaviness[order]


def merge_lists(rows: Rows, scores: Values, k: int, merge: str) -> Rows:
    """Make one list of those of a user's interests: int64 (k,), best first, no title twice; -1 after the last.

    Args:
        rows: int64 (interests, pool), best first, heaviest interest first; -1 where there is none.
        scores: float64 (interests, pool).
        k: how many titles.
        merge: ``score`` or ``turns``; see `Profile`.
    """
    if merge == "turns":
        flat = rows.T.ravel()
    else:
        keys = np.where(rows >= 0, scores, -np.inf).ravel()
        flat = rows.ravel()[np.lexsort((rows.ravel(), -keys))]
    flat = flat[flat >= 0]
    _, first = np.unique(flat, return_index=True)
    best = flat[np.sort(first)][:k]
    return np.concatenate((best, np.full(k - len(best), -1, np.int64)))
