"""Titles that a change brings to an index of learned vectors: their texts give them what people have not yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.data.folder.layout import open_vectors, read_float32
from semrec_faiss.data.interactions.hybrid import Transformation
from semrec_faiss.data.interactions.transformation_file import has_transformation
from semrec_faiss.index.saved.saved_index import SavedIndex

_NEARLY, _NOTHING = 1e-4, 1e-6
"""A text that is projected in another batch comes out the same but for this share, or this much."""


def texts_of(saved: SavedIndex, path: Path | None) -> Vectors | None:
    """Return the text vectors of a change to an index of learned vectors, float32 (titles, text dim).

    Args:
        saved: the index.
        path: the change's vectors; None where it brings none.

    Returns:
        None where the index's vectors are not learned, or those of the change are finished ones: beside them lies a
        transformation, or they have as many dimensions as the index's and texts have others.

    Raises:
        DataError: vectors of neither kind.
    """
    learned = saved.transformation
    if learned is None or path is None or has_transformation(path.parent):
        return None
    dim = text_dim(learned)
    found = open_vectors(path).shape[1]
    if found == learned.dim != dim:
        return None
    return read_float32(open_vectors(path, expect_dim=dim), normalize=False, path=path)


def text_dim(learned: Transformation) -> int:
    """Return how many dimensions text vectors have; 0 where vectors were learned without texts."""
    return 0 if learned.projection is None else len(learned.projection.mean)


def vectors_by_texts(saved: SavedIndex, texts: Vectors, rows: Rows) -> Vectors:
    """Return the vectors of a change's titles: float32 (titles, dim).

    A title that somebody has seen keeps the part that people gave it; any other gets that from its text, too.

    Args:
        saved: an index of learned vectors.
        texts: float32 (titles, text dim).
        rows: int64 (titles,), the titles' rows in the index; -1 for new ones.
    """
    learned = saved.transformation
    assert learned is not None
    text_part = learned.projected(texts)
    factors, there = learned.factors_of(text_part), rows >= 0
    if not there.any():
        return learned.assemble(factors, text_part)
    held = saved.vectors.vectors(rows[there])
    factors[there] = np.where(_seen(saved, rows[there])[:, None], held[:, : learned.rank], factors[there])
    vectors = learned.assemble(factors, text_part)
    close = np.isclose(vectors[there], held, rtol=_NEARLY, atol=_NOTHING)
    vectors[there] = np.where(close.all(axis=1, keepdims=True), held, vectors[there])
    return vectors


def _seen(saved: SavedIndex, rows: Rows) -> Mask:
    """Tell which titles anybody has seen."""
    if saved.users is None or not saved.users.has_seen:
        return np.zeros(len(rows), np.bool_)
    return np.isin(rows, saved.users.history.rows)
