"""Many callers, one batch: questions that threads ask at the same moment are searched together by one owner.

A search alone costs a device nearly what a hundred do. So a question that finds the device idle is searched at once, by
the thread that asks, and those that come while it is busy wait together and are sent as one batch by a thread that
then owns the device: without any delay of ours, but that the callers of a batch are awake before the next one begins.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from semrec_faiss.deadline import TooLateError
from semrec_faiss.search.batching.asked import Asked
from semrec_faiss.search.batching.joined import MOST_TOGETHER, search_together
from semrec_faiss.search.batching.turn import Turn, wake
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher

log = logging.getLogger("semrec.batching")


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
            observe: is told of every batch, in the thread that made its search; what it raises is logged.
        """
        self._observe = observe
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._coming: SimpleQueue[Asked | None] = SimpleQueue()  # whose hand-over is cheaper than a Condition's
        self._waiting: list[Asked] = []
        self._lock = threading.Lock()
        self._device = threading.Lock()
        self._thread: threading.Thread | None = None
        self._searching_since: float | None = None
        self._closed = self._ended = False

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many callers wait for a search that has not begun."""
        return self._coming.qsize() + len(self._waiting)

    @property
    def seconds_searching(self) -> float:
        """How long the search under way has taken so far; 0 where there is none."""
        since = self._searching_since
        return 0.0 if since is None else time.monotonic() - since

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
        if self._waiting or self._closed or not self._coming.empty() or not self._device.acquire(blocking=False):
            asked.found = turn = Turn()
            self._wait(asked)
            return turn.result()
        try:
            self._searching_since = started = time.monotonic()
            if asked.due is not None and started > asked.due:
                raise _too_late(asked, started)
            found = Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions)
            if self._observe is not None:
                waited = [started - asked.since]
                _tell(self._observe, Batch(1, len(asked.queries), waited, time.monotonic() - started))
            return found
        finally:
            self._searching_since = None
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
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, name="device-owner", daemon=True)
                self._thread.start()
            self._coming.put(asked)

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._lock:
            if not self._closed:
                self._coming.put(None)  # the last to come
            self._closed, thread = True, self._thread
        if thread is not None and self._process == os.getpid():
            thread.join()

    def _own(self) -> None:
        while self._somebody_waits():
            with self._device:  # who comes while it is busy is in the next batch
                self._searching_since = time.monotonic()
                self._answer(self._next())
                self._searching_since = None

    def _somebody_waits(self) -> bool:
        """Wait for callers; False when there are none and there will be no more."""
        if not self._waiting and not self._ended:
            self._receive()
        return bool(self._waiting)

    def _receive(self) -> None:
        asked = self._coming.get()
        if asked is None:
            self._ended = True
        else:
            self._waiting.append(asked)

    def _next(self) -> list[Asked]:
        """Return those of one kind with whom the longest-waiting is searched."""
        for _ in range(self._coming.qsize()):  # nobody else takes from it
            self._receive()
        together: list[Asked] = []
        others: list[Asked] = []
        kind, queries = self._waiting[0].kind, 0
        for asked in self._waiting:
            fits = not together or (queries + len(asked.queries) <= MOST_TOGETHER and asked.kind == kind)
            (together if fits else others).append(asked)
            queries += len(asked.queries) if fits else 0
        self._waiting = others
        return together

    def _answer(self, together: list[Asked]) -> None:
        self._serve(together)
        wake([asked.found for asked in together if isinstance(asked.found, Turn)])

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
            _tell(self._observe, Batch(callers, queries, waited, time.monotonic() - started))


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


def _tell(observe: Callable[[Batch], None], batch: Batch) -> None:
    """Tell of a batch; an observer that fails costs nobody an answer, and the owner goes on."""
    try:
        observe(batch)
    except Exception:
        log.exception("who is told of batches failed")
