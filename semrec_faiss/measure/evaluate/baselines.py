"""What any recommender must beat: most popular titles, titles liked together with the user's, and mere chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semrec_faiss.arrays import Rows, Values
from semrec_faiss.measure.evaluate.holdout import Ratings, Split
from semrec_faiss.progress import Progress, silent


class Liked:
    """Who likes which titles, both ways around: a sparse matrix of users and titles.

    Attributes:
        counts: int64 (titles,), how many users like each title.
    """

    def __init__(self, ratings: Ratings, liked: float, titles: int) -> None:
        """Take the ratings of at least ``liked``."""
        chosen = ratings.where(ratings.ratings >= liked)
        self._users = chosen.user_of
        self._rows = chosen.rows
        self._user_count = chosen.users
        self.counts: Rows = np.bincount(self._rows, minlength=titles)
        order = np.argsort(self._rows, kind="stable")
        self._users_by_title = self._users[order]
        self._title_offsets = np.concatenate(([0], np.cumsum(self.counts)))

    def liked_together(self, own: Rows) -> Values:
        """Score all titles by how often they are liked by the same people as a user's titles: float64 (titles,).

        The cosine of item-to-item collaborative filtering (Sarwar, Karypis, Konstan and Riedl 2001; Linden, Smith and
        York 2003) summed over the user's titles i: Σ users who like both i and j / √(users of i · users of j).
        """
        # Σ over own titles first, then over people: the same sum, without a table of titles by titles.
        people = np.zeros(self._user_count)
        for row in own[self.counts[own] > 0].tolist():
            fans = self._users_by_title[self._title_offsets[row] : self._title_offsets[row + 1]]
            people[fans] += 1.0 / np.sqrt(self.counts[row])
        scores = np.bincount(self._rows, weights=people[self._users], minlength=len(self.counts))
        return np.asarray(scores / np.sqrt(np.maximum(self.counts, 1)))


def most_popular(liked: Liked, split: Split, k: int, progress: Progress = silent) -> Rows:
    """List the titles that most users like, without those that the user has seen: int64 (users, k)."""
    scores = liked.counts.astype(np.float64)
    return _best(lambda _: scores, split, k, "popular titles", progress)


def liked_together(liked: Liked, split: Split, least: float, k: int, progress: Progress = silent) -> Rows:
    """List the titles liked together with the user's, without those that the user has seen: int64 (users, k).

    Args:
        liked: who likes what, of all that may be learned from.
        split: whose titles, and what they have seen.
        least: the rating from which a title is liked.
        k: how many titles.
        progress: told the users done.
    """

    def scores_of(user: int) -> Values:
        part = split.known.part(user)
        return liked.liked_together(split.known.rows[part][split.known.ratings[part] >= least])

    return _best(scores_of, split, k, "titles liked together", progress)


def by_chance(split: Split, titles: int, k: int, seed: int, progress: Progress = silent) -> Rows:
    """List titles drawn at random, without those that the user has seen: int64 (users, k)."""
    random = np.random.default_rng([seed, *split.users[:1].tolist()])
    return _best(lambda _: random.random(titles) + 1.0, split, k, "titles by chance", progress)


def _best(scores_of: Callable[[int], Values], split: Split, k: int, what: str, progress: Progress) -> Rows:
    """Rank by score, ties by row; -1 after the last title that has any score."""
    lists = np.full((len(split.users), k), -1, np.int64)
    for position, user in enumerate(split.users.tolist()):
        scores = scores_of(user).copy()
        scores[split.known.rows[split.known.part(user)]] = 0.0
        if split.candidates is not None:
            scores[~split.candidates] = 0.0
        best = top(scores, k)
        best = best[scores[best] > 0]
        lists[position, : len(best)] = best
        if position % 100 == 0:
            progress(what, position, len(split.users))
    progress(what, len(split.users), len(split.users))
    return lists


def top(scores: Values, k: int) -> Rows:
    """Return the rows of the k highest of ``scores``, float64 (titles,), descending, ties by row: int64 (k,)."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, tied = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    chosen = np.concatenate((above, tied[: k - len(above)]))
    return np.asarray(chosen[np.lexsort((chosen, -scores[chosen]))], dtype=np.int64)
