"""Type fused on several GPUs of one host: each has a share of the titles, or all of them and a share of the queries.

Answers are those of one GPU bit for bit: scores do not depend on which titles lie beside which, and ties go by row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FUSED_K_LIMIT
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions, part_of
from semrec_faiss.index.fused.batches import COPIED_AT_ONCE
from semrec_faiss.index.fused.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.fused.known_filters import FILTERS_KNOWN
from semrec_faiss.index.fused.plan import WORK_BYTES, code_bytes, keeps_codes
from semrec_faiss.index.fused.searcher import FusedResult, FusedSearcher
from semrec_faiss.index.hardware.device import load_faiss

Layout = Literal["auto", "shards", "replicas"]

LEAST_A_REPLICA = 512
"""Queries that are worth another GPU: fewer are done sooner on one than divided and put together."""

FREE_SHARE = 0.9
"""How much of a GPU's free memory the titles, with what a search needs besides, may take to be held whole."""

TILE_QUERIES = 128
"""Queries that one program multiplies: a part of a batch ends with a whole tile."""


class SeveralGpus:
    """Title vectors on several GPUs, searched exactly in one process; safe from many threads."""

    def __init__(
        self,
        vectors: Vectors,
        devices: Sequence[str],
        *,
        rescore: str = "float32",
        layout: Layout = "auto",
        directions: NDArray[np.float64] | None = None,
    ) -> None:
        """Copy the vectors to the GPUs.

        Args:
            vectors: float32 (titles, dim).
            devices: torch devices, two or more.
            rescore, directions: as for `FusedSearcher`.
            layout: ``shards`` divides the titles, ``replicas`` the queries; ``auto`` takes replicas where they fit.

        Raises:
            UsageError, MissingPackageError, DeviceError: as `FusedSearcher`.
        """
        self.layout = _layout(layout, vectors, devices, rescore)
        self.count = len(vectors)
        shares = len(devices) if self.layout == "shards" else 1
        cuts = [self.count * share // shares for share in range(shares + 1)]
        self._shares = [slice(first, last) for first, last in itertools.pairwise(cuts)]
        self._threads = ThreadPoolExecutor(len(devices), thread_name_prefix="semrec-gpu")
        self._turn = itertools.count()
        self._masks: OrderedDict[int, tuple[Mask, list[Mask]]] = OrderedDict()
        parts = self._shares if self.layout == "shards" else self._shares * len(devices)

        def upload(share: slice, device: str) -> FusedSearcher:
            return FusedSearcher(vectors[share], device, rescore=rescore, directions=directions)

        self.searchers = list(self._threads.map(upload, parts, devices))
        self.proves = self.searchers[0].proves

    def search(
        self, queries: Vectors, k: int, *, mask: Mask | None = None, excluded: Exclusions | None = None
    ) -> FusedResult:
        """Find the k best allowed titles of each query; see `FusedSearcher.search`."""
        if not 1 <= k <= min(FUSED_K_LIMIT, self.count):
            raise UsageError(
                f"k is {k}; type fused returns 1 to {min(FUSED_K_LIMIT, self.count)} titles a query",
                fix="lower k or take type flat",
            )
        if self.layout == "shards":
            return self._by_titles(queries, k, mask, excluded)
        return self._by_queries(queries, k, mask, excluded)

    def _by_queries(self, queries: Vectors, k: int, mask: Mask | None, excluded: Exclusions | None) -> FusedResult:
        """Divide the queries; a thread for each GPU, because copying many queries takes a core's time."""
        parts = max(1, min(len(self.searchers), len(queries) // LEAST_A_REPLICA))
        cuts = [_whole_tiles(len(queries) * part // parts) for part in range(parts)] + [len(queries)]
        room, turn = FusedResult.empty(len(queries), k), next(self._turn)

        def search(part: int) -> FusedResult:
            mine, searcher = slice(cuts[part], cuts[part + 1]), self.searchers[(turn + part) % len(self.searchers)]
            with searcher.lock:
                return searcher.start(queries[mine], mask, part_of(excluded, mine), room.part(mine)).result()

        others = [self._threads.submit(search, part) for part in range(1, parts)]
        try:
            first = search(0)  # in this thread: one thread fewer to wake
        finally:
            for other in others:  # whatever happens, nobody still reads what the caller may change
                other.exception()
        found = [first, *(other.result() for other in others)]
        repeated, scanned = sum(one.repeated for one in found), sum(one.scanned for one in found)
        return FusedResult(room.rows, room.scores, repeated, scanned)

    def _by_titles(self, queries: Vectors, k: int, mask: Mask | None, excluded: Exclusions | None) -> FusedResult:
        """Divide the titles; one thread launches what all GPUs do before it waits for the first."""
        masks = [None] * len(self._shares) if mask is None else self._masks_of(mask)
        rows = np.full((len(self._shares), len(queries), k), -1, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        asked = self._pinned(queries)
        with contextlib.ExitStack() as held:
            for searcher in self.searchers:
                held.enter_context(searcher.lock)
            running = [
                searcher.start(asked, its_mask, _within(excluded, share), room)
                for searcher, share, its_mask, room in zip(
                    self.searchers, self._shares, masks, self._rooms(rows, scores), strict=True
                )
            ]
            while sum(one.advance() for one in running):  # every one, each round
                pass
            found = [one.result() for one in running]
        repeated, scanned = sum(one.repeated for one in found), sum(one.scanned for one in found)
        merged_rows, merged_scores = merged(rows, scores, [share.start for share in self._shares])
        return FusedResult(merged_rows, merged_scores, min(repeated, len(queries)), min(scanned, len(queries)))

    def _rooms(self, rows: Rows, scores: Scores) -> Iterator[FusedResult]:
        """Lay each shard's room over its part of ``rows`` and ``scores``: it has no more titles than it has."""
        for shard, searcher in enumerate(self.searchers):
            kept = slice(min(rows.shape[2], searcher.titles.count))
            yield FusedResult(rows[shard, :, kept], scores[shard, :, kept])

    def _pinned(self, queries: Vectors) -> Vectors:
        """Copy many queries once to where every GPU fetches them by itself."""
        if queries.nbytes <= COPIED_AT_ONCE or self.searchers[0].titles.halves.device.type != "cuda":
            return queries
        pinned = load_torch().empty(queries.shape, pin_memory=True)
        pinned.copy_(as_tensor(queries))  # on several threads
        copied: Vectors = pinned.numpy()
        return copied

    def _masks_of(self, mask: Mask) -> list[Mask]:
        """Return the shards' parts of a mask, the same arrays each time: by them a shard knows a filter again."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = (mask, [mask[share] for share in self._shares])
            if len(self._masks) > FILTERS_KNOWN:
                self._masks.popitem(last=False)
        return known[1]


def merged(rows: Rows, scores: Scores, starts: Sequence[int]) -> tuple[Rows, Scores]:
    """Put answers of several shards together: the k best of each query, ties by row.

    FAISS's merge takes of equal scores the later shard's first, hence the reversed order.

    Args:
        rows: int64 (shards, queries, k), counted from each shard's first title; -1 where there is none. Changed.
        scores: float32 (shards, queries, k), descending; -inf where there is no title.
        starts: the shards' first titles, ascending.
    """
    rows += np.where(rows >= 0, np.asarray(starts)[:, None, None], 0)
    best_scores, best_rows = load_faiss().merge_knn_results(
        np.ascontiguousarray(scores[::-1]), np.ascontiguousarray(rows[::-1]), keep_max=True
    )
    best_scores[best_rows < 0] = -np.inf
    return best_rows, best_scores


def _within(excluded: Exclusions | None, share: slice) -> Exclusions | None:
    if excluded is None:
        return None
    inside = (excluded.rows >= share.start) & (excluded.rows < share.stop)
    counts = np.concatenate(([0], np.cumsum(inside)))
    return Exclusions(counts[excluded.offsets], excluded.rows[inside] - share.start)


def _whole_tiles(queries: int) -> int:
    return queries // TILE_QUERIES * TILE_QUERIES


def _layout(wanted: Layout, vectors: Vectors, devices: Sequence[str], rescore: str) -> Literal["shards", "replicas"]:
    if wanted != "auto":
        return wanted
    cuda: Any = load_torch().cuda
    count, dim = vectors.shape
    needed = count * dim * (6 if rescore == "float32" else 2) + 2 * WORK_BYTES
    needed += code_bytes(count, dim) if keeps_codes(count, rescore) else 0
    fits = all(device == "cpu" or needed <= FREE_SHARE * cuda.mem_get_info(device)[0] for device in devices)
    return "replicas" if fits else "shards"
