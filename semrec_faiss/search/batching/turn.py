"""Waiting for one result in one thread."""

from __future__ import annotations

import threading

from semrec_faiss.search.restricted.found import TopK


class Turn:
    """What one thread waits for: a result, or an error. A `Future` that many may wait for takes ten times as long."""

    __slots__ = ("_error", "_found", "_is_over")

    def __init__(self) -> None:
        """Begin to wait."""
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
        self._is_over.release()

    def set_exception(self, error: BaseException) -> None:
        """End the waiting with an error."""
        self._error = error
        self._is_over.release()

    def result(self) -> TopK:
        """Wait, once, and return the result or raise the error."""
        self._is_over.acquire()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found
