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
from semrec_faiss.index.exclusions import Exclusions, part_of
from semrec_faiss.index.fused.queries.sending import (
    COPIED_AT_ONCE,
    SENT_IN_PART,
    Sending,
    copied,
    fetchable,
    parts_of,
    staged,
)
from semrec_faiss.index.fused.queries.unit_length import ByTorch
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.fused.titles.left_out import Lists
from semrec_faiss.index.fused.titles.users import GpuUsers
from semrec_faiss.index.queries import prepared_block

SENT_AS_GIVEN = (np.float32, np.float64, np.float16)
"""Kinds of numbers that many queries are prepared of on the GPU."""


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

    def _which_on(self, device: Any) -> Any:
        return as_tensor(self.rows).to(device, non_blocking=True)


Batch: TypeAlias = VectorBatch | UserBatch


def _arrays(excluded: Exclusions) -> tuple[Rows, Any]:
    return np.asarray(excluded.offsets, np.int64), np.asarray(excluded.rows, np.int32)
