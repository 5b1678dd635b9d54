"""Rows that single queries must not return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, parts_of

SCRATCH_BYTES = 16 << 20
"""Memory for one block of the table (queries × titles) that excluded rows are looked up in: fits the caches."""

MOST_LISTED = 1 << 14
"""Rows that a wish excludes are listed for each query, up to so many of all queries together; of more a mask is made.
Recordings of type fused have room for so many."""

FEW_CANDIDATES = 64
"""Up to so many a query are looked up one by one, which takes half the time of the table."""


@dataclass(frozen=True)
class Exclusions:
    """Rows that each query must not return.

    Attributes:
        offsets: int64 (queries + 1,).
        rows: integer; ``rows[offsets[q]:offsets[q + 1]]`` are query ``q``'s, without repeats.
    """

    offsets: Rows
    rows: NDArray[np.integer]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Exclusions:
        """Take one list of rows per query; repeats count once."""
        parts = [np.unique(np.asarray(rows, dtype=np.int64)) for rows in lists]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
        return cls(offsets, np.concatenate([np.empty(0, np.int64), *parts]))

    @classmethod
    def one_each(cls, rows: Sequence[int]) -> Exclusions:
        """Exclude one row from each query."""
        return cls(np.arange(len(rows) + 1), np.array(rows, np.int64))

    @classmethod
    def same_for_all(cls, queries: int, rows: Sequence[int]) -> Exclusions:
        """Exclude the same few rows from every query; repeats count once."""
        own = np.unique(np.asarray(rows, dtype=np.int64))
        return cls(np.arange(queries + 1) * len(own), np.tile(own, queries))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Rows:
        """How many rows each query excludes: int64 (queries,)."""
        return self.offsets[1:] - self.offsets[:-1]  # which takes a fifth of numpy's diff

    def take(self, queries: Rows) -> Exclusions:
        """Return the exclusions of some queries, in the order asked."""
        offsets, at = parts_of(self.offsets, queries)
        return Exclusions(offsets, self.rows[at])

    def besides(self, others: Exclusions) -> Exclusions:
        """Return what either excludes, query by query and without repeats."""
        titles = 1 + int(max(self.rows.max(initial=0), others.rows.max(initial=0)))
        either = np.concatenate((self._numbered(titles), others._numbered(titles)))
        either.sort(kind="stable")  # which merges what is in order already
        either = either[np.concatenate(([True], either[1:] != either[:-1]))[: len(either)]]
        offsets = either.searchsorted(np.arange(len(self) + 1) * titles)
        return Exclusions(offsets, either % titles)

    def _numbered(self, titles: int) -> Rows:
        """Return queries and rows as one number each, of so many titles: int64."""
        return np.repeat(np.arange(len(self), dtype=np.int64) * titles, self.counts) + self.rows

    def within(self, first: int, last: int) -> Exclusions:
        """Return those of the rows from ``first`` to ``last`` - 1, counted from ``first``."""
        mine = (self.rows >= first) & (self.rows < last)
        before = np.concatenate(([0], np.cumsum(mine)))
        return Exclusions(before[self.offsets], self.rows[mine] - first)

    def contain(self, candidates: Rows, titles: int) -> Mask:
        """Tell for each candidate whether its query excludes it.

        Args:
            candidates: int64 (queries, candidates), rows from 0 to ``titles`` - 1, or -1.
            titles: how many titles there are.

        Returns:
            bool (queries, candidates); a -1 is contained in nothing.
        """
        if candidates.shape[1] <= FEW_CANDIDATES:
            return self._look_up(candidates, titles)
        contained = np.zeros(candidates.shape, np.bool_)
        step = max(1, SCRATCH_BYTES // titles)
        scratch = np.zeros((min(step, len(self)), titles), np.bool_)
        query_of = np.repeat(np.arange(len(self)), self.counts)
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            mine = slice(self.offsets[start], self.offsets[stop])
            at = (query_of[mine] - start, self.rows[mine])
            scratch[at] = True
            block = candidates[start:stop]
            contained[start:stop] = np.take_along_axis(scratch[: stop - start], np.maximum(block, 0), axis=1)
            scratch[at] = False
        return contained & (candidates >= 0)

    def _look_up(self, candidates: Rows, titles: int) -> Mask:
        """Look each candidate up among what its query excludes, queries and titles as one number each."""
        known = self._numbered(titles)
        if not len(known):
            return np.zeros(candidates.shape, np.bool_)
        if not (known[1:] >= known[:-1]).all():  # one of the lists is in another order
            known.sort()
        asked = np.arange(len(self), dtype=np.int64)[:, None] * titles + candidates
        at = np.minimum(known.searchsorted(asked), len(known) - 1)
        contained: Mask = (known[at] == asked) & (candidates >= 0)
        return contained


def either(some: Exclusions | None, others: Exclusions | None) -> Exclusions | None:
    """Return what either excludes, where there is any."""
    if some is None:
        return others
    return some if others is None else some.besides(others)


def part_of(exclusions: Exclusions | None, part: slice) -> Exclusions | None:
    """Return those of a slice of the queries."""
    if exclusions is None:
        return None
    offsets = exclusions.offsets[part.start : part.stop + 1]
    return Exclusions(offsets - offsets[0], exclusions.rows[offsets[0] : offsets[-1]])
