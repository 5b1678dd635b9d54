"""Searching inverted lists on a CPU: which lists are visited is settled first, the same in any batch.

FAISS compares a query with the lists' centres by a matrix product whose rounding hangs on the batch, and adds that
score to those of residual codes. So a query alone could visit another list than in a batch, or get another score.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.cpu.exact import rounding_error, settled
from semrec_faiss.index.hardware.device import load_faiss

COARSE_QUERIES = 1024
"""Queries whose lists are settled at once."""


class InvertedLists:
    """An inverted-list index on a CPU with its centres at hand."""

    def __init__(self, ivf: Any, centres: Vectors) -> None:
        """Search ``ivf``, whose lists have ``centres``, float32 (nlist, dim)."""
        self._ivf = ivf
        self._centres = centres
        self._largest_norm = float(np.sqrt(np.einsum("nd,nd->n", centres, centres, dtype=np.float64).max()))

    @classmethod
    def of(cls, cpu_index: Any) -> InvertedLists | None:
        """Take an index of inverted lists whose centres are compared exactly; None for any other."""
        faiss = load_faiss()
        ivf = faiss.downcast_index(cpu_index)
        if not isinstance(ivf, faiss.IndexIVF) or ivf.metric_type != faiss.METRIC_INNER_PRODUCT:
            return None
        quantizer = faiss.downcast_index(ivf.quantizer)
        if not isinstance(quantizer, faiss.IndexFlat) or quantizer.metric_type != faiss.METRIC_INNER_PRODUCT:
            return None
        return cls(ivf, faiss.rev_swig_ptr(quantizer.get_xb(), ivf.nlist * ivf.d).reshape(ivf.nlist, ivf.d))

    def search(self, queries: Vectors, k: int, params: Any = None) -> tuple[Scores, Rows]:
        """Find the ``k`` best titles of the lists visited: scores float32 and rows int64 (queries, k), -1 where none.

        Args:
            queries: float32 (queries, dim).
            k: how many.
            params: FAISS's search parameters; the index's own by default.
        """
        nprobe = min(int(self._ivf.nlist), int(self._ivf.nprobe if params is None else params.nprobe))
        found, lists = np.empty((len(queries), nprobe), np.float32), np.empty((len(queries), nprobe), np.int64)
        for start in range(0, len(queries), COARSE_QUERIES):
            part = slice(start, start + COARSE_QUERIES)
            error = rounding_error(queries[part], self._largest_norm)
            found[part], lists[part] = settled(
                self._ivf.quantizer.search, queries[part], nprobe, len(self._centres), error, self._centres.__getitem__
            )
        queries = np.ascontiguousarray(queries)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        at = load_faiss().swig_ptr
        # FAISS's Python method of this name takes no parameters.
        self._ivf.search_preassigned_c(
            len(queries), at(queries), k, at(lists), at(found), at(scores), at(rows), False, params
        )
        return scores, rows
