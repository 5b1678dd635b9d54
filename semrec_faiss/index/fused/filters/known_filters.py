"""Filters that were used lately: their bitmaps, and the titles that they allow copied together where that pays.

A filter that allows few titles should cost what searching few titles costs. Copying them together costs something too:
so a filter is searched by its bitmap until what that has cost too much, estimated, amounts to what copying costs. That
is never more than twice the best (the ski-rental rule), and mostly the first search copies at once. They are copied to
a shelf, which takes longer to make than to fill: filters share it, and one that comes back often gets another.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.batch import Workspace
from semrec_faiss.index.fused.cards import MULTIPLIED_A_MS, READ_BYTES_A_MS
from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.filters.shelves import Shelf, shelf_bytes, shelf_size
from semrec_faiss.index.fused.plan import gathers_codes, multiplies_codes, through_codes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

FILTERS_KNOWN = 64

LOADING_MS = 0.05
"""What it takes to begin to fill a shelf: to launch it, and to list the rows. Estimated, not measured."""

MAKING_MS, ANOTHER_MS = 0.9, 5.0
"""What a shelf takes to make, beside the copying: on an H200's host buffers took 0.3 ms, and launches kernel by kernel
0.3 to 1.0. And what another one does of a size that there is: recordings of its own besides, 3 to 5 ms each."""

SHELVED_SHARE, LEAST_SHELVES_BYTES, MOST_SHELVES_BYTES = 0.5, 256 << 20, 4 << 30
"""Shelves may take half as much GPU memory as all titles do, within these bounds."""

MULTIPLIED_CODE = 1.25
"""What multiplying a number of a code takes, with the rest of such a pass, where one in float16 takes 2: 10,000
queries by bitmap took an H200 9.6 ms of a million titles and 36.3 of four, and of half as many copies 7.6 and 30.4."""

CALM_BATCHES = 4096
"""Filtered batches in a row for which memory suffices, after which shelves may take twice as much as before."""


@dataclass(eq=False)
class KnownFilter:
    """A filter that was used.

    Attributes:
        mask: bool (titles,).
        allowed: how many titles it allows.
        bitmap: int32 (`bitmap_words`,) on the GPU.
        within: the bitmap of its own titles on a shelf; None where that would hold the whole catalogue.
        lost_ms: what its searches by bitmap have taken longer than they would have from a shelf, since it was on one.
        loaded_ms: what copying its titles has taken since a shelf was made for it; estimated, both.
        shelf: where its titles are.
    """

    mask: Mask
    allowed: int
    bitmap: Any
    within: Any
    lost_ms: float = 0.0
    loaded_ms: float = 0.0
    shelf: Shelf | None = None


class KnownFilters:
    """The filters used last on one GPU, and which of them are on a shelf; one thread at a time."""

    def __init__(self, titles: GpuTitles, workspace: Workspace) -> None:
        """Know none yet."""
        self._torch = load_torch()
        self._titles, self._workspace = titles, workspace
        self._known: OrderedDict[int, KnownFilter] = OrderedDict()
        self._bitmaps = Bitmaps(titles.count, titles.halves.device)
        self._shelves: list[Shelf] = []  # the one used last at the end
        self._lost_ms: dict[int, float] = {}  # for lack of any shelf of a size
        self._most = min(MOST_SHELVES_BYTES, max(LEAST_SHELVES_BYTES, int(SHELVED_SHARE * titles.bytes)))
        self.budget, self._calm = self._most, 0

    def place(self, mask: Mask, queries: int, *, at_once: bool = False) -> KnownFilter:
        """Look a filter up for a batch of so many queries, copying its titles to a shelf where that has come to pay.

        ``at_once``: whether or not it has, if there is room.
        """
        self._grow()
        latest = self._shelves[-1] if self._shelves else None
        if latest is not None and latest.counted != latest.bytes:  # a batch was recorded since
            latest.counted = latest.bytes
            self._keep_within(latest)
        known = self._known.get(id(mask))
        if known is None:
            known = self._known[id(mask)] = KnownFilter(mask, *self._bitmaps.send(mask))
            if len(self._known) > FILTERS_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(id(mask))
        if known.shelf is None and known.allowed and known.within is not None:
            self._shelve(known, queries, at_once=at_once)
        if known.shelf is not None:
            self._shelves.remove(known.shelf)
            self._shelves.append(known.shelf)
        return known

    def let_go(self) -> bool:
        """Free all shelves, where memory ran out; False where there was none.

        For a time they may take half of what they took together. So a batch that runs out of memory again and again
        ends without a shelf: it is one batch of the many after which they may take more.
        """
        shelves, held = list(self._shelves), self._held
        for shelf in shelves:
            self._let_go_of(shelf)
        if shelves:
            self.budget, self._calm = min(self.budget, held) // 2, 0
            self._workspace.forget()
        return bool(shelves)

    def _grow(self) -> None:
        """Let shelves take more again, step by step, where memory has sufficed for long enough."""
        self._calm += 1
        if self.budget < self._most and self._calm >= CALM_BATCHES:
            self.budget, self._calm = min(self._most, 2 * self.budget), 0

    def _shelve(self, known: KnownFilter, queries: int, *, at_once: bool) -> None:
        """Copy a filter's titles to a shelf, where searching by its bitmap has come to cost as much as that."""
        size = shelf_size(known.allowed)
        lost, loading = masking_loss_ms(self._titles, queries, size), loading_ms(self._titles, size)
        known.lost_ms += lost
        shelf = next((shelf for shelf in self._shelves if shelf.size == size), None)  # the one not used for longest
        if shelf is None:
            self._lost_ms[size] = self._lost_ms.get(size, 0.0) + lost
        pays = known.lost_ms >= loading and (shelf is not None or self._lost_ms[size] >= MAKING_MS + loading)
        if not (pays or at_once):
            return
        try:
            if shelf is None or known.loaded_ms >= ANOTHER_MS:
                known.loaded_ms = 0.0
                shelf = self._made(size, beside=shelf)
            if shelf is None:
                return
            self._clear(shelf)
            shelf.load(known.bitmap, known.allowed)
        except self._torch.cuda.OutOfMemoryError:  # by its bitmap, then, and not tried again at once
            known.lost_ms = self._lost_ms[size] = 0.0
            return
        known.shelf, known.lost_ms, known.loaded_ms = shelf, 0.0, known.loaded_ms + loading

    def _made(self, size: int, beside: Shelf | None) -> Shelf | None:
        """Make a shelf; let others go for it where there is none of its size, and else take that one.

        None where it would take too much by itself.
        """
        needed = shelf_bytes(self._titles, size)
        if needed > self.budget or (beside is not None and needed + self._held > self.budget):
            return beside
        self._keep_within(None, more=needed)
        shelf = Shelf(self._titles, size, self._workspace)
        self._lost_ms[size] = 0.0
        self._shelves.append(shelf)
        return shelf

    @property
    def _held(self) -> int:
        return sum(shelf.counted for shelf in self._shelves)

    def _keep_within(self, wanted: Shelf | None, more: int = 0) -> None:
        """Let the shelves go that were used longest ago, until what is left keeps to the budget."""
        held = more + self._held
        for shelf in list(self._shelves):
            if held <= self.budget:
                return
            if shelf is not wanted:
                held -= shelf.counted
                self._let_go_of(shelf)

    def _let_go_of(self, shelf: Shelf) -> None:
        """Free a shelf, its recordings, and the buffers of blocks that were made for it."""
        self._workspace.forget(shelf.titles)
        self._shelves.remove(shelf)
        self._clear(shelf)

    def _clear(self, shelf: Shelf) -> None:
        """Note that no filter's titles are there any more."""
        for known in self._known.values():
            if known.shelf is shelf:
                known.shelf = None


