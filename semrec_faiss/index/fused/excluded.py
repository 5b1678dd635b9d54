"""Rows that single queries must not return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows


@dataclass(frozen=True)
class Excluded:
    """Rows that each query must not return: ``rows[offsets[q]:offsets[q + 1]]``, integers."""

    offsets: NDArray[np.integer]
    rows: NDArray[np.integer]


def part_of(excluded: Excluded | None, part: slice) -> Excluded | None:
    """Return those of a slice of the queries."""
    if excluded is None:
        return None
    offsets = excluded.offsets[part.start : part.stop + 1]
    return Excluded(offsets - offsets[0], excluded.rows[offsets[0] : offsets[-1]])


def rows_of(excluded: Excluded | None, queries: Rows) -> Excluded | None:
    """Return those of some queries, in their order."""
    if excluded is None:
        return None
    lists = [excluded.rows[excluded.offsets[query] : excluded.offsets[query + 1]] for query in queries]
    offsets = np.concatenate(([0], np.cumsum([len(rows) for rows in lists])))
    return Excluded(offsets, np.concatenate([np.empty(0, np.int64), *lists]))
