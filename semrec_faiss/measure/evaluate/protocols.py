"""Other ways to leave out than the latest: by the clock, by users, by titles; each a list of splits.

A recommender can do well on each user's latest titles by what only hindsight knows: what others did later, what is
learned from the very users that it is asked about, and what everybody has rated already. Each protocol takes one away.
"""

from __future__ import annotations

import itertools

import numpy as np

from semrec_faiss.arrays import Mask, Rows
from semrec_faiss.measure.evaluate.holdout import Ratings, Split, padded

TIME_BLOCKS = 10
USER_FOLDS = 5
COLD_SHARE = 0.05
COLD_DRAWS = 5
"""A twentieth of the titles differs much from the next one: by how many of the best loved it holds."""


def global_time(ratings: Ratings, latest: Split) -> list[Split]:
    """Leave out the latest, and of all others everything that they did later: nobody's future is known.

    Users stand in the order in which the first of their titles left out was rated, in 10 blocks of equal size; a block
    learns from what was rated before its first user's. The first block would learn from next to nothing: it is left
    out.

    Args:
        ratings: of all users.
        latest: a strict split of them by `hold_out_latest`.
    """
    starts = latest.known.offsets[latest.users + 1] - latest.known.offsets[latest.users]
    cuts = ratings.times[ratings.offsets[latest.users] + starts]
    order = np.argsort(cuts, kind="stable")
    splits = []
    for block in np.array_split(order, TIME_BLOCKS)[1:]:
        if not len(block):
            continue
        rest = ratings.where(ratings.times < cuts[block[0]])
        splits.append(Split(rest, latest.known, latest.users[np.sort(block)], latest.held_out[np.sort(block)]))
    return [split for split in splits if len(split.rest.rows)]


def new_users(latest: Split, seed: int) -> list[Split]:
    """Learn from four fifths of the users, and recommend to the other fifth by what they did before their latest."""
    fold_of = np.random.default_rng(seed).permutation(latest.known.users) % USER_FOLDS
    splits = []
    for fold in range(USER_FOLDS):
        mine = np.flatnonzero(fold_of[latest.users] == fold)
        rest = latest.rest.where(fold_of[latest.rest.user_of] != fold)
        if len(mine) and len(rest.rows):
            splits.append(Split(rest, latest.known, latest.users[mine], latest.held_out[mine]))
    return splits


def cold_titles(ratings: Ratings, titles: int, liked: float, seed: int) -> list[Split]:
    """Leave out everything about 5 % of the titles, five times over, and recommend among these.

    Users who like one of them, and something else, are evaluated; all that they like of them should be found.
    """
    size = max(1, round(COLD_SHARE * titles))
    order = np.random.default_rng(seed).permutation(titles)
    draws = [order[draw * size : (draw + 1) * size] for draw in range(COLD_DRAWS)]
    splits = [_without(ratings, draw, titles, liked) for draw in draws if len(draw)]
    return [split for split in splits if len(split.users)]


def _without(ratings: Ratings, draw: Rows, titles: int, liked: float) -> Split:
    cold = np.zeros(titles, np.bool_)
    cold[draw] = True
    is_liked, is_cold = ratings.ratings >= liked, cold[ratings.rows]
    wanted, others = _counts(ratings, is_liked & is_cold), _counts(ratings, is_liked & ~is_cold)
    users = np.flatnonzero((wanted > 0) & (others > 0))
    left_out = ratings.where(is_liked & is_cold)
    held_out = padded([left_out.rows[left_out.part(user)] for user in users.tolist()])
    rest = ratings.where(~is_cold)
    return Split(rest, rest, users, held_out, cold)


def _counts(ratings: Ratings, marks: Mask) -> Rows:
    sums = np.concatenate(([0], np.cumsum(marks)))
    return np.asarray(sums[ratings.offsets[1:]] - sums[ratings.offsets[:-1]])


def shared_out(splits: list[Split], most: int, seed: int) -> list[Split]:
    """Draw at most ``most`` users of all splits together; the seed decides."""
    counts = [len(split.users) for split in splits]
    if sum(counts) <= most:
        return splits
    chosen = np.sort(np.random.default_rng(seed).choice(sum(counts), most, replace=False))
    bounds = np.concatenate(([0], np.cumsum(counts)))
    parts = [chosen[(chosen >= first) & (chosen < last)] - first for first, last in itertools.pairwise(bounds.tolist())]
    return [split.take(part) for split, part in zip(splits, parts, strict=True) if len(part)]
