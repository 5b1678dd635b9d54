"""Many callers, one batch: questions that threads ask at the same moment are searched together by one owner.

A search alone costs a device nearly what a hundred do. So a question that finds the device idle is searched at once, by
the thread that asks, and those that come while it is busy wait together and are sent as one batch by a thread that
then owns the device, without any delay of ours.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.batching.turn import Turn
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish, plain

MOST_TOGETHER = 4096
"""Queries in one batch; what waits beyond that is the next one."""

_due: ContextVar[float | None] = ContextVar("due", default=None)


class TooLateError(SemrecError):
    """A question whose deadline passed before its search began; the search is not made."""


@contextlib.contextmanager
def due_at(moment: float | None) -> Iterator[None]:
    """Give up the searches made inside that have not begun at ``moment``, of `time.monotonic`; None sets no limit."""
    token = _due.set(moment)
    try:
        yield
    finally:
        _due.reset(token)


@dataclass(eq=False)
class Asked:
    """One caller's queries, on their way to the device.

    Attributes:
        searcher: what they are asked of.
        queries: float32 (queries, dim), prepared by its index; or users.
        wish: what is wanted; checked already, so that a mistake in it is not found in a batch.
        exclusions: rows that single queries must not return.
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
        wish = self.wish
        limits = tuple(sorted(wish.variety.max_per.items()))
        users = self.queries.kind if isinstance(self.queries, UserRows) else None
        return (
            id(self.searcher),
            users,
            wish.k,
            wish.filter,
            wish.exclude,
            wish.variety.diversity,
            limits,
            wish.strategy,
        )


@dataclass(frozen=True)
class Batch:
    """What one search of the device was made for: callers, queries, how long each caller had waited, and the search."""

    callers: int
    queries: int
    waited_seconds: Sequence[float]
    seconds: float


class Batcher:
    """The one owner of a device: makes one search at a time, of all that waits together; safe from many threads.

    Closed, it answers what waits and takes no more. In a forked child it begins anew, with nothing waiting.
    """

    def __init__(self, observe: Callable[[Batch], None] | None = None) -> None:
        """Own a device; the thread begins with the first question that has to wait.

        Args:
            observe: is told of every batch, in the thread that made its search.
        """
        self._observe = observe
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._waiting: list[Asked] = []
        self._changed = threading.Condition()
        self._device = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many callers wait for a search that has not begun."""
        return len(self._waiting)

    def run(self, asked: Asked) -> TopK:
        """Have queries searched: by this thread where the device is idle, or else together with others.

        Returns:
            What `Searcher.run` returns, and raises what that does.

        Raises:
            TooLateError: the search had not begun when its time was up.
            RuntimeError: the batcher is closed.
        """
        if self._process != os.getpid():
            self._begin()
        if self._waiting or self._closed or not self._device.acquire(blocking=False):
            asked.found = turn = Turn()
            self._wait(asked)
            return turn.result()
        try:
            started = time.monotonic()
            if asked.due is not None and started > asked.due:
                raise _too_late(asked, started)
            found = Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions)
            if self._observe is not None:
                waited = [started - asked.since]
                self._observe(Batch(1, len(asked.queries), waited, time.monotonic() - started))
            return found
        finally:
            self._device.release()

    def submit(self, asked: Asked) -> Future[TopK]:
        """Have queries searched as soon as the device is free; the future holds what `Searcher.run` returns or raises.

        Raises:
            RuntimeError: the batcher is closed.
        """
        found: Future[TopK] = Future()
        asked.found = found
        self._wait(asked)
        return found

    def _wait(self, asked: Asked) -> None:
        """Put a question among those that wait."""
        if self._process != os.getpid():
            self._begin()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, name="device-owner", daemon=True)
                self._thread.start()
            self._waiting.append(asked)
            self._changed.notify()

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and self._process == os.getpid():
            thread.join()

    def _own(self) -> None:
        while self._somebody_waits():
            with self._device:  # who comes while it is busy is in the next batch
                self._serve(self._next())

    def _somebody_waits(self) -> bool:
        """Wait for callers; False when there are none and there will be no more."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return bool(self._waiting)

    def _next(self) -> list[Asked]:
        """Return those of one kind with whom the longest-waiting is searched."""
        with self._changed:
            together: list[Asked] = []
            others: list[Asked] = []
            queries = 0
            for asked in self._waiting:
                fits = not together or (
                    asked.kind == together[0].kind and queries + len(asked.queries) <= MOST_TOGETHER
                )
                (together if fits else others).append(asked)
                queries += len(asked.queries) if fits else 0
            self._waiting = others
        return together

    def _serve(self, together: list[Asked]) -> None:
        started = time.monotonic()
        wanted = [asked for asked in together if _is_wanted(asked, started)]
        if not wanted:
            return
        search_together(wanted)
        if self._observe is not None:
            waited = [started - asked.since for asked in wanted]
            queries = sum(len(asked.queries) for asked in wanted)
            callers = sum(asked.callers for asked in wanted)
            self._observe(Batch(callers, queries, waited, time.monotonic() - started))


