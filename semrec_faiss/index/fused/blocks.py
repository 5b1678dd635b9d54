"""Large batches in blocks: while a GPU searches one, the host takes the last one's answers and brings the next.

Two blocks are under way at once: each in a lane with a stream, buffers and recordings of its own; or, of so many titles
that recordings and streams would save nothing, one behind the other in the same lane. What their first passes do not
prove is searched again when all are done: repeated in its lane, it would wait for the block beside it, and the host for
both.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.block_search import ALONE, BlockSearch, KthScores
from semrec_faiss.index.fused.cards import MULTIPLIED_A_MS
from semrec_faiss.index.fused.pass_buffers import LANES, LAUNCHED, LAUNCHING, FirstPass
from semrec_faiss.index.fused.plan import LARGEST_TILE, Masking
from semrec_faiss.index.fused.queries.batches import Batch
from semrec_faiss.index.fused.room import MOST_QUERIES, block_queries, even_block, recorded_again, recorded_queries
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.titles.gpu_titles import load_torch

LEAST_MS, LONG_MS = 2.0, 8.0
"""Estimated: how long a batch takes that is worth dividing, and a block that the host's work for it adds nothing to."""

Steps: TypeAlias = Generator[bool, None, tuple[int, int]]
"""A search of a block, as `BlockSearch.answer` makes it."""


class Lane:
    """One of the places where a block is searched."""

    def __init__(self, number: int, stream: Any = None) -> None:
        """Launch in a stream, or, without one, in whichever is current."""
        self.number, self.stream = number, stream

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """Make its stream the current one."""
        if self.stream is None:
            return contextlib.nullcontext()
        current: contextlib.AbstractContextManager[Any] = load_torch().cuda.stream(self.stream)
        return current


class Lanes:
    """The lanes of one GPU."""

    def __init__(self, device: Any) -> None:
        """Make them; their streams when there are several blocks to search."""
        self._device = device
        self._apart: list[Lane] = []

    def first(self, lanes: int) -> Sequence[Lane]:
        """Return so many, to search after what is launched already; one alone is whatever stream is current."""
        if lanes == 1:
            return [Lane(ALONE)]
        numbers = range(ALONE + 1, ALONE + 1 + lanes)
        if self._device.type != "cuda":
            return [Lane(number) for number in numbers]
        cuda = load_torch().cuda
        if not self._apart:
            self._apart = [Lane(number, cuda.Stream(self._device)) for number in numbers]
        for lane in self._apart:
            lane.stream.wait_stream(cuda.current_stream(self._device))
        return self._apart


class Blocks:
    """How far a batch is searched.

    Attributes:
        done: its first queries, whose answers are there.
        left: those of them that a first pass does not prove, to be searched again when all blocks are.
        repeated, scanned: how many of them were searched again, and compared with all titles.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.done = self.repeated = self.scanned = 0
        self.left: list[Rows] = []

    def search(
        self, parts: Iterable[slice], lanes: Sequence[Lane], begin: Callable[[slice, int], Steps]
    ) -> Generator[bool, None, None]:
        """Search the blocks in order, as many at a time as there are lanes; yields as they do.

        Args:
            parts: of the batch, from what is done on.
            lanes: where.
            begin: makes the search of one, by a lane's buffers.

        Raises:
            Exception: what a block's search raises; those after it are left then, and nothing of them is under way.
        """
        under_way: deque[tuple[slice, Lane, Steps]] = deque()
        try:
            for number, part in enumerate(parts):
                if len(under_way) == len(lanes):
                    yield from self._end(*under_way.popleft())
                lane = lanes[number % len(lanes)]
                under_way.append((part, lane, begin(part, lane.number)))
                while self._advance(*under_way[-1]):
                    yield LAUNCHING
                yield LAUNCHED
            while under_way:
                yield from self._end(*under_way.popleft())
        finally:
            for _, lane, steps in under_way:
                steps.close()
                if lane.stream is not None:
                    lane.stream.synchronize()

    def _end(self, part: slice, lane: Lane, steps: Steps) -> Generator[bool, None, None]:
        while (launching := self._advance(part, lane, steps)) is not None:
            yield launching

    def _advance(self, part: slice, lane: Lane, steps: Steps) -> bool | None:
        """Go on with a block; return what it yields, or None where it has ended."""
        try:
            with lane.current():
                return next(steps)
        except StopIteration as end:
            repeated, scanned = end.value
            self.done, self.repeated, self.scanned = part.stop, self.repeated + repeated, self.scanned + scanned
            return None


@dataclass(frozen=True)
class BlocksOf:
    """How each block of a batch is searched.

    Attributes:
        batch: vectors, or users on the GPU.
        search, bitmap: what is searched, and which titles of it any query may return; None for all.
        found: where the answers go.
        regular: queries of a block that it may be searched by a recording of; 0 where none is to be made, as blocks
            are launched behind one another in one lane.
        left: where queries are noted that the first pass of a block in a lane leaves, int64 each.
        kth, among: as for `BlockSearch.answer`.
        once: whether what a block's first pass leaves is left to the end, and not searched for block by block.
    """

    batch: Batch
    search: BlockSearch
    bitmap: Any
    found: FusedResult
    regular: int
    left: list[Rows]
    kth: KthScores | None
    among: int
    once: bool

    def begin(self, part: slice, lane: int) -> Steps:
        """Search a block, once or to the end."""
        queries, again = part.stop - part.start, self.among > 0
        its, into = self.batch.part(part), self.found.part(part, self.search.titles.count)
        if self.once:
            first_pass = self.search.first_pass(its, self.bitmap, (into.rows, into.scores), lane, self.regular)
            return self._once(part, first_pass)
        recorded = recorded_again if again else recorded_queries
        return self.search.answer(
            its,
            self.bitmap,
            into.rows,
            into.scores,
            room=recorded(queries) if again or queries == self.regular else 0,
            kth=None if self.kth is None else partial(_from, self.kth, part.start),
            among=self.among,
            coded=not again,
        )

    def _once(self, part: slice, first_pass: FirstPass) -> Steps:
        needed, repeated = yield from first_pass
        self.left.append(part.start + np.flatnonzero(needed != -np.inf))
        return repeated, 0


def _from(kth: KthScores, start: int, queries: Rows) -> Scores:
    """Ask for the scores of a block that begins at query ``start``."""
    return kth(queries + start)


def in_blocks(
    titles: int, dim: int, queries: int, k: int, masking: Masking, *, screened: bool, most: int = MOST_QUERIES
) -> tuple[int, int]:
    """Divide a batch: return how many queries are searched at once, and in how many lanes.

    Args:
        titles: how many are searched.
        dim: dimensions of their copies.
        queries: of the batch.
        k: titles a query.
        masking: which titles they may return.
        screened: whether copies are bounds.
        most: queries that a block may have at most, whatever its titles.
    """
    most = min(most, block_queries(titles, dim, k, masking, screened=screened))
    query_ms = 2 * titles * dim / MULTIPLIED_A_MS
    if queries * query_ms < LEAST_MS and queries <= most:
        return queries, 1
    if min(queries, most) * query_ms > LONG_MS or most < LANES:
        return even_block(queries, most), 1
    tiles = max(1, most // LANES // LARGEST_TILE)
    return even_block(queries, min(most // LANES, tiles * LARGEST_TILE)), LANES
