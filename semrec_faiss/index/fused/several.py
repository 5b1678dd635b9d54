"""Type fused on several GPUs of one host: each has a share of the titles, or all of them and a share of the queries.

Answers are those of one GPU bit for bit: scores do not depend on which titles lie beside which, and ties go by row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FUSED_K_LIMIT
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions, part_of
from semrec_faiss.index.fused.batches import Batch, UserBatch, VectorBatch, staged
from semrec_faiss.index.fused.known_filters import FILTERS_KNOWN
from semrec_faiss.index.fused.plan import LARGEST_TILE, MOST_QUERIES, title_bytes, work_bytes
from semrec_faiss.index.fused.searcher import FREE_SHARE, FusedResult, FusedSearcher, Originals, Running
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.fused.titles.page_locked import PageLocked
from semrec_faiss.index.fused.titles.users import GpuUsers, HostUsers, LockedUsers, ShareOfUsers, may_be_locked
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.faiss_threads import one_core

MERGED_BY_MANY = 100_000
"""Answers of shards that FAISS merges with several threads: fewer are merged sooner than those are awake."""

Layout = Literal["auto", "shards", "replicas"]

Asked = tuple[FusedSearcher, Batch]
"""Who searches, and what it is asked."""

LEAST_A_REPLICA = 512
"""Queries that are worth another GPU: fewer are done sooner on one than divided and put together."""


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
        originals: Originals = "auto",
    ) -> None:
        """Copy the vectors to the GPUs.

        Args:
            vectors: float32 (titles, dim).
            devices: torch devices, two or more.
            rescore, directions, originals: as for `FusedSearcher`.
            layout: ``shards`` divides the titles, ``replicas`` the queries; ``auto`` takes replicas where they fit.

        Raises:
            UsageError, MissingPackageError, DeviceError: as `FusedSearcher`.
        """
        self.layout = _layout(layout, vectors, devices, rescore)
        self.count = len(vectors)
        shares = len(devices) if self.layout == "shards" else 1
        cuts = [self.count * share // shares for share in range(shares + 1)]
        self._shares = [slice(first, last) for first, last in itertools.pairwise(cuts)]
        self._turn = itertools.count()
        self._masks: OrderedDict[int, tuple[Mask, list[Mask]]] = OrderedDict()
        parts = self._shares if self.layout == "shards" else self._shares * len(devices)

        locked = PageLocked(vectors)

        def upload(share: slice, device: str) -> FusedSearcher:
            return FusedSearcher(
                vectors[share],
                device,
                rescore=rescore,
                directions=directions,
                originals=originals,
                on_host=lambda: locked.part(share),
            )

        with ThreadPoolExecutor(len(devices)) as threads:
            self.searchers = list(threads.map(upload, parts, devices))
        self.proves = self.searchers[0].proves

    def search(
        self, queries: Vectors, k: int, *, mask: Mask | None = None, excluded: Exclusions | None = None
    ) -> FusedResult:
        """Find the k best allowed titles of each query; see `FusedSearcher.search`."""

        def batches(part: slice) -> list[Batch]:
            asked, its = queries[part], part_of(excluded, part)
            if self.layout == "replicas":
                return [VectorBatch(asked, its)] * len(self.searchers)
            asked = staged(asked, self.searchers[0].device)  # once for all
            return [VectorBatch(asked, _within(its, share)) for share in self._shares]

        return self._search(len(queries), k, mask, batches)

    def search_users(
        self,
        users: Sequence[GpuUsers],
        rows: Rows,
        k: int,
        *,
        mask: Mask | None = None,
        without_seen: bool = True,
    ) -> FusedResult:
        """Find the k best allowed titles of users that `hold_users` has copied; see `FusedSearcher.search_users`."""

        def batches(part: slice) -> list[Batch]:
            which = np.ascontiguousarray(rows[part])
            return [UserBatch(held, which, without_seen) for held in users]

        return self._search(len(rows), k, mask, batches)

    def hold_users(self, host: HostUsers) -> list[GpuUsers] | None:
        """Copy users to every GPU, or page-lock them on the host for all; see `FusedSearcher.hold_users`.

        A shard has all vectors, and of what users have seen what is in its share.
        """
        hosts = [host] * len(self.searchers)
        if self.layout == "shards":
            hosts = [ShareOfUsers(host, share) for share in self._shares]
        copied = [searcher.copied(its) for searcher, its in zip(self.searchers, hosts, strict=True)]
        if None not in copied:
            return [held for held in copied if held is not None]
        copied.clear()
        if not may_be_locked(host):
            return None
        locked = LockedUsers(host)
        reading = [
            searcher.reading(its, locked if its is host else LockedUsers(its, locked.vectors))
            for searcher, its in zip(self.searchers, hosts, strict=True)
        ]
        return None if None in reading else [held for held in reading if held is not None]

    def _search(self, queries: int, k: int, mask: Mask | None, batches: Callable[[slice], list[Batch]]) -> FusedResult:
        """Search for a number of queries; ``batches`` gives a part of them to each searcher, all of it."""
        if not 1 <= k <= min(FUSED_K_LIMIT, self.count):
            raise UsageError(
                f"k is {k}; type fused returns 1 to {min(FUSED_K_LIMIT, self.count)} titles a query",
                fix="lower k or take type flat",
            )
        taking = self._taking_part(queries)
        most = MOST_QUERIES * (1 if self.layout == "shards" else len(taking))
        whole, repeated, scanned = FusedResult.empty(queries, k), 0, 0
        with contextlib.ExitStack() as held:
            for searcher in self.searchers:  # in this order, whoever asks
                if searcher in taking:
                    held.enter_context(searcher.lock)
            for part in (slice(start, start + most) for start in range(0, queries, most)):
                asked = list(zip(self.searchers, batches(part), strict=True))
                if self.layout == "shards":
                    found = self._by_titles(asked, mask, whole.part(part))
                else:
                    found = _by_queries([(one, its) for one, its in asked if one in taking], mask, whole.part(part))
                repeated, scanned = repeated + found.repeated, scanned + found.scanned
        return FusedResult(whole.rows, whole.scores, repeated, scanned)

    def _taking_part(self, queries: int) -> list[FusedSearcher]:
        """Return who searches a batch: all shards, or of replicas as many as it is worth, in turns."""
        if self.layout == "shards":
            return self.searchers
        turn, size = next(self._turn), len(self.searchers)
        return [self.searchers[(turn + at) % size] for at in range(max(1, min(size, queries // LEAST_A_REPLICA)))]

    def _by_titles(self, asked: Sequence[Asked], mask: Mask | None, room: FusedResult) -> FusedResult:
        """Divide the titles, and merge what their shards find."""
        masks = [None] * len(self._shares) if mask is None else self._masks_of(mask)
        rows = np.empty((len(self._shares), *room.rows.shape), np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        rooms, kth = self._rooms(rows, scores), partial(_kth_of, scores)
        found = _finished(
            [
                searcher.start(batch, its_mask, its, kth)
                for (searcher, batch), its_mask, its in zip(asked, masks, rooms, strict=True)
            ]
        )
        room.rows[:], room.scores[:] = merged(rows, scores, [share.start for share in self._shares])
        size = len(room.rows)
        return FusedResult(room.rows, room.scores, min(found.repeated, size), min(found.scanned, size))

    def _rooms(self, rows: Rows, scores: Scores) -> Iterator[FusedResult]:
        """Lay the shards' rooms over ``rows`` and ``scores``, the last shard's first, as `merged` has it."""
        for its_rows, its_scores, searcher in zip(rows[::-1], scores[::-1], self.searchers, strict=True):
            kept = slice(min(rows.shape[2], searcher.titles.count))  # no more titles than it has
            yield FusedResult(its_rows[:, kept], its_scores[:, kept])

    def _masks_of(self, mask: Mask) -> list[Mask]:
        """Return the shards' parts of a mask, the same arrays each time: by them a shard knows a filter again."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = (mask, [mask[share] for share in self._shares])
            if len(self._masks) > FILTERS_KNOWN:
                self._masks.popitem(last=False)
        return known[1]


