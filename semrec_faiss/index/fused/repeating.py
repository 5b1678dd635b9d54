"""What a pass does not prove, searched again with more candidates, without reading the titles again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.kernels.compiling import recorded
from semrec_faiss.index.fused.listing import SEGMENT, capacity_of, picks_of, power_of_two, segments_of, width_of
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.pass_buffers import LAUNCHED, Answers, Fetched, Searching
from semrec_faiss.index.fused.plan import MOST_KEPT, RESCORED_AT_ONCE, FusedPlan, with_pieces
from semrec_faiss.index.fused.room import repeat_queries, repeated_bytes
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch

FEWEST_REPEATED = 16
"""Queries that there is room for at least where some are searched again."""

QUERIES_A_REPEAT, PIECES_A_REPEAT = 256, 4
"""Of batches of more queries than the first, about one in so many has room to be searched again in the same recording;
where it is for more pieces, one in as few as the second."""

REPEATED_BYTES = 32 << 20
"""GPU memory of those, at most."""

WIDER, MOST_PIECES = 3, 224
"""Times as many pieces are kept of queries whose best ones a first pass has not told apart, and how many at most: the
columns that more are looked for in do not fit the registers of all cards."""

LISTED_AT_ONCE = 4096
"""Queries that the program which lists the unproven ones looks at together."""


class RepeatAtOnce:
    """What a pass has not proven, searched again right behind it, so that the host need not wait in between."""

    def __init__(self, earlier: FusedPass, room: int) -> None:
        """Make room for so many queries."""
        torch, device = load_torch(), earlier.device
        self._earlier = earlier
        self._work = FusedPass(earlier.titles, plan_at_once(earlier.plan, earlier.titles.count), room, earlier.k)
        self._which = torch.zeros(room, dtype=torch.int64, device=device)
        self._number = self._work.number = torch.zeros(1, dtype=torch.int32, device=device)

    def launch(self, allowed: Any, stride: int) -> None:
        """Launch it, or record it, with what the pass was run with; ``needed`` of those that it proves becomes NaN."""
        from semrec_faiss.index.fused.kernels import selecting

        earlier, work, which = self._earlier, self._work, (self._which, self._number)
        count, room = len(earlier.rows), len(self._which)
        sizes = {"BLOCK": LISTED_AT_ONCE, "num_warps": 8}
        selecting.list_unproven[(1,)](earlier.needed, *which, count, room, **sizes, **ARITHMETIC)
        work.resume(earlier, self._which, allowed, stride)
        answers = (work.rows, work.scores, work.needed, earlier.rows, earlier.scores, earlier.needed)
        selecting.put_again[(room,)](*which, *answers, work.k, K=power_of_two(work.k), num_warps=1, **ARITHMETIC)


def at_once(plan: FusedPlan, titles: int, queries: int) -> int:
    """Return how many queries that a recording has not proven it searches again by itself; of few queries none.

    Most batches of so few are proven, and would take longer.
    """
    if queries <= QUERIES_A_REPEAT:
        return 0
    again = plan_at_once(plan, titles)
    if again.piece:
        return power_of_two(min(queries // PIECES_A_REPEAT, REPEATED_BYTES // repeated_bytes(again, titles)) + 1) // 2
    room = FEWEST_REPEATED if queries <= FEWEST_REPEATED * QUERIES_A_REPEAT else 4 * FEWEST_REPEATED
    return min(room, _most_repeated(plan, titles))


def plan_repeat(first: FusedPlan, titles: int) -> FusedPlan:
    """Choose the sizes for keeping up to eight times as many candidates of a few queries whose maxima are known."""
    keep, keep_rows = (min(8 * count, MOST_KEPT) for count in (first.keep, first.keep_rows))
    return replace(
        first,
        piece=0,
        rescore_rows=min(RESCORED_AT_ONCE, capacity_of(keep) * 2 * first.span),
        segment=SEGMENT,
        segments=segments_of(first.chunks(titles), keep, SEGMENT),
        many=False,
        width=width_of(keep, many=False),
        keep=keep,
        capacity=capacity_of(keep),
        keep_rows=keep_rows,
        picks=picks_of(keep, keep_rows),
    )


def plan_at_once(first: FusedPlan, titles: int) -> FusedPlan:
    """Choose the sizes for what is searched again right behind a pass: where pieces are rescored, for more of these.

    That is so much less than chunks that a good many queries may be left, as where codes do not tell their best apart.
    """
    keep, keep_rows = min(WIDER * first.keep, MOST_PIECES), min(WIDER * first.keep_rows, MOST_KEPT)
    if first.piece > 1 and keep >= 2 * first.keep:
        more = replace(first, keep=keep, keep_rows=keep_rows, picks=picks_of(keep, keep_rows))
        wider = with_pieces(replace(more, width=width_of(keep, many=True)), first.piece)
        return replace(wider, capacity=2 * wider.capacity)  # two of so many lie in one chunk now and then
    return plan_repeat(first, titles)


@lru_cache(maxsize=1024)
def prepared_bytes(plan: FusedPlan, titles: int, again: int) -> int:
    """Return the GPU memory of a repetition that is recorded beforehand: of so many at once, or, for 0, of a few."""
    if again:
        return again * repeated_bytes(plan_at_once(plan, titles), titles)
    return min(FEWEST_REPEATED, _most_repeated(plan, titles)) * repeated_bytes(plan_repeat(plan, titles), titles)


def _most_repeated(plan: FusedPlan, titles: int) -> int:
    return repeat_queries(plan_repeat(plan, titles), titles)


class CapturedRepeat:
    """A repetition of a fixed number of queries, recorded."""

    def __init__(self, earlier: FusedPass, room: int, allowed: Any, stride: int) -> None:
        """Record it, of ``room`` queries of ``earlier``, with what that is run with."""
        torch = load_torch()
        self._room = room
        device = earlier.device
        self._work = repeat_pass(earlier, room)
        self._which_in = torch.zeros(room, dtype=torch.int64, pin_memory=True)
        self._fetched = Fetched(self._work)
        # Kept as long as the graph, which has its address: once it was not, and others' memory was written to.
        self._which = torch.zeros(room, dtype=torch.int64, device=device)

        def launches() -> None:
            self._which.copy_(self._which_in, non_blocking=True)
            self._work.resume(earlier, self._which, allowed, stride)
            self._fetched.fetch()

        self._graph = recorded(launches, device)

    def search(self, which: Rows, into: Answers) -> Searching:
        """Search the queries ``which``, int64 (some,), of the batch just searched again."""
        self._which_in.copy_(as_tensor(filled(which, self._room)))
        self._graph.replay()
        self._fetched.mark()
        yield LAUNCHED
        return self._fetched.copied(into)


def repeat_pass(earlier: FusedPass, room: int) -> FusedPass:
    """Make buffers to search up to ``room`` queries of an earlier pass again, with more candidates."""
    return FusedPass(earlier.titles, plan_repeat(earlier.plan, earlier.titles.count), room, earlier.k)


def in_rooms(which: Rows, work: FusedPass) -> Iterator[tuple[slice, int]]:
    """Divide queries into parts of a few sizes, each a graph or a set of buffers of its own."""
    most = _most_repeated(work.plan, work.titles.count)
    for start in range(0, len(which), most):
        part = slice(start, min(start + most, len(which)))
        yield part, min(most, max(FEWEST_REPEATED, power_of_two(part.stop - start)))


def filled(which: Rows, room: int) -> Rows:
    """Return ``which``, filled up with the first of them."""
    return np.concatenate((which, np.full(room - len(which), which[0], np.int64)))
