"""Waiting for one result in one thread, and waking those who wait one after the other.

Woken all at once, the callers of a batch would only wait again, for the interpreter's lock, and the system would have
to wake each a second time. So whoever is woken wakes the next, and then goes on.
"""

from __future__ import annotations

import threading
from collections import deque

from semrec_faiss.search.restricted.found import TopK

AT_ONCE = 1
"""How many are being woken at a time: more would wait for the interpreter's lock."""


class Turn:
    """What one thread waits for: a result, or an error. A `Future` that many may wait for takes ten times as long."""

    __slots__ = ("_error", "_found", "_has_left", "_is_over", "_wakings")

    def __init__(self, wakings: Wakings) -> None:
        """Begin to wait, to be woken by ``wakings``."""
        self._wakings = wakings
        self._is_over = threading.Lock()
        self._is_over.acquire()
        self._found: TopK | None = None
        self._error: BaseException | None = None
        self._has_left = False

    def set_running_or_notify_cancel(self) -> bool:
        """Whether it is still wanted: nobody can cancel it."""
        return True

    def set_result(self, found: TopK) -> None:
        """End the waiting with a result."""
        self._found = found
        self._wakings.add(self)

    def set_exception(self, error: BaseException) -> None:
        """End the waiting with an error."""
        self._error = error
        self._wakings.add(self)

    def result(self) -> TopK:
        """Wait, once, and return the result or raise the error."""
        try:
            self._is_over.acquire()
        except BaseException:  # an interrupt, which comes to the main thread
            self._has_left = True
            if self.is_woken_alone():
                self._wakings.go_on()
            raise
        self._wakings.go_on()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def wake(self) -> None:
        """Let the thread go on that waits."""
        self._is_over.release()

    def is_woken_alone(self) -> bool:
        """Whether it was woken with no thread waiting any more; true once, for whoever then wakes the next."""
        return self._has_left and self._is_over.acquire(blocking=False)


class Wakings:
    """Those whose waiting is over, in order; safe from many threads."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._lock = threading.Lock()
        self._over: deque[Turn] = deque()
        self._under_way = 0

    def add(self, turn: Turn) -> None:
        """Have one woken: at once, or after those that are being woken."""
        with self._lock:
            self._over.append(turn)
        self._wake_next()

    def go_on(self) -> None:
        """Wake the next; to be called by each that is woken."""
        with self._lock:
            self._under_way -= 1
        self._wake_next()

    def _wake_next(self) -> None:
        while True:
            with self._lock:
                if not self._over or self._under_way >= AT_ONCE:
                    return
                self._under_way += 1
                turn = self._over.popleft()
            turn.wake()
            if not turn.is_woken_alone():
                return
            with self._lock:
                self._under_way -= 1
