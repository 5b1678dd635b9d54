"""The work buffers of one pass of a fused search; its answers lie in one of them, so that a single copy moves them."""

from __future__ import annotations

import math
from collections.abc import Generator
from copy import copy
from functools import lru_cache
from typing import Any, Self

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.plan import FusedPlan
from semrec_faiss.index.fused.room import code_rows, code_width
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

Answers = tuple[Rows, Scores]
"""Rows and scores, (queries, k) each, to be filled in."""

LANES = 2
"""Blocks of a large batch that are under way at once."""

LAUNCHING, LAUNCHED = True, False
"""What a search yields: that it goes on launching, so that it is another GPU's turn alone, or that it waits now."""

Searching = Generator[bool, None, Scores]
"""A search under way: it yields when kernels are launched, and returns the score that each query's k-th best would have
to exceed for its answer to be proven: -inf where it is."""

FirstPass = Generator[bool, None, tuple[Scores, int]]
"""The same of a block of a large batch; with how many queries were searched again on the way."""

OF_QUERIES = (
    *("rounded", "scaled", "_along", "bounds", "codes", "code_factors", "maxima", "_others", "_columns", "chosen"),
    *("dropped", "_groups", "_found", "candidates", "picked", "_keys", "rows", "scores", "needed"),
)
"""The buffers that have a row for each query, or none."""

WRITTEN_OUT_BYTES = 4096
"""Answers that kernels write to page-locked memory by themselves, at most: a copy would take longer to begin."""

PAGE_LOCKED_BYTES = 32 << 20
"""Answers that are fetched to page-locked memory, at most."""