def _by_queries(asked: Sequence[Asked], mask: Mask | None, room: FusedResult) -> FusedResult:
    """Divide the queries among replicas."""
    queries = len(room.rows)
    parts = max(1, min(len(asked), queries // LEAST_A_REPLICA))
    cuts = [_whole_tiles(queries * part // parts) for part in range(parts)] + [queries]
    return _finished(
        [
            searcher.start(batch.part(mine), mask, room.part(mine))
            for (searcher, batch), mine in zip(asked, map(slice, cuts[:-1], cuts[1:]), strict=False)
        ]
    )


def _finished(running: Sequence[Running]) -> FusedResult:
    """Go on with searches on several GPUs in one thread, each a step a round, and count what they had to repeat."""
    while sum(one.advance() for one in running):
        pass
    found = [one.result() for one in running]
    return replace(found[0], repeated=sum(one.repeated for one in found), scanned=sum(one.scanned for one in found))


def _kth_of(scores: Scores, queries: Rows) -> Scores:
    """Return the k-th best of what shards, (shards, queries, k), have found of some queries so far."""
    k = scores.shape[2]
    known = scores[:, queries].swapaxes(0, 1).reshape(len(queries), -1)
    kth: Scores = np.partition(known, -k, axis=1)[:, -k]
    return kth


def merged(rows: Rows, scores: Scores, starts: Sequence[int]) -> tuple[Rows, Scores]:
    """Put answers of several shards together: the k best of each query, ties by row.

    FAISS's merge takes of equal scores the later part's first, so the last shard's part has to be the first.

    Args:
        rows: int64 (shards, queries, k), counted from each shard's first title; anything where there is none. Changed.
        scores: float32 (shards, queries, k), descending; -inf where there is no title.
        starts: the shards' first titles, ascending.
    """
    rows += np.asarray(starts[::-1])[:, None, None]
    with one_core() if rows.size < MERGED_BY_MANY else contextlib.nullcontext():
        best_scores, best_rows = load_faiss().merge_knn_results(scores, rows, keep_max=True)
    none = np.isneginf(best_scores) | (best_rows < 0)
    best_rows[none], best_scores[none] = -1, -np.inf
    return best_rows, best_scores


def _within(excluded: Exclusions | None, share: slice) -> Exclusions | None:
    if excluded is None:
        return None
    inside = (excluded.rows >= share.start) & (excluded.rows < share.stop)
    counts = np.concatenate(([0], np.cumsum(inside)))
    return Exclusions(counts[excluded.offsets], excluded.rows[inside] - share.start)


def _whole_tiles(queries: int) -> int:
    return queries // LARGEST_TILE * LARGEST_TILE


def _layout(wanted: Layout, vectors: Vectors, devices: Sequence[str], rescore: str) -> Literal["shards", "replicas"]:
    if wanted != "auto":
        return wanted
    cuda: Any = load_torch().cuda
    count, dim = vectors.shape
    needed = title_bytes(count, dim, "gpu" if rescore == "float32" else "none") + 2 * work_bytes(count, dim)
    fits = all(device == "cpu" or needed <= FREE_SHARE * cuda.mem_get_info(device)[0] for device in devices)
    return "replicas" if fits else "shards"
