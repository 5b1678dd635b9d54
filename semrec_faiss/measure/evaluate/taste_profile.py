"""Ways to turn what a user has rated into queries, and the lists that these find into one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.errors import UsageError
from semrec_faiss.index.device import load_faiss

SECONDS_A_DAY = 86_400.0
TITLES_AN_INTEREST = 2
"""A user has at most one interest for this many liked titles."""

MOST_INTERESTS = 64
MOST_POPULARITY = 1000.0

_ITERATIONS = 15


@dataclass(frozen=True)
class Profile:
    """How users are turned into queries; the defaults are what `semrec dataset movielens` does.

    Attributes:
        half_life_days: a rating counts half as much for every so many days before the user's latest; None: never less.
        centre: ``none`` weighs by (rating - 1) / 4; ``user`` by the rating less the user's mean, so that titles below
            it push away; ``positive`` the same without the pushing.
        interests: vectors a user, by spherical k-means over the titles of positive weight.
        merge: how the lists of several interests become one: ``score``, by each title's best score, or ``turns``, the
            interests taking turns, the heaviest first.
        popularity: what is added to a score for the most popular title; others get less, by the logarithm of how many
            users like them.
        pool: titles fetched an interest before popularity reorders them.
    """

    half_life_days: float | None = None
    centre: Literal["none", "user", "positive"] = "none"
    interests: int = 1
    merge: Literal["score", "turns"] = "score"
    popularity: float = 0.0
    pool: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.half_life_days is not None and not self.half_life_days > 0:
            raise UsageError(f"half_life_days is {self.half_life_days}; it must be above 0, or none")
        if self.centre not in ("none", "user", "positive"):
            raise UsageError(f"centre is {self.centre!r}; it must be none, user or positive")
        if self.merge not in ("score", "turns"):
            raise UsageError(f"merge is {self.merge!r}; it must be score or turns")
        if not 1 <= self.interests <= MOST_INTERESTS:
            raise UsageError(f"interests is {self.interests}; it must be from 1 to {MOST_INTERESTS}")
        if not 0 <= self.popularity <= MOST_POPULARITY:
            raise UsageError(f"popularity is {self.popularity}; it must be from 0 to {MOST_POPULARITY:g}")
        if self.pool < 1:
            raise UsageError(f"pool is {self.pool}; it must be at least 1")

    @classmethod
    def from_text(cls, values: dict[str, str]) -> Profile:
        """Read settings as a person writes them, ``none`` for None.

        Raises:
            UsageError: an unknown setting, or a value that it cannot have.
        """
        parsed: dict[str, Any] = {}
        for name, text in values.items():
            kind = _KINDS.get(name)
            if kind is None:
                raise UsageError(f"there is no setting {name!r}; there are {', '.join(_KINDS)}")
            try:
                parsed[name] = None if (name, text) == ("half_life_days", "none") else kind(text)
            except ValueError as error:
                raise UsageError(f"{name} is {text!r}; {_NAMES[kind]} is expected") from error
        return cls(**parsed)

    def describe(self) -> str:
        """Name what differs from the defaults: ``half_life_days=365, interests=4``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        told = [(name, value) for name, value in values.items() if value != getattr(type(self), name)]
        texts = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in told]
        return ", ".join(texts) or "defaults"


_KINDS: dict[str, type] = {
    "half_life_days": float,
    "centre": str,
    "interests": int,
    "merge": str,
    "popularity": float,
    "pool": int,
}
_NAMES = {float: "a number", int: "a whole number", str: "a word"}


def rating_weights(ratings: Values, times: Rows, profile: Profile) -> Values:
    """Weigh one user's ratings: float64 (n,); a title that is seen and not rated weighs as one rated 3.

    Args:
        ratings: float64 (n,), NaN where there is none.
        times: int64 (n,), seconds since 1970.
        profile: how.
    """
    known = np.where(np.isnan(ratings), 3.0, ratings)
    weights = np.maximum((known - 1.0) / 4.0, 0.0)
    if profile.centre != "none":
        centred = known - known.mean()
        if profile.centre == "positive":
            centred = np.maximum(centred, 0.0)
        # Somebody who rates everything alike says nothing by it, but has chosen what to watch.
        if np.abs(centred).max(initial=0.0) > 1e-9:
            weights = centred
    if profile.half_life_days is not None and len(times):
        weights = weights * 0.5 ** ((times.max() - times) / (profile.half_life_days * SECONDS_A_DAY))
    return np.asarray(weights, dtype=np.float64)


def interest_vectors(vectors: Vectors, weights: Values, interests: int, seed: int) -> tuple[Values, Values]:
    """Make the vectors of one user's interests.

    Args:
        vectors: float32 (n, dim), the rated titles'.
        weights: float64 (n,), from `rating_weights`.
        interests: how many at most.
        seed: of the clustering.

    Returns:
        float64 (interests, dim), not of unit length, and their weights (interests,), heaviest first; empty where no
        title has a positive weight or the titles cancel out.
    """
    wide = vectors.astype(np.float64)
    positive = np.flatnonzero(weights > 0)
    wanted = min(interests, max(1, len(positive) // TITLES_AN_INTEREST))
    if not len(positive):
        return np.empty((0, vectors.shape[1])), np.empty(0)
    if wanted == 1:
        mean = (weights @ wide)[None, :]
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
    return sums[order], heaviness[order]


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
