"""Queries on their way to a GPU: by way of page-locked memory, which it reads from by itself, and many in parts."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch

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


def divided(queries: NDArray[Any], lengths: NDArray[Any], device: Any) -> Vectors:
    """Divide queries by their lengths: many into page-locked memory, so that they need not be copied there.

    Torch takes a fifth of numpy's time for that, and several threads.
    """
    if 4 * queries.size <= SENT_APART:
        return np.asarray(queries / lengths, np.float32)
    torch = load_torch()
    locked = device.type == "cuda" and 4 * queries.size <= LOCKED_BYTES
    into = torch.empty(queries.shape, dtype=torch.float32, pin_memory=locked)
    found: Vectors = torch.div(as_tensor(queries), as_tensor(lengths), out=into).numpy()
    return found


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
