"""What a search of an index gives, before titles have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores

Exactness = bool | Literal["proven"]
"""Whether a brute-force scan would give the same titles, ties aside; proven where the answer itself showed it."""


@dataclass(frozen=True)
class SearchResult:
    """The best titles of each query.

    Attributes:
        rows: int64 (queries, k), titles by descending score, ties by row; never -1.
        scores: float32 (queries, k), inner products (cosines where the index normalises).
        exact: whether a brute-force scan would give the same titles, ties aside; ``proven`` by type fused on a GPU,
            and on a CPU where titles were left out by their bounds.
        strategy: how they were found: ``index``, ``refine`` (candidates rescored exactly), or either with
            ``+scan`` where some query came up short and was finished by an exact scan.
        repeated: queries that type fused searched again with more candidates, for want of a proof.
        scanned: of these, compared with every title in float32 in the end.
    """

    rows: Rows
    scores: Scores
    exact: Exactness
    strategy: str
    repeated: int = 0
    scanned: int = 0


def joined(blocks: Sequence[SearchResult]) -> SearchResult:
    """Put the results of the blocks of a batch together; an exact scan in one of them is named."""
    return SearchResult(
        np.concatenate([block.rows for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
        blocks[0].exact,
        max((block.strategy for block in blocks), key=len),
        sum(block.repeated for block in blocks),
        sum(block.scanned for block in blocks),
    )


def best_of_parts(scores: Sequence[Scores], rows: Sequence[Rows], k: int) -> tuple[Scores, Rows]:
    """Merge what several parts of the titles gave for the same queries.

    Args:
        scores: float32 (queries, some) of each part, best first; -inf where there is no title.
        rows: int64 (queries, some) of each, ties by row, -1 where there is none; those of a part are below the next's.
        k: how many to keep.

    Returns:
        scores and rows (queries, k), best first, ties by row; -inf and -1 after the last.
    """
    all_scores, all_rows = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
    best, found = np.take_along_axis(all_scores, order, axis=1), np.take_along_axis(all_rows, order, axis=1)
    return (best, found) if found.shape[1] == k else (padded(best, -np.inf, k), padded(found, -1, k))


def padded(table: NDArray[Any], value: float, width: int) -> NDArray[Any]:
    """Fill a table (rows, columns) up to ``width`` columns with a value."""
    lacking = width - table.shape[1]
    return np.concatenate((table, np.full((len(table), lacking), value, table.dtype)), axis=1)
