"""Queries on their way to a GPU: by way of page-locked memory, which it reads from by itself, and many in parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.forking import OWN_THREADS, renewed_after_fork
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch

COPIED_AT_ONCE = 2 << 20
"""Bytes of queries that are copied to page-locked memory sooner than another thread is awake."""

SENT_APART = 256 << 10
"""From so many bytes on queries are page-locked once for all GPUs, and sent from there rather than by a recording."""

SENT_IN_PART = 4 << 20
"""Bytes of queries that are copied to page-locked memory while those before them are on their way, and are scored."""

COPIERS = 3
"""Threads that copy queries: as many as keep up with two GPUs. All cores at once, as torch takes them, are waited for
until the last one is awake, which after a pause takes up to 20 ms."""


@lru_cache(maxsize=1)
def _copiers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COPIERS, f"{OWN_THREADS}queries")


renewed_after_fork(_copiers.cache_clear)


class Arriving:
    """Queries on their way to page-locked memory: the first ones as they are asked for, the others by a thread beside.

    It copies them in one piece: threads that took turns with the interpreter's lock would cost more than they save.

    Attributes:
        ahead: whether all are copied beside, while something else is searched.
    """

    def __init__(self, given: Vectors, device: Any, here: int) -> None:
        """Begin to copy float32 (queries, dim) for a device, but for the first ``here`` of them."""
        self._given = as_tensor(given)
        self._locked = load_torch().empty(self._given.shape, pin_memory=device.type == "cuda")
        self.ahead, self._here, self._copied = here == 0, here, 0
        beside = slice(here, len(given))
        self._coming = _copiers().submit(self._copy, beside) if here < len(given) else None

    def _copy(self, part: slice) -> None:
        np.copyto(self._locked[part].numpy(), self._given[part].numpy())

    def part(self, queries: slice) -> Any:
        """Return some of them, page-locked, when they are there; parts are asked for in order, again at will."""
        if self._coming is not None and queries.stop > self._here:
            if self._coming.cancel():  # no thread has come to it: all have something else to do
                self._here = len(self._given)
            else:
                self._coming.result()
            self._coming = None
        wanted = min(queries.stop, self._here)
        if self._copied < wanted:
            self._copy(slice(self._copied, wanted))
            self._copied = wanted
        return self._locked[queries]


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


def arriving(queries: Vectors, device: Any, least: int, *, ahead: bool) -> Arriving | None:
    """Begin to bring queries to page-locked memory; None where they are there, or of no more than ``least`` bytes.

    Args:
        queries: float32 (queries, dim).
        device: which is going to read them.
        least: bytes.
        ahead: whether they are not needed yet; otherwise the first half is copied where it is asked for.
    """
    if queries.nbytes <= least or as_tensor(queries).is_pinned():
        return None
    parts = parts_of(*queries.shape)
    here = 0 if ahead and len(parts) > 1 else parts[(len(parts) - 1) // 2].stop
    return Arriving(queries, device, here)


def parts_of(queries: int, dim: int) -> list[slice]:
    """Divide float32 queries into parts that are worth being sent one by one, each of whole tiles of the score pass."""
    step = max(1, SENT_IN_PART // (4 * dim * LARGEST_TILE)) * LARGEST_TILE
    return [slice(start, min(start + step, queries)) for start in range(0, queries, step)]
