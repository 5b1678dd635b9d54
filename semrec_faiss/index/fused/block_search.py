"""A block of queries over titles on one GPU: launched or recorded, proven or repeated or compared with all titles."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.fused.batch import CapturedSearch, DirectSearch, Workspace, allowed_by
from semrec_faiss.index.fused.cards import Card, fitted
from semrec_faiss.index.fused.full_scan import scan_titles
from semrec_faiss.index.fused.one_pass import FusedPass, reads_once
from semrec_faiss.index.fused.pass_buffers import LAUNCHED, Answers, FirstPass
from semrec_faiss.index.fused.plan import (
    GRAPH_BYTES,
    FusedPlan,
    Masking,
    bitmap_words,
    multiplies_codes,
    plan_search,
    repeats,
    takes_pieces,
    through_codes,
)
from semrec_faiss.index.fused.queries.batches import Batch
from semrec_faiss.index.fused.queries.feeds import Feed, feed_for
from semrec_faiss.index.fused.repeating import at_once, prepared_bytes
from semrec_faiss.index.fused.room import query_bytes, recorded_again, recorded_queries
from semrec_faiss.index.fused.titles.codes import CodesTried
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

KthScores = Callable[[Rows], Scores]
"""The k-th best score that is known of each of some queries, positions in a block: of all shards' titles."""

GRAPHS_BYTES, GRAPHS_KNOWN = 384 << 20, 256
"""GPU memory of all batches that are kept as CUDA graphs; and of how many kinds it is known that they came."""

FEW_LEFT, BOUNDS_LEFT = 16, 1 / 16
"""More queries, and more of a batch, than bounds may leave to be compared with all titles: copies are better then."""

RECORDED_AT = 2
"""How many times a batch of a kind comes before it is recorded."""

ALONE, LEFT = 0, -1
"""The lanes of a block beside which none is under way, and of what is left or comes in any size."""


class LooseBoundsError(Exception):
    """Bounds do not tell the best titles of these queries apart."""


@dataclass
class _Recorded:
    """A kind of batch: how many came before it was recorded, when the last one came, the record, and its GPU memory."""

    asked: int = 0
    last: int = 0
    search: CapturedSearch | None = None
    bytes: int = 0


