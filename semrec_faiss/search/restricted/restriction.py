"""Which titles a query may return: a mask that all queries of a batch share, and `Exclusions` query by query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semrec_faiss.arrays import Mask, Rows
from semrec_faiss.index.exclusions import Exclusions


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
        if self.mask is not None or self.exclusions is None:
            return self.mask is None
        return len(self.exclusions.rows) <= 1 or int(self.exclusions.counts.max()) <= 1  # of one question quicker

    def excluded_one(self, queries: int) -> Rows:
        """Return the row that each query excludes, none more than one: int64 (queries,); -1 where it excludes none."""
        if self.exclusions is not None and len(self.exclusions.rows) == queries:
            return np.asarray(self.exclusions.rows, np.int64)
        excluded = np.full(queries, -1, np.int64)
        if self.exclusions is not None:
            excluded[self.exclusions.counts > 0] = self.exclusions.rows
        return excluded

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
