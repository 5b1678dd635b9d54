"""What a batch is given as, vectors or users on the GPU, and how it gets there: sent at once, or fed to a recording.

Each query may leave out titles of its own, a list of rows: a kernel makes its bitmap of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.index.exclusions import MOST_LISTED, Exclusions, part_of
from semrec_faiss.index.fused.queries.sending import (
    COPIED_AT_ONCE,
    SENT_APART,
    SENT_IN_PART,
    ByTorch,
    OddQueriesError,
    Sending,
    UnitLength,
    copied,
    fetchable,
    parts_of,
    staged,
)
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.fused.titles.left_out import Lists
from semrec_faiss.index.fused.titles.users import GpuUsers
from semrec_faiss.index.queries import prepared_block

FETCHED_QUERIES = 16
"""Queries that kernels fetch from page-locked memory by themselves, at most: copying so few takes longer to begin."""

SENT_AS_GIVEN = (np.float32, np.float64, np.float16)
"""Kinds of numbers that many queries are prepared of on the GPU."""

LEAST_LISTED, LISTED_EACH = MOST_LISTED, 512
"""Rows to leave out that a recording has room for: in all at least, and a query."""


@dataclass(frozen=True)
class VectorBatch:
    """Queries as vectors, and rows that single ones must not return.

    Attributes:
        vectors: float32 (queries, dim), or numbers of other kinds that are not prepared.
        excluded: what single queries must not return.
        normalize: of queries that are not prepared, whether to bring them to unit length; None of those that are.
    """

    vectors: Vectors
    excluded: Exclusions | None = None
    normalize: bool | None = None

    @classmethod
    def of_given(cls, given: NDArray[Any], first: int, device: Any, *, normalize: bool) -> VectorBatch:
        """Take queries that are not prepared: many are when they have come to the GPU.

        Args:
            given: numbers (queries, dim).
            first: the number of the first one, for messages.
            device: the GPU.
            normalize: whether to bring each to unit length.

        Raises:
            DataError: a query cannot be searched for, see `prepared_block`; of many, `UnitLength.check` tells.
        """
        if 4 * given.size > SENT_IN_PART and given.dtype in SENT_AS_GIVEN:
            return cls(given, normalize=normalize)
        return cls(prepared_block(given, first, normalize=normalize, by=ByTorch(device)))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def kind(self) -> bool | None:
        """What has to be the same for a recording of another batch to do."""
        return self.normalize

    @property
    def leaves_out(self) -> bool:
        """Whether any query has rows of its own that it must not return."""
        return self.excluded is not None and len(self.excluded.rows) > 0

    def part(self, queries: slice) -> VectorBatch:
        """Return a slice of the queries."""
        return VectorBatch(self.vectors[queries], part_of(self.excluded, queries), self.normalize)

    def take(self, queries: Rows) -> VectorBatch:
        """Return some of the queries."""
        excluded = None if self.excluded is None else self.excluded.take(queries)
        return VectorBatch(self.vectors[queries], excluded, self.normalize)

    @property
    def prepared(self) -> Vectors:
        """The vectors as they are compared, float32 (queries, dim), in the host's memory."""
        return self.vectors if self.normalize is None else prepared_block(self.vectors, 0, normalize=self.normalize)

    def staged(self, device: Any, least: int) -> VectorBatch:
        """Copy the vectors to page-locked memory, from where the GPU fetches them by itself, unless they are few."""
        vectors = staged(self.vectors, device, least)
        return self if vectors is self.vectors else VectorBatch(vectors, self.excluded, self.normalize)

    def beside(self, other: Batch) -> VectorBatch:
        """Return the same queries, taken from where another batch of them has them."""
        assert isinstance(other, VectorBatch)
        return self if other.vectors is self.vectors else VectorBatch(other.vectors, self.excluded, self.normalize)

    def sent(self, device: Any) -> Iterator[tuple[slice, Any]]:
        """Send the queries: many by way of page-locked memory, in parts that the GPU works on while others are copied.

        Yields:
            Which queries, and their vectors there, float32 (some, dim).
        """
        torch, given = load_torch(), as_tensor(self.vectors)
        if self.normalize is None and (self.vectors.nbytes <= COPIED_AT_ONCE or given.is_pinned()):
            yield slice(0, len(self)), given.to(device, non_blocking=True)
            return
        is_there = fetchable(given)
        locked = given if is_there else torch.empty(given.shape, pin_memory=device.type == "cuda")
        there = torch.empty(given.shape, device=device)
        parts = parts_of(len(self), self.vectors.shape[1], soon=True)
        sending = Sending(there, len(parts))
        for part in parts:
            sending.copy(locked[part] if is_there else copied(given[part], locked[part]), part)
            yield part, there[part]

    def lists_on(self, device: Any) -> Lists:
        """Send the rows to leave out; there are some."""
        assert self.excluded is not None
        offsets, rows = (as_tensor(array).to(device) for array in _arrays(self.excluded))
        return Lists(offsets, rows)

    def feed(self, device: Any, queries: int, *, alone: bool, whole: bool, once: bool) -> VectorFeed:
        """Make room to feed batches like this one, of up to so many queries, to a recording; see `VectorFeed`."""
        options = {"leaves_out": self.leaves_out, "alone": alone, "whole": whole, "once": once}
        unit = None if self.normalize is None else UnitLength(device, normalize=self.normalize)
        return VectorFeed(device, queries, self.vectors.shape[1], unit, **options)


