"""Which titles a query may return: a mask that all queries of a batch share, and rows excluded query by query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows

SCRATCH_BYTES = 16 << 20
"""Memory for one block of the table (queries × titles) that excluded rows are looked up in: fits the caches."""


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
        """Take one list of rows a query; repeats count once."""
        parts = [np.unique(np.asarray(rows, dtype=np.int64)) for rows in lists]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
        return cls(offsets, np.concatenate([np.empty(0, np.int64), *parts]))

    @classmethod
    def same_for_all(cls, queries: int, rows: Sequence[int]) -> Exclusions:
        """Exclude the same few rows from every query."""
        return cls.of([rows] * queries)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Rows:
        """How many rows each query excludes: int64 (queries,)."""
        return np.diff(self.offsets)

    def take(self, queries: Rows) -> Exclusions:
        """Return the exclusions of some queries, in the order asked."""
        counts = self.offsets[queries + 1] - self.offsets[queries]  # of these alone: all users' would take longer
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        starts = np.repeat(self.offsets[queries] - offsets[:-1], counts)
        return Exclusions(offsets, self.rows[starts + np.arange(offsets[-1])])

    def contain(self, candidates: Rows, titles: int) -> Mask:
        """Tell for each candidate whether its query excludes it.

        Args:
            candidates: int64 (queries, candidates), rows from 0 to ``titles`` - 1, or -1.
            titles: how many titles there are.

        Returns:
            bool (queries, candidates); a -1 is contained in nothing.
        """
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


@dataclass(frozen=True)
class Restriction:
    """What a batch of queries may return.

    Attributes:
        titles: how many titles the index has.
        mask: bool (titles,), True where a title may be returned; None allows all.
        exclusions: rows that single queries must not return besides; None excludes nothing.
        mask_rows: int64, the rows where the mask is True, where the caller knows them.
    """

    titles: int
    mask: Mask | None = None
    exclusions: Exclusions | None = None
    mask_rows: Rows | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every title may be returned to every query."""
        return self.mask is None and (self.exclusions is None or len(self.exclusions.rows) == 0)

    @property
    def excludes_one_at_most(self) -> bool:
        """Whether nothing is masked and no query excludes more than one title."""
        return self.mask is None and (self.exclusions is None or int(self.exclusions.counts.max(initial=0)) <= 1)

    @cached_property
    def rows(self) -> Rows:
        """The rows that the mask allows, ascending: int64."""
        if self.mask_rows is not None:
            return self.mask_rows
        return np.arange(self.titles) if self.mask is None else np.flatnonzero(self.mask)

    @property
    def allowed(self) -> int:
        """How many titles the mask allows."""
        return self.titles if self.mask is None else len(self.rows)

    def excluded_counts(self, queries: int) -> Rows:
        """Return how many of the rows that the mask allows each query excludes: int64 (queries,)."""
        if self.exclusions is None:
            return np.zeros(queries, np.int64)
        if self.mask is None:
            return self.exclusions.counts
        hits = np.concatenate(([0], np.cumsum(self.mask[self.exclusions.rows])))
        return hits[self.exclusions.offsets[1:]] - hits[self.exclusions.offsets[:-1]]

    def allows(self, candidates: Rows) -> Mask:
        """Tell for each candidate whether its query may return it: bool (queries, candidates); never a -1."""
        allowed = candidates >= 0
        if self.mask is not None:
            allowed &= self.mask[np.maximum(candidates, 0)]
        if self.exclusions is not None and len(self.exclusions.rows):
            allowed &= ~self.exclusions.contain(candidates, self.titles)
        return allowed

    def take(self, queries: Rows) -> Restriction:
        """Return the restriction of some of the queries."""
        if self.exclusions is None:
            return self
        return Restriction(
            self.titles, self.mask, self.exclusions.take(queries), self.rows if self.mask is not None else None
        )
