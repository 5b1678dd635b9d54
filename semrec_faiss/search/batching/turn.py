"""Waiting for one result in one thread, and waking those who wait one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from semrec_faiss.search.restricted.found import TopK

WAKING_SECONDS = 0.001
"""When nobody has woken for so long, the rest is woken together: a thread that is held up, or was interrupted, wakes
nobody."""


class Turn:
    """What one thread waits for: a result, or an error. A `Future` that many may wait for takes ten times as long.

    Attributes:
        following: whom the thread that waits here wakes when it is awake; None when it has.
    """

    __slots__ = ("_error", "_found", "_is_over", "following")

    def __init__(self) -> None:
        """Begin to wait."""
        self._is_over = threading.Lock()
        self._is_over.acquire()
        self._found: TopK | None = None
        self._error: BaseException | None = None
        self.following: Turn | None = None

    def set_running_or_notify_cancel(self) -> bool:
        """Whether it is still wanted: nobody can cancel it."""
        return True

    def set_result(self, found: TopK) -> None:
        """Hold the result ready for when the thread is woken."""
        self._found = found

    def set_exception(self, error: BaseException) -> None:
        """Hold the error ready for when the thread is woken."""
        self._error = error

    def wake(self) -> None:
        """End the waiting, from any thread; whom somebody else has woken stays awake."""
        try:
            self._is_over.release()
        except RuntimeError:
            return

    def wait(self, seconds: float = -1) -> bool:
        """Wait to be woken, at most so long; tell whether it was."""
        return self._is_over.acquire(timeout=seconds)

    def result(self) -> TopK:
        """Wait, once, wake who follows, and return the result or raise the error."""
        self._is_over.acquire()
        following, self.following = self.following, None
        if following is not None:
            following.wake()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


def wake(turns: Sequence[Turn]) -> None:
    """Wake those whose result is there, each by the one before it; return when all are awake, or soon will be.

    Woken all at once they would wait again, for the interpreter's lock, and the system would have to wake each a
    second time. What searches for them next needs that lock, too, and finds more to search for together when they have
    come back.
    """
    if len(turns) > 1:
        last = Turn()
        for turn, following in zip(turns, [*turns[1:], last], strict=True):
            turn.following = following
        turns[0].wake()
        asleep = len(turns) + 1
        while (still := sum(turn.following is not None for turn in turns)) < asleep:
            asleep = still
            if last.wait(WAKING_SECONDS):
                return
    for turn in turns:
        turn.wake()
