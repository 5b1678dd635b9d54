"""Type fused on several GPUs of one host: each has a share of the titles, or all of them and a share of the queries.

Answers are those of one GPU bit for bit: scores do not depend on which titles lie beside which, and ties go by row.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FUSED_K_LIMIT
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions, part_of
from semrec_faiss.index.fused.gpu_titles import load_torch
from semrec_faiss.index.fused.known_filters import FILTERS_KNOWN
from semrec_faiss.index.fused.plan import WORK_BYTES, code_bytes, keeps_codes
from semrec_faiss.index.fused.searcher import FusedResult, FusedSearcher

Layout = Literal["auto", "shards", "replicas"]

LEAST_A_REPLICA = 512
"""Queries that are worth another GPU: fewer are done sooner on one than divided and put together."""

FREE_SHARE = 0.9
"""How much of a GPU's free memory the titles, with what a search needs besides, may take to be held whole."""

NOTHING = np.int64(-(2**63))


class SeveralGpus:
    """Title vectors on several GPUs, searched exactly in one process; safe from many threads."""

    def __init__(
        self, vectors: Vectors, devices: Sequence[str], *, rescore: str = "float32", layout: Layout = "auto"
    ) -> None:
        """Copy the vectors to the GPUs.

        Args:
            vectors: float32 (titles, dim).
            devices: torch devices, two or more.
            rescore: as for `FusedSearcher`.
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
            return FusedSearcher(vectors[share], device, rescore=rescore)

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
        parts = max(1, min(len(self.searchers), len(queries) // LEAST_A_REPLICA))
        cuts = [len(queries) * part // parts for part in range(parts + 1)]
        first = next(self._turn)

        def search(part: int) -> FusedResult:
            mine = slice(cuts[part], cuts[part + 1])
            searcher = self.searchers[(first + part) % len(self.searchers)]
            return searcher.search(queries[mine], k, mask=mask, excluded=part_of(excluded, mine))

        found = self._each(search, parts)
        if parts == 1:
            return found[0]
        rows, scores = np.concatenate([one.rows for one in found]), np.concatenate([one.scores for one in found])
        return FusedResult(rows, scores, sum(one.repeated for one in found), sum(one.scanned for one in found))

    def _by_titles(self, queries: Vectors, k: int, mask: Mask | None, excluded: Exclusions | None) -> FusedResult:
        masks = [None] * len(self._shares) if mask is None else self._masks_of(mask)

        def search(shard: int) -> FusedResult:
            share, searcher = self._shares[shard], self.searchers[shard]
            mine = None if excluded is None else _within(excluded, share)
            found = searcher.search(queries, min(k, searcher.titles.count), mask=masks[shard], excluded=mine)
            found.rows[found.rows >= 0] += share.start
            return found

        found = self._each(search, len(self._shares))
        rows, scores = merged([(one.rows, one.scores) for one in found], k)
        repeated, scanned = sum(one.repeated for one in found), sum(one.scanned for one in found)
        return FusedResult(rows, scores, min(repeated, len(queries)), min(scanned, len(queries)))

    def _each(self, search: Callable[[int], FusedResult], parts: int) -> list[FusedResult]:
        """Do the first part in this thread: one thread fewer to wake."""
        others = [self._threads.submit(search, part) for part in range(1, parts)]
        try:
            first = search(0)
        finally:
            for other in others:  # whatever happens, nobody still reads what the caller may change
                other.exception()
        return [first, *(other.result() for other in others)]

    def _masks_of(self, mask: Mask) -> list[Mask]:
        """Return the shards' parts of a mask, the same arrays each time: by them a shard knows a filter again."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = (mask, [mask[share] for share in self._shares])
            if len(self._masks) > FILTERS_KNOWN:
                self._masks.popitem(last=False)
        return known[1]


def merged(found: Sequence[tuple[Rows, Scores]], k: int) -> tuple[Rows, Scores]:
    """Put answers of several shards together: the k best of each query, ties by row.

    Args:
        found: of each shard rows int64 and scores float32, (queries, its own k); a row of -1 is none.
        k: titles a query.
    """
    keys = np.concatenate([_keys(rows, scores) for rows, scores in found], axis=1)
    keys.sort(axis=1)
    best = np.full((len(keys), k), NOTHING)
    wide = min(k, keys.shape[1])
    best[:, :wide] = keys[:, ::-1][:, :wide]
    top = (best >> 32).astype(np.int32)
    scores = (top ^ ((top >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    nothing = best == NOTHING
    scores[nothing] = -np.inf
    return np.where(nothing, -1, 0x7FFFFFFF - (best & 0x7FFFFFFF)), scores


def _keys(rows: Rows, scores: Scores) -> NDArray[np.int64]:
    bits = np.ascontiguousarray(scores).view(np.int32)
    ordered = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
    return np.asarray(np.where(rows < 0, NOTHING, (ordered << 32) | (0x7FFFFFFF - rows)), np.int64)


def _within(excluded: Exclusions, share: slice) -> Exclusions:
    inside = (excluded.rows >= share.start) & (excluded.rows < share.stop)
    counts = np.concatenate(([0], np.cumsum(inside)))
    return Exclusions(counts[excluded.offsets], excluded.rows[inside] - share.start)


def _layout(wanted: Layout, vectors: Vectors, devices: Sequence[str], rescore: str) -> Literal["shards", "replicas"]:
    if wanted != "auto":
        return wanted
    cuda: Any = load_torch().cuda
    count, dim = vectors.shape
    needed = count * dim * (6 if rescore == "float32" else 2) + 2 * WORK_BYTES
    needed += code_bytes(count, dim) if keeps_codes(count, rescore) else 0
    fits = all(device == "cpu" or needed <= FREE_SHARE * cuda.mem_get_info(device)[0] for device in devices)
    return "replicas" if fits else "shards"
