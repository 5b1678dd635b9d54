"""Plain questions of an index in shards: of one kind all that waits is asked together, so that a call serves them all.

A thread asks for one batch of a kind at a time, and what comes meanwhile is the next one: however many wait, there are
few threads, and as many calls to each shard as a single question takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import UnavailableError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.batching.batcher import Batch
from semrec_faiss.search.batching.joined import MOST_TOGETHER
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import plain as plain_wish
from semrec_faiss.serve.asking.plain import MOST_QUERIES, Names, Plain, joined
from semrec_faiss.serve.asking.waiting import Waiting, soon, tell, written
from semrec_faiss.serve.wire.messages import Reply

KINDS = 8
"""So many kinds of question are on their way at a time."""

Told = list[tuple[Waiting, Reply | BaseException]]


class NotPlainError(Exception):
    """A title that is not found by its exact name: a thread of the question's own looks further, or says so."""


@dataclass(frozen=True)
class _Done:
    """The replies to a batch; how many queries it searched, and the seconds of the search and of the writing."""

    told: Told
    queries: int
    search_seconds: float
    render_seconds: float


class Afar:
    """Collects plain questions, has shards asked for them, and hands on the replies; belongs to one event loop."""

    def __init__(self, observe: Callable[[Batch, float], None]) -> None:
        """Collect; ``observe`` is as for `Together`."""
        self._observe = observe
        self._waiting: dict[tuple[Any, ...], list[Waiting]] = {}  # by kind, while one of it is on its way
        self._threads = ThreadPoolExecutor(KINDS, "afar")

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def ask(self, plain: Plain, due: float, *, as_arrow: bool) -> asyncio.Future[Reply]:
        """Have a question asked with those of its kind; the future may raise TooLateError and NotPlainError."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(plain, due, loop.create_future(), time.monotonic(), as_arrow)
        waiting.give_up_in_time(loop)
        if plain.kind in self._waiting:
            self._waiting[plain.kind].append(waiting)
        else:
            self._waiting[plain.kind] = [waiting]
            loop.call_soon(loop.call_soon, self._next, plain.kind)  # after those who came with it
        return waiting.reply

    def _next(self, kind: tuple[Any, ...]) -> None:
        wanted = [one for one in self._waiting[kind] if not one.reply.done()]
        most = MOST_TOGETHER // MOST_QUERIES
        batch, self._waiting[kind] = wanted[:most], wanted[most:]
        if not batch:
            del self._waiting[kind]
            return
        loop, began = asyncio.get_running_loop(), time.monotonic()
        try:
            done = self._threads.submit(_asked, batch)
        except Exception as error:  # it is closed, or the system has no more threads
            tell([(one, error) for one in batch])
            loop.call_soon(self._next, kind)
            return
        done.add_done_callback(lambda done: soon(loop, lambda: self._answered(batch, began, done)))

    def _answered(self, batch: list[Waiting], began: float, done: Future[_Done]) -> None:
        self._next(batch[0].plain.kind)
        error = done.exception()
        if error is not None:
            tell([(one, error) for one in batch])
            return
        made = done.result()
        tell(made.told)
        if made.queries:
            waited = [began - one.since for one in batch]
            self._observe(Batch(len(batch), made.queries, waited, made.search_seconds), made.render_seconds)

    def close(self) -> None:
        """End the threads; what they have begun is finished."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _asked(batch: list[Waiting]) -> _Done:
    """Look up, search and write a batch of one kind, each question alone where one of several has a mistake.

    Raises:
        UnavailableError: a shard is lost.
        TooLateError: shards have not answered in time.
    """
    try:
        return _asked_together(batch)
    except (UnavailableError, TooLateError):
        raise
    except Exception as error:
        if len(batch) == 1:
            return _Done([(batch[0], error)], 0, 0.0, 0.0)
        alone = [_asked([one]) for one in batch]
        return _Done([told for one in alone for told in one.told], 0, 0.0, 0.0)


def _asked_together(batch: list[Waiting]) -> _Done:
    began = time.monotonic()
    first = batch[0].plain
    with due_at(max(one.due for one in batch)):
        known, queries, exclusions = _looked_up(batch) if isinstance(first.queries, Names) else _joined(batch)
        unknown: Told = [(one, NotPlainError()) for one in batch if one not in known]
        if not known:
            return _Done(unknown, 0, 0.0, 0.0)
        found = first.served.recommender.searcher.run(queries, plain_wish(first.k), exclusions)
        first.served.titles.records(np.unique(found.rows[found.rows >= 0]))  # by one call, and kept for the writing
        searched = time.monotonic()
        told = written(known, found, searched - began)
        return _Done([*told, *unknown], len(queries), searched - began, time.monotonic() - searched)


def _joined(batch: list[Waiting]) -> tuple[list[Waiting], Vectors | UserRows, Exclusions | None]:
    return batch, *joined([one.plain for one in batch])


def _looked_up(batch: Sequence[Waiting]) -> tuple[list[Waiting], Vectors, Exclusions]:
    """Find titles by their names; return the questions all of whose titles are known, and what to search for."""
    names = list(dict.fromkeys(name for one in batch for name in _names(one)))
    titles: Any = batch[0].plain.served.recommender.titles
    held = dict(zip(names, titles.known_by_name(names), strict=True))
    known = [one for one in batch if all(held[name] is not None for name in _names(one))]
    for one in known:
        own = [held[name] for name in _names(one)]
        one.plain.asked = {"media_id": [title.media_id for title in own], "title": [title.title for title in own]}
    every = [held[name] for one in known for name in _names(one)]
    vectors = np.array([title.vector for title in every], np.float32)
    return known, vectors, Exclusions.one_each([title.answering.rows[0] for title in every])


def _names(one: Waiting) -> tuple[str, ...]:
    assert isinstance(one.plain.queries, Names)
    return one.plain.queries.names
