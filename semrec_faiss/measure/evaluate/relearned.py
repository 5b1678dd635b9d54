"""Learned vectors without what is left out: learned anew, so that no title is known by what it should be found by."""

from __future__ import annotations

import numpy as np

from semrec_faiss.config.index_types import FlatIndex
from semrec_faiss.data.interactions.hybrid import Transformation, learn_beside
from semrec_faiss.data.users import History
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.progress import Progress, silent


def relearned(
    index: VectorIndex, transformation: Transformation, history: History, progress: Progress = silent
) -> VectorIndex:
    """Learn the titles' vectors of ``history`` alone, beside the text parts of ``index``, and index them exactly."""
    text_part = transformation.text_part_of(index.vectors(np.arange(index.count)))
    progress("learning vectors", 0, 1)
    vectors, _ = learn_beside(history, text_part, transformation.settings)
    progress("learning vectors", 1, 1)
    config = FlatIndex(normalize=False)
    made = build_faiss_index(config, lambda: [(0, vectors)], len(vectors), vectors.shape[1], Device())
    return VectorIndex(made, config)
