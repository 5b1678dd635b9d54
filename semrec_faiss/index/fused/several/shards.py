"""Titles divided among several GPUs: every shard searches all queries, and the best of what they find are chosen.

An answer is proven by the k best of all shards. Small batches are replayed on every GPU, one right after the other;
large ones go in blocks that take turns, so that neither bringing queries nor choosing takes the GPUs any time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Scores
from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.batch import CapturedSearch
from semrec_faiss.index.fused.filters.known_filters import FILTERS_KNOWN
from semrec_faiss.index.fused.plan import Masking
from semrec_faiss.index.fused.queries.batches import Batch
from semrec_faiss.index.fused.queries.sending import SENT_APART
from semrec_faiss.index.fused.room import MOST_QUERIES
from semrec_faiss.index.fused.running import FusedResult, Named, Running, advanced, launched, ran_out
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.turns import in_turns, may_take_turns, turns_of
from semrec_faiss.index.hardware.device import load_faiss

Launched: TypeAlias = tuple[Rows, Scores, list[Running[tuple[Scores, int]]]]
"""A block that all shards search: where their answers go, and their first passes."""


class Shards:
    """Searchers with a share of the titles each; whoever asks holds their locks."""

    def __init__(self, searchers: Sequence[FusedSearcher], shares: Sequence[slice]) -> None:
        """Search ``shares`` of the titles, in their order."""
        self._searchers, self._shares = searchers, shares
        self._starts = np.array([share.start for share in reversed(shares)])[:, None, None]
        self._masks: OrderedDict[int, tuple[Mask, list[Mask]]] = OrderedDict()

    def search(self, batches: Sequence[Batch], mask: Mask | None, room: FusedResult) -> FusedResult:
        """Find the best allowed titles of a batch, given as each shard's.

        Args:
            batches: the same queries, with what each shard is to leave out.
            mask: of all titles.
            room: where the answers go.
        """
        found = self._in_turns(batches, room) if mask is None and may_take_turns(len(room.rows)) else None
        if found is not None:
            return found
        repeated = scanned = 0
        for start in range(0, len(room.rows), MOST_QUERIES):
            part = slice(start, start + MOST_QUERIES)
            found = self._at_once(self._part(batches, part, SENT_APART), mask, room.part(part))
            repeated, scanned = repeated + found.repeated, scanned + found.scanned
        return FusedResult(room.rows, room.scores, repeated, scanned)

    def _part(self, batches: Sequence[Batch], queries: slice, least: int) -> list[Batch]:
        """Return some of the queries, page-locked once for all GPUs where they are ``least`` bytes or more."""
        all_of_them = queries.start == 0 and queries.stop >= len(batches[0])  # a single query waits for slicing, too
        its = batches if all_of_them else [batch.part(queries) for batch in batches]
        first = its[0].staged(self._searchers[0].device, least)
        return [first, *(batch.beside(first) for batch in its[1:])]

    def _in_turns(self, batches: Sequence[Batch], room: FusedResult) -> FusedResult | None:
        """Search a large batch in blocks that take turns; None where it is not worth that, or memory is short."""
        queries, k = room.rows.shape
        titles = [searcher.titles for searcher in self._searchers]
        if k > min(one.count for one in titles) or any(one.wide for one in titles):
            return None
        masking: Masking = "own" if any(batch.leaves_out for batch in batches) else "none"
        blocks = max((turns_of(one, queries, k, masking) for one in titles), key=len)
        if not blocks:
            return None
        left: list[Rows] = []

        def begin(block: slice, lane: int) -> Launched:
            rows, scores, rooms = self._rooms(block.stop - block.start, k)
            asked = zip(self._searchers, self._part(batches, block, 0), rooms, strict=True)
            running = [
                Running(searcher, searcher.whole.first_pass(batch, None, (its.rows, its.scores), lane))
                for searcher, batch, its in asked
            ]
            launched(running)
            return rows, scores, running

        def end(block: slice, under_way: Launched) -> None:
            rows, scores, running = under_way
            needed = [one.result()[0] for one in running]
            left.append(block.start + self._choose(rows, scores, needed, room.part(block)))

        try:
            in_turns(blocks, begin, end)
        except DeviceError as error:
            if not ran_out(error):
                raise
        else:
            return self._again(batches, np.concatenate(left), room)
        for searcher in self._searchers:  # the error no longer holds what was under way
            searcher.let_go()
        return None

    def _at_once(self, batches: Sequence[Batch], mask: Mask | None, room: FusedResult) -> FusedResult:
        left = self._replayed(batches, room) if mask is None else None
        return self._by_rounds(batches, mask, room) if left is None else self._again(batches, left, room)

    def _again(self, batches: Sequence[Batch], left: Rows, room: FusedResult) -> FusedResult:
        """Search the queries again that a first pass has left."""
        if not len(left):
            return room
        again = FusedResult.empty(len(left), room.rows.shape[1])
        found = self._by_rounds([batch.take(left) for batch in batches], None, again, among=len(room.rows))
        return room.put(left, found)

    def _replayed(self, batches: Sequence[Batch], room: FusedResult) -> Rows | None:
        """Replay a batch on every GPU, and return which queries are not proven; None where it is not recorded."""
        count, k = room.rows.shape
        wholes = [searcher.whole for searcher in self._searchers]
        recordings = [whole.recording(batch, k) for whole, batch in zip(wholes, batches, strict=True)]
        replaying = [one for one in recordings if one is not None]
        if len(replaying) < len(recordings):
            return None
        for searcher, recording, batch in zip(self._searchers, replaying, batches, strict=True):
            with Named(searcher):
                searcher.whole.replay(recording, batch)
        rows, scores = self._tables(count, k)
        needed = []
        for at, (searcher, recording) in enumerate(zip(self._searchers, replaying, strict=True), start=1):
            with Named(searcher):
                rows[-at], scores[-at], its = recording.found(count)
            needed.append(its)
        unproven = self._choose(rows, scores, needed, room)
        if not self._searchers[0].proves:
            return np.empty(0, np.int64)
        if len(unproven) and all(whole.repeats(count, k, coded=whole.reads_codes(count, k)) for whole in wholes):
            try:
                unproven = self._repeated(replaying, unproven, room)
            except DeviceError as error:
                if not ran_out(error):
                    raise
        for whole in wholes:
            if whole.reads_codes(count, k):
                whole.count_coded(count, len(unproven))
        return unproven

    def _repeated(self, replaying: Sequence[CapturedSearch], left: Rows, room: FusedResult) -> Rows:
        """Search some queries of a batch just replayed with more candidates; return which are not proven either."""
        rows, scores, rooms = self._rooms(len(left), room.rows.shape[1])
        steps = zip(self._searchers, replaying, rooms, strict=True)
        running = [Running(gpu, one.repeat(left, (its.rows, its.scores))) for gpu, one, its in steps]
        again = FusedResult.empty(len(left), room.rows.shape[1])
        unproven = left[self._choose(rows, scores, [one.result() for one in running], again)]
        room.rows[left], room.scores[left] = again.rows, again.scores
        return unproven

    def _by_rounds(self, batches: Sequence[Batch], mask: Mask | None, room: FusedResult, among: int = 0) -> FusedResult:
        """Search step by step on all GPUs, each to the end, and choose then."""
        masks = [None] * len(self._shares) if mask is None else self.masks_of(mask)
        rows, scores, rooms = self._rooms(*room.rows.shape)
        scores[:] = -np.inf
        asked = zip(self._searchers, batches, masks, rooms, strict=True)
        kth = partial(_kth_of, scores)
        found = advanced([searcher.start(batch, its, room, kth, among) for searcher, batch, its, room in asked])
        self._choose(rows, scores, [], room)
        size = len(room.rows)
        repeated, scanned = (min(size, sum(counts)) for counts in zip(*found, strict=True))
        return FusedResult(room.rows, room.scores, repeated, scanned)

    def _rooms(self, queries: int, k: int) -> tuple[Rows, Scores, list[FusedResult]]:
        """Make room for what shards find, as `merged` takes it: the last shard's first. Each has its part of it."""
        rows, scores = self._tables(queries, k)
        wholes = map(FusedResult, rows[::-1], scores[::-1])
        most = [min(k, searcher.titles.count) for searcher in self._searchers]  # no more titles than it has
        return rows, scores, [whole.part(slice(None), its) for whole, its in zip(wholes, most, strict=True)]

    def _tables(self, queries: int, k: int) -> tuple[Rows, Scores]:
        shape = len(self._shares), queries, k
        return np.empty(shape, np.int64), np.empty(shape, np.float32)

    def _choose(self, rows: Rows, scores: Scores, needed: Sequence[Scores], room: FusedResult) -> Rows:
        """Choose the best of what all shards have found, and return which queries that does not prove."""
        room.rows[:], room.scores[:] = merged(rows, scores, self._starts)
        if not needed:
            return np.empty(0, np.int64)
        most = np.maximum.reduce(needed)
        if most.max() == -np.inf:
            return np.empty(0, np.int64)
        return np.flatnonzero((most != -np.inf) & ~(room.scores[:, -1] > most))

    def masks_of(self, mask: Mask) -> list[Mask]:
        """Return the shards' parts of a mask, the same arrays each time: by them a shard knows a filter again."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = (mask, [mask[share] for share in self._shares])
            if len(self._masks) > FILTERS_KNOWN:
                self._masks.popitem(last=False)
        return known[1]


def _kth_of(scores: Scores, queries: Rows) -> Scores:
    """Return the k-th best of what shards, (shards, queries, k), have found of some queries so far."""
    k = scores.shape[2]
    known = scores[:, queries].swapaxes(0, 1).reshape(len(queries), -1)
    kth: Scores = np.partition(known, -k, axis=1)[:, -k]
    return kth


def merged(rows: Rows, scores: Scores, starts: Rows) -> tuple[Rows, Scores]:
    """Put answers of several shards together: the k best of each query, ties by row.

    FAISS's merge takes of equal scores the later part's first, so the last shard's part has to be the first.

    Args:
        rows: int64 (shards, queries, k), counted from each shard's first title; anything where there is none. Changed.
        scores: float32 (shards, queries, k), descending; -inf where there is no title.
        starts: the shards' first titles, the last shard's first, int64 (shards, 1, 1).
    """
    rows += starts
    best_scores, best_rows = load_faiss().merge_knn_results(scores, rows, keep_max=True)
    none = (best_scores == -np.inf) | (best_rows < 0)
    if none.any():
        best_rows[none], best_scores[none] = -1, -np.inf
    return best_rows, best_scores