class BlockSearch:
    """Searches titles on one GPU, a block of queries at a time; one thread at a time.

    Attributes:
        titles: what is searched.
        filled: how many of them a filter may allow, where they are a shelf's: the first ones.
    """

    def __init__(self, titles: GpuTitles, workspace: Workspace, graphs_bytes: int = GRAPHS_BYTES) -> None:
        """Search ``titles``, keeping recorded batches of up to ``graphs_bytes`` in all."""
        self._torch = load_torch()
        self.titles = titles
        self.filled = titles.count
        self._workspace = workspace
        self._device = titles.halves.device
        self._card = Card.of(self._torch, self._device)
        self.keeps_bounds = False
        self._graphs_bytes = graphs_bytes
        self._codes = [CodesTried.of(titles.count, multiplied=multiplied) for multiplied in (False, True)]
        self._graphs: OrderedDict[tuple[Any, ...], _Recorded] = OrderedDict()
        self._turns = itertools.count(1)

    @property
    def proves(self) -> bool:
        """Whether answers are proven: there are originals to rank by."""
        return self.titles.proves

    @property
    def recorded_bytes(self) -> int:
        """GPU memory of the recorded batches."""
        return sum(kind.bytes for kind in self._graphs.values())

    def forget_recorded(self) -> None:
        """Free the buffers of recorded batches."""
        self._graphs.clear()

    def answer(
        self,
        batch: Batch,
        shared: Any,
        rows: Rows,
        scores: Scores,
        *,
        room: int,
        coded: bool = True,
        kth: KthScores | None = None,
        among: int = 0,
    ) -> Generator[bool, None, tuple[int, int]]:
        """Fill in the answers of one block, through codes where they pay; yield wherever kernels are waited for.

        Args:
            batch: the queries, and rows that single ones must not return.
            shared: the bitmap of titles that all queries may return, on the GPU; None for all titles.
            rows, scores: (queries, k), to be filled in; k is at most the number of titles.
            room: for how many queries the recording is that it may be searched by, see `recorded_queries`; 0 where none
                is to be made for it, as it comes in any size.
            coded: whether codes may be read.
            kth: where these titles are a shard, the best that is known of all: what those prove is proven.
            among: where these are what `first_pass` has left, of how many queries.

        Returns:
            How many queries were searched again, and how many of them compared with all titles.
        """
        k = rows.shape[1]
        coded = coded and self.reads_codes(len(batch), k)
        lane = ALONE if room and not among else LEFT
        search = self._search_for(batch, k, masking_of(batch, shared), lane, room, coded=coded)
        needed = yield from search.search(batch, shared, self._everything, (rows, scores))
        if not self.proves:
            return 0, 0
        unproven = np.arange(len(batch))
        if not self.titles.wide:
            if kth is not None and needed.max() > -np.inf:
                yield LAUNCHED  # the other shards write down what they have found
            unproven = _left(unproven, needed, kth)
        repeated = len(unproven) + search.repeated
        if len(unproven) and self.repeats(len(batch), k, coded=coded):
            again = _room_for(unproven, k)
            needed = yield from search.repeat(unproven, again)
            rows[unproven], scores[unproven] = again
            unproven = _left(unproven, needed, kth)
        if coded:
            self.count_coded(len(batch), len(unproven))
        if not len(unproven):
            return repeated, 0
        left = batch.take(unproven)
        del search  # with it its buffers may go
        if coded:
            again = _room_for(unproven, k)
            its = None if kth is None else lambda queries: kth(unproven[queries])
            recorded = recorded_again(len(unproven)) if multiplies_codes(len(batch)) else 0
            options: dict[str, Any] = {"coded": False, "room": recorded, "kth": its, "among": among or len(batch)}
            _, scanned = yield from self.answer(left, shared, *again, **options)
            rows[unproven], scores[unproven] = again
            return repeated, scanned
        self._check_bounds(among or len(batch), len(unproven))

        def allowed_of(part: slice) -> Any:
            return allowed_by(self.titles, left.part(part), shared, self._everything)[0]

        rows[unproven], scores[unproven] = scan_titles(self.titles, left.prepared, k, allowed_of)
        return repeated, len(unproven)

    def first_pass(self, batch: Batch, shared: Any, into: Answers, lane: int, room: int = 0) -> FirstPass:
        """Search a block of a large batch once, while another one is under way in another lane; see `answer`.

        Args:
            batch, shared, room: as for `answer`.
            into: where the answers go.
            lane: whose buffers and recordings to use.

        Returns:
            What would prove each answer, those that are not are for `answer`; and how many were searched again.
        """
        k = into[0].shape[1]
        coded = self.reads_codes(len(batch), k)
        search = self._search_for(batch, k, masking_of(batch, shared), lane, room, coded=coded)
        needed = yield from search.search(batch, shared, self._everything, into)
        if coded:
            self.count_coded(len(batch), int(np.count_nonzero(needed != -np.inf)))
        return (needed, search.repeated) if self.proves else (np.full(len(batch), -np.inf, np.float32), 0)

    def recording(self, batch: Batch, k: int) -> CapturedSearch | None:
        """Return the recording of such a batch over all titles, where there is one already that proves answers."""
        if self.titles.wide:
            return None
        coded = self.reads_codes(len(batch), k)
        key = self._key(batch, k, masking_of(batch, None), ALONE, recorded_queries(len(batch)), coded=coded)
        kind = self._graphs.get(key)
        if kind is None or kind.search is None or not kind.search.feed.takes(batch):
            return None
        kind.last = next(self._turns)
        self._graphs.move_to_end(key)
        return kind.search

    def replay(self, recording: CapturedSearch, batch: Batch) -> None:
        """Launch a `recording`."""
        recording.launch(batch, self._everything)

    def reads_codes(self, queries: int, k: int) -> bool:
        """Tell whether such a batch is searched through codes."""
        codes, multiplied = self.titles.codes, multiplies_codes(queries)
        has_them = codes is not None and (codes.in_pieces or not multiplied) and self._codes[multiplied].pay
        return has_them and through_codes(self.titles.count, queries, k, screened=self.titles.screened)

    def repeats(self, queries: int, k: int, *, coded: bool) -> bool:
        """Tell whether what a pass over such a batch has left is searched again with more candidates.

        What products of codes leave is searched again without these: it may be much, and chunks are large then.
        """
        return repeats(k) and not self.titles.wide and not (coded and multiplies_codes(queries))

    def _check_bounds(self, searched: int, left: int) -> None:
        whole = self.titles.screened and self.titles.origins is None and not self.titles.wide
        if whole and not self.keeps_bounds and left > max(FEW_LEFT, BOUNDS_LEFT * searched):
            raise LooseBoundsError

    def count_coded(self, searched: int, left: int) -> None:
        """Count what was left of a batch that was searched through codes, which are read no more if that is much."""
        multiplied = multiplies_codes(searched)
        self._codes[multiplied].count(searched, left)
        if not self._codes[multiplied].pay:
            for key in [key for key in self._graphs if key[-1] and multiplies_codes(key[1]) == multiplied]:
                del self._graphs[key]

    def _search_for(
        self, batch: Batch, k: int, masking: Masking, lane: int, queries: int, *, coded: bool
    ) -> DirectSearch | CapturedSearch:
        """Return the CUDA graph of so many queries, recorded when a batch of its kind comes for the second time.

        Of no queries there is none: the batch is launched kernel by kernel.
        """
        if not queries:
            return self._workspace.direct(self.titles, self._plan(len(batch), k, coded=coded), len(batch), k, lane)
        key = self._key(batch, k, masking, lane, queries, coded=coded)
        kind = self._graphs.setdefault(key, _Recorded())
        before, kind.last = kind.last, next(self._turns)
        self._graphs.move_to_end(key)
        if kind.search is not None and kind.search.feed.takes(batch):
            return kind.search
        plan = self._plan(queries, k, coded=coded)
        size = queries * query_bytes(self.titles.count, self.titles.dim, queries, k, masking, **self._kind(k, coded))
        prepared = self.proves and repeats(k) and (lane == ALONE or plan.multiplies)
        again = at_once(plan, self.titles.count, queries) if prepared and not self.titles.wide else 0
        size += prepared_bytes(plan, self.titles.count, again) if prepared else 0
        kind.asked += 1
        fits = self._device.type == "cuda" and size <= min(GRAPH_BYTES, self._graphs_bytes) and kind.search is None
        fits = fits and self._may_drop(size, before)
        if not fits or kind.asked < RECORDED_AT:
            self._drop_recorded(0)
            return self._workspace.direct(self.titles, plan, queries, k, lane)
        alone, once = lane == ALONE, reads_once(self.titles, plan, queries)
        whole = self._workspace.beside_others and not alone
        feed = feed_for(batch, self._device, queries, alone=alone, whole=whole, once=once)
        if not feed.takes(batch):
            return self._workspace.direct(self.titles, plan, queries, k, lane)
        self._drop_recorded(size)
        try:
            kind.search = self._capture(plan, feed, k, masking, prepared=prepared, again=again)
            kind.bytes = size
        except self._torch.cuda.OutOfMemoryError:  # without one, then, and no more of them than there are
            self._graphs_bytes = self.recorded_bytes
            return self._workspace.direct(self.titles, plan, queries, k, lane)
        return kind.search

    def _plan(self, queries: int, k: int, *, coded: bool) -> FusedPlan:
        plan = plan_search(self.titles.count, self.titles.dim, queries, k, **self._kind(k, coded))
        return fitted(plan, self._card)

    def _key(self, batch: Batch, k: int, masking: Masking, lane: int, queries: int, *, coded: bool) -> tuple[Any, ...]:
        """Return what must be the same for a recording of another batch to do."""
        return batch.kind, queries, k, masking, lane, self._takes_pieces(k, coded), coded

    def _kind(self, k: int, coded: bool) -> dict[str, bool]:
        return {"coded": coded, "screened": self.titles.screened, "pieces": self._takes_pieces(k, coded)}

    def _takes_pieces(self, k: int, coded: bool) -> bool:
        return takes_pieces(self.filled, k, coded=coded, screened=self.titles.screened)

    def _may_drop(self, more: int, before: int) -> bool:
        """Tell whether room for ``more`` is had of kinds that have not come since this one came ``before``.

        Those that come in turns, as blocks in two lanes do, would else drop one another and be recorded every time.
        """
        idle = sum(kind.bytes for kind in self._graphs.values() if kind.last < before)
        return self.recorded_bytes - idle + more <= self._graphs_bytes

    def _drop_recorded(self, more: int) -> None:
        """Drop the kinds of batches that came longest ago, until there is room for ``more``."""
        while self.recorded_bytes + more > self._graphs_bytes or len(self._graphs) > GRAPHS_KNOWN:
            self._graphs.popitem(last=False)

    def _capture(
        self, plan: FusedPlan, feed: Feed, k: int, masking: Masking, *, prepared: bool, again: int
    ) -> CapturedSearch:
        work = FusedPass(self.titles, plan, len(feed.queries), k)
        captured = CapturedSearch(work, feed, masking, self._everything, again=again)
        if prepared and not again:
            captured.prepare_repeat()
        return captured

    @cached_property
    def _everything(self) -> Any:
        """The bitmap of all titles."""
        torch = self._torch
        return torch.full((bitmap_words(self.titles.count),), -1, dtype=torch.int32, device=self._device)


def masking_of(batch: Batch, shared: Any) -> Masking:
    """Return how a batch is told what it may return; ``shared`` is the bitmap that holds for all of it, or None."""
    return "own" if batch.leaves_out else "none" if shared is None else "shared"


def _left(queries: Rows, needed: Scores, kth: KthScores | None) -> Rows:
    """Return which of some queries are not proven by themselves, nor by the k-th best scores of all shards."""
    left = needed != -np.inf
    queries, needed = queries[left], needed[left]
    return queries if kth is None or not len(queries) else queries[~(kth(queries) > needed)]


def _room_for(queries: Rows, k: int) -> tuple[Rows, Scores]:
    return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
