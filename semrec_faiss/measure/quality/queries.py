"""Queries made up from an index's own titles."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.vector_index import VectorIndex


def made_up_queries(index: VectorIndex, count: int, seed: int) -> Vectors:
    """Make unit vectors, float32 (count, dim), that lie between titles, as users' tastes do."""
    random = np.random.default_rng(seed)
    liked, also = random.integers(0, index.count, (2, count))
    queries = index.vectors(liked) + np.float32(0.5) * index.vectors(also)
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.float32(1e-12))
    return np.ascontiguousarray(queries, dtype=np.float32)
