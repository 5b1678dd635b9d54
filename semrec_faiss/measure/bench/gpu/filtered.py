"""Batches by a filter beside the same without one, of titles on a GPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from semrec_faiss.arrays import Mask, Vectors
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of, time_on_gpu
from semrec_faiss.measure.bench.gpu.peers import FusedPeer
from semrec_faiss.measure.bench.gpu.record import MaskedBatch
from semrec_faiss.measure.instruments.timing import Timing, measure_paired, measure_steady

NEW_FILTERS, NEW_WARMUP = 20, 12


class Filtered:
    """Times batches by filters."""

    def __init__(self, searcher: FusedSearcher, k: int, seconds: float, seed: int) -> None:
        """Search for ``k`` titles, each timing for about ``seconds``; filters are drawn by ``seed``."""
        self._searcher, self._k, self._seconds, self._seed = searcher, k, seconds, seed

    def batch(self, queries: Any, share: float) -> MaskedBatch:
        """Time a batch, float32 (queries, dim) on the GPU, under a random mask for a ``share`` (0 to 1) of titles."""
        titles = self._searcher.titles
        mask = np.random.default_rng(self._seed).random(bitmap_words(titles.count) * 32) < share
        packed = np.packbits(mask, bitorder="little").view(np.int32)
        words = load_torch().from_numpy(packed).to(queries.device)
        plain, masked = (FusedPeer(titles, queries, self._k, allowed) for allowed in (None, words))
        timings = [time_on_gpu(peer.search, self._seconds) for peer in (plain, masked, plain, masked)]
        unmasked_ms = min(timings[0].median_ms, timings[2].median_ms)
        masked_ms = min(timings[1].median_ms, timings[3].median_ms)
        asked, allowed = queries.cpu().numpy(), mask[: titles.count].copy()
        search = partial(self._searcher.search, asked, self._k, mask=allowed)
        repeats = repeats_of(self._seconds, masked_ms)
        return MaskedBatch(
            first_filtered=self._first_filtered(asked, allowed).told(),
            filtered=measure_steady(search, warmup=6, repeats=repeats).told(),
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
        rolled = iter([np.roll(mask, 97 * (number + 1)) for number in range(NEW_FILTERS + NEW_WARMUP)])
        search = self._searcher.search
        new = {"": lambda: search(asked, self._k, mask=next(rolled))}
        return measure_paired(new, warmup=NEW_WARMUP, repeats=NEW_FILTERS).timings[""]
