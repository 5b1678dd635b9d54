"""Plain questions of one event loop, searched and written together: what comes in one moment is one batch.

Where the device answers a batch sooner than a thread is woken, it is asked between two requests, without one. Elsewhere
the batcher's thread asks it, one batch at a time, and what comes meanwhile is the next one: no artificial delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.search.answers.answer_json import answers_json
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.search.batching.asked import Asked, BatchedSearcher, TooLateError
from semrec_faiss.search.batching.batcher import Batch
from semrec_faiss.search.batching.joined import MOST_TOGETHER, exclusions_of, part_of
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.asking.plain import Plain
from semrec_faiss.serve.wire.arrow import arrow_stream
from semrec_faiss.serve.wire.messages import ARROW, Reply


@dataclass(slots=True, eq=False)
class Waiting:
    """A plain question on its way: its deadline, since when (both by `time.monotonic`), and the reply."""

    plain: Plain
    due: float
    reply: asyncio.Future[Reply]
    since: float = field(default_factory=time.monotonic)


class Together:
    """Collects plain questions, has them searched, and writes the replies; belongs to one event loop."""

    def __init__(self, observe: Callable[[Batch, float], None]) -> None:
        """Collect.

        Args:
            observe: is told of every batch that was searched here, and the seconds that its replies took to write.
        """
        self._observe = observe
        self._waiting: list[Waiting] = []
        self._is_busy = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, plain: Plain, due: float) -> asyncio.Future[Reply]:
        """Have a question searched with those that come in the same moment; the future may raise TooLateError."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(plain, due, loop.create_future())
        self._waiting.append(waiting)
        if not plain.served.inline_queries:
            timer = loop.call_later(due - waiting.since, self._give_up, waiting)
            waiting.reply.add_done_callback(lambda _: timer.cancel())
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(loop.call_soon, self._next)  # after those who came with it
        return waiting.reply

    def _give_up(self, waiting: Waiting) -> None:
        if not waiting.reply.done():
            waiting.reply.set_exception(_too_late(waiting))

    def _next(self) -> None:
        """Search the next batch; the device is idle."""
        batch = self._taken()
        if not batch:
            self._is_busy = bool(self._waiting)
            if self._is_busy:
                asyncio.get_running_loop().call_soon(self._next)
            return
        asked = _asked(batch)
        if batch[0].plain.served.inline_queries:
            self._search(batch, asked)
            asyncio.get_running_loop().call_soon(self._next)
            return
        loop = asyncio.get_running_loop()
        assert isinstance(asked.searcher, BatchedSearcher)
        try:
            found = asked.searcher.batcher.submit(asked)
        except RuntimeError as error:  # it is closed
            self._failed(batch, error)
            loop.call_soon(self._next)
            return
        found.add_done_callback(lambda found: _soon(loop, lambda: self._found(batch, asked, found)))

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
                waiting.reply.set_exception(_too_late(waiting))
                continue
            size = len(waiting.plain)
            if not batch:
                kind = waiting.plain.kind
                most = waiting.plain.served.inline_queries or MOST_TOGETHER
            elif queries + size > most or waiting.plain.kind != kind:
                others.append(waiting)
                continue
            batch.append(waiting)
            queries += size
        self._waiting = others
        return batch

    def _search(self, batch: list[Waiting], asked: Asked) -> None:
        started = time.monotonic()
        try:
            with one_core():
                found = Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions)
        except Exception as error:
            self._failed(batch, error)
            return
        searched = time.monotonic()
        _answer(batch, found, searched - started)
        waited = [started - one.since for one in batch]
        told = Batch(len(batch), len(asked.queries), waited, searched - started)
        self._observe(told, time.monotonic() - searched)

    def _failed(self, batch: list[Waiting], error: BaseException) -> None:
        """One alone has its own mistake; of several each is asked alone."""
        if len(batch) == 1 or not batch[0].plain.served.inline_queries:
            for one in batch:
                if not one.reply.done():
                    one.reply.set_exception(error)
            return
        for one in batch:
            self._search([one], _asked([one]))

    def _found(self, batch: list[Waiting], asked: Asked, found: Future[TopK]) -> None:
        try:
            result = found.result()
        except Exception as error:
            self._failed(batch, error)
        else:
            _answer(batch, result, time.monotonic() - asked.since)
        self._next()


def _too_late(waiting: Waiting) -> TooLateError:
    waited_ms = (time.monotonic() - waiting.since) * 1e3
    return TooLateError(f"the search had not begun when its time was up, after {waited_ms:.0f} ms")


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(call)


def _asked(batch: list[Waiting]) -> Asked:
    """Join what callers ask; the batch is wanted as long as one of them is."""
    first = batch[0].plain
    searcher, wish, due = first.served.recommender.searcher, Wish(first.k), max(one.due for one in batch)
    plains = [one.plain for one in batch]
    if first.rows is not None:  # looked up in one go
        rows = list(chain.from_iterable(one.rows or () for one in plains))
        first = replace(first, rows=rows)
        return Asked(searcher, first.queries, wish, first.exclusions, due, len(batch))
    queries = np.concatenate([one.queries for one in plains])
    return Asked(searcher, queries, wish, exclusions_of(plains), due, len(batch))


def _answer(batch: list[Waiting], found: TopK, seconds: float) -> None:
    """Write what was found, the JSON of all at once, and hand each caller its own."""
    plains = [one.plain for one in batch]
    first = plains[0]
    asked = {name: list(chain.from_iterable(one.asked[name] for one in plains)) for name in first.asked}
    if "position" in asked:
        asked["position"] = [place for one in plains for place in range(len(one))]
    answers = Answers(found, first.k, asked, first.served.titles.of(found.rows), seconds * 1e3)
    lines = answers_json(answers) if not all(one.as_arrow for one in plains) else []
    is_short = found.rows[:, -1] < 0 if found.rows.shape[1] == first.k else np.ones(len(found.rows), np.bool_)
    any_short = bool(is_short.any())
    start = 0
    for one in batch:
        stop = start + len(one.plain)
        if not one.reply.done():
            reply = _reply(one.plain, found, lines, start, stop, seconds)
            reply.short = int(is_short[start:stop].sum()) if any_short else 0
            one.reply.set_result(reply)
        start = stop


def _reply(plain: Plain, found: TopK, lines: list[bytes], start: int, stop: int, seconds: float) -> Reply:
    generation = plain.served.name
    if plain.as_arrow:
        part = part_of(found, start, stop)
        answers = Answers(part, plain.k, plain.asked, plain.served.recommender.titles, seconds * 1e3)
        return Reply(arrow_stream(answers[0] if plain.is_single else answers), kind=ARROW, generation=generation)
    if plain.is_single:
        return Reply(lines[start], generation=generation)
    return Reply(b'{"answers":[' + b",".join(lines[start:stop]) + b"]}", generation=generation)
