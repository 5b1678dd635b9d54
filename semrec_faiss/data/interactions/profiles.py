"""Histories to weights by a `Profile`, and weights to one vector per user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Values, Vectors
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.factors import MOST_STARS, UNRATED
from semrec_faiss.data.users import History

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEAST_STARS = 0.5
SECONDS_A_DAY = 86_400.0
BLOCK_USERS = 8192
"""Users whose vectors are made at once."""

CANCELLED = 1e-6
"""What float32's rounding leaves of the mean of titles that cancel out, in proportion to theirs."""


def warn_of_scale(history: History, profile: Profile) -> None:
    """Warn, by RuntimeWarning, of ratings that are no stars where a profile takes them for such."""
    if history.ratings is None or np.isnan(history.ratings).all():
        return
    low, high = float(np.nanmin(history.ratings)), float(np.nanmax(history.ratings))
    taken = {"rating": "weigh (rating - 1) / 4", "liked": f"are liked from {profile.liked:g} on"}
    is_own = profile.weights == "liked" and profile.liked != Profile().liked
    if profile.weights not in taken or is_own or (low >= LEAST_STARS and high <= MOST_STARS):
        return
    warnings.warn(
        f"ratings go from {low:g} to {high:g}, but {taken[profile.weights]}, which is meant for {LEAST_STARS:g} to"
        f" {MOST_STARS:g} stars: bring them there, or choose other weights, such as centred",
        RuntimeWarning,
        stacklevel=2,
    )


def profile_weights(history: History, profile: Profile) -> Values:
    """Weigh what users have seen: float64 (n,), as ``history.rows``.

    A title that is seen and not rated weighs as one rated 3; where nothing is known of ratings, as one rated 5.

    """
    counts = np.diff(history.offsets)
    stars = np.full(len(history.rows), MOST_STARS)
    if history.ratings is not None:
        stars = np.nan_to_num(history.ratings.astype(np.float64), nan=UNRATED)
    weights = _stars_to_weights(stars, counts, profile)
    if history.timestamps is None:
        return weights
    if profile.half_life is not None:
        weights = weights * 0.5 ** (_places(history.timestamps, counts, weights != 0) / profile.half_life)
    if profile.half_life_days is not None:
        latest = _spread(_each(np.maximum, history.timestamps, history.offsets), counts)
        weights = weights * 0.5 ** ((latest - history.timestamps) / (profile.half_life_days * SECONDS_A_DAY))
    return np.asarray(weights)


def _stars_to_weights(stars: Values, counts: Rows, profile: Profile) -> Values:
    if profile.weights == "liked":
        return (stars >= profile.liked).astype(np.float64)
    plain = np.maximum((stars - 1.0) / 4.0, 0.0)
    if profile.weights == "rating":
        return plain
    offsets = np.concatenate(([0], np.cumsum(counts)))
    centred = stars - _spread(_each(np.add, stars, offsets) / np.maximum(counts, 1), counts)
    if profile.weights == "positive":
        centred = np.maximum(centred, 0.0)
    # Somebody who rates everything alike says nothing by it, but has chosen what to watch.
    says_something = _spread(_each(np.maximum, np.abs(centred), offsets) > 1e-9, counts)
    return np.where(says_something, centred, plain)


def _places(times: Rows, counts: Rows, weighed: Mask) -> Values:
    """Count the titles of weight that a user has rated since each: titles of one time share the mean of their places.

    Which of them came first nobody knows, and the order of a file must not decide it.
    """
    users = np.repeat(np.arange(len(counts)), counts)[weighed]
    times = times[weighed]
    order = np.lexsort((-times, users))
    users, times = users[order], times[order]
    starts = np.searchsorted(users, users)
    begins = np.ones(len(users), np.bool_)
    begins[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    group = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(users)) - 1
    places = np.zeros(len(weighed))
    own = np.empty(len(users))
    own[order] = ((first + last) / 2.0)[group] - starts if len(users) else own
    places[weighed] = own
    return places


def _each(reduce: np.ufunc, values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """Reduce each user's values: (users,); 0 for a user who has none."""
    some = np.flatnonzero(np.diff(offsets))
    found = np.zeros(len(offsets) - 1, values.dtype)
    if len(some):
        found[some] = reduce.reduceat(values, offsets[some])
    return found


def _spread(one_a_user: NDArray[Any], counts: Rows) -> NDArray[Any]:
    return np.repeat(one_a_user, counts)


def weight_matrix(history: History, weights: Values, titles: int) -> csr_matrix[Any]:
    """Return weights as a sparse float32 (users, titles) whose rows sum to 1 in magnitude, or are empty."""
    from scipy.sparse import csr_matrix

    counts = np.diff(history.offsets)
    sums = _spread(_each(np.add, np.abs(weights), history.offsets), counts)
    weighed = weights != 0
    offsets = np.concatenate(([0], np.cumsum(weighed)))[history.offsets]
    shares = (weights[weighed] / sums[weighed]).astype(np.float32)
    return csr_matrix((shares, history.rows[weighed], offsets), shape=(len(counts), titles))


def user_vectors(history: History, vectors: NDArray[Any], profile: Profile) -> Iterator[tuple[int, Vectors, Mask]]:
    """Yield (first user, float32 block, bool block) over the users' vectors: Σ weight · title / Σ |weight|.

    The truth values are of users of whom nothing is known that counts, or whose titles cancel out. They get the mean of
    all others, so that they are near what most people like; it is 0 where there is nobody else.

    Args:
        history: what users have seen.
        vectors: float (titles, dim).
        profile: how it is weighed; its interests and popularity are a matter of the search.
    """
    titles = np.asarray(vectors, dtype=np.float32)
    weights = profile_weights(history, profile)
    known = _each(np.maximum, weights, history.offsets) > 0
    each = _spread(_each(np.add, np.abs(weights), history.offsets), np.diff(history.offsets))
    shares = np.divide(weights, each, out=np.zeros_like(weights), where=each > 0).astype(np.float32)
    whole = np.bincount(history.rows, shares, minlength=len(titles)) / max(1, int(known.sum()))
    typical = whole.astype(np.float32) @ titles
    for first in range(0, len(known), BLOCK_USERS):
        mine = known[first : first + BLOCK_USERS].copy()
        block = np.empty((len(mine), titles.shape[1]), np.float32)
        for at in np.flatnonzero(mine).tolist():
            own = slice(history.offsets[first + at], history.offsets[first + at + 1])
            liked = titles[history.rows[own]]
            block[at] = shares[own] @ liked
            mine[at] = not _cancel_out(shares[own], liked, block[at])
        block[~mine] = typical
        yield first, block, ~mine


def _cancel_out(shares: Vectors, titles: Vectors, mean: Vectors) -> bool:
    """Tell whether titles of which some push away leave no more of their mean than rounding does."""
    if shares.min() >= 0 and mean.any():
        return False
    apart = float(np.abs(shares) @ np.linalg.norm(titles, axis=1))
    return float(np.linalg.norm(mean)) <= CANCELLED * apart
