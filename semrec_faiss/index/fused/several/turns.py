"""Large batches in blocks that take turns: while GPUs search one, the host takes the last one's answers and brings the
next.

Two blocks are under way at once, each with buffers of its own. What a first pass does not prove is searched again at
the end, as on one GPU, see `blocks`; of shards that is little, as they prove nearly all by one another.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from semrec_faiss.index.fused.cards import MULTIPLIED_A_MS
from semrec_faiss.index.fused.pass_buffers import LANES
from semrec_faiss.index.fused.plan import LARGEST_TILE, Masking
from semrec_faiss.index.fused.room import block_queries
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles

BLOCK_MS = 5.0
"""How long a block takes at least, estimated: much longer than launching it does."""

Launched = TypeVar("Launched")


def may_take_turns(queries: int) -> bool:
    """Tell whether a batch has more tiles than there are lanes, as it needs to be divided."""
    return queries > LANES * LARGEST_TILE


def turns_of(titles: GpuTitles, queries: int, k: int, masking: Masking) -> list[slice]:
    """Divide a batch into blocks that are worth taking turns; none where it is too small."""
    wanted = int(2 * titles.count * titles.dim * queries / MULTIPLIED_A_MS / BLOCK_MS)
    if wanted <= LANES or not may_take_turns(queries):
        return []
    tiles = -(-queries // LARGEST_TILE)
    most = block_queries(titles.count, titles.dim, k, masking, screened=titles.screened)
    most_tiles = most // LANES // LARGEST_TILE
    if not most_tiles:
        return []
    blocks = max(min(wanted, tiles), -(-tiles // most_tiles))
    cuts = [min(queries, tiles * block // blocks * LARGEST_TILE) for block in range(blocks + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(cuts)]


def in_turns(
    blocks: Sequence[slice], begin: Callable[[slice, int], Launched], end: Callable[[slice, Launched], None]
) -> None:
    """Keep as many blocks under way as there are lanes.

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
    while under_way:
        end(*under_way.popleft())
