"""A batch of a fused search from numpy to numpy: launched kernel by kernel, or as one CUDA graph from pinned memory.

Both keep what the pass left on the GPU, so that queries whose answers are not proven can be repeated with more
candidates without reading the titles again.

A search is a generator: it yields when it has begun, and before it waits, so that one thread can keep several GPUs at
work, and launch a batch behind another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.kernels.compiling import recorded
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.pass_buffers import LANES, LAUNCHED, LAUNCHING, Answers, Fetched, Searching
from semrec_faiss.index.fused.plan import FusedPlan, Masking
from semrec_faiss.index.fused.queries.batches import Batch
from semrec_faiss.index.fused.queries.feeds import Feed
from semrec_faiss.index.fused.queries.unit_length import UnitLength
from semrec_faiss.index.fused.repeating import CapturedRepeat, RepeatAtOnce, filled, in_rooms, repeat_pass
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, as_tensor, load_torch
from semrec_faiss.index.fused.titles.left_out import leave_out


class DirectSearch:
    """Batches of up to a number of queries, launched kernel by kernel.

    Attributes:
        repeated: how many queries of a batch are searched again with it: none, see `repeat`.
    """

    repeated = 0

    def __init__(self, work: FusedPass) -> None:
        """Search with the buffers of ``work``."""
        self.work = work
        self._fetched: deque[Fetched] = deque()
        self._repeats: dict[int, tuple[FusedPass, Fetched]] = {}
        self._allowed: tuple[Any, int] = (None, 0)
        self._unit_lengths: dict[bool, UnitLength] = {}

    def search(self, batch: Batch, shared: Any, everything: Any, into: Answers) -> Searching:
        """Search a batch.

        Args:
            batch: the queries.
            shared: the bitmap of rows that all of them may return; None for all titles.
            everything: the bitmap of all titles.
            into: where the answers go.

        Once it has yielded `LAUNCHED`, another batch of its size may be launched with the same buffers, unless what
        this one does not prove is to be repeated, or its answers are written out.
        """
        device, fetched = self.work.device, self._fetched_next()
        self._allowed = (None, 0)  # free before as much is asked again
        self._allowed = allowed_by(self.work.titles, batch, shared, everything)
        allowed, stride = self._allowed
        unit = self._unit_length(batch.normalize)
        for part, queries in batch.sent(device):
            if unit is not None:
                unit.launch(queries)
            self.work.after(part.start).score(queries, allowed[part] if stride else allowed, stride)
            yield LAUNCHING  # another GPU begins to score, which takes longer than launching the rest
        self.work.rank(len(batch), allowed, stride)
        fetched.fetch()
        if unit is not None:
            unit.fetch()
        fetched.mark()
        del allowed, queries  # or a batch launched behind this one would not find their memory free
        yield LAUNCHED
        needed = fetched.copied(into)
        if unit is not None:
            unit.check()
        return needed

    def _unit_length(self, normalize: bool | None) -> UnitLength | None:
        if normalize is not None and normalize not in self._unit_lengths:
            self._unit_lengths[normalize] = UnitLength(self.work.device, normalize=normalize)
        return None if normalize is None else self._unit_lengths[normalize]

    def _fetched_next(self) -> Fetched:
        """Return where to fetch answers to: the host may not have taken those of the batch before yet."""
        self._fetched.append(Fetched(self.work) if len(self._fetched) < LANES else self._fetched.popleft())
        return self._fetched[-1]

    def repeat(self, which: Rows, into: Answers) -> Searching:
        """Search the queries ``which``, int64 (some,), of the batch just searched again, with more candidates."""
        needed = np.empty(len(which), np.float32)
        for part, room in in_rooms(which, self.work):
            needed[part] = yield from self._repeat(which[part], room, _part(into, part))
        self._allowed = (None, 0)
        return needed

    def _repeat(self, which: Rows, room: int, into: Answers) -> Searching:
        if room not in self._repeats:
            again = repeat_pass(self.work, room)
            self._repeats = {room: (again, Fetched(again))}
        work, fetched = self._repeats[room]
        work.resume(self.work, as_tensor(filled(which, room)).to(work.device), *self._allowed)
        fetched.fetch()
        fetched.mark()
        yield LAUNCHED
        return fetched.copied(into)


def allowed_by(titles: GpuTitles, batch: Batch, shared: Any, everything: Any) -> tuple[Any, int]:
    """Return the bitmaps of what a batch may return, on the GPU, and their stride: 0 when all queries share one."""
    if not batch.leaves_out:
        return shared, 0
    torch = load_torch()
    table = torch.empty((len(batch), len(everything)), dtype=torch.int32, device=everything.device)
    leave_out(titles, table, everything if shared is None else shared, batch.lists_on(everything.device))
    return table, len(everything)


@dataclass
class Workspace:
    """The buffers of the last blocks that were launched kernel by kernel, of whichever titles of one GPU, by lane.

    Attributes:
        beside_others: see `FusedSearcher`; blocks in lanes are sent whole then, as each part takes the host time.
    """

    lanes: dict[int, DirectSearch] = field(default_factory=dict)
    beside_others: bool = False

    def forget(self, titles: GpuTitles | None = None) -> None:
        """Free the buffers, or only those made for some titles."""
        for lane, kept in list(self.lanes.items()):
            if titles is None or kept.work.titles is titles:
                del self.lanes[lane]

    def direct(self, titles: GpuTitles, plan: FusedPlan, queries: int, k: int, lane: int) -> DirectSearch:
        """Reuse the buffers of the lane's last block where they fit."""
        kept = self.lanes.get(lane)
        if kept is not None and kept.work.fits(titles, plan, queries, k):
            return kept
        self.lanes.pop(lane, None)
        kept = None  # its last reference: what it holds is free before as much is asked again
        self.lanes[lane] = DirectSearch(FusedPass(titles, plan, queries, k))
        return self.lanes[lane]


