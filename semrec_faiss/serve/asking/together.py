"""Plain questions of one event loop, searched and written together: what comes in one moment is one batch.

What is searched sooner than a thread is woken is searched between two requests. Else a thread searches one batch at a
time, beside what is read and written here, and what comes meanwhile is the next one: no artificial delay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import msgspec

from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.index.vector_index import MOST_RESCORED
from semrec_faiss.search.batching.asked import Asked, BatchedSearcher
from semrec_faiss.search.batching.batcher import Batch
from semrec_faiss.search.batching.joined import MOST_TOGETHER
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import plain as plain_wish
from semrec_faiss.serve.asking.plain import LookedUp, joined
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.serve.asking.waiting import Waiting, soon, tell, too_late, written
from semrec_faiss.serve.wire.messages import Reply, Request

_Come = tuple[Request, type[msgspec.Struct], Served, "asyncio.Future[Reply | LookedUp]"]
LookUp = Callable[[Request, type[msgspec.Struct], Served], LookedUp]

LATE_SECONDS = 1.0
"""Between two looks at whose time is up while a search goes on: most take less, and a timer for each is not free."""

BESIDE = 8
"""From so many queries on a thread searches what the event loop's may not."""


class Together:
    """Collects plain questions, has them searched, and writes the replies; belongs to one event loop."""

    def __init__(self, look_up: LookUp, observe: Callable[[Batch, float], None]) -> None:
        """Collect.

        Args:
            look_up: decodes a request, and looks up what it asks for; raises what is wrong with it.
            observe: is told of every batch that was searched here, and the seconds that its replies took to write.
        """
        self._look_up = look_up
        self._observe = observe
        self._come: list[_Come] = []
        self._waiting: list[Waiting] = []
        self._is_busy = False
        self._handed: list[Waiting] = []  # to a thread
        self._is_timed = False
        self._thread_since: float | None = None  # it searches
        self._thread = ThreadPoolExecutor(1, "search", lambda: load_faiss().omp_set_num_threads(1))

    def __len__(self) -> int:
        return len(self._come) + len(self._waiting)

    @property
    def seconds_searching(self) -> float:
        """How long the thread beside the event loop has searched so far; 0 where it does not."""
        return 0.0 if self._thread_since is None else time.monotonic() - self._thread_since

    def ask(self, request: Request, kind: type[msgspec.Struct], served: Served) -> asyncio.Future[Reply | LookedUp]:
        """Have a request answered with those that come in the same moment.

        The future may raise TooLateError, and what is wrong with the request; what is no plain question it returns.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply | LookedUp] = loop.create_future()
        self._come.append((request, kind, served, reply))
        if len(self._come) == 1:
            loop.call_soon(loop.call_soon, self._all_come)  # after those who came with it
        return reply

    def _all_come(self) -> None:
        """Look up all that came in a moment: one after the other takes less than each between others' I/O."""
        come, self._come = self._come, []
        loop, since = asyncio.get_running_loop(), time.monotonic()
        for request, kind, served, reply in come:
            if reply.done():
                continue
            try:
                found = self._look_up(request, kind, served)
            except Exception as error:
                reply.set_exception(error)
                continue
            if found.plain is None:
                reply.set_result(found)
                continue
            waiting = Waiting(found.plain, request.due, reply, since, found.as_arrow)
            self._waiting.append(waiting)
            if not served.inline_queries:
                waiting.give_up_in_time(loop)
        if self._waiting and not self._is_busy:
            self._is_busy = True
            self._next()

    def _next(self) -> None:
        """Search the next batch; the device is idle."""
        loop = asyncio.get_running_loop()
        batch = self._taken()
        if not batch:
            self._is_busy = bool(self._waiting)
            if self._is_busy:
                loop.call_soon(self._next)
            return
        if not _by_batcher(batch) and _searched_here(batch):
            self._search(batch)
            loop.call_soon(self._next)
            return
        try:
            asked = _asked(batch)
            found = self._handed_over(asked, batch)
        except Exception as error:  # it is closed
            self._failed(batch, error)
            loop.call_soon(self._next)
            return
        self._handed = batch
        if not self._is_timed:
            self._is_timed = True
            loop.call_later(LATE_SECONDS, self._tell_late)
        found.add_done_callback(lambda found: soon(loop, lambda: self._found(batch, asked, found)))

    def _tell_late(self) -> None:
        """Tell whose time is up, now and as long as a thread searches: it may hang."""
        now = time.monotonic()
        tell([(one, too_late(one)) for one in chain(self._handed, self._waiting) if one.due < now])
        self._waiting = [one for one in self._waiting if not one.reply.done()]
        self._is_timed = bool(self._handed)
        if self._is_timed:
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._tell_late)

    def _handed_over(self, asked: Asked, batch: list[Waiting]) -> Future[TopK]:
        if not _by_batcher(batch):
            self._thread_since = time.monotonic()
            return self._thread.submit(_searched, asked)
        assert isinstance(asked.searcher, BatchedSearcher)
        return asked.searcher.batcher.submit(asked)

    def _taken(self) -> list[Waiting]:
        """Take those of one kind with whom the longest-waiting is searched; who is too late is told."""
        now = time.monotonic()
        batch: list[Waiting] = []
        others: list[Waiting] = []
        queries, most = 0, MOST_TOGETHER
        kind: object = None
        for waiting in self._waiting:
            if waiting.reply.done():
                continue
            if waiting.due < now:
                waiting.reply.set_exception(too_late(waiting))
                continue
            size = waiting.plain.size
            if not batch:
                kind, most = waiting.plain.kind, _most_of(waiting.plain.served, len(self._waiting))
            elif queries + size > most or waiting.plain.kind != kind:
                others.append(waiting)
                continue
            batch.append(waiting)
            queries += size
        self._waiting = others
        return batch

    def _search(self, batch: list[Waiting]) -> None:
        try:
            asked = _asked(batch)
            with one_core():
                found = _searched(asked)
        except Exception as error:
            self._failed(batch, error)
        else:
            self._tell(batch, asked, found, time.monotonic())

    def _found(self, batch: list[Waiting], asked: Asked, found: Future[TopK]) -> None:
        """Have the next batch searched while the replies to this one are written."""
        searched = time.monotonic()
        self._handed, self._thread_since = [], None
        self._next()
        error = found.exception()
        if error is None:
            self._tell(batch, asked, found.result(), searched)
        else:
            self._failed(batch, error)

    def _tell(self, batch: list[Waiting], asked: Asked, found: TopK, searched: float) -> None:
        began, seconds = time.monotonic(), searched - asked.since
        tell(written(batch, found, seconds))
        if not _by_batcher(batch):  # which tells itself
            waited = [asked.since - one.since for one in batch]
            self._observe(Batch(len(batch), len(asked.queries), waited, seconds), time.monotonic() - began)

    def _failed(self, batch: list[Waiting], error: BaseException) -> None:
        """One alone has its own mistake; of several each is asked alone."""
        if len(batch) == 1 or _by_batcher(batch):
            tell([(one, error) for one in batch])
            return
        for one in batch:
            self._search([one])

    def close(self) -> None:
        """End the thread that searches; what it has begun is finished."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _most_of(served: Served, waiting: int) -> int:
    """Return how many queries may be searched together where so many questions wait."""
    is_joined = 0 < served.joined_from <= waiting
    return MOST_TOGETHER if is_joined else served.inline_queries or MOST_TOGETHER


def _by_batcher(batch: list[Waiting]) -> bool:
    """Tell whether the batcher searches, on all cores or a device."""
    inline_queries = batch[0].plain.served.inline_queries
    return not inline_queries or (len(batch) > 1 and sum(one.plain.size for one in batch) > inline_queries)


def _searched_here(batch: list[Waiting]) -> bool:
    """Tell whether the event loop's thread searches: few queries, or short lists of what is alike, as was measured."""
    first, queries = batch[0].plain, sum(one.plain.size for one in batch)
    is_short = first.k <= MOST_RESCORED and not isinstance(first.queries, UserRows)
    return queries < BESIDE or (queries <= first.served.loop_queries and is_short)


def _searched(asked: Asked) -> TopK:
    return Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions)


def _asked(batch: list[Waiting]) -> Asked:
    """Join what callers ask; the batch is wanted as long as one of them is."""
    first = batch[0].plain
    queries, exclusions = joined([one.plain for one in batch])
    due = max(one.due for one in batch)
    return Asked(first.served.recommender.searcher, queries, plain_wish(first.k), exclusions, due, len(batch))
