"""Batches by a filter beside the same without one, of titles on a GPU: all of the search, and its kernels alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from semrec_faiss.arrays import Mask, Vectors
from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.measure.bench.gpu.gpu_clock import gpu_ms, repeats_of, time_on_gpu
from semrec_faiss.measure.bench.gpu.peers import FusedPeer
from semrec_faiss.measure.bench.gpu.record import MaskedBatch
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.timing import Timing, measure_paired, measure_steady

NEW_FILTERS, NEW_WARMUP = 20, 12


class FromShelf(NamedTuple):
    """The kernels alone by a filter whose titles are on a shelf; see `MaskedBatch`."""

    later: Times | None = None
    unproven: int | None = None
    first: Times | None = None


class Filtered:
    """Times batches by filters."""

    def __init__(self, searcher: FusedSearcher, k: int, seconds: float, seed: int) -> None:
        """Search for ``k`` titles, each timing for about ``seconds``; filters are drawn by ``seed``."""
        self._searcher, self._k, self._seconds, self._seed = searcher, k, seconds, seed

    def batch(self, queries: Any, share: float) -> MaskedBatch:
        """Time a batch, float32 (queries, dim) on the GPU, under a random mask for a ``share`` (0 to 1) of titles."""
        whole = self._searcher.whole
        titles = whole.titles
        mask = np.random.default_rng(self._seed).random(bitmap_words(titles.count) * 32) < share
        packed = np.packbits(mask, bitorder="little").view(np.int32)
        words = load_torch().from_numpy(packed).to(queries.device)
        plain, masked = (FusedPeer(whole, queries, self._k, allowed) for allowed in (None, words))
        timings = [time_on_gpu(peer.search, self._seconds) for peer in (plain, masked, plain, masked)]
        unmasked_ms = min(timings[0].median_ms, timings[2].median_ms)
        masked_ms = min(timings[1].median_ms, timings[3].median_ms)
        asked, allowed = queries.cpu().numpy(), mask[: titles.count].copy()
        search = partial(self._searcher.search, asked, self._k, mask=allowed)
        first = self._first_filtered(asked, allowed)
        later = measure_steady(search, warmup=6, repeats=repeats_of(self._seconds, masked_ms))
        kernels = self._from_shelf(queries, allowed)
        return MaskedBatch(
            first_filtered=first.told(),
            filtered=later.told(),
            first_filtered_kernels=kernels.first,
            filtered_kernels=kernels.later,
            filtered_unproven=kernels.unproven,
            titles=titles.count,
            queries=len(asked),
            share=share,
            unmasked_ms=round(unmasked_ms, 4),
            masked_ms=round(masked_ms, 4),
            ratio=round(masked_ms / unmasked_ms, 4),
            unproven=len(masked.find_unproven()),
        )

    def _first_filtered(self, asked: Vectors, mask: Mask) -> Timing:
        """Time a search by a filter that has not been used before: each repeat has another one, of as many titles."""
        others, search = _others(mask), self._searcher.search
        new = {"": lambda: search(asked, self._k, mask=next(others))}
        return measure_paired(new, warmup=NEW_WARMUP, repeats=NEW_FILTERS).timings[""]

    def _from_shelf(self, queries: Any, mask: Mask) -> FromShelf:
        """Time the kernels alone, for the filter's titles on a shelf and for others' that are copied there first."""
        searcher = self._searcher
        with searcher.lock, searcher.current():
            searcher.shelve(mask)
            known = searcher.filters.place(mask, len(queries))
            shelf = known.shelf
            if shelf is None:
                return FromShelf()
            peer = FusedPeer(shelf.search, queries, self._k, known.within)
            later, unproven = time_on_gpu(peer.search, self._seconds), len(peer.find_unproven())
            bitmaps = Bitmaps(len(mask), searcher.device)
            others = iter([bitmaps.send(other)[1] for other in _others(mask)])

            def first_use() -> None:
                shelf.load(next(others), known.allowed)
                peer.search()

            for _ in range(NEW_WARMUP):
                first_use()
            first = Timing(tuple(gpu_ms(first_use) for _ in range(NEW_FILTERS)), NEW_WARMUP)
            shelf.load(known.bitmap, known.allowed)  # whose titles the searcher takes to be there
        return FromShelf(later.told(), unproven, first.told())


def _others(mask: Mask) -> Iterator[Mask]:
    """Make other filters of as many titles, all of them before the first is used."""
    return iter([np.roll(mask, 97 * (number + 1)) for number in range(NEW_FILTERS + NEW_WARMUP)])
