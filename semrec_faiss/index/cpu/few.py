"""Few titles as columns: of that shape numpy multiplies few queries by them in half the time."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.cpu.products import MOST_RESULTS, numpy_alone
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.kernels import numpy_is_faster

MOST_BYTES = 8 << 20
"""Of titles' columns: a processor's caches hold them."""

LEAST_BATCH, MOST_BATCH = 2, 64
"""A single query has a way of its own, and for more it takes other cores."""


def suits(queries: int, k: int, titles: int, dim: int) -> bool:
    """Tell whether a batch is multiplied by titles' columns."""
    is_few = LEAST_BATCH <= queries <= MOST_BATCH and k <= MOST_RESULTS and column_bytes(titles, dim) <= MOST_BYTES
    return is_few and numpy_is_faster()


def column_bytes(titles: int, dim: int) -> int:
    """Return how many bytes titles' columns take, beside the titles."""
    return 4 * titles * dim


class FewTitles:
    """Titles as columns, float32 (dim, titles)."""

    def __init__(self, vectors: Vectors) -> None:
        """Copy ``vectors``, float32 (titles, dim)."""
        self._columns = np.ascontiguousarray(vectors.T)

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Compare queries with every title, in few calls: beside a busy thread each waits for the interpreter's lock.

        Args:
            queries: float32 (queries, dim).
            k: at most the number of titles.

        Returns:
            scores float32 and rows int64 (queries, k), best first; -1 where fewer of its scores are numbers.
        """
        faiss = load_faiss()
        with numpy_alone(), np.errstate(invalid="ignore", over="ignore"):
            scores = queries @ self._columns
        best = faiss.ResultHeap(len(queries), k, keep_max=True)
        best.heaps.addn(scores.shape[1], faiss.swig_ptr(scores), 0, 0, len(queries))
        best.finalize()
        return best.D, best.I
