"""Type fused on several GPUs of one host: each has a share of the titles, or all of them and a share of the queries.

Answers are those of one GPU bit for bit: scores do not depend on which titles lie beside which, and ties go by row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.config.index_types import FUSED_K_LIMIT
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.queries.batches import Batch, UserBatch, VectorBatch
from semrec_faiss.index.fused.queries.unit_length import OddQueriesError
from semrec_faiss.index.fused.room import Kept, title_bytes, work_bytes
from semrec_faiss.index.fused.running import FusedResult, advanced
from semrec_faiss.index.fused.searcher import FREE_SHARE, FusedSearcher, Originals
from semrec_faiss.index.fused.several.shards import Shards
from semrec_faiss.index.fused.titles.as_halves import seem_halves
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.fused.titles.page_locked import PageLocked
from semrec_faiss.index.fused.titles.users import GpuUsers, HostUsers, LockedUsers, ShareOfUsers, may_be_locked
from semrec_faiss.index.queries import Arithmetic, prepared_block

Layout = Literal["auto", "shards", "replicas"]

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
        self.layout = _layout(layout, vectors, devices, rescore, originals)
        self.count = len(vectors)
        shares = len(devices) if self.layout == "shards" else 1
        cuts = [self.count * share // shares for share in range(shares + 1)]
        self._shares = [slice(first, last) for first, last in itertools.pairwise(cuts)]
        self._turn = itertools.count()
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
                beside_others=True,
            )

        with ThreadPoolExecutor(len(devices)) as threads:
            self.searchers = list(threads.map(upload, parts, devices))
        self.proves = self.searchers[0].proves
        self._sharded = Shards(self.searchers, self._shares) if self.layout == "shards" else None

    def search(
        self, queries: Vectors, k: int, *, mask: Mask | None = None, excluded: Exclusions | None = None
    ) -> FusedResult:
        """Find the k best allowed titles of each query; see `FusedSearcher.search`."""
        if self.layout == "replicas":
            return self._search([VectorBatch(queries, excluded)] * len(self.searchers), k, mask)
        return self._search([VectorBatch(queries, _within(excluded, share)) for share in self._shares], k, mask)

    def search_given(self, given: NDArray[Any], first: int, k: int, *, normalize: bool) -> FusedResult:
        """Find the k best titles of queries that are not prepared; see `FusedSearcher.search_given`."""
        batch = VectorBatch.of_given(given, first, self.searchers[0].device, normalize=normalize)
        with contextlib.suppress(OddQueriesError):
            return self._search([batch] * len(self.searchers), k, None)
        return self.search(prepared_block(given, first, normalize=normalize, by=self.arithmetic), k)

    def shelve(self, mask: Mask) -> None:
        """Copy the titles that a mask allows together now, on every GPU; see `FusedSearcher.shelve`."""
        with contextlib.ExitStack() as held:
            for searcher in self.searchers:  # in this order, whoever asks
                held.enter_context(searcher.lock)
            masks = [mask] * len(self.searchers) if self._sharded is None else self._sharded.masks_of(mask)
            for searcher, its in zip(self.searchers, masks, strict=True):
                searcher.shelve(its)

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
        which = np.ascontiguousarray(rows)
        return self._search([UserBatch(held, which, without_seen) for held in users], k, mask)

    @property
    def arithmetic(self) -> Arithmetic:
        """What prepares queries; see `FusedSearcher.arithmetic`."""
        return self.searchers[0].arithmetic

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

    def _search(self, batches: Sequence[Batch], k: int, mask: Mask | None) -> FusedResult:
        """Search for a number of queries, given to each searcher."""
        if not 1 <= k <= min(FUSED_K_LIMIT, self.count):
            raise UsageError(
                f"k is {k}; type fused returns 1 to {min(FUSED_K_LIMIT, self.count)} titles a query",
                fix="lower k or take type flat",
            )
        queries = len(batches[0])
        taking, room = self._taking_part(queries), FusedResult.empty(queries, k)
        with contextlib.ExitStack() as held:
            for searcher in self.searchers:  # in this order, whoever asks
                if searcher in taking:
                    held.enter_context(searcher.lock)
            if self._sharded is not None:
                return self._sharded.search(batches, mask, room)
            asked = zip(self.searchers, batches, strict=True)
            return _by_queries([(one, its) for one, its in asked if one in taking], mask, room)

    def _taking_part(self, queries: int) -> list[FusedSearcher]:
        """Return who searches a batch: all shards, or of replicas as many as it is worth, in turns."""
        if self._sharded is not None:
            return self.searchers
        turn, size = next(self._turn), len(self.searchers)
        return [self.searchers[(turn + at) % size] for at in range(max(1, min(size, queries // LEAST_A_REPLICA)))]


def _by_queries(asked: Sequence[tuple[FusedSearcher, Batch]], mask: Mask | None, room: FusedResult) -> FusedResult:
    """Divide the queries among replicas."""
    queries = len(room.rows)
    parts = max(1, min(len(asked), queries // LEAST_A_REPLICA))
    cuts = [_whole_tiles(queries * part // parts) for part in range(parts)] + [queries]
    found = advanced(
        [
            searcher.start(batch.part(mine), mask, room.part(mine))
            for (searcher, batch), mine in zip(asked, map(slice, cuts[:-1], cuts[1:]), strict=False)
        ]
    )
    return FusedResult(room.rows, room.scores, *map(sum, zip(*found, strict=True)))


def _within(excluded: Exclusions | None, share: slice) -> Exclusions | None:
    if excluded is None:
        return None
    inside = (excluded.rows >= share.start) & (excluded.rows < share.stop)
    counts = np.concatenate(([0], np.cumsum(inside)))
    return Exclusions(counts[excluded.offsets], excluded.rows[inside] - share.start)


def _whole_tiles(queries: int) -> int:
    return queries // LARGEST_TILE * LARGEST_TILE


def _layout(
    wanted: Layout, vectors: Vectors, devices: Sequence[str], rescore: str, originals: Originals
) -> Literal["shards", "replicas"]:
    """Choose as `semrec memory` predicts: replicas where all titles fit every GPU."""
    if wanted != "auto":
        return wanted
    cuda: Any = load_torch().cuda
    count, dim = vectors.shape
    needed = title_bytes(count, dim, _kept(vectors, rescore, originals)) + 2 * work_bytes(count, dim)
    fits = all(device == "cpu" or needed <= FREE_SHARE * cuda.mem_get_info(device)[0] for device in devices)
    return "replicas" if fits else "shards"


def _kept(vectors: Vectors, rescore: str, originals: Originals) -> Kept:
    """Return what proves answers of replicas; whether titles came as float16 is judged by the first of them."""
    if rescore != "float32":
        return "none"
    if seem_halves(load_torch(), vectors):
        return "halves"
    return "host" if originals == "host" else "gpu"
