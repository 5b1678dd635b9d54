"""The lists of users' interests, of many users at once, as one list a user, and what popularity adds to scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Values
from semrec_faiss.config.profile import Profile

BLOCK_CELLS = 1 << 20
"""Titles of all interests that are put in order at once: bounds the memory."""


def added_by_popularity(profile: Profile, liked_by: Rows) -> Values:
    """Return what popularity adds to the score of each title, of the users who like it: float64 (titles,)."""
    counts = np.log1p(liked_by)
    return np.asarray(profile.popularity * counts / max(float(counts.max()), 1e-9))


def merged(rows: Rows, scores: Values, counts: Rows, k: int, merge: str) -> tuple[Rows, Scores]:
    """Make one list a user of those of the interests, no title twice.

    Args:
        rows: int64 (interests, pool), one user's after another's, heaviest interest first; -1 where there is none.
        scores: float64 (interests, pool), in any order; what is equal comes as it stands.
        counts: int64 (users,), how many interests each has.
        k: how many titles.
        merge: ``score`` or ``turns``; see `Profile`.

    Returns:
        rows int64 and each title's best score of all interests, float32, both (users, k), best first; -1 and -inf after
        the last.
    """
    lists = np.full((len(counts), k), -1, np.int64)
    best = np.full((len(counts), k), -np.inf, np.float32)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    for users in blocks_of_users(offsets, max(1, BLOCK_CELLS // rows.shape[1])):
        interests = slice(offsets[users.start], offsets[users.stop])
        owners = np.repeat(np.arange(users.start, users.stop), counts[users])
        owner, place, title, score = _block(rows[interests], scores[interests], owners, k, merge)
        lists[owner, place], best[owner, place] = title, score
    return lists, best


def blocks_of_users(offsets: Rows, most: int) -> Iterator[slice]:
    """Yield runs of users with at most ``most`` interests together, or one user with more.

    Args:
        offsets: int64 (users + 1,), where each user's interests begin.
        most: how many interests.
    """
    first, users = 0, len(offsets) - 1
    while first < users:
        last = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        last = min(max(last, first + 1), users)
        yield slice(first, last)
        first = last


def _block(rows: Rows, scores: Values, owners: Rows, k: int, merge: str) -> tuple[Rows, Rows, Rows, Values]:
    """Return whose each title of the lists is, at what place, which title, and its score: (titles of all lists,) each.

    No more than the k best of an interest can be among the k of a user, so nothing else is put in order.
    """
    there = rows >= 0
    scores = np.where(there, scores, -np.inf)
    kept = there
    if k < rows.shape[1]:
        kept = there & (scores >= np.partition(scores, -k, axis=1)[:, -k, None])
    interest, at = np.nonzero(kept)
    title, score = rows[kept], scores[kept]
    order = (
        _by_turns(interest, at, score, owners) if merge == "turns" else np.lexsort((title, -score, owners[interest]))
    )
    titles = 1 + int(title.max(initial=0))
    pairs = (owners[interest] * titles + title)[order]
    first = np.sort(np.unique(pairs, return_index=True)[1])
    owner, title, score, pairs = pairs[first] // titles, pairs[first] % titles, score[order][first], pairs[first]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    mine = place < k
    if merge == "turns":  # another interest, whose turn would have come later, may give a title more
        everywhere = np.where(there, owners[:, None] * titles + rows, -1)
        score[mine] = _best_of_all(pairs[mine], everywhere[there], scores[there])
    return owner[mine], place[mine], title[mine], score[mine]


def _by_turns(interest: Rows, at: Rows, score: Values, owners: Rows) -> Rows:
    """Order titles by user, by their place in the list of an interest, and by interest."""
    best_first = np.lexsort((at, -score, interest))  # within an interest; ``interest`` ascends already
    turn = np.empty(len(interest), np.int64)
    turn[best_first] = np.arange(len(interest)) - np.searchsorted(interest, interest)
    return np.lexsort((interest, turn, owners[interest]))


def _best_of_all(wanted: Rows, pairs: Rows, scores: Values) -> Values:
    """Return the best of the scores of each wanted pair of user and title, none of them wanted twice."""
    order = np.argsort(wanted)
    at = np.minimum(np.searchsorted(wanted, pairs, sorter=order), len(wanted) - 1)
    mine = wanted[order[at]] == pairs if len(wanted) else np.zeros(len(pairs), np.bool_)
    best = np.full(len(wanted), -np.inf)
    np.maximum.at(best, order[at[mine]], scores[mine])
    return best
