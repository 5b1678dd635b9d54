"""What a search of an index gives, before titles have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.errors import DataError

Exactness = bool | Literal["proven"]
"""Whether a brute-force scan would give the same titles, ties aside; proven where the answer itself showed it."""

_MERGED_AT_ONCE = 1 << 17
"""Scores that are merged at a time: these and their keys stay in a core's cache."""


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
    width = sum(part.shape[1] for part in scores)
    best = np.empty((len(scores[0]), min(k, width)), np.float32)
    found = np.empty(best.shape, np.int64)
    step = max(1, _MERGED_AT_ONCE // max(1, width))
    for first in range(0, len(best), step):
        at = slice(first, first + step)
        own = np.concatenate([part[at] for part in scores], axis=1, dtype=np.float32)
        order = _best_columns(own, best.shape[1])
        best[at] = np.take_along_axis(own, order, axis=1)
        found[at] = np.take_along_axis(np.concatenate([part[at] for part in rows], axis=1), order, axis=1)
    return (best, found) if width >= k else (padded(best, -np.inf, k), padded(found, -1, k))


def _best_columns(scores: Scores, k: int) -> NDArray[np.int64]:
    """Return the columns of the ``k`` greatest of each line, ties by column: int64 (lines, k).

    Score and column are one number each, the score's bits above, so that they are partitioned whole: a stable sort of
    all of them takes many times as long, and FAISS's `merge_knn_results` leaves ties in any order.
    """
    bits = (0.0 - scores).view(np.int32)  # in which -0.0 is 0.0
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)  # whole numbers in the order of the floats
    keys <<= 32
    keys |= np.arange(scores.shape[1])
    if k < scores.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    return np.sort(keys, axis=1) & 0xFFFFFFFF


def padded(table: NDArray[Any], value: float, width: int) -> NDArray[Any]:
    """Fill a table (rows, columns) up to ``width`` columns with a value."""
    lacking = width - table.shape[1]
    return np.concatenate((table, np.full((len(table), lacking), value, table.dtype)), axis=1)


def score_overflow() -> DataError:
    """Return what is said of a query so long that its product with a title's vector is no float32."""
    fix = "divide the query by its length, or build the index with index.normalize: true"
    return DataError("a score is larger than a float32 can hold", fix=fix)
