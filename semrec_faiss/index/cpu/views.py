"""FAISS's indexes over arrays where they lie, in memory or mapped: nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.hardware.device import load_faiss


def flat_over(vectors: Vectors) -> Any:
    """Return a flat index of ``vectors``, float32 (count, dim), C-contiguous."""
    return _over(load_faiss().IndexFlatIP(vectors.shape[1]), vectors)


def halves_over(halves: NDArray[np.float16]) -> Any:
    """Return an index of ``halves``, float16 (count, width), C-contiguous: what FAISS calls fp16 codes are these."""
    faiss = load_faiss()
    quantizer = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(halves.shape[1], quantizer, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    return _over(index, halves)


def _over(index: Any, array: NDArray[Any]) -> Any:
    index.ntotal = len(array)
    held = array.view(np.uint8)
    codes, at = index.codes, load_faiss().swig_ptr(held)
    codes.is_owned, codes.view_data, codes.view_size, codes.c_ptr, codes.c_size = False, at, held.size, at, held.size
    index.referenced_objects = [held]
    return index