class CapturedSearch:
    """One pass over a fixed number of queries, recorded and replayed.

    Attributes:
        work: its buffers.
        feed: where the queries come from, and what they leave out.
        repeated: how many queries of the last batch are proven only since they were searched again with it.
    """

    def __init__(self, work: FusedPass, feed: Feed, masking: Masking, everything: Any, *, again: int = 0) -> None:
        """Record the pass.

        Args:
            work: its buffers, used for nothing else from now on.
            feed: where the queries come from, and what they leave out.
            masking: which titles they may return.
            everything: the bitmap of all titles.
            again: how many queries that it does not prove are searched again in the same recording, see `at_once`.
        """
        torch = load_torch()
        self.work = work
        self.feed = feed
        self._device = work.device
        self._fetched = Fetched(work)
        self._shared: Any = None if masking == "none" else everything.clone()
        self._loaded = self._shared
        self._allowed: Any = self._shared
        self._stride = 0
        if masking == "own":
            self._stride = len(everything)
            self._allowed = torch.empty((len(feed.queries), self._stride), dtype=torch.int32, device=self._device)
        self.repeated = 0
        self._again = RepeatAtOnce(work, again) if again else None
        self._graphs = [recorded(partial(self._launches, part), self._device) for part in feed.parts]
        self._repeats: dict[int, CapturedRepeat] = {}

    def _launches(self, part: slice) -> None:
        """Launch what there is to do when a part of the queries is there, with the last one what waits for all."""
        if part.start == 0:
            self.feed.copies()
            if self._stride:
                assert self.feed.lists is not None
                leave_out(self.work.titles, self._allowed, self._shared, self.feed.lists)
        allowed, unit = self._allowed[part] if self._stride else self._allowed, self.feed.unit
        if unit is not None:
            unit.launch(self.feed.queries[part])
        self.work.after(part.start).run(self.feed.queries[part], allowed, self._stride)
        if part.stop == len(self.feed.queries):
            if self._again is not None:
                self._again.launch(self._allowed, self._stride)
            self._fetched.fetch()
            if unit is not None:
                unit.fetch()

    def search(self, batch: Batch, shared: Any, everything: Any, into: Answers) -> Searching:
        """Search a batch like the one that was recorded; see `DirectSearch.search`."""
        for _ in self.launching(batch, everything if shared is None else shared):
            yield LAUNCHING
        yield LAUNCHED
        into[0][:], into[1][:], needed = self.found(len(into[0]))
        return np.array(needed)

    def launch(self, batch: Batch, wanted: Any) -> None:
        """Replay the recording for a batch like it, and the bitmap of what all of its queries may return."""
        for _ in self.launching(batch, wanted):
            pass

    def launching(self, batch: Batch, wanted: Any) -> Iterator[None]:
        """Do the same, and yield between its parts."""
        if self._shared is not None and wanted is not self._loaded:
            self._shared.copy_(wanted)
            self._loaded = wanted
        for part, graph in zip(self.feed.put(batch), self._graphs, strict=True):
            if part.start:
                yield
            graph.replay()
        self._fetched.mark()

    def found(self, count: int) -> tuple[Rows, Scores, Scores]:
        """Wait for so many answers; return views of rows, scores, and what would prove them, until the next launch.

        Raises:
            OddQueriesError: some of the queries are odd; see `UnitLength.check`.
        """
        rows, scores, needed = self._fetched.found(count)
        self.feed.check()
        if self._again is not None:
            proven = np.isnan(needed)
            needed[proven] = -np.inf
            self.repeated = int(np.count_nonzero(proven))
        return rows, scores, needed

    def prepare_repeat(self) -> None:
        """Record a repetition of a few queries beforehand: the first one that is needed should not wait for it."""
        self._repeat_of(next(in_rooms(np.zeros(1, np.int64), self.work))[1])

    def repeat(self, which: Rows, into: Answers) -> Searching:
        """Search ``which``, int64 (some,), of that batch again, with more candidates; its bitmap is here still."""
        needed = np.empty(len(which), np.float32)
        for part, room in in_rooms(which, self.work):
            needed[part] = yield from self._repeat_of(room).search(which[part], _part(into, part))
        return needed

    def _repeat_of(self, room: int) -> CapturedRepeat:
        if room not in self._repeats:
            self._repeats[room] = CapturedRepeat(self.work, room, self._allowed, self._stride)
        return self._repeats[room]


def _part(into: Answers, part: slice) -> Answers:
    return into[0][part], into[1][part]
