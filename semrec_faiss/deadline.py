"""How long somebody waits for what a thread does: set where a question comes in, looked at where it takes time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

from semrec_faiss.errors import SemrecError

_due: ContextVar[float | None] = ContextVar("due", default=None)


class TooLateError(SemrecError):
    """A question whose time was up before it was answered: what had not begun is not done, what takes long is ended."""


@contextlib.contextmanager
def due_at(moment: float | None) -> Iterator[None]:
    """Give up what is done inside at ``moment``, of `time.monotonic`; None sets no limit."""
    token = _due.set(moment)
    try:
        yield
    finally:
        _due.reset(token)


def due() -> float | None:
    """Return the moment that `due_at` has set; None where there is no limit."""
    return _due.get()


def time_left() -> float | None:
    """Return the seconds until that moment; None where there is no limit."""
    moment = _due.get()
    return None if moment is None else moment - time.monotonic()


def raise_if_late(what: str) -> None:
    """Raise TooLateError, which says ``what`` was not done, where that moment has passed."""
    if (left := time_left()) is not None and left <= 0:
        raise TooLateError(what)
