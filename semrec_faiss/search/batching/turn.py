"""Waiting for one result in one thread, and waking those who wait one after the other.

Woken all at once, the callers of a batch would only wait again, for the interpreter's lock, and the system would have
to wake each a second time. So whoever is woken wakes the next, and then goes on.
"""

from __future__ import annotations

import threading
from collections import deque

from semrec_faiss.search.restricted.found import TopK

AT_ONCE = 2
"""How many are being woken at a time: one that has the interpreter's lock, and one on the way there."""


class Turn:
    """What one thread waits for: a result, or an error. A `Future` that many may wait for takes ten times as long."""

    __slots__ = ("_error", "_found", "_is_over", "_wakings")

    def __init__(self, wakings: Wakings) -> None:
        """Begin to wait, to be woken by ``wakings``."""
        self._wakings = wakings
        self._is_over = threading.Lock()
        self._is_over.acquire()
        self._found: TopK | None = None
        self._error: BaseException | None = None

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

    def wake(self) -> None:
        """Let the thread go on that waits."""
        self._is_over.release()

    def result(self) -> TopK:
        """Wait, once, and return the result or raise the error."""
        self._is_over.acquire()
        self._wakings.go_on()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


class Wakings:
    """Those whose waiting is over, in order; safe from many threads."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._changed = threading.Condition(threading.Lock())
        self._over: deque[Turn] = deque()
        self._under_way = 0

    def add(self, turn: Turn) -> None:
        """Have one woken: at once, or after those that are being woken."""
        self._over.append(turn)
        self._wake_next(awake=0)

    def go_on(self) -> None:
        """Wake the next; to be called by each that is awake."""
        self._wake_next(awake=1)

    def _wake_next(self, awake: int) -> None:
        with self._changed:
            self._under_way = max(0, self._under_way - awake)
            if not self._over or self._under_way >= AT_ONCE:
                self._changed.notify()
                return
            self._under_way += 1
            turn = self._over.popleft()
        turn.wake()

    def finish(self, seconds: float) -> None:
        """Wait until all are awake; after so long wake the rest together.

        A thread that the system lets wait, or that an interrupt has taken away, does not hold up the others.
        """
        with self._changed:
            if self._changed.wait_for(lambda: not self._under_way, seconds):
                return
            left = list(self._over)
            self._over.clear()
            self._under_way = 0
        for turn in left:
            turn.wake()
