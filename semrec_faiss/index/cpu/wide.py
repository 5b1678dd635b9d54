"""Few titles in float64, whose products with a batch are right to the last digit: nothing is scored again."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.cpu.products import numpy_alone
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.kernels import numpy_is_faster

MOST_BYTES = 16 << 20
"""Of titles in float64: a processor's caches hold them."""

LEAST_BATCH, MOST_BATCH = 24, 64
"""Fewer queries are multiplied as soon by FAISS, and for more it takes other cores."""

MOST_RESULTS = 32
"""Of more a search scores few again; see `settled`."""


def suits(queries: int, k: int, titles: int, dim: int) -> bool:
    """Tell whether a batch is searched sooner in float64 than in float32 and then scored again."""
    is_one = LEAST_BATCH <= queries <= MOST_BATCH and k <= MOST_RESULTS and wide_bytes(titles, dim) <= MOST_BYTES
    return is_one and numpy_is_faster()


def wide_bytes(titles: int, dim: int) -> int:
    """Return how many bytes titles take in float64."""
    return 8 * titles * dim


def scratch_bytes(queries: int, titles: int) -> int:
    """Return how many bytes a batch's scores take, in float64 and float32."""
    return 12 * queries * titles


class WideTitles:
    """Titles in float64, row order."""

    def __init__(self, vectors: Vectors) -> None:
        """Copy ``vectors``, float32 (titles, dim)."""
        self._titles = np.ascontiguousarray(vectors, np.float64)

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Compare queries with every title, in few calls: beside a busy thread each waits for the interpreter's lock.

        Products of two float32 are exact in float64; see `inner_products`, which scores the same.

        Args:
            queries: float32 (queries, dim).
            k: at most the number of titles.

        Returns:
            scores float32 and rows int64 (queries, k), best first, ties by row.
        """
        faiss = load_faiss()
        with numpy_alone(), np.errstate(over="ignore"):  # what a float32 cannot hold is told by who asked
            scores = (queries.astype(np.float64) @ self._titles.T).astype(np.float32)
        titles = len(self._titles)
        best = faiss.ResultHeap(len(queries), min(k + 1, titles), keep_max=True)
        best.heaps.addn(titles, faiss.swig_ptr(scores), 0, 0, len(queries))
        best.finalize()
        found: tuple[Scores, Rows] = best.D[:, :k].copy(), best.I[:, :k].copy()
        # Of equal scores the heap keeps any, in any order; that is seldom.
        tied = (best.D[:, 1:] == best.D[:, :-1]).any(axis=1)
        for query in np.flatnonzero(tied).tolist():
            rows = np.lexsort((np.arange(titles), -scores[query]))[:k]
            found[0][query], found[1][query] = scores[query, rows], rows
        return found
