"""Exact top-k on a GPU at the hardware's speed: scored in float16 on the tensor cores, ranked in float32, proven.

The score matrix never exists. 1. Every query is multiplied with every title's float16 copy, and of each chunk of a few
titles only the largest score is written. 2. The chunks with the largest maxima are listed: the k best titles lie in the
k best chunks. 3. Their titles are rescored, first from the float16 copies, and the best few dozen from the float32
originals. 4. The error of a float16 score is bounded; where the k-th float32 score exceeds everything that was dropped
on the way by more than the bound, the answer is proven to be the exact one. Where it does not, the query is searched
again with more candidates, and in the end compared with every title in float32.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.config.index_types import FUSED_DIM_LIMIT, FUSED_K_LIMIT
from semrec_faiss.errors import DeviceError, UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.batch import Workspace
from semrec_faiss.index.fused.block_search import BlockSearch, KthScores, LooseBoundsError, masking_of
from semrec_faiss.index.fused.blocks import Blocks, BlocksOf, Lanes, in_blocks
from semrec_faiss.index.fused.cards import Card
from semrec_faiss.index.fused.filters.known_filters import KnownFilters
from semrec_faiss.index.fused.kernels.compiling import tell_of_compiling
from semrec_faiss.index.fused.pass_buffers import LANES, are_written_out
from semrec_faiss.index.fused.plan import SCREENED_TITLES
from semrec_faiss.index.fused.queries.batches import Batch, UserBatch, VectorBatch
from semrec_faiss.index.fused.queries.unit_length import ByTorch, OddQueriesError
from semrec_faiss.index.fused.room import MOST_QUERIES, title_bytes, work_bytes
from semrec_faiss.index.fused.running import FusedResult, Named, Running
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.fused.titles.page_locked import PageLocked
from semrec_faiss.index.fused.titles.uploading import upload_titles, with_copies
from semrec_faiss.index.fused.titles.users import GpuUsers, HostUsers, LockedUsers, fit, may_be_locked
from semrec_faiss.index.hardware.out_of_memory import halved
from semrec_faiss.index.queries import Arithmetic, prepared_block

Originals = Literal["auto", "gpu", "host"]

FREE_SHARE = 0.9
"""How much of a GPU's free memory the titles, with what a search needs besides, may take to be held whole."""

_interpreter = threading.RLock()
"""Triton's interpreter runs one kernel at a time, whoever searches."""


