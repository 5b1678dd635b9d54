"""Exact top-k on a GPU at the hardware's speed: scored in float16 on the tensor cores, ranked in float32, proven.

The score matrix never exists. 1. Every query is multiplied with every title's float16 copy, and of each chunk of a few
titles only the largest score is written. 2. The chunks with the largest maxima are listed: the k best titles lie in the
k best chunks. 3. Their titles are rescored, first from the float16 copies, and the best few dozen from the float32
originals. 4. The error of a float16 score is bounded; where the k-th float32 score exceeds everything that was dropped
on the way by more than the bound, the answer is proven to be the exact one. Where it does not, the query is searched
again with more candidates, and in the end compared with every title in float32.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FUSED_DIMS, FUSED_K_LIMIT
from semrec_faiss.errors import DeviceError, UsageError
from semrec_faiss.index.fused.batch import CapturedSearch, DirectSearch
from semrec_faiss.index.fused.full_scan import scan_titles
from semrec_faiss.index.fused.one_pass import FusedPass, load_torch, upload_titles
from semrec_faiss.index.fused.plan import (
    MOST_QUERIES,
    FusedPlan,
    Masking,
    bitmap_words,
    block_queries,
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
MASKS_KEPT = 8


@dataclass(frozen=True)
class FusedResult:
    """What a fused search found.

    Attributes:
        rows: int64 (queries, k), by descending score, ties by row; -1 after the last where fewer titles are allowed.
        scores: float32 (queries, k); -inf where there is no title.
        repeated: queries that were searched again with more candidates.
        scanned: of these, compared with every title in float32 in the end.
    """

    rows: Rows
    scores: Scores
    repeated: int
    scanned: int


@dataclass(frozen=True)
class Excluded:
    """Rows that each query must not return: ``rows[offsets[q]:offsets[q + 1]]``, integers."""

    offsets: NDArray[np.integer]
    rows: NDArray[np.integer]


class FusedSearcher:
    """Title vectors on one GPU, searched exactly; safe from many threads, which take turns."""

    def __init__(self, vectors: Vectors, device: str = "cuda:0", *, rescore: str = "float32") -> None:
        """Copy the vectors to the GPU.

        Args:
            vectors: float32 (titles, dim); dim from 32 to 2,048 in steps of 8.
            device: a torch device; ``cpu`` only in Triton's interpreter.
            rescore: ``float32`` keeps the originals beside the float16 copies, and proves its answers; ``float16``
                takes a third of the memory and proves nothing.

        Raises:
            UsageError: a dimension that the kernels do not take.
            MissingPackageError: torch or Triton is missing.
            DeviceError: the GPU's memory does not suffice.
        """
        if vectors.shape[1] not in FUSED_DIMS:
            raise UsageError(
                f"type fused takes {FUSED_DIMS.start} to {FUSED_DIMS[-1]} dimensions in steps of {FUSED_DIMS.step};"
                f" the vectors have {vectors.shape[1]}",
                fix="take type flat",
            )
        torch = load_torch()
        self._torch = torch
        self._device = torch.device(device)
        self._lock = threading.Lock()
        self.proves = rescore == "float32"
        self.titles = upload_titles(vectors, self._device, keep_originals=self.proves)
        self._words = bitmap_words(self.titles.count)
        self._codes_pay, self._coded, self._left = self.titles.codes is not None, 0, 0
        self._graphs: OrderedDict[tuple[Any, ...], tuple[CapturedSearch | None, int]] = OrderedDict()
        self._masks: OrderedDict[int, tuple[Mask, Any]] = OrderedDict()
        self._most = MOST_QUERIES
        self._work: tuple[tuple[FusedPlan, int], DirectSearch] | None = None

    def search(
        self, queries: Vectors, k: int, *, mask: Mask | None = None, excluded: Excluded | None = None
    ) -> FusedResult:
        """Find the k best allowed titles of each query.

        Args:
            queries: float32 (queries, dim), C-contiguous, finite.
            k: from 1 to `FUSED_K_LIMIT` and at most the number of titles.
            mask: bool (titles,), True where a title may be returned; not changed afterwards, its bitmap is kept.
            excluded: rows that single queries must not return besides.

        Raises:
            UsageError: k is over the limit.
            DeviceError: the GPU failed, or its memory does not suffice.
        """
        if not 1 <= k <= min(FUSED_K_LIMIT, self.titles.count):
            raise UsageError(
                f"k is {k}; type fused returns 1 to {min(FUSED_K_LIMIT, self.titles.count)} titles a query",
                fix="lower k or take type flat",
            )
        masking: Masking = "own" if excluded is not None else "none" if mask is None else "shared"
        step = block_queries(self.titles.count, self.titles.dim, k, masking)
        rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        repeated = scanned = start = 0
        with self._lock:
            while start < len(queries):
                part = slice(start, min(start + min(step, self._most), len(queries)))
                try:
                    counts = self._answer(queries[part], k, mask, _part_of(excluded, part), rows[part], scores[part])
                except self._torch.cuda.OutOfMemoryError as error:
                    self._halve(part.stop - part.start, error)
                    continue
                repeated, scanned, start = repeated + counts[0], scanned + counts[1], part.stop
        return FusedResult(rows, scores, repeated, scanned)

    def _answer(
        self,
        queries: Vectors,
        k: int,
        mask: Mask | None,
        excluded: Excluded | None,
        rows: Rows,
        scores: Scores,
        *,
        coded: bool = True,
    ) -> tuple[int, int]:
        """Fill in the answers of one block, through codes where they pay, unless told otherwise.

        Returns:
            How many queries were searched again, and how many of them compared with all titles.
        """
        allowed, stride = self._allowed(len(queries), mask, excluded)
        masking: Masking = "none" if allowed is None else "own" if stride else "shared"
        if coded:
            coded = self._codes_pay and through_codes(self.titles.count, len(queries), k)
            search = self._search_for(len(queries), k, masking, coded=coded)
        else:  # what codes have left: any number of queries, too many sizes to record each
            plan = plan_search(self.titles.count, self.titles.dim, len(queries), k, masking)
            search = self._direct(plan, len(queries), k)
        rows[:], scores[:], proven = search.search(queries, allowed, stride)
        if not self.proves:
            return 0, 0
        unproven = np.flatnonzero(~proven) if not self.titles.wide else np.arange(len(queries))
        repeated = len(unproven)
        if repeated and repeats(k) and not self.titles.wide:
            rows[unproven], scores[unproven], proven = search.repeat(unproven, allowed, stride)
            unproven = unproven[~proven]
        if coded:
            self._count_coded(len(queries), len(unproven))
        if len(unproven) and coded:
            again = np.empty((len(unproven), k), np.int64), np.empty((len(unproven), k), np.float32)
            excluded = _rows_of(excluded, unproven)
            del search  # with it its buffers may go
            _, scanned = self._answer(queries[unproven], k, mask, excluded, *again, coded=False)
            rows[unproven], scores[unproven] = again
            return repeated, scanned
        if len(unproven):
            excluded = _rows_of(excluded, unproven)

            def allowed_of(part: slice) -> Any:
                return self._allowed(part.stop - part.start, mask, _part_of(excluded, part))[0]

            rows[unproven], scores[unproven] = scan_titles(self.titles, queries[unproven], k, allowed_of)
        return repeated, len(unproven)

    def _count_coded(self, searched: int, left: int) -> None:
        """Read the codes no more where titles lie so near to one another that they often do not tell them apart."""
        self._coded, self._left = self._coded + searched, self._left + left
        if self._coded >= CODED_TRIED and self._left > CODED_LEFT * self._coded:
            self._codes_pay = False
            for key in [key for key in self._graphs if key[-1]]:
                del self._graphs[key]

    def _halve(self, size: int, error: BaseException) -> None:
        """Go on with smaller blocks; say so once."""
        if size <= 1:
            raise DeviceError(
                f"memory on {self._device} does not suffice for a single query: {str(error).splitlines()[0]}",
                fix="free GPU memory, or set device.kind=cpu",
            ) from error
        if self._most == MOST_QUERIES:
            warnings.warn(
                f"memory on {self._device} ran out at a block of {size} queries; going on with smaller blocks",
                RuntimeWarning,
                stacklevel=4,
            )
        self._most = max(1, size // 2)
        self._work = None
        self._graphs.clear()
        self._torch.cuda.empty_cache()

    def _search_for(self, queries: int, k: int, masking: Masking, *, coded: bool) -> DirectSearch | CapturedSearch:
        """Return the CUDA graph of a small batch, recorded when a batch of its kind comes for the second time."""
        key = (queries, k, masking, coded)
        known = self._graphs.get(key)
        if known is not None and known[0] is not None:
            self._graphs.move_to_end(key)
            return known[0]
        titles, dim = self.titles.count, self.titles.dim
        plan = plan_search(titles, dim, queries, k, masking, coded=coded)
        size = search_bytes(titles, dim, queries, k, masking, coded=coded)
        if self._device.type != "cuda" or size > GRAPH_BYTES:
            return self._direct(plan, queries, k)
        captured = None if known is None else self._capture(plan, queries, k, masking)
        self._graphs[key] = (captured, size if captured else 0)
        self._graphs.move_to_end(key)
        while sum(held for _, held in self._graphs.values()) > GRAPHS_BYTES or len(self._graphs) > GRAPHS_KNOWN:
            self._graphs.popitem(last=False)
        return captured or self._direct(plan, queries, k)

    def _capture(self, plan: FusedPlan, queries: int, k: int, masking: Masking) -> CapturedSearch:
        words = 0 if masking == "none" else self._words
        stride = self._words if masking == "own" else 0
        captured = CapturedSearch(FusedPass(self.titles, plan, queries, k), queries, words, stride)
        if self.proves and repeats(k):
            captured.prepare_repeat()
        return captured

    def _direct(self, plan: FusedPlan, queries: int, k: int) -> DirectSearch:
        """Reuse the buffers of the last block where they fit."""
        if self._work is not None:
            kept_plan, room = self._work[0]
            if kept_plan == plan and room >= queries and self._work[1].work.k == k:
                return self._work[1]
        self._work = None  # its last reference: what it holds is free before as much is asked for again
        search = DirectSearch(FusedPass(self.titles, plan, queries, k))
        self._work = ((plan, queries), search)
        return search

    def _allowed(self, queries: int, mask: Mask | None, excluded: Excluded | None) -> tuple[Any, int]:
        """Return the bitmap of allowed rows on the GPU and its stride: 0 when all queries share it."""
        if mask is None and excluded is None:
            return None, 0
        shared = None if mask is None else self._bitmap(mask)
        if excluded is None or not len(excluded.rows):
            return shared, 0
        torch = self._torch
        table = torch.full((queries, self._words), -1, dtype=torch.int32, device=self._device)
        if shared is not None:
            table[:] = shared
        offsets = np.asarray(excluded.offsets, dtype=np.int64)
        counts = torch.from_numpy(np.diff(offsets)).to(self._device)
        query_of = torch.repeat_interleave(torch.arange(queries, dtype=torch.int32, device=self._device), counts)
        rows = torch.from_numpy(np.ascontiguousarray(excluded.rows, dtype=np.int32)).to(self._device)
        from semrec_faiss.index.fused import kernels

        kernels.forbid_rows[(-(-len(rows) // 256),)](table, self._words, query_of, rows, len(rows), BLOCK=256)
        return table, self._words

    def _bitmap(self, mask: Mask) -> Any:
        kept = self._masks.get(id(mask))
        if kept is None:
            padded = np.zeros(self._words * 32, np.bool_)
            padded[: len(mask)] = mask
            words = np.packbits(padded, bitorder="little").view(np.int32)
            kept = (mask, self._torch.from_numpy(words).to(self._device))
            self._masks[id(mask)] = kept
            while len(self._masks) > MASKS_KEPT:
                self._masks.popitem(last=False)
        return kept[1]


def _part_of(excluded: Excluded | None, part: slice) -> Excluded | None:
    if excluded is None:
        return None
    offsets = excluded.offsets[part.start : part.stop + 1]
    return Excluded(offsets - offsets[0], excluded.rows[offsets[0] : offsets[-1]])


def _rows_of(excluded: Excluded | None, queries: Rows) -> Excluded | None:
    if excluded is None:
        return None
    lists = [excluded.rows[excluded.offsets[query] : excluded.offsets[query + 1]] for query in queries]
    offsets = np.concatenate(([0], np.cumsum([len(rows) for rows in lists])))
    return Excluded(offsets, np.concatenate([np.empty(0, np.int64), *lists]))