def masking_loss_ms(titles: GpuTitles, queries: int, size: int) -> float:
    """Estimate how much longer a search by bitmap takes than one of ``size`` titles alone; of few titles a query."""
    coded = gathers_codes(size) and not multiplies_codes(queries)
    its = titles.count * _title_ms(titles, titles.count, queries)
    return max(0.0, its - size * _title_ms(titles, size, queries, coded=coded))


def _title_ms(titles: GpuTitles, searched: int, queries: int, *, coded: bool = True) -> float:
    """Estimate what a title costs, of so many that are searched: reading it or multiplying it, codes where it has."""
    coded = coded and titles.codes is not None and through_codes(searched, queries, 1, screened=titles.screened)
    read_bytes = titles.codes.bytes / titles.count if titles.codes is not None and coded else 2 * titles.dim
    multiplied = titles.dim * queries * (MULTIPLIED_CODE if coded and multiplies_codes(queries) else 2)
    return max(read_bytes / READ_BYTES_A_MS, multiplied / MULTIPLIED_A_MS)


def loading_ms(titles: GpuTitles, size: int) -> float:
    """Estimate what filling a shelf takes: what it holds of each title is read, by itself, and written."""
    return LOADING_MS + 2 * titles.gathered_bytes(size) / READ_BYTES_A_MS
