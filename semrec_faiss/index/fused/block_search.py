"""A block of queries over titles on one GPU: launched or recorded, proven or repeated or compared with all titles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.exclusions import Exclusions, part_of
from semrec_faiss.index.fused.batch import CapturedSearch, DirectSearch
from semrec_faiss.index.fused.cards import Card, fitted
from semrec_faiss.index.fused.full_scan import scan_titles
from semrec_faiss.index.fused.gpu_titles import GpuTitles, load_torch
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import (
    FusedPlan,
    Masking,
    bitmap_words,
    plan_search,
    repeats,
    search_bytes,
    through_codes,
)

GRAPH_BYTES, GRAPHS_BYTES = 192 << 20, 384 << 20
"""GPU memory of the largest batch that is captured as a CUDA graph, and of all that are kept."""

CODED_TRIED, CODED_LEFT = 256, 0.25
"""After so many queries, codes that leave more than this share of them unproven are read no more."""

GRAPHS_KNOWN = 256

RECORDED_AT = 2
"""How many times a batch of a kind comes before it is recorded."""


@dataclass
class Workspace:
    """The buffers of the last block that was launched kernel by kernel, of whichever titles of one GPU."""

    kept: DirectSearch | None = None


@dataclass
class _Recorded:
    """A kind of batch: how many came before it was recorded, the record, and its GPU memory."""

    asked: int = 0
    search: CapturedSearch | None = None
    bytes: int = 0


class BlockSearch:
    """Searches titles on one GPU, a block of queries at a time; one thread at a time."""

    def __init__(
        self,
        titles: GpuTitles,
        workspace: Workspace,
        graphs_bytes: int = GRAPHS_BYTES,
        recorded_at: int = RECORDED_AT,
    ) -> None:
        """Search ``titles``, keeping recorded batches of up to ``graphs_bytes`` in all."""
        self._torch = load_torch()
        self.titles = titles
        self._workspace = workspace
        self._device = titles.halves.device
        self._card = Card.of(self._torch, self._device)
        self._graphs_bytes, self._recorded_at = graphs_bytes, recorded_at
        self._words = bitmap_words(titles.count)
        self._codes_pay, self._coded, self._left = titles.codes is not None, 0, 0
        self._graphs: OrderedDict[tuple[Any, ...], _Recorded] = OrderedDict()

    @property
    def proves(self) -> bool:
        """Whether answers are proven: there are originals to rank by."""
        return self.titles.originals is not None

    @property
    def recorded_bytes(self) -> int:
        """GPU memory of the recorded batches."""
        return sum(kind.bytes for kind in self._graphs.values())

    def forget_recorded(self) -> None:
        """Free the buffers of recorded batches."""
        self._graphs.clear()

    def answer(
        self,
        queries: Vectors,
        shared: Any,
        excluded: Exclusions | None,
        rows: Rows,
        scores: Scores,
        *,
        coded: bool = True,
    ) -> Generator[None, None, tuple[int, int]]:
        """Fill in the answers of one block, through codes where they pay, unless told otherwise.

        Yields whenever kernels are launched that it is going to wait for.

        Args:
            queries: float32 (queries, dim).
            shared: the bitmap of titles that all queries may return, on the GPU; None for all titles.
            excluded: rows that single queries must not return besides.
            rows, scores: (queries, k), to be filled in; k is at most the number of titles.
            coded: whether codes may be read.

        Returns:
            How many queries were searched again, and how many of them compared with all titles.
        """
        k = rows.shape[1]
        allowed, stride = self._allowed(len(queries), shared, excluded)
        masking: Masking = "none" if allowed is None else "own" if stride else "shared"
        if coded:
            coded = self._codes_pay and through_codes(self.titles.count, len(queries), k)
            search = self._search_for(len(queries), k, masking, coded=coded)
        else:  # what codes have left: any number of queries, too many sizes to record each
            search = self._direct(self._plan(len(queries), k, masking, coded=False), len(queries), k)
        proven = yield from search.search(queries, allowed, stride, (rows, scores))
        if not self.proves:
            return 0, 0
        unproven = np.flatnonzero(~proven) if not self.titles.wide else np.arange(len(queries))
        repeated = len(unproven)
        if repeated and repeats(k) and not self.titles.wide:
            again = _room_for(unproven, k)
            proven = yield from search.repeat(unproven, allowed, stride, again)
            rows[unproven], scores[unproven] = again
            unproven = unproven[~proven]
        if coded:
            self._count_coded(len(queries), len(unproven))
        if len(unproven) and coded:
            again = _room_for(unproven, k)
            excluded = None if excluded is None else excluded.take(unproven)
            del search  # with it its buffers may go
            _, scanned = yield from self.answer(queries[unproven], shared, excluded, *again, coded=False)
            rows[unproven], scores[unproven] = again
            return repeated, scanned
        if len(unproven):
            excluded = None if excluded is None else excluded.take(unproven)

            def allowed_of(part: slice) -> Any:
                return self._allowed(part.stop - part.start, shared, part_of(excluded, part))[0]

            rows[unproven], scores[unproven] = scan_titles(self.titles, queries[unproven], k, allowed_of)
        return repeated, len(unproven)

    def _count_coded(self, searched: int, left: int) -> None:
        """Read the codes no more where titles lie so near to one another that they often do not tell them apart."""
        self._coded, self._left = self._coded + searched, self._left + left
        if self._coded >= CODED_TRIED and self._left > CODED_LEFT * self._coded:
            self._codes_pay = False
            for key in [key for key in self._graphs if key[-1]]:
                del self._graphs[key]

    def _search_for(self, queries: int, k: int, masking: Masking, *, coded: bool) -> DirectSearch | CapturedSearch:
        """Return the CUDA graph of a small batch, recorded when a batch of its kind comes for the second time."""
        key = (queries, k, masking, coded)
        kind = self._graphs.setdefault(key, _Recorded())
        self._graphs.move_to_end(key)
        if kind.search is not None:
            return kind.search
        plan = self._plan(queries, k, masking, coded=coded)
        size = search_bytes(self.titles.count, self.titles.dim, queries, k, masking, coded=coded)
        kind.asked += 1
        if self._device.type != "cuda" or size > min(GRAPH_BYTES, self._graphs_bytes) or kind.asked < self._recorded_at:
            self._drop_recorded(0)
            return self._direct(plan, queries, k)
        self._drop_recorded(size)
        kind.search, kind.bytes = self._capture(plan, queries, k, masking), size
        return kind.search

    def _plan(self, queries: int, k: int, masking: Masking, *, coded: bool) -> FusedPlan:
        plan = plan_search(self.titles.count, self.titles.dim, queries, k, masking, coded=coded)
        return fitted(plan, self._card)

    def _drop_recorded(self, more: int) -> None:
        """Drop the kinds of batches that came longest ago, until there is room for ``more``."""
        while self.recorded_bytes + more > self._graphs_bytes or len(self._graphs) > GRAPHS_KNOWN:
            self._graphs.popitem(last=False)

    def _capture(self, plan: FusedPlan, queries: int, k: int, masking: Masking) -> CapturedSearch:
        words = 0 if masking == "none" else self._words
        stride = self._words if masking == "own" else 0
        captured = CapturedSearch(FusedPass(self.titles, plan, queries, k), queries, words, stride)
        if self.proves and repeats(k):
            captured.prepare_repeat()
        return captured

    def _direct(self, plan: FusedPlan, queries: int, k: int) -> DirectSearch:
        """Reuse the buffers of the last block where they fit."""
        kept = self._workspace.kept
        if kept is not None and kept.work.fits(self.titles, plan, queries, k):
            return kept
        self._workspace.kept = kept = None  # its last reference: what it holds is free before as much is asked again
        self._workspace.kept = DirectSearch(FusedPass(self.titles, plan, queries, k))
        return self._workspace.kept

    def _allowed(self, queries: int, shared: Any, excluded: Exclusions | None) -> tuple[Any, int]:
        """Return the bitmap of allowed rows on the GPU and its stride: 0 when all queries share it."""
        if excluded is None or not len(excluded.rows):
            return shared, 0
        torch = self._torch
        table = torch.full((queries, self._words), -1, dtype=torch.int32, device=self._device)
        if shared is not None:
            table[:] = shared
        offsets = np.asarray(excluded.offsets, dtype=np.int64)
        counts = torch.from_numpy(np.diff(offsets)).to(self._device)
        query_of = torch.repeat_interleave(torch.arange(queries, dtype=torch.int32, device=self._device), counts)
        rows = self._own_rows(torch.from_numpy(np.ascontiguousarray(excluded.rows, dtype=np.int32)).to(self._device))
        from semrec_faiss.index.fused import kernels

        kernels.forbid_rows[(-(-len(rows) // 256),)](table, self._words, query_of, rows, len(rows), BLOCK=256)
        return table, self._words

    def _own_rows(self, rows: Any) -> Any:
        """Turn rows of the whole catalogue into positions among these titles, -1 where they are not."""
        origins = self.titles.origins
        if origins is None:
            return rows
        torch = self._torch
        at = torch.searchsorted(origins, rows).clamp_(max=len(origins) - 1)
        return torch.where(origins[at] == rows, at, -1).to(torch.int32)


def _room_for(queries: Rows, k: int) -> tuple[Rows, Scores]:
    return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
