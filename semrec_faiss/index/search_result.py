"""What a search of an index gives, before titles have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semrec_faiss.arrays import Rows, Scores

Exactness = bool | Literal["proven"]
"""Whether a brute-force scan would give the same titles, ties aside; proven where the answer itself showed it."""


@dataclass(frozen=True)
class SearchResult:
    """The best titles of each query.

    Attributes:
        rows: int64 (queries, k), titles by descending score, ties by row; never -1.
        scores: float32 (queries, k), inner products (cosines where the index normalises).
        exact: whether a brute-force scan would give the same titles, ties aside; ``proven`` by type fused on a GPU.
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