def _is_wanted(asked: Asked, now: float) -> bool:
    """Tell whether anybody still waits for this; says so to whoever waits beyond the deadline."""
    if not asked.found.set_running_or_notify_cancel():
        return False
    if asked.due is not None and now > asked.due:
        asked.found.set_exception(_too_late(asked, now))
        return False
    return True


def _too_late(asked: Asked, now: float) -> TooLateError:
    waited_ms = (now - asked.since) * 1e3
    return TooLateError(f"the search had not begun when its time was up, after {waited_ms:.0f} ms")


def search_together(asked: Sequence[Asked]) -> None:
    """Search for callers of one kind in one batch, and give each its own; a batch that fails is asked one by one."""
    first = asked[0]
    if len(asked) == 1:
        _search_alone(first)
        return
    try:
        queries = _queries_of(asked)
        found = Searcher.run(first.searcher, queries, first.wish, exclusions_of(asked))
    except Exception:  # whose mistake it was shows when they are asked alone
        for one in asked:
            _search_alone(one)
        return
    start = 0
    for one in asked:
        stop = start + len(one.queries)
        one.found.set_result(part_of(found, start, stop))
        start = stop


def _search_alone(asked: Asked) -> None:
    try:
        asked.found.set_result(Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions))
    except BaseException as error:
        asked.found.set_exception(error)


def _queries_of(asked: Sequence[Asked]) -> Vectors | UserRows:
    users = [one.queries for one in asked if isinstance(one.queries, UserRows)]
    if users:
        return UserRows.joined(users)
    return np.concatenate([one.queries for one in asked if not isinstance(one.queries, UserRows)])


class Excluding(Protocol):
    """Queries, and what each of them must not return."""

    @property
    def queries(self) -> Sized:
        """Float32 (queries, dim), or users."""
        ...

    @property
    def exclusions(self) -> Exclusions | None:
        """What single queries must not return."""
        ...


def exclusions_of(asked: Sequence[Excluding]) -> Exclusions | None:
    """Join what callers exclude, query by query."""
    if all(one.exclusions is None for one in asked):
        return None
    counts: list[Rows] = [
        np.zeros(len(one.queries), np.int64) if one.exclusions is None else one.exclusions.counts for one in asked
    ]
    offsets = np.concatenate(([0], np.cumsum(np.concatenate(counts)))).astype(np.int64)
    rows = [one.exclusions.rows for one in asked if one.exclusions is not None]
    return Exclusions(offsets, np.concatenate(rows))


def part_of(found: TopK, start: int, stop: int) -> TopK:
    """Return one caller's own of a batch; how it was found is the batch's."""
    own = slice(start, stop)
    return TopK(
        found.rows[own], found.scores[own], found.matching[own], found.exact, found.strategy, list(found.stages)
    )


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
        if wish != plain(wish.k):
            self.check(wish)
        return self.batcher.run(Asked(self, queries, wish, exclusions, _due.get()))
