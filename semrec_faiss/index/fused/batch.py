"""A batch of a fused search from numpy to numpy: launched kernel by kernel, or as one CUDA graph from pinned memory.

Both keep what the pass left on the GPU, so that queries whose answers are not proven can be repeated with more
candidates without reading the titles again.

A search is a generator: it launches its kernels and yields before it waits for them, so that one thread can keep
several GPUs at work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.batches import Batch, Feed, leave_out
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.pass_buffers import answers_in
from semrec_faiss.index.fused.plan import FusedPlan, Masking, plan_repeat, power_of_two
from semrec_faiss.index.fused.room import repeat_queries, repeated_bytes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, as_tensor, load_torch

Answers = tuple[Rows, Scores]
"""Rows and scores, (queries, k) each, to be filled in."""

Searching = Generator[None, None, Scores]
"""A search under way: it yields when kernels are launched, and returns the score that each query's k-th best would have
to exceed for its answer to be proven: -inf where it is."""

FEWEST_REPEATED = 16

PAGE_LOCKED_BYTES = 32 << 20
"""Answers that are fetched to page-locked memory, at most."""


class DirectSearch:
    """Batches of up to a number of queries, launched kernel by kernel."""

    def __init__(self, work: FusedPass) -> None:
        """Search with the buffers of ``work``."""
        self.work = work
        self._fetched = _Fetched(work)
        self._repeats: dict[int, tuple[FusedPass, _Fetched]] = {}
        self._allowed: tuple[Any, int] = (None, 0)

    def search(self, batch: Batch, shared: Any, everything: Any, into: Answers) -> Searching:
        """Search a batch.

        Args:
            batch: the queries.
            shared: the bitmap of rows that all of them may return; None for all titles.
            everything: the bitmap of all titles.
            into: where the answers go.
        """
        device = self.work.rows.device
        self._allowed = (None, 0)  # free before as much is asked again
        self._allowed = allowed_by(self.work.titles, batch, shared, everything)
        allowed, stride = self._allowed
        for part, queries in batch.sent(device):
            self.work.after(part.start).score(queries, allowed[part] if stride else allowed, stride)
        yield  # another GPU begins to score, which takes longer than launching the rest
        self.work.rank(len(batch), *self._allowed)
        self._fetched.fetch()
        self._fetched.mark()
        yield
        return self._fetched.copied(into)

    def repeat(self, which: Rows, into: Answers) -> Searching:
        """Search the queries ``which``, int64 (some,), of the batch just searched again, with more candidates."""
        needed = np.empty(len(which), np.float32)
        for part, room in _in_rooms(which, self.work):
            needed[part] = yield from self._repeat(which[part], room, _part(into, part))
        self._allowed = (None, 0)
        return needed

    def _repeat(self, which: Rows, room: int, into: Answers) -> Searching:
        if room not in self._repeats:
            again = _repeat_pass(self.work, room)
            self._repeats = {room: (again, _Fetched(again))}
        work, fetched = self._repeats[room]
        work.resume(self.work, as_tensor(_filled(which, room)).to(work.rows.device), *self._allowed)
        fetched.fetch()
        fetched.mark()
        yield
        return fetched.copied(into)


def allowed_by(titles: GpuTitles, batch: Batch, shared: Any, everything: Any) -> tuple[Any, int]:
    """Return the bitmaps of what a batch may return, on the GPU, and their stride: 0 when all queries share one."""
    if not batch.leaves_out:
        return shared, 0
    torch = load_torch()
    table = torch.empty((len(batch), len(everything)), dtype=torch.int32, device=everything.device)
    leave_out(titles, table, everything if shared is None else shared, batch.lists_on(everything.device))
    return table, len(everything)


class _Fetched:
    """What a pass has found, on the host: page-locked, unless it is much, so that the GPU sends it by itself."""

    def __init__(self, work: FusedPass) -> None:
        """Make room for the answers of ``work``, and the views of them: that takes longer than copying a few."""
        self._torch, self._answers, self._device = load_torch(), work.answers, work.rows.device
        locked = self._device.type == "cuda" and work.answers.nbytes <= PAGE_LOCKED_BYTES
        self._held = self._torch.empty_like(work.answers, device="cpu", pin_memory=locked)
        self._found = tuple(part.numpy() for part in answers_in(self._held, len(work.rows), work.k))
        self._done = self._torch.cuda.Event() if self._device.type == "cuda" else None

    def fetch(self) -> None:
        """Launch the copy, or record it."""
        self._held.copy_(self._answers, non_blocking=True)

    def mark(self) -> None:
        """Note how far the GPU has to come until the copy is there, when it or its recording is launched."""
        if self._done is not None:
            self._done.record(self._torch.cuda.current_stream(self._device))

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


class CapturedSearch:
    """One pass over a fixed number of queries, recorded and replayed."""

    def __init__(self, work: FusedPass, feed: Feed, masking: Masking, everything: Any) -> None:
        """Record the pass.

        Args:
            work: its buffers, used for nothing else from now on.
            feed: where the queries come from, and what they leave out.
            masking: which titles they may return.
            everything: the bitmap of all titles.
        """
        torch = load_torch()
        self.work = work
        self.feed = feed
        self._device = work.rows.device
        self._fetched = _Fetched(work)
        self._shared: Any = None if masking == "none" else everything.clone()
        self._loaded = self._shared
        self._allowed: Any = self._shared
        self._stride = 0
        if masking == "own":
            self._stride = len(everything)
            self._allowed = torch.empty((len(feed.queries), self._stride), dtype=torch.int32, device=self._device)
        self._graphs = [recorded(partial(self._launches, part), self._device) for part in feed.parts]
        self._repeats: dict[int, _CapturedRepeat] = {}

    def _launches(self, part: slice) -> None:
        """Launch what there is to do when a part of the queries is there, with the last one all that is left."""
        if part.start == 0:
            self.feed.copies()
            if self._stride:
                assert self.feed.lists is not None
                leave_out(self.work.titles, self._allowed, self._shared, self.feed.lists)
        allowed = self._allowed[part] if self._stride else self._allowed
        self.work.after(part.start).score(self.feed.queries[part], allowed, self._stride)
        if part.stop == len(self.feed.queries):
            self.work.rank(part.stop, self._allowed, self._stride)
            self._fetched.fetch()

    def search(self, batch: Batch, shared: Any, everything: Any, into: Answers) -> Searching:
        """Search a batch like the one that was recorded; see `DirectSearch.search`."""
        self.launch(batch, everything if shared is None else shared)
        yield
        return self._fetched.copied(into)

    def launch(self, batch: Batch, wanted: Any) -> None:
        """Replay the recording for a batch like it, and the bitmap of what all of its queries may return."""
        if self._shared is not None and wanted is not self._loaded:
            self._shared.copy_(wanted)
            self._loaded = wanted
        for _, graph in zip(self.feed.put(batch), self._graphs, strict=True):
            graph.replay()
        self._fetched.mark()

    def found(self, count: int) -> tuple[Rows, Scores, Scores]:
        """Wait for so many answers; return views of rows, scores, and what would prove them, until the next launch."""
        return self._fetched.found(count)

    def prepare_repeat(self) -> None:
        """Record a repetition of a few queries beforehand: the first one that is needed should not wait for it."""
        self._repeat_of(next(_in_rooms(np.zeros(1, np.int64), self.work))[1])

    def repeat(self, which: Rows, into: Answers) -> Searching:
        """Search ``which``, int64 (some,), of that batch again, with more candidates; its bitmap is here still."""
        needed = np.empty(len(which), np.float32)
        for part, room in _in_rooms(which, self.work):
            needed[part] = yield from self._repeat_of(room).search(which[part], _part(into, part))
        return needed

    def _repeat_of(self, room: int) -> _CapturedRepeat:
        if room not in self._repeats:
            self._repeats[room] = _CapturedRepeat(self.work, room, self._allowed, self._stride)
        return self._repeats[room]


@lru_cache(maxsize=1024)
def prepared_bytes(plan: FusedPlan, titles: int) -> int:
    """Return the GPU memory of the repetition that `CapturedSearch.prepare_repeat` records."""
    again = plan_repeat(plan, titles)
    return min(FEWEST_REPEATED, repeat_queries(again, titles)) * repeated_bytes(again, titles)


class _CapturedRepeat:
    """A repetition of a fixed number of queries, recorded."""

    def __init__(self, earlier: FusedPass, room: int, allowed: Any, stride: int) -> None:
        torch = load_torch()
        self._room = room
        device = earlier.rows.device
        self._work = _repeat_pass(earlier, room)
        self._which_in = torch.zeros(room, dtype=torch.int64, pin_memory=True)
        self._fetched = _Fetched(self._work)
        # Kept as long as the graph, which has its address: once it was not, and others' memory was written to.
        self._which = torch.zeros(room, dtype=torch.int64, device=device)

        def launches() -> None:
            self._which.copy_(self._which_in, non_blocking=True)
            self._work.resume(earlier, self._which, allowed, stride)
            self._fetched.fetch()

        self._graph = recorded(launches, device)

    def search(self, which: Rows, into: Answers) -> Searching:
        self._which_in.copy_(as_tensor(_filled(which, self._room)))
        self._graph.replay()
        self._fetched.mark()
        yield
        return self._fetched.copied(into)


def recorded(launches: Callable[[], None], device: Any) -> Any:
    """Record what ``launches`` launches, once without a recording before: a CUDA graph to replay."""
    torch = load_torch()
    launches()  # compiles what is not compiled yet, which a recording does not allow
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    # A stream of this GPU's own: torch's default one is the first GPU's. Thread-local: what other threads do on other
    # GPUs meanwhile must not end the recording.
    own = {"stream": torch.cuda.Stream(device), "capture_error_mode": "thread_local"}
    with torch.cuda.device(device), torch.cuda.graph(graph, **own):
        launches()
    return graph


def _part(into: Answers, part: slice) -> Answers:
    return into[0][part], into[1][part]


def _repeat_pass(earlier: FusedPass, room: int) -> FusedPass:
    return FusedPass(earlier.titles, plan_repeat(earlier.plan, earlier.titles.count), room, earlier.k)


def _in_rooms(which: Rows, work: FusedPass) -> Iterator[tuple[slice, int]]:
    """Divide queries into parts of a few sizes, each a graph or a set of buffers of its own."""
    most = repeat_queries(plan_repeat(work.plan, work.titles.count), work.titles.count)
    for start in range(0, len(which), most):
        part = slice(start, min(start + most, len(which)))
        yield part, min(most, max(FEWEST_REPEATED, power_of_two(part.stop - start)))


def _filled(which: Rows, room: int) -> Rows:
    return np.concatenate((which, np.full(room - len(which), which[0], np.int64)))
