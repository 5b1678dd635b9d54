"""Queries on their way to a GPU: by way of page-locked memory, which it reads from by itself, and many in parts."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.queries import ON_HOST, prepared_block

COPIED_AT_ONCE = 2 << 20
"""Bytes of queries that numpy copies sooner than torch on many threads, which have to wake, and spin afterwards."""

SENT_APART = 256 << 10
"""From so many bytes on queries are page-locked once for all GPUs, and sent from there rather than by a recording."""

LOCKED_BYTES = 64 << 20
"""Bytes of queries for which page-locked memory is asked, and kept by torch, at most."""

SENT_IN_PART = 4 << 20
"""Bytes of queries that are copied to page-locked memory while those before them are on their way, and are scored."""


@lru_cache
def _apart(device: Any) -> Any:
    return load_torch().cuda.Stream(device)


class Sending:
    """Queries on their way to a GPU, many in parts in a stream apart: each part while the one before is scored."""

    def __init__(self, there: Any, parts: int) -> None:
        """Send so many parts to ``there`` when what is launched already no longer needs it."""
        self._there, self._cuda = there, load_torch().cuda
        self._apart = _apart(there.device) if there.is_cuda and parts > 1 else None
        if self._apart is not None:
            self._apart.wait_stream(self._cuda.current_stream(there.device))

    def copy(self, locked: Any, part: slice) -> None:
        """Launch the copy of a part; what is launched afterwards waits for it."""
        if self._apart is None:
            self._there[part].copy_(locked, non_blocking=True)
            return
        with self._cuda.stream(self._apart):
            self._there[part].copy_(locked, non_blocking=True)
        self._cuda.current_stream(self._there.device).wait_stream(self._apart)


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

    def __init__(self, device: Any, room: Vectors | None = None) -> None:
        """Divide into ``room``, or else into `room_for` what is divided."""
        self._device, self._room = device, room

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the squared length of each row; see `Arithmetic`."""
        if 4 * vectors.size <= SENT_APART:
            return ON_HOST.squares(vectors)
        lengths: NDArray[Any] = load_torch().linalg.vector_norm(as_tensor(vectors), dim=1).numpy()
        return np.asarray(lengths * lengths)

    def divided(self, vectors: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Divide rows by their lengths; see `Arithmetic`."""
        if 4 * vectors.size <= SENT_APART and self._room is None:
            return ON_HOST.divided(vectors, lengths)
        room = room_for(vectors.shape, self._device) if self._room is None else self._room
        load_torch().div(as_tensor(vectors), as_tensor(lengths), out=as_tensor(room))
        return room


class Preparing:
    """Queries as they were given, prepared in parts: each when it is to be sent, while those before it are searched.

    Attributes:
        vectors: float32 (queries, dim), of which the first ones are prepared, and the others hold nothing yet.
    """

    def __init__(self, given: NDArray[Any], first: int, device: Any, *, normalize: bool) -> None:
        """Make room for them; see `prepared_block`, which the arguments are for."""
        self.vectors, self._device = room_for(given.shape, device), device
        self._given, self._first, self._normalize, self._done = given, first, normalize, 0

    def until(self, stop: int) -> None:
        """Prepare the queries before ``stop`` that are not yet.

        Raises:
            DataError: one of them cannot be searched for; see `prepared_block`.
        """
        if stop <= self._done:
            return
        part = slice(self._done, stop)
        room, first = self.vectors[part], self._first + part.start
        by = ByTorch(self._device, room)
        prepared = prepared_block(self._given[part], first, normalize=self._normalize, by=by)
        if not np.may_share_memory(prepared, room):
            copied(as_tensor(prepared), as_tensor(room))
        self._done = stop


def staged(queries: Vectors, device: Any, least: int) -> Vectors:
    """Return float32 (queries, dim) in page-locked memory, from where GPUs fetch them by themselves.

    Of no more than ``least`` bytes they are returned as they are.
    """
    if device.type != "cuda" or queries.nbytes <= least:
        return queries
    given = as_tensor(queries)
    if given.is_pinned():
        return queries
    locked: Vectors = copied(given, load_torch().empty(given.shape, pin_memory=True)).numpy()
    return locked


def parts_of(queries: int, dim: int) -> list[slice]:
    """Divide float32 queries into parts that are worth being sent one by one, each of whole tiles of the score pass."""
    step = max(1, SENT_IN_PART // (4 * dim * LARGEST_TILE)) * LARGEST_TILE
    return [slice(start, min(start + step, queries)) for start in range(0, queries, step)]


def copied(given: Any, into: Any) -> Any:
    """Copy on the host, much on several threads."""
    if given.nbytes > COPIED_AT_ONCE:
        return into.copy_(given)
    np.copyto(into.numpy(), given.numpy())
    return into
