"""Ratings in the order of time, and what is left out of them to see whether it would have been recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Values, parts_of
from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError

UNLIMITED = 5.0
"""A rating that stands for a title seen by users of whom no rating is known: it is taken as liked."""


@dataclass(frozen=True)
class Ratings:
    """What users have rated, sorted by user and then by time.

    Which of two titles rated in the same second came first nobody knows: a seeded shuffle decides, so that no order of
    a file, which may be that of popularity or of years, is taken for what a user did.

    Attributes:
        offsets: int64 (users + 1,); user i's are those from ``offsets[i]`` to ``offsets[i + 1]``.
        rows: int64 (n,), titles.
        ratings: float64 (n,); NaN where a title was seen and not rated.
        times: int64 (n,), seconds since 1970.
    """

    offsets: Rows
    rows: Rows
    ratings: Values
    times: Rows

    @classmethod
    def of(cls, history: History, seed: int) -> Ratings:
        """Sort what an index holds; where it has no ratings, everything seen counts as liked.

        Args:
            history: what users have seen.
            seed: of the order of titles rated at the same time.

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
        shuffle = np.random.default_rng(seed).permutation(len(users))
        order = np.lexsort((shuffle, history.timestamps, users))
        ratings = np.full(len(order), UNLIMITED) if history.ratings is None else history.ratings.astype(np.float64)
        return cls(
            history.offsets.astype(np.int64),
            history.rows[order].astype(np.int64),
            ratings[order],
            history.timestamps[order].astype(np.int64),
        )

    @property
    def users(self) -> int:
        """How many users there are, those without a rating included."""
        return len(self.offsets) - 1

    @property
    def user_of(self) -> Rows:
        """The user of each rating: int64 (n,)."""
        return np.repeat(np.arange(self.users), np.diff(self.offsets))

    @property
    def history(self) -> History:
        """The same as a data folder has it, the order of titles aside."""
        return History(self.offsets, self.rows.astype(np.int32), self.ratings.astype(np.float32), self.times)

    def where(self, keep: Mask) -> Ratings:
        """Return the ratings that ``keep``, bool (ratings,), marks, of the same users."""
        kept = np.concatenate(([0], np.cumsum(keep)))
        return Ratings(kept[self.offsets], self.rows[keep], self.ratings[keep], self.times[keep])

    def part(self, user: int) -> slice:
        """Where a user's ratings are."""
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))

    def of_users(self, users: Rows) -> Ratings:
        """Return the ratings of some users, int64 (some,), in the order asked; they are numbered anew."""
        offsets, at = parts_of(self.offsets, users)
        return Ratings(offsets, self.rows[at], self.ratings[at], self.times[at])


@dataclass(frozen=True)
class Split:
    """Some users, what is known of them, what others did, and which titles should be found.

    Attributes:
        rest: what may be learned from, of all users.
        known: what the evaluated users are known to have rated; other users' is never looked at.
        users: int64 (u,), the users evaluated.
        held_out: int64 (u, most), the titles left out of each; -1 after the last.
        candidates: bool (titles,), the titles that may be recommended; None for all.
    """

    rest: Ratings
    known: Ratings
    users: Rows
    held_out: Rows
    candidates: Mask | None = None

    def take(self, chosen: Rows) -> Split:
        """Return the split with some of its users, by their positions, int64 (some,)."""
        return Split(self.rest, self.known, self.users[chosen], self.held_out[chosen], self.candidates)


def hold_out_latest(ratings: Ratings, held_out: int, liked: float, *, strict: bool = True) -> Split:
    """Leave out each user's ``held_out`` latest titles rated at least ``liked``.

    Users must keep at least one liked title, so that a vector can be made of what is left.

    Args:
        ratings: of all users.
        held_out: how many titles per user.
        liked: the rating from which a title is liked.
        strict: leave out, too, everything else that the user has rated since the first of them. Otherwise what the user
            liked less in between stays, which tells when, and so among what, the titles left out were rated.

    Raises:
        UsageError: no user has that many.
    """
    is_liked = ratings.ratings >= liked
    before = np.concatenate(([0], np.cumsum(is_liked)))
    counts = before[ratings.offsets[1:]] - before[ratings.offsets[:-1]]
    users = np.flatnonzero(counts > held_out)
    if not len(users):
        raise UsageError(
            f"no user has more than {held_out} titles that count as liked: rated {liked:g} or better, or seen where"
            " nothing is rated",
            fix="lower --hold-out or --liked",
        )
    liked_at = np.flatnonzero(is_liked)
    ends = before[ratings.offsets[users + 1]]
    left_out = liked_at[ends[:, None] + np.arange(-held_out, 0)]
    keep = np.ones(len(ratings.rows), dtype=bool)
    keep[left_out] = False
    if strict:
        first = ratings.offsets[1:].copy()
        first[users] = left_out[:, 0]
        keep &= np.arange(len(keep)) < np.repeat(first, np.diff(ratings.offsets))
    rest = ratings.where(keep)
    return Split(rest, rest, users, ratings.rows[left_out])


def padded(lists: Sequence[Rows]) -> Rows:
    """Put lists of titles below each other: int64 (lists, longest), -1 after the last title of each."""
    table = np.full((len(lists), max(map(len, lists), default=0)), -1, np.int64)
    for row, one in zip(table, lists, strict=True):
        row[: len(one)] = one
    return table
