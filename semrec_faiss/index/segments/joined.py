"""Vectors and texts of a base and its segments, by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors, rows_within
from semrec_faiss.data.titles.stored import StoredTexts
from semrec_faiss.index.segments.places import GONE, Places

_BLOCK_ROWS = 16_384
"""Rows that are gathered at once where all are wanted."""


class JoinedVectors:
    """Vectors of which those of the base stay where they are, mapped: read like an array, by rows or by a slice."""

    def __init__(self, base: NDArray[Any], base_rows: Rows, fresh: Vectors) -> None:
        """Join what is left of ``base`` with ``fresh``.

        Args:
            base: float32 (n, dim).
            base_rows: int64, which of them are the first rows.
            fresh: float32, the rows after those.
        """
        self._base = base
        self._base_rows = base_rows
        self._fresh = fresh
        self.shape = (len(base_rows) + len(fresh), int(fresh.shape[1]))
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Vectors:
        chosen = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        return gathered(chosen, self._base_rows, self._fresh, self._base.__getitem__)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.empty(self.shape, dtype or np.float32)
        for start in range(0, len(self), _BLOCK_ROWS):
            found[start : start + _BLOCK_ROWS] = self[start : start + _BLOCK_ROWS]
        return found


def gathered(rows: Rows, base_rows: Rows, fresh: Vectors, of_base: Any) -> Vectors:
    """Gather rows of both parts: float32 (rows, dim), C-contiguous; ``of_base`` returns those of the base."""
    in_base = rows < len(base_rows)
    if in_base.all():
        return np.ascontiguousarray(of_base(base_rows[rows]), dtype=np.float32)
    if not in_base.any():
        return np.ascontiguousarray(fresh[rows - len(base_rows)])
    found = np.empty((len(rows), fresh.shape[1]), np.float32)
    found[in_base] = of_base(base_rows[rows[in_base]])
    found[~in_base] = fresh[rows[~in_base] - len(base_rows)]
    return found


class JoinedTexts:
    """Texts by row and rows by key, over the base and its segments."""

    def __init__(self, parts: Sequence[StoredTexts], places: Places) -> None:
        """Join the texts of the base and of each segment."""
        self._parts = parts
        self._places = places
        self.count = len(places.rows)

    def lines(self, rows: Any) -> list[bytes]:
        """Return the lines of ``rows``, in the order asked; raises DataError for a row that does not exist."""
        asked = rows_within(rows, self.count)
        parts, positions = self._places.parts_of(asked)
        if not parts.any():
            return self._parts[0].lines(positions)
        found: list[bytes] = [b""] * len(asked)
        for part in np.unique(parts).tolist():
            mine = np.flatnonzero(parts == part)
            for at, line in zip(mine.tolist(), self._parts[part].lines(positions[mine]), strict=True):
                found[at] = line
        return found

    def rows_of(self, key: str) -> list[int]:
        """Return the rows, ascending, whose keys may hold ``key``; hold what is found against the line."""
        places = [
            start + position
            for start, part in zip(self._places.starts.tolist(), self._parts, strict=True)
            for position in part.rows_of(key)
        ]
        return [row for row in self._places.row_of[places].tolist() if row != GONE] if places else []

    def first_rows(self, keys: Sequence[str]) -> Rows:
        """Return the first of `rows_of` each key, int64 (keys,), and -1 where there is none."""
        rows = np.full(len(keys), GONE, np.int64)
        doubtful = np.zeros(len(keys), np.bool_)
        for start, part in zip(self._places.starts.tolist(), self._parts, strict=True):
            found = part.first_rows(keys)
            here = np.full(len(keys), GONE, np.int64)
            here[found >= 0] = self._places.row_of[start + found[found >= 0]]
            doubtful |= (found >= 0) & (here == GONE)
            rows = np.where(rows == GONE, here, rows)
        for at in np.flatnonzero(doubtful & (rows == GONE)).tolist():  # the first one is no more; another may be
            rows[at] = next(iter(self.rows_of(keys[at])), GONE)
        return rows
