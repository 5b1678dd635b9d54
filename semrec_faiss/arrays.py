"""The arrays that pass from room to room, each kind named once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semrec_faiss.errors import DataError

Vectors = NDArray[np.float32]
"""Vectors of titles, users or queries: (n, d), or (d,) for one."""

Scores = NDArray[np.float32]
"""Inner products: (queries, k) or (titles,); higher is better."""

Rows = NDArray[np.int64]
"""Positions of titles or users, from 0; never shown to a person."""

StoredRows = NDArray[np.integer[Any]]
"""Rows as they are stored, in as many bits as they need; see `row_type`."""

Mask = NDArray[np.bool_]
"""(titles,): True for a title that may be answered."""

Values = NDArray[np.float64]
"""Measured values, one per query, user or repeat."""


def rows_within(rows: ArrayLike, count: int) -> Rows:
    """Return rows of titles as int64 (rows,); raises DataError for one that is none of ``count``."""
    asked = np.asarray(rows, dtype=np.int64).reshape(-1)
    outside = asked[(asked < 0) | (asked >= count)]
    if len(outside):
        raise DataError(f"row {outside[0]} is outside the titles, which have rows 0 to {count - 1}")
    return asked


def parts_of(offsets: Rows, chosen: StoredRows) -> tuple[Rows, Rows]:
    """Take some parts of what ``offsets``, int64 (parts + 1,), divide, in the order asked.

    Returns:
        Their own offsets, int64 (chosen + 1,), and the place that each thing in them had.
    """
    counts = offsets[chosen + 1] - offsets[chosen]  # of these alone: all parts' would take longer
    own = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return own, np.repeat(offsets[chosen] - own[:-1], counts) + np.arange(own[-1])


def row_type(count: int) -> type[np.int32 | np.int64]:
    """Return the type that the rows of so many things are stored as: int32, and int64 of more than 2,147,483,648."""
    return np.int32 if count <= 1 << 31 else np.int64