class PassBuffers:
    """GPU memory for a block of up to a number of queries over titles: what each kernel leaves to the next.

    Attributes:
        number: of how many queries answers are wanted, int32 (1,) on the GPU; None for all.
        written_out: whether kernels write the answers to the host.
    """

    def __init__(self, titles: GpuTitles, plan: FusedPlan, queries: int, k: int) -> None:
        """Allocate the buffers of a block of ``queries`` for ``k`` titles each."""
        torch = load_torch()
        device = titles.halves.device

        def empty(*shape: int, dtype: Any) -> Any:
            return torch.empty(shape, dtype=dtype, device=device)

        self.titles, self.plan, self.k, self.device = titles, plan, k, device
        self.number: Any = None
        self._chunks = plan.chunks(titles.count)
        self.rounded = empty(queries, titles.dim, dtype=torch.float16)
        self.scaled = empty(queries, titles.vector_dim, dtype=torch.float32)
        self._along: Any = None
        if titles.screened:
            self._along = empty(queries, len(titles.directions), dtype=torch.float64)
        self.bounds = empty(queries, 3, dtype=torch.float32)
        self.maxima = empty(queries, self._chunks, dtype=torch.float16)
        self.maxima[:, plan.tiles(titles.count) * plan.program_titles // (2 * plan.span) :] = -math.inf
        self._others = empty(queries, self._chunks, dtype=torch.int16) if plan.piece else None
        self._columns = empty(queries, plan.columns, dtype=torch.int32) if plan.piece else None
        self.chosen = empty(queries, plan.capacity, dtype=torch.int32)
        self.dropped = empty(queries, plan.segments + plan.row_segments, dtype=torch.float32)
        self._groups = empty(queries, plan.groups, dtype=torch.float16)
        self._found = empty(queries, dtype=torch.int32)
        self.candidates = empty(queries, plan.capacity * plan.listed, dtype=torch.float16)
        self.picked = empty(queries, plan.picks, dtype=torch.int32)
        self._keys = empty(queries, plan.picks, dtype=torch.int64)
        self.written_out = device.type == "cuda" and are_written_out(queries, k)
        where = {"pin_memory": True} if self.written_out else {"device": device}
        self.answers = torch.empty(sum(_answer_bytes(queries, k)), dtype=torch.uint8, **where)
        self.rows, self.scores, self.needed = answers_in(self.answers, queries, k)
        self.codes = self.code_factors = None
        if plan.planes:
            shape = (code_rows(queries, plan.planes), titles.codes.width if titles.codes else code_width(titles.dim))
            self.codes = torch.zeros(shape, dtype=torch.int8, device=device)
            self.code_factors = empty(queries, 3, dtype=torch.float32)
        codes = titles.codes.codes if titles.codes and plan.planes else None
        self._query_tiles = self._in_tiles(self.rounded if codes is None else self.codes, plan.tile_queries)
        self._title_tiles = self._in_tiles(titles.halves if codes is None else codes, plan.tile_titles)

    def _in_tiles(self, table: Any, rows: int) -> Any:
        """Return a table as the score pass loads it, so many rows at once."""
        from triton.tools.tensor_descriptor import TensorDescriptor

        return table if self.plan.pointers else TensorDescriptor.from_tensor(table, [rows, self.plan.tile_dim])

    @property
    def limit(self) -> tuple[Any, bool]:
        """Where kernels read ``number``, and whether they do."""
        return (self.bounds, False) if self.number is None else (self.number, True)

    def after(self, first: int) -> Self:
        """Return the buffers of the queries from ``first`` on, which begins a tile."""
        if not first:
            return self
        its = copy(self)
        for name in OF_QUERIES:
            table = getattr(self, name)
            setattr(its, name, None if table is None else table[first:])
        its._query_tiles = self._in_tiles(its.rounded if its.codes is None else its.codes, self.plan.tile_queries)
        return its

    def fits(self, titles: GpuTitles, plan: FusedPlan, queries: int, k: int) -> bool:
        """Tell whether these buffers do for such a block."""
        return self.titles is titles and self.plan == plan and self.k == k and len(self.rows) >= queries


def answers_in(buffer: Any, queries: int, k: int) -> tuple[Any, Any, Any]:
    """Lay rows, scores and what proves them over one buffer of bytes, so that a single copy moves them.

    Returns:
        Views: int64 (queries, k), float32 (queries, k), float32 (queries,), see `kernels.ranking.rank_rows`.
    """
    torch = load_torch()
    rows, scores, needed = buffer.split(_answer_bytes(queries, k))
    return (
        rows[: 8 * queries * k].view(torch.int64).view(queries, k),
        scores[: 4 * queries * k].view(torch.float32).view(queries, k),
        needed[: 4 * queries].view(torch.float32),
    )


def are_written_out(queries: int, k: int) -> bool:
    """Tell whether answers are so few that kernels of a GPU write them to page-locked memory by themselves."""
    return sum(_answer_bytes(queries, k)) <= WRITTEN_OUT_BYTES


def _answer_bytes(queries: int, k: int) -> list[int]:
    """Return the bytes of rows, scores and what proves them, each of them up to a multiple of 16.

    For pointers that are no multiples of 16 Triton compiles a kernel anew: for every other number of queries, once.
    """
    return [-(-size // 16) * 16 for size in (8 * queries * k, 4 * queries * k, 4 * queries)]


class Fetched:
    """What a pass has found, on the host: page-locked, unless it is much, so that the GPU sends it by itself."""

    def __init__(self, work: PassBuffers) -> None:
        """Make room for the answers of ``work``, and the views of them: that takes longer than copying a few."""
        self._torch, self._answers, self._device = load_torch(), work.answers, work.device
        locked = self._device.type == "cuda" and work.answers.nbytes <= PAGE_LOCKED_BYTES
        self._held = self._answers
        if not work.written_out:
            self._held = self._torch.empty_like(work.answers, device="cpu", pin_memory=locked)
        self._found = tuple(part.numpy() for part in answers_in(self._held, len(work.rows), work.k))
        self._done = self._torch.cuda.Event() if self._device.type == "cuda" else None

    def fetch(self) -> None:
        """Launch the copy, or record it."""
        if self._held is not self._answers:
            self._held.copy_(self._answers, non_blocking=True)

    def mark(self) -> None:
        """Note how far the GPU has to come until the copy is there, when it or its recording is launched."""
        if self._done is not None:
            self._done.record(_current_stream(self._device))

    def found(self, count: int) -> tuple[Rows, Scores, Scores]:
        """Wait for the copy; return views of so many answers, and of what would prove them."""
        if self._done is not None and not self._done.query():  # which, unlike waiting, keeps the interpreter's lock
            self._done.synchronize()
        rows, scores, needed = (part[:count] for part in self._found)
        return rows, scores, needed

    def copied(self, into: Answers) -> Scores:
        """Wait for it, copy as many answers as are asked for, and return what would prove them."""
        into[0][:], into[1][:], needed = self.found(len(into[0]))
        return np.array(needed)


def _current_stream(device: Any) -> Any:
    """Return what `torch.cuda.current_stream` does, which makes an object of it each time, and takes longer."""
    from triton.runtime import driver

    return _stream(device, driver.active.get_current_stream(device.index))


@lru_cache(maxsize=256)
def _stream(device: Any, _: int) -> Any:
    return load_torch().cuda.current_stream(device)
