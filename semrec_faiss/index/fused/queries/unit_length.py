"""Queries brought to unit length: on the host, or, many of them, on the GPU that they are sent to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.listing import power_of_two
from semrec_faiss.index.fused.queries.sending import SENT_APART
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.queries import LEAST_SQUARE, ON_HOST, UNIT_SQUARE_TOLERANCE

LOCKED_BYTES = 64 << 20
"""Bytes of queries for which page-locked memory is asked, and kept by torch, at most."""


def room_for(shape: tuple[int, ...], device: Any) -> Vectors:
    """Make room for float32 queries, page-locked unless they are too many, so that they need not be copied there."""
    torch = load_torch()
    locked = device.type == "cuda" and 4 * math.prod(shape) <= LOCKED_BYTES
    room: Vectors = torch.empty(shape, dtype=torch.float32, pin_memory=locked).numpy()
    return room


class ByTorch:
    """Prepares many queries by torch, which takes a fifth of numpy's time to divide, and several threads; few by numpy.

    FAISS's threads are not for queries that go to a GPU: torch's, which copy them, would wait for these to rest.
    """

    def __init__(self, device: Any) -> None:
        """Divide into `room_for` what is divided."""
        self._device = device

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the squared length of each row; see `Arithmetic`."""
        if 4 * vectors.size <= SENT_APART:
            return ON_HOST.squares(vectors)
        lengths: NDArray[Any] = load_torch().linalg.vector_norm(as_tensor(vectors), dim=1).numpy()
        return np.asarray(lengths * lengths)

    def divided(self, vectors: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Divide rows by their lengths; see `Arithmetic`."""
        if 4 * vectors.size <= SENT_APART:
            return ON_HOST.divided(vectors, lengths)
        room = room_for(vectors.shape, self._device)
        load_torch().div(as_tensor(vectors), as_tensor(lengths), out=as_tensor(room))
        return room


class OddQueriesError(Exception):
    """Some of the queries that a GPU was to bring to unit length are infinite, or too short to have a direction."""


class UnitLength:
    """Brings queries to unit length on the GPU that they are sent to, or looks at them alone; and tells of odd ones."""

    def __init__(self, device: Any, *, normalize: bool) -> None:
        """Bring them to unit length, or with ``normalize`` False see whether they are finite."""
        torch = load_torch()
        self._normalize = normalize
        self._odd = torch.zeros(1, dtype=torch.int32, device=device)
        self._told_in = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._told = self._told_in.numpy()

    def launch(self, queries: Any) -> None:
        """Launch it for some queries, float32 (some, dim) on the GPU, in place."""
        from semrec_faiss.index.fused.kernels import queries as kernels

        count, dim = queries.shape
        options = ARITHMETIC | {"NORMALIZE": self._normalize, "D_BLOCK": power_of_two(dim), "num_warps": 4}
        least = LEAST_SQUARE if self._normalize else -1.0
        kernels.bring_to_unit_length[(count,)](queries, self._odd, dim, least, UNIT_SQUARE_TOLERANCE, **options)

    def fetch(self) -> None:
        """Launch the copy of what `check` looks at, behind the last queries of a batch."""
        self._told_in.copy_(self._odd, non_blocking=True)

    def check(self) -> None:
        """Look at a batch whose answers are there, and at those before it, and forget what was odd.

        Raises:
            OddQueriesError: some of its queries are odd; the answers are of no use.
        """
        if self._told[0]:
            self._odd.zero_()
            self._told_in.zero_()
            raise OddQueriesError