@dataclass(frozen=True)
class UserBatch:
    """Users on the GPU as queries, int64 (queries,), each with or without what it has seen."""

    users: GpuUsers
    rows: Rows
    without_seen: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> int | None:
        """What has to be the same for a recording of another batch to do: it reads from these users."""
        return id(self.users)

    @property
    def leaves_out(self) -> bool:
        """Whether any query has rows of its own that it must not return."""
        return self.without_seen and self.users.rows is not None

    def part(self, queries: slice) -> UserBatch:
        """Return a slice of the queries."""
        return UserBatch(self.users, self.rows[queries], self.without_seen)

    @property
    def prepared(self) -> Vectors:
        """Their vectors, float32 (queries, dim), from the host's memory."""
        return self.users.vectors_of(self.rows)

    def take(self, queries: Rows) -> UserBatch:
        """Return some of the queries."""
        return UserBatch(self.users, self.rows[queries], self.without_seen)

    def staged(self, _: Any, least: int) -> UserBatch:
        """Return the same: the vectors are on the GPU."""
        return self

    def beside(self, _: Batch) -> UserBatch:
        """Return the same: the vectors are on the GPU."""
        return self

    def sent(self, device: Any) -> Iterator[tuple[slice, Any]]:
        """Gather the queries, all at once; see `VectorBatch.sent`."""
        given = load_torch().empty((len(self), self.users.vectors.shape[1]), dtype=load_torch().float32, device=device)
        which = self._which_on(device)
        self.users.gather(which, given, which)
        yield slice(0, len(self)), given

    def lists_on(self, device: Any) -> Lists:
        """Name the rows to leave out, which are on the GPU."""
        return Lists(self.users.offsets, self.users.rows, self._which_on(device))

    normalize: ClassVar[None] = None
    """Their vectors are prepared."""

    def feed(self, device: Any, queries: int, *, alone: bool, whole: bool, once: bool) -> UserFeed:
        """Make room to feed batches like this one, of up to so many queries, to a recording."""
        return UserFeed(device, self.users, queries, leaves_out=self.leaves_out)

    def _which_on(self, device: Any) -> Any:
        return as_tensor(self.rows).to(device, non_blocking=True)


Batch: TypeAlias = VectorBatch | UserBatch


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


def _arrays(excluded: Exclusions) -> tuple[Rows, Any]:
    return np.asarray(excluded.offsets, np.int64), np.asarray(excluded.rows, np.int32)
