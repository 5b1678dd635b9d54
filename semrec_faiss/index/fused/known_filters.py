"""Filters that were used lately: their bitmaps, and the titles that they allow gathered together where that pays.

A filter that allows few titles should cost what searching few titles costs. Copying them together costs something too:
so a filter is searched by its bitmap until what that has cost too much, estimated, amounts to what copying costs. That
is never more than twice the best (the ski-rental rule), and for a large batch the first search copies at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.bitmaps import Bitmaps
from semrec_faiss.index.fused.block_search import BlockSearch, Workspace
from semrec_faiss.index.fused.plan import CODED_TITLES, code_bytes, through_codes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

FILTERS_KNOWN = 64

READ_BYTES_A_MS, MULTIPLIED_A_MS = 2.5e9, 5e11
"""What a pass reads of the titles, and multiplies and adds, a millisecond: an H100's, other cards' in proportion."""

GATHERING_MS = 0.9
"""What the host takes to gather titles: to list their rows, to make the buffers of a block, and to launch kernel by
kernel what for all titles is recorded. An H200's host, 1 % of a million titles: one query by gathering 1.4 ms, by the
bitmap 0.35."""

GATHERED_SHARE, LEAST_GATHERED_BYTES, MOST_GATHERED_BYTES = 0.5, 256 << 20, 4 << 30
"""Gathered titles may take half as much GPU memory as all titles do, within these bounds."""

GATHERED_GRAPHS_BYTES = 64 << 20
"""GPU memory of the recorded batches of one filter's titles; counted with them."""

LISTED_WORDS, COUNTED_AT_ONCE = 256, 1024
"""Words of a bitmap whose rows one program lists, and counts of programs before it that it adds up together."""

GATHERED_RECORDED_AT = 8
"""How many batches of a kind a filter sees before one is recorded, which takes as long as that saves in eight."""


@dataclass
class KnownFilter:
    """A filter that was used.

    Attributes:
        mask: bool (titles,).
        allowed: how many titles it allows.
        lost_ms: what its searches by bitmap have taken longer than they would have with its titles gathered, estimated.
        bitmap: int32 (`bitmap_words`,) on the GPU.
        counted: GPU memory that its gathered titles and their recorded batches took when last looked at, which is done
            for the filter used last: for all of them at every use it would take longer than a search.
        gathered: a search of its titles gathered together.
    """

    mask: Mask
    allowed: int
    bitmap: Any
    lost_ms: float = 0.0
    gathered: BlockSearch | None = None
    counted: int = 0

    @property
    def bytes(self) -> int:
        """GPU memory that its gathered titles and their recorded batches take."""
        return 0 if self.gathered is None else self.gathered.titles.bytes + self.gathered.recorded_bytes


