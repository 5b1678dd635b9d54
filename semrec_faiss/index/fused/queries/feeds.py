"""What a recording of a batch is fed with: pinned memory, from where it takes vectors and lists, or rows of users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from semrec_faiss.index.exclusions import MOST_LISTED
from semrec_faiss.index.fused.queries.batches import Batch, UserBatch, VectorBatch
from semrec_faiss.index.fused.queries.sending import SENT_APART, Sending, copied, fetchable, parts_of
from semrec_faiss.index.fused.queries.unit_length import OddQueriesError, UnitLength
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.fused.titles.left_out import Lists
from semrec_faiss.index.fused.titles.users import GpuUsers

FETCHED_QUERIES = 16
"""Queries that kernels fetch from page-locked memory by themselves, at most: copying so few takes longer to begin."""

LEAST_LISTED, LISTED_EACH = MOST_LISTED, 512
"""Rows to leave out that a recording has room for: in all at least, and a query."""


class VectorFeed:
    """Pinned memory that vectors and lists are put in, and where a recording copies them to.

    Attributes:
        queries: float32 (queries, dim) on the GPU, or where it fetches them from.
        parts: of the queries, each of which is sent, and scored, while the next one is copied.
        lists: rows to leave out, on the GPU; None where nothing is.
        unit: what prepares the queries there; None where they come prepared.
    """

    def __init__(
        self,
        device: Any,
        queries: int,
        dim: int,
        unit: UnitLength | None,
        *,
        leaves_out: bool,
        alone: bool,
        whole: bool,
        once: bool,
    ) -> None:
        """Make room for so many queries.

        Args:
            device: a GPU.
            queries: at most.
            dim: their dimensions.
            unit: what prepares them there.
            leaves_out: whether they leave out titles of their own.
            alone: whether no block in another lane is computed meanwhile: only then do streams apart pay.
            whole: whether to send all at once.
            once: whether each query is read by one program alone.
        """
        self._alone, self.unit = alone, unit
        torch = load_torch()
        self._queries_in = torch.ones((queries, dim), dtype=torch.float32, pin_memory=True)  # nothing odd
        self._queries_view = self._queries_in.numpy()
        self._is_large = self._queries_in.nbytes > SENT_APART
        self.parts = parts_of(queries, dim, soon=False) if self._is_large and not whole else [slice(0, queries)]
        self.queries = self._queries_in
        if not once or queries > FETCHED_QUERIES:
            self.queries = torch.ones((queries, dim), dtype=torch.float32, device=device)
        self.lists: Lists | None = None
        if leaves_out:
            self.room = max(LEAST_LISTED, LISTED_EACH * queries)
            self._offsets_in = torch.zeros(queries + 1, dtype=torch.int64, pin_memory=True)
            self._rows_in = torch.zeros(self.room, dtype=torch.int32, pin_memory=True)
            self._offsets_view, self._rows_view = self._offsets_in.numpy(), self._rows_in.numpy()
            self.lists = Lists(
                torch.zeros(queries + 1, dtype=torch.int64, device=device),
                torch.zeros(self.room, dtype=torch.int32, device=device),
            )

    def takes(self, batch: Batch) -> bool:
        """Tell whether there is room for what the queries leave out."""
        assert isinstance(batch, VectorBatch)
        return batch.excluded is None or self.lists is None or len(batch.excluded.rows) <= self.room

    def put(self, batch: Batch) -> Iterator[slice]:
        """Put a batch into pinned memory; what is left of the room keeps its queries, and leaves nothing out.

        Yields:
            Each of the `parts` when a recording may begin with it.
        """
        assert isinstance(batch, VectorBatch)
        if self.lists is not None and batch.excluded is not None:
            size, count = len(batch), len(batch.excluded.rows)
            np.copyto(self._offsets_view[: size + 1], batch.excluded.offsets)
            self._offsets_view[size + 1 :] = count
            np.copyto(self._rows_view[:count], batch.excluded.rows, casting="same_kind")
            # Not recorded: a recording would copy the whole room, most of it for nothing.
            self.lists.rows[:count].copy_(self._rows_in[:count], non_blocking=True)
        sending = Sending(self.queries, len(self.parts) if self._alone else 1) if self._is_large else None
        for part in self.parts:
            vectors = batch.vectors[part]
            here = slice(part.start, part.start + len(vectors))
            if sending is None:
                np.copyto(self._queries_view[here], vectors)
            elif len(vectors):  # not recorded either: from where they lie if that is page-locked
                given = as_tensor(vectors)
                sending.copy(given if fetchable(given) else copied(given, self._queries_in[here]), here)
            yield part

    def check(self) -> None:
        """Look at a batch whose answers are there; see `UnitLength.check`."""
        try:
            if self.unit is not None:
                self.unit.check()
        except OddQueriesError:
            self._queries_in.fill_(1.0)  # or a shorter batch would find them behind its own
            self.queries.fill_(1.0)
            raise

    def copies(self) -> None:
        """Launch the copies to the GPU, to be recorded."""
        if not self._is_large and self.queries is not self._queries_in:
            self.queries.copy_(self._queries_in, non_blocking=True)
        if self.lists is not None:
            self.lists.offsets.copy_(self._offsets_in, non_blocking=True)


class UserFeed:
    """Pinned memory that users' rows are put in, and where a recording gathers their vectors; see `VectorFeed`."""

    def __init__(self, device: Any, users: GpuUsers, queries: int, *, leaves_out: bool) -> None:
        """Make room for so many of ``users``."""
        torch = load_torch()
        self.parts, self.unit = [slice(0, queries)], None
        self._users = users
        self._which_in = torch.zeros(queries, dtype=torch.int64, pin_memory=True)
        self._which_view = self._which_in.numpy()
        self._which = torch.zeros(queries, dtype=torch.int64, device=device)
        self.queries = torch.zeros((queries, users.vectors.shape[1]), dtype=torch.float32, device=device)
        self.lists = Lists(users.offsets, users.rows, self._which) if leaves_out else None

    def takes(self, batch: Batch) -> bool:
        """Whatever they have seen is on the GPU already."""
        return True

    def put(self, batch: Batch) -> Iterator[slice]:
        """Put users' rows into pinned memory; what is left of the room keeps its users."""
        assert isinstance(batch, UserBatch)
        np.copyto(self._which_view[: len(batch)], batch.rows)
        yield from self.parts

    def check(self) -> None:
        """Find nothing odd: the vectors are prepared."""

    def copies(self) -> None:
        """Launch the copies to the GPU, to be recorded."""
        fetched = len(self._which) <= FETCHED_QUERIES
        if not fetched:
            self._which.copy_(self._which_in, non_blocking=True)
        self._users.gather(self._which_in if fetched else self._which, self.queries, self._which)


Feed: TypeAlias = VectorFeed | UserFeed


def feed_for(batch: Batch, device: Any, queries: int, *, alone: bool, whole: bool, once: bool) -> Feed:
    """Make room to feed batches like one, of up to so many queries, to a recording; see `VectorFeed`."""
    if isinstance(batch, UserBatch):
        return UserFeed(device, batch.users, queries, leaves_out=batch.leaves_out)
    unit = None if batch.normalize is None else UnitLength(device, normalize=batch.normalize)
    options = {"leaves_out": batch.leaves_out, "alone": alone, "whole": whole, "once": once}
    return VectorFeed(device, queries, batch.vectors.shape[1], unit, **options)
