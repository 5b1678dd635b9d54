"""The vectors that point the same way as one, exactly, whatever their lengths are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Values, Vectors
from semrec_faiss.index.cpu.exact import SCAN_ROWS, VectorsOf, rounding_error, wide_products
from semrec_faiss.index.cpu.products import products_of_one


def lengths_of(blocks: Iterable[Vectors]) -> Values:
    """Return what products are divided by: the lengths of vectors, 1 for one of noughts alone.

    Args:
        blocks: the vectors in order, float32 (some, dim) each; at least one block.

    Returns:
        float64 (vectors,).
    """
    lengths = np.sqrt(np.concatenate([np.einsum("ij,ij->i", block, block, dtype=np.float64) for block in blocks]))
    return np.where(lengths > 0, lengths, 1.0)


def most_alike(
    query: Vectors, k: int, rows: Rows, lengths: Values, blocks: Iterable[Vectors], vectors_of: VectorsOf
) -> tuple[Rows, Scores]:
    """Find the vectors whose cosines to a query are the greatest: all scored in one way, ties by row.

    Args:
        query: float32 (dim,), of unit length; noughts leave columns out.
        k: how many at most.
        rows: int64, ascending, those that may be found.
        lengths: float64 (vectors,), of the columns that count; see `lengths_of`.
        blocks: all vectors in order, float32 (some, dim) each, C-contiguous.
        vectors_of: returns the vectors of rows.

    Returns:
        rows int64 and cosines float32 (found,), best first.
    """
    if not len(rows):
        return rows, np.empty(0, np.float32)
    asked = query[None, :]
    products = np.concatenate([products_of_one(asked, block) for block in blocks])
    if k < len(rows):
        cosines = products[rows] / lengths[rows]
        error = float(rounding_error(asked, 1.0)[0]) + len(query) * np.finfo(np.float32).tiny / lengths[rows]
        error *= 2  # once more for what is rounded afterwards
        least = np.partition(cosines - error, len(rows) - k)[len(rows) - k]
        rows = rows[cosines + error >= least]
    exact = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), SCAN_ROWS):
        some = rows[first : first + SCAN_ROWS]
        exact[first : first + SCAN_ROWS] = wide_products(asked, vectors_of(some)[None])[0] / lengths[some]
    best = np.lexsort((rows, -exact))[:k]
    return rows[best], exact[best]
