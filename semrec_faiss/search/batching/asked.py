"""One caller's queries on their way to a device, their deadline, and who makes searches of them."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.deadline import due
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.batching.turn import Turn
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish, plain


@dataclass(eq=False)
class Asked:
    """One caller's queries, on their way to the device.

    Attributes:
        searcher: what they are asked of.
        queries: float32 (queries, dim), prepared by its index; or users.
        wish: what is wanted; checked already, so that a mistake in it is not found in a batch.
        exclusions: rows that single queries must not return; of users besides what they have seen.
        due: when it is no longer wanted, by `time.monotonic`; None for never.
        callers: how many have been joined in it.
        since: when it began to wait, by `time.monotonic`.
    """

    searcher: Searcher
    queries: Vectors | UserRows
    wish: Wish
    exclusions: Exclusions | None = None
    due: float | None = None
    callers: int = 1
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.found: Future[TopK] | Turn

    @cached_property
    def kind(self) -> tuple[Any, ...]:
        """What must be the same for two to be searched together."""
        users = self.queries.kind if isinstance(self.queries, UserRows) else None
        return id(self.searcher), users, self.wish


@runtime_checkable
class Searches(Protocol):
    """Who makes searches for many: a `Batcher`, or what hands them to one elsewhere."""

    def submit(self, asked: Asked) -> Future[TopK]:
        """Have queries searched; see `Batcher.submit`."""
        ...

    def run(self, asked: Asked) -> TopK:
        """Have queries searched, and wait; see `Batcher.run`."""
        ...


class BatchedSearcher(Searcher):
    """A searcher whose searches a `Batcher` makes, together with those of other threads."""

    def __init__(self, index: VectorIndex, titles: Titles, batcher: Searches) -> None:
        """Search ``index``, whose rows are ``titles``, through ``batcher``."""
        super().__init__(index, titles)
        self.batcher = batcher

    def run(self, queries: Vectors | UserRows, wish: Wish, exclusions: Exclusions | None = None) -> TopK:
        """Find what ``wish`` asks for; see `Searcher.run`, and `due_at` for a limit to the waiting.

        A filter is understood, or not, in the caller's thread: nobody else waits for it.

        Raises:
            TooLateError: the search had not begun when its time was up.
        """
        wish, exclusions = self.listed(wish, len(queries), exclusions)
        if wish is not plain(wish.k):
            self.check(wish)
        return self.batcher.run(Asked(self, queries, wish, exclusions, due()))

    def run_given(self, given: NDArray[Any], wish: Wish) -> TopK:
        """Find what ``wish`` asks for, of vectors that the caller's thread prepares; see `Searcher.run_given`."""
        return self.run(self.index.prepare(given), wish)
