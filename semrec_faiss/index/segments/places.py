"""Places and rows: where things lie in the base and its segments, and what is left of them in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows

GONE = -1
"""Stands for the new place of what was removed, and for the row of what has none."""

Replaced = NDArray[np.int64]
"""(n, 2): a place, and the later one where the same title or user stands since; `GONE` where it was removed.

A place that was removed may be named again by a later segment, in which the title has come back."""


@dataclass(frozen=True)
class Places:
    """The places of all titles, or of all users, ever written.

    Attributes:
        counts: how many things the base and each segment hold.
        rows: int64 (rows,), the place of each row, ascending.
        now: int64 (places,), the row of what was written there, wherever it stands now; `GONE` where it was removed.
        last: int64 (places,), the last place of what was written there, whether it was removed from that or not.
    """

    counts: tuple[int, ...]
    rows: Rows
    now: Rows
    last: Rows

    @classmethod
    def of(cls, counts: Sequence[int], replaced: Sequence[Replaced]) -> Places:
        """Follow what each segment has replaced.

        Args:
            counts: things in the base and in each segment.
            replaced: for each segment, which earlier places it replaced.
        """
        last = np.arange(sum(counts), dtype=np.int64)
        for moves in reversed(replaced):  # what a later segment did with the new places is known already
            moved = moves[moves[:, 1] != GONE]
            last[moved[:, 0]] = last[moved[:, 1]]
        is_row = last == np.arange(len(last))
        for moves in replaced:
            gone = moves[moves[:, 1] == GONE, 0]
            is_row[gone[last[gone] == gone]] = False  # the others have come back
        rows = np.flatnonzero(is_row)
        row_of = np.full(len(last), GONE, np.int64)
        row_of[rows] = np.arange(len(rows))
        return cls(tuple(counts), rows, row_of[last], last)

    @property
    def base(self) -> int:
        """Rows that lie in the base; they are the first ones."""
        return int(np.searchsorted(self.rows, self.counts[0]))

    @property
    def removed(self) -> int:
        """Places of the base that are no rows any more."""
        return self.counts[0] - self.base

    @cached_property
    def starts(self) -> Rows:
        """Where the base and each segment begin: int64 (segments + 1,)."""
        return np.concatenate(([0], np.cumsum(self.counts[:-1]))).astype(np.int64)

    @cached_property
    def row_of(self) -> Rows:
        """The row of each place, `GONE` where it is none any more: int64 (places,)."""
        found = np.full(sum(self.counts), GONE, np.int64)
        found[self.rows] = np.arange(len(self.rows))
        return found

    def within(self, part: int) -> Rows:
        """Return which things of the base (0) or of a segment (from 1) are rows still: positions in it, ascending."""
        start = int(self.starts[part])
        first, last = np.searchsorted(self.rows, [start, start + self.counts[part]])
        return self.rows[first:last] - start

    def part_of(self, place: int) -> int:
        """Return which part a place is of, 0 for the base."""
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    def parts_of(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return in which part each row lies, 0 for the base, and its position there: both int64 (rows,)."""
        places = self.rows[rows]
        parts = np.searchsorted(self.starts, places, side="right") - 1
        # Where a part is empty, two begin at one place; the last of them holds it.
        return parts, places - self.starts[parts]
