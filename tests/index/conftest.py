"""A searchable index straight from vectors, without a data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.factory import holds_vectors_exactly, resolve
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex


def index_of(vectors: NDArray[Any], settings: dict[str, Any], device: Device | None = None) -> VectorIndex:
    """Build a VectorIndex of the config section ``settings`` over ``vectors``, normalised as a build does it."""
    config = config_from_dict({"index": settings}).index
    stored = np.asarray(vectors, dtype=np.float64)
    if config.normalize:
        stored = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    stored = np.ascontiguousarray(stored, dtype=np.float32)
    count, dim = stored.shape

    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for first in range(0, count, 1000):
            yield first, stored[first : first + 1000]

    resolved = resolve(config, count, dim)
    index = build_faiss_index(resolved, blocks, count, dim, device or Device())
    originals = None if holds_vectors_exactly(index) else stored
    return VectorIndex(index, resolved, device, originals=originals)


@pytest.fixture(scope="session")
def make_index() -> Callable[..., VectorIndex]:
    """`index_of`: a searchable index from vectors and the ``index`` section of a config."""
    return index_of
