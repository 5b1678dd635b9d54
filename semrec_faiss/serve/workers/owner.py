"""The one process that owns a device: holds the generations that workers use, and searches for all of them together."""

from __future__ import annotations

import logging
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from semrec_faiss.deadline import due_at
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.batching.asked import Asked
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.asking.serving import check_room, free, settle, warm_and_log
from semrec_faiss.serve.workers import frames
from semrec_faiss.serve.workers.replies import Replies

log = logging.getLogger("semrec.serve")


class DeviceOwner:
    """Answers workers, each over a connection and in a thread of its own."""

    def __init__(self, index: Path, settings: tuple[str, ...], batcher: Batcher, threads: int) -> None:
        """Own the device that ``settings`` name; nothing is opened before a worker asks for it.

        ``threads`` look at filters, for all workers.
        """
        self._index = index
        self._settings = settings
        self._batcher = batcher
        self._opened: dict[str, Recommender] = {}
        self._held: dict[socket.socket, Counter[str]] = {}  # how often: one left late may be in use again
        self._before: weakref.ref[VectorIndex] | None = None
        self._checks = ThreadPoolExecutor(threads, "check")
        self._changes: SimpleQueue[Callable[[], None]] = SimpleQueue()  # of what is held, made by a thread of its own

    def serve(self, connections: Iterable[socket.socket]) -> None:
        """Answer over each connection, as it comes."""
        threading.Thread(target=self._make_changes, name="device-changes", daemon=True).start()
        for connection in connections:
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        reply = Replies(connection).send
        while (message := frames.message_for_owner(connection)) is not None:
            if not isinstance(message, frames.Asked):
                self._changes.put(partial(self._change, message, connection, reply))
                continue
            if message.wish == Wish(message.wish.k):
                self._search(message, reply)
            else:  # a filter may take seconds, and holds up no other question of the worker
                self._checks.submit(self._search, message, reply)
        self._changes.put(partial(self._forget, connection))

    def _make_changes(self) -> None:
        """Open and let go, one after the other, while what is held is searched."""
        while True:
            self._changes.get()()

    def _change(
        self, message: frames.Open | frames.Leave, connection: socket.socket, reply: Callable[[frames.ToWorker], None]
    ) -> None:
        try:
            if isinstance(message, frames.Open):
                self._open(message.generation)
            held = self._held.setdefault(connection, Counter())
            held[message.generation] += 1 if isinstance(message, frames.Open) else -1
            self._drop_unused()
        except Exception as error:
            reply(_failed(message.number, error))
        else:
            reply(frames.Done(message.number))

    def _forget(self, connection: socket.socket) -> None:
        self._held.pop(connection, None)
        self._drop_unused()

    def _open(self, name: str) -> None:
        if name in self._opened:
            return
        free(self._before)
        saved = SavedIndex.of(IndexDirectory(self._index).named(name), self._settings)
        check_room(saved, next((held.saved for held in self._opened.values()), None))
        recommender = Recommender(saved, self._batcher)
        warm_and_log(recommender, is_first=not self._opened)
        settle()
        self._opened[name] = recommender
        log.info("the device holds %s", name)

    def _drop_unused(self) -> None:
        """Let go of what no worker holds."""
        used = {name for held in self._held.values() for name, times in held.items() if times > 0}
        if used:  # workers that are all gone will be back
            for name in set(self._opened) - used:
                self._before = weakref.ref(self._opened.pop(name).index)
                free(self._before)

    def _search(self, message: frames.Asked, reply: Callable[[frames.ToWorker], None]) -> None:
        number = message.number
        try:
            recommender = self._opened[message.generation]
            searcher, queries = recommender.searcher, message.queries_of(recommender)
            if message.wish != Wish(message.wish.k):
                with due_at(message.due):
                    searcher.check(message.wish)
            asked = Asked(searcher, queries, message.wish, message.exclusions, message.due, message.callers)
            self._batcher.submit(asked).add_done_callback(lambda found: reply(_result(number, found)))
        except Exception as error:
            reply(_failed(number, error))


def _result(number: int, found: Future[TopK]) -> frames.ToWorker:
    error = found.exception()
    return frames.Found.of(number, found.result()) if error is None else _failed(number, error)


def _failed(number: int, error: BaseException) -> frames.Failed:
    if isinstance(error, SemrecError):
        return frames.Failed(number, type(error).__name__, error.message, error.fix)
    log.error("a search for a worker failed", exc_info=error)
    return frames.Failed(number, type(error).__name__, str(error), None)