class KnownFilters:
    """The filters used last on one GPU, and which of them have their titles gathered; one thread at a time."""

    def __init__(self, titles: GpuTitles, workspace: Workspace) -> None:
        """Know none yet."""
        self._torch = load_torch()
        self._titles, self._workspace = titles, workspace
        self._known: OrderedDict[int, KnownFilter] = OrderedDict()
        self._bitmaps = Bitmaps(titles.count, titles.halves.device)
        self.budget = min(MOST_GATHERED_BYTES, max(LEAST_GATHERED_BYTES, int(GATHERED_SHARE * titles.bytes)))

    def place(self, mask: Mask, queries: int) -> KnownFilter:
        """Look a filter up for a batch of so many queries, gathering its titles where that has come to pay."""
        latest = next(reversed(self._known.values()), None)
        if latest is not None and latest.counted != latest.bytes:  # a batch was recorded since
            latest.counted = latest.bytes
            self._keep_within(latest)
        known = self._known.get(id(mask))
        if known is None:
            bitmap, allowed = self._bitmaps.send(mask)
            known = self._known[id(mask)] = KnownFilter(mask, allowed, bitmap)
            if len(self._known) > FILTERS_KNOWN:
                self._let_go_of(self._known.popitem(last=False)[1])
        self._known.move_to_end(id(mask))
        if known.gathered is None and known.allowed:
            known.lost_ms += masking_loss_ms(self._titles, queries, known.allowed)
            if known.lost_ms >= gathering_ms(known.allowed, self._titles.dim):
                self._gather(known)
        return known

    def let_go(self) -> bool:
        """Free everything gathered; False where there was nothing."""
        gathered = [known for known in self._known.values() if known.gathered is not None]
        for known in gathered:
            _forget(known)
        if gathered:
            self._workspace.forget()
        return bool(gathered)

    def _gather(self, known: KnownFilter) -> None:
        needed = gathered_bytes(known.allowed, self._titles.dim)
        if needed > self.budget:
            return
        self._keep_within(known, more=needed)
        try:
            titles = self._titles.gather(self._rows_of(known))
            known.gathered = BlockSearch(titles, self._workspace, GATHERED_GRAPHS_BYTES, GATHERED_RECORDED_AT)
            known.counted = known.bytes
        except self._torch.cuda.OutOfMemoryError:  # by its bitmap, then, and not tried again at once
            known.lost_ms = 0.0

    def _keep_within(self, wanted: KnownFilter, more: int = 0) -> None:
        """Let the titles of the filters go that were used longest ago, until what is left keeps to the budget."""
        held = more + sum(known.counted for known in self._known.values())
        for known in list(self._known.values()):
            if held <= self.budget:
                return
            if known is not wanted and known.gathered is not None:
                held -= known.counted
                self._let_go_of(known)

    def _let_go_of(self, known: KnownFilter) -> None:
        """Free what a filter has gathered, and the buffers of blocks that were made for it."""
        if known.gathered is not None:
            self._workspace.forget(known.gathered.titles)
        _forget(known)

    def _rows_of(self, known: KnownFilter) -> Any:
        """List the rows that a filter allows, on the GPU, without waiting for it: int32, ascending."""
        from semrec_faiss.index.fused.kernels import gathering

        def room(count: int) -> Any:
            return self._torch.empty(count, dtype=self._torch.int32, device=known.bitmap.device)

        words = len(known.bitmap)
        programs = -(-words // LISTED_WORDS)
        counts, rows = room(programs), room(known.allowed)
        gathering.count_rows[(programs,)](known.bitmap, counts, words, WORDS=LISTED_WORDS, num_warps=4)
        sizes = {"WORDS": LISTED_WORDS, "BLOCK": COUNTED_AT_ONCE}
        gathering.list_rows[(programs,)](known.bitmap, counts, rows, words, **sizes, num_warps=4)
        return rows


def _forget(known: KnownFilter) -> None:
    known.gathered, known.lost_ms, known.counted = None, 0.0, 0


def masking_loss_ms(titles: GpuTitles, queries: int, allowed: int) -> float:
    """Estimate how much longer a search by bitmap takes than one of the allowed titles alone; of few titles a query."""
    coded = titles.codes is not None and through_codes(titles.count, queries, 1, screened=titles.screened)
    read_bytes = titles.codes.bytes / titles.count if titles.codes is not None and coded else 2 * titles.dim
    multiplied = titles.dim * queries
    return (titles.count - allowed) * max(read_bytes / READ_BYTES_A_MS, 2 * multiplied / MULTIPLIED_A_MS)


def gathering_ms(allowed: int, dim: int) -> float:
    """Estimate what gathering takes: each vector is read, by itself, and written."""
    return GATHERING_MS + 2 * gathered_bytes(allowed, dim) / READ_BYTES_A_MS


def gathered_bytes(titles: int, dim: int) -> int:
    """Return the GPU memory that gathered titles take: float16 copies, a row number each, and of many codes too."""
    return titles * (2 * dim + 4) + (code_bytes(titles, dim) if titles >= CODED_TITLES else 0)