class FusedSearcher:
    """Title vectors on one GPU, searched exactly; safe from many threads, which take turns."""

    def __init__(
        self,
        vectors: Vectors,
        device: str = "cuda:0",
        *,
        rescore: str = "float32",
        directions: NDArray[np.float64] | None = None,
        originals: Originals = "auto",
        on_host: Callable[[], Any] | None = None,
        beside_others: bool = False,
    ) -> None:
        """Copy the vectors to the GPU.

        Args:
            vectors: float32 (titles, dim); dim up to `FUSED_DIM_LIMIT`.
            device: a torch device; ``cpu`` only in Triton's interpreter.
            rescore: ``float32`` keeps the originals beside the float16 copies, and proves its answers; ``float16``
                takes a third of the memory and proves nothing. Of titles that came as float16 the copies are the
                originals.
            directions: float64 (kept, dim), orthonormal: keep bounds along these instead of float16 copies, where
                answers are proven and the titles are many enough for it to pay; None for copies.
            originals: where float32 originals are kept: ``gpu``, ``host``, or, ``auto``, on the GPU where they fit.
            on_host: page-locks the originals; by itself it does so for itself alone.
            beside_others: whether the threads that ask also ask other GPUs meanwhile, so that their time is short.

        Raises:
            UsageError: more dimensions than that.
            MissingPackageError: torch or Triton is missing.
            DeviceError: the GPU is too old, or its memory does not suffice.
        """
        if vectors.shape[1] > FUSED_DIM_LIMIT:
            raise UsageError(
                f"type fused takes up to {FUSED_DIM_LIMIT} dimensions; the vectors have {vectors.shape[1]}",
                fix="take type flat",
            )
        torch = load_torch()
        self._torch = torch
        self.device = torch.device(device)
        Card.of(torch, self.device)  # refused before anything is copied
        tell_of_compiling()
        self.lock = threading.RLock() if self.device.type == "cuda" else _interpreter
        self.proves = rescore == "float32"
        pays = directions if self.proves and len(vectors) >= SCREENED_TITLES else None
        with self.current():
            host = (
                (on_host or (lambda: PageLocked(vectors).part(slice(None))))
                if self._on_host(originals, *vectors.shape)
                else None
            )
            self.titles = upload_titles(vectors, self.device, keep_originals=self.proves, directions=pays, on_host=host)
        self._workspace = Workspace(beside_others=beside_others)
        self._all = BlockSearch(self.titles, self._workspace)
        self.filters = KnownFilters(self.titles, self._workspace)
        self._lanes = Lanes(self.device)
        self._most = MOST_QUERIES

    def _on_host(self, originals: Originals, titles: int, dim: int) -> bool:
        if originals != "auto" or self.device.type != "cuda":
            return originals == "host"
        needed = title_bytes(titles, dim, "gpu") + 2 * work_bytes(titles, dim)
        return bool(needed > FREE_SHARE * self._torch.cuda.mem_get_info(self.device)[0])

    def search(
        self, queries: Vectors, k: int, *, mask: Mask | None = None, excluded: Exclusions | None = None
    ) -> FusedResult:
        """Find the k best allowed titles of each query.

        Args:
            queries: float32 (queries, dim), C-contiguous, finite.
            k: from 1 to `FUSED_K_LIMIT` and at most the number of titles.
            mask: bool (titles,), True where a title may be returned; not changed afterwards: the bitmaps of the masks
                used last are kept, and the titles of those that it pays for, copied together.
            excluded: rows that single queries must not return besides.

        Raises:
            UsageError: k is over the limit.
            DeviceError: the GPU failed, or its memory does not suffice.
        """
        self._check(k)
        with self.lock:
            return self.start(VectorBatch(queries, excluded), mask, FusedResult.empty(len(queries), k)).result()

    def search_given(self, given: NDArray[Any], first: int, k: int, *, normalize: bool) -> FusedResult:
        """Find the k best titles of queries that are not prepared; see `search` and `VectorBatch.of_given`."""
        self._check(k)
        batch = VectorBatch.of_given(given, first, self.device, normalize=normalize)
        with self.lock, contextlib.suppress(OddQueriesError):
            return self.start(batch, None, FusedResult.empty(len(given), k)).result()
        return self.search(prepared_block(given, first, normalize=normalize, by=self.arithmetic), k)

    def search_users(
        self,
        users: GpuUsers,
        rows: Rows,
        k: int,
        *,
        mask: Mask | None = None,
        without_seen: bool = True,
    ) -> FusedResult:
        """Find the k best allowed titles of users on this GPU; see `search`.

        Args:
            users: the users, on this GPU.
            rows: int64, which of them.
            k: titles a user.
            mask: as for `search`.
            without_seen: leave out what each has seen, where that is known.
        """
        self._check(k)
        with self.lock:
            batch = UserBatch(users, np.ascontiguousarray(rows), without_seen)
            return self.start(batch, mask, FusedResult.empty(len(rows), k)).result()

    def shelve(self, mask: Mask) -> None:
        """Copy the titles that a mask allows together now, and not when that has come to pay; see `search`.

        Where there is no room for them, searches go by the mask's bitmap as ever.

        Raises:
            DeviceError: the GPU failed, or its memory does not suffice.
        """
        with self.lock, self.current(), Named(self):
            self._place(mask, 1, at_once=True)

    def hold_users(self, host: HostUsers) -> GpuUsers | None:
        """Copy users to the GPU, or page-lock them on the host where they do not fit; None where neither is possible.

        A question is answered all the same from `HostUsers`, whose vectors are then sent.
        """
        return self.copied(host) or (self.reading(host, LockedUsers(host)) if may_be_locked(host) else None)

    def copied(self, host: HostUsers) -> GpuUsers | None:
        """Copy users to the GPU; None where its memory does not suffice."""
        with self.lock, self.current():
            if not fit(host, self.device):
                return None
            try:
                return GpuUsers(host, self.device)
            except self._torch.cuda.OutOfMemoryError:
                self._torch.cuda.empty_cache()
                return None

    def reading(self, host: HostUsers, locked: LockedUsers) -> GpuUsers | None:
        """Read users from the host's memory; None where the system does not page-lock so much."""
        with self.lock, self.current(), contextlib.suppress(DeviceError):
            return GpuUsers(host, self.device, locked)
        return None

    @property
    def arithmetic(self) -> Arithmetic:
        """What prepares queries: many are put where the GPU fetches them from."""
        return ByTorch(self.device)

    def _check(self, k: int) -> None:
        if not 1 <= k <= min(FUSED_K_LIMIT, self.titles.count):
            raise UsageError(
                f"k is {k}; type fused returns 1 to {min(FUSED_K_LIMIT, self.titles.count)} titles a query",
                fix="lower k or take type flat",
            )

    def start(
        self,
        batch: Batch,
        mask: Mask | None,
        room: FusedResult,
        kth: KthScores | None = None,
        among: int = 0,
    ) -> Running[FusedResult]:
        """Start a search whose answers go to ``room``; whoever does holds ``lock`` until it has ended.

        Args:
            batch: vectors, or users on this GPU.
            mask: as for `search`.
            room: for k answers a query, contiguous or not; k is at most the number of titles.
            kth: where these titles are a shard, what is known of all shards, see `BlockSearch.answer`.
            among: where these queries are what a first pass has left, of how many.

        Raises:
            DeviceError: the GPU failed, or its memory does not suffice.
        """
        return Running(self, self._in_blocks(batch, room.rows.shape[1], mask, room, kth, among))

    @property
    def whole(self) -> BlockSearch:
        """The search of all titles."""
        return self._all

    def let_go(self) -> None:
        """Free the buffers of blocks, where memory ran out."""
        self._workspace.forget()
        self._torch.cuda.empty_cache()

    @property
    def name(self) -> str:
        """The GPU, for messages."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"GPU {self.device.index} ({self._torch.cuda.get_device_name(self.device)})"

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """Make the GPU the thread's current one: Triton launches there."""
        if self.device.type != "cuda" or self._torch.cuda.current_device() == self.device.index:
            return contextlib.nullcontext()
        current: contextlib.AbstractContextManager[Any] = self._torch.cuda.device(self.device)
        return current

    def _in_blocks(
        self,
        batch: Batch,
        k: int,
        mask: Mask | None,
        found: FusedResult,
        kth: KthScores | None = None,
        among: int = 0,
    ) -> Generator[bool, None, FusedResult]:
        blocks, size, alone = Blocks(), len(batch), False
        search, bitmap, allowed = self._place(mask, size)
        while allowed and blocks.done < size:
            its = search.titles
            shape = its.count, its.dim, size, k, masking_of(batch, bitmap)
            regular, lanes = in_blocks(*shape, screened=its.screened, most=self._most)
            parts = [slice(start, min(start + regular, size)) for start in range(blocks.done, size, regular)]
            if its.wide or among:  # a first pass proves nothing, or has been
                lanes = 1
            to_its_end = its.wide or among or search.repeats(regular, k, coded=search.reads_codes(regular, k))
            once = lanes > 1 or (len(parts) > 1 and not to_its_end)  # else titles are read again for each block's rest
            its_lanes = self._lanes.first(min(lanes, len(parts)))
            if once and lanes == 1 and not are_written_out(regular, k):
                its_lanes, regular = [*its_lanes] * LANES, 0
            begin = BlocksOf(batch, search, bitmap, found, regular, blocks.left, kth, among, once).begin
            try:
                yield from blocks.search(parts, its_lanes, begin)
            except LooseBoundsError:
                self._take_copies()
                search, bitmap, allowed = self._place(mask, size - blocks.done)
            except self._torch.cuda.OutOfMemoryError as error:
                if not self.filters.let_go():
                    at_once = min(regular, size - blocks.done)
                    self._forget()
                    if at_once > 1 or alone:
                        self._halve(at_once, error)
                    alone = at_once == 1  # once more, in what others' buffers took
                self._torch.cuda.empty_cache()
                search, bitmap, allowed = self._place(mask, size - blocks.done)
        filled = min(k, search.titles.count) if allowed else 0
        found.rows[:, filled:], found.scores[:, filled:] = -1, -np.inf
        result = FusedResult(found.rows, found.scores, blocks.repeated, blocks.scanned)
        left = np.concatenate([np.empty(0, np.int64), *blocks.left])
        if not len(left):
            return result
        again, known = FusedResult.empty(len(left), k), None if kth is None else lambda queries: kth(left[queries])
        return result.put(left, (yield from self._in_blocks(batch.take(left), k, mask, again, known, among=size)))

    def _place(self, mask: Mask | None, queries: int, *, at_once: bool = False) -> tuple[BlockSearch, Any, int]:
        """Return what to search for a batch, the bitmap to search it by, and how many titles the filter allows."""
        if mask is None:
            return self._all, None, self.titles.count
        try:
            known = self.filters.place(mask, queries, at_once=at_once)
        except self._torch.cuda.OutOfMemoryError:  # there is no room for its bitmap
            if not self.filters.let_go():
                raise
            self._torch.cuda.empty_cache()
            known = self.filters.place(mask, queries)
        if known.shelf is not None:
            return known.shelf.search, known.within, known.allowed
        return self._all, known.bitmap, known.allowed

    def _take_copies(self) -> None:
        """Search by copies from now on, where queries are so unlike titles that bounds do not help.

        What was made for bounds, shelves and recordings too, goes first: with copies it is of no use.
        """
        self.filters.let_go()
        self._forget()
        try:
            self.titles = with_copies(self.titles)
        except self._torch.cuda.OutOfMemoryError:
            self._torch.cuda.empty_cache()
            self._all.keeps_bounds = True
            return
        self._all = BlockSearch(self.titles, self._workspace)
        self.filters = KnownFilters(self.titles, self._workspace)

    def _forget(self) -> None:
        """Free the buffers and recordings of searches that are over."""
        self._workspace.forget()
        self._all.forget_recorded()

    def _halve(self, size: int, error: BaseException) -> None:
        """Go on with smaller blocks; say so once."""
        is_first = self._most == MOST_QUERIES
        self._most = halved(size, self.device, error, is_first=is_first, fix="free GPU memory, or set device.kind=cpu")
        self._workspace.forget()
        self._all.forget_recorded()
