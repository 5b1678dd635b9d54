"""Leaving out what users liked last, to see whether it would have been recommended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows
from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError

UNLIMITED = 5.0
"""A rating that stands for a title seen by users of whom no rating is known: it is taken as liked."""


@dataclass(frozen=True)
class Ratings:
    """What users have rated, sorted by user and then by time, ties by row.

    Attributes:
        offsets: int64 (users + 1,); user i's are those from ``offsets[i]`` to ``offsets[i + 1]``.
        rows: int64 (n,), titles.
        ratings: float64 (n,); NaN where a title was seen and not rated.
        times: int64 (n,), seconds since 1970.
    """

    offsets: Rows
    rows: Rows
    ratings: NDArray[np.float64]
    times: Rows

    @classmethod
    def of(cls, history: History) -> Ratings:
        """Sort what an index holds; where it has no ratings, everything seen counts as liked.

        Raises:
            UsageError: it does not say when titles were rated.
        """
        if history.timestamps is None:
            raise UsageError(
                "the index does not know when its users rated titles, so none can be called the latest",
                fix="give users/seen.parquet the column timestamp (and rating), as `semrec dataset movielens` does, and"
                " build the index again",
            )
        users = np.repeat(np.arange(len(history.offsets) - 1), np.diff(history.offsets))
        order = np.lexsort((history.rows, history.timestamps, users))
        ratings = np.full(len(order), UNLIMITED) if history.ratings is None else history.ratings.astype(np.float64)
        return cls(
            history.offsets.astype(np.int64), history.rows[order].astype(np.int64), ratings[order],
            history.timestamps[order].astype(np.int64),
        )  # fmt: skip

    @property
    def users(self) -> int:
        """How many users there are, those without a rating included."""
        return len(self.offsets) - 1

    @property
    def user_of(self) -> Rows:
        """The user of each rating: int64 (n,)."""
        return np.repeat(np.arange(self.users), np.diff(self.offsets))

    def where(self, keep: NDArray[np.bool_]) -> Ratings:
        """Return the ratings that ``keep`` (n,) marks, of the same users."""
        kept = np.concatenate(([0], np.cumsum(keep)))
        return Ratings(kept[self.offsets], self.rows[keep], self.ratings[keep], self.times[keep])

    def part(self, user: int) -> slice:
        """Where a user's ratings are."""
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))


@dataclass(frozen=True)
class Split:
    """Ratings less each user's latest liked titles.

    Attributes:
        rest: what stays; of users who have too few liked titles, everything.
        users: int64 (u,), the users of whom titles were left out.
        held: int64 (u, held), those titles, the earliest first.
    """

    rest: Ratings
    users: Rows
    held: Rows


def leave_out_latest(ratings: Ratings, held: int, liked: float) -> Split:
    """Leave out each user's ``held`` latest titles rated at least ``liked``.

    Users must keep at least one liked title, so that a vector can be made of what is left.

    Raises:
        UsageError: no user has that many.
    """
    is_liked = ratings.ratings >= liked
    before = np.concatenate(([0], np.cumsum(is_liked)))
    counts = before[ratings.offsets[1:]] - before[ratings.offsets[:-1]]
    users = np.flatnonzero(counts > held)
    if not len(users):
        raise UsageError(
            f"no user has more than {held} titles rated {liked:g} or better", fix="lower --hold-out or --liked"
        )
    liked_at = np.flatnonzero(is_liked)
    ends = before[ratings.offsets[users + 1]]
    left_out = liked_at[ends[:, None] + np.arange(-held, 0)]
    keep = np.ones(len(ratings.rows), dtype=bool)
    keep[left_out] = False
    return Split(ratings.where(keep), users, ratings.rows[left_out])
