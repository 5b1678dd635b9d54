"""Queries on their way to a GPU: by way of page-locked memory, which it reads from by itself, and many in parts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch

COPIED_AT_ONCE = 2 << 20
"""Bytes of queries that numpy copies sooner than torch on many threads, which have to wake, and spin afterwards."""

SENT_APART = 256 << 10
"""From so many bytes on queries are page-locked once for all GPUs, and sent from there rather than by a recording."""

SENT_IN_PART = 4 << 20
"""Bytes of queries that are copied to page-locked memory while those before them are on their way, and are scored."""

SENT_FIRST = 512 << 10
"""Bytes of the first ones, for which the GPU waits, where a part costs nothing but launching what scores it."""

SLOWEST_S_A_BYTE = 1e-9
"""What a copy by many threads takes at most unless these are kept waiting: ten times as long as it does."""

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
"""Seconds until many threads are tried again: at first, and when they were kept waiting every time."""


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


def parts_of(queries: int, dim: int, *, soon: bool) -> list[slice]:
    """Divide float32 queries into parts that are worth being sent one by one, each of whole tiles of the score pass.

    Args:
        queries: how many.
        dim: their dimensions.
        soon: whether the first part is small.
    """
    bytes_first = min(SENT_FIRST, SENT_IN_PART) if soon else SENT_IN_PART
    first, step = (max(1, size // (4 * dim * LARGEST_TILE)) * LARGEST_TILE for size in (bytes_first, SENT_IN_PART))
    cuts = [0, *range(first, queries, step), queries]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def fetchable(given: Any) -> bool:
    """Tell whether a GPU may fetch queries from where they lie."""
    return bool(given.dtype == load_torch().float32 and given.is_pinned())


class ManyThreads:
    """Torch's threads, unless they were kept waiting a while ago.

    Others may keep every core: numpy's spin after a product, and a copy by all of torch's then takes 60 to 100 ms
    instead of 0.1. One thread takes 0.5.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Take them to be at hand."""
        self._clock, self._back_at, self._rest = clock, -math.inf, FIRST_REST_S
        self._are_new = True

    @property
    def are_at_hand(self) -> bool:
        """Whether to try."""
        return self._clock() >= self._back_at

    def copy(self, given: Any, into: Any) -> None:
        """Copy on the host, and see how long that takes."""
        begun = self._clock()
        into.copy_(given)
        now = self._clock()
        if self._are_new or now - begun <= SLOWEST_S_A_BYTE * given.nbytes:  # the first copy also starts them
            self._are_new, self._rest = False, FIRST_REST_S
            return
        self._back_at = now + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST_S)


_many_threads = ManyThreads()


def copied(given: Any, into: Any) -> Any:
    """Copy numbers to float32 on the host, much on several threads."""
    if given.nbytes > COPIED_AT_ONCE and _many_threads.are_at_hand:
        _many_threads.copy(given, into)
        return into
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite then
        np.copyto(into.numpy(), given.numpy(), casting="unsafe")
    return into
