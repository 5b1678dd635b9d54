"""Large batches in blocks that take turns: while a GPU searches one, the host takes the last one's answers and brings
the next.

Two blocks are under way at once, each with buffers of its own. What a first pass does not prove is not repeated then
and there, which would wait for the block behind it, but searched again at the end.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.batch import Searching
from semrec_faiss.index.fused.batches import Batch
from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.known_filters import MULTIPLIED_A_MS
from semrec_faiss.index.fused.plan import LARGEST_TILE, Masking, block_queries
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles

LANES = 2
"""Blocks under way at once."""

BLOCK_MS = 5.0
"""How long a block takes at least, estimated: much longer than launching it does."""

Launched = TypeVar("Launched")


def turns_of(titles: GpuTitles, queries: int, k: int, masking: Masking) -> list[slice]:
    """Divide a batch into blocks that are worth taking turns; none where it is too small, or nothing proven at once."""
    wanted = int(2 * titles.count * titles.dim * queries / MULTIPLIED_A_MS / BLOCK_MS)
    tiles = -(-queries // LARGEST_TILE)
    if wanted <= LANES or tiles <= LANES or titles.wide:
        return []
    most = block_queries(titles.count, titles.dim, k, masking, screened=titles.screened)
    most_tiles = most // LANES // LARGEST_TILE
    if not most_tiles:
        return []
    blocks = max(min(wanted, tiles), -(-tiles // most_tiles))
    cuts = [min(queries, tiles * block // blocks * LARGEST_TILE) for block in range(blocks + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(cuts)]


def in_turns(
    blocks: Sequence[slice], begin: Callable[[slice, int], Launched], end: Callable[[slice, Launched], None]
) -> Generator[None, None, None]:
    """Keep as many blocks under way as there are lanes; yields whenever one is launched.

    Args:
        blocks: of a batch.
        begin: launches a block, with a lane's buffers.
        end: takes the answers of one that was launched.
    """
    under_way: deque[tuple[slice, Launched]] = deque()
    for number, block in enumerate(blocks):
        if len(under_way) == LANES:
            end(*under_way.popleft())
        under_way.append((block, begin(block, number % LANES)))
        yield
    while under_way:
        end(*under_way.popleft())


def search_in_turns(
    search: BlockSearch, batch: Batch, shared: Any, room: FusedResult
) -> Generator[None, None, Rows | None]:
    """Search a batch once on one GPU; return which queries are not proven, None where it is not worth taking turns.

    Args:
        search: of as many titles as there is room for.
        batch: the queries.
        shared: the bitmap of titles that all of them may return; None for all.
        room: where the answers go.
    """
    masking: Masking = "own" if batch.leaves_out else "none" if shared is None else "shared"
    left: list[Rows] = []

    def begin(block: slice, lane: int) -> Searching:
        its = batch.part(block).staged(search.titles.halves.device, 0)
        searching = search.first_pass(its, shared, (room.rows[block], room.scores[block]), lane)
        next(searching)
        next(searching)
        return searching

    def end(block: slice, searching: Searching) -> None:
        left.append(block.start + np.flatnonzero(_finished(searching) != -np.inf))

    queries, k = room.rows.shape
    yield from in_turns(turns_of(search.titles, queries, k, masking), begin, end)
    return np.concatenate(left) if left else None


def _finished(searching: Searching) -> Scores:
    try:
        next(searching)
    except StopIteration as end:
        found: Scores = end.value
        return found
    raise AssertionError("a first pass waits once")
