"""Signals that end a command: what is half-written is removed on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import ExtensionFileLoader
from types import FrameType

LOADING_SECONDS = 0.01
"""After so long is looked again whether a library is loaded that a signal came into."""

_LETTING_GO = "_get_module_lock.<locals>.cb"
"""What importlib has called when a lock is freed."""


class Terminated(BaseException):
    """SIGTERM, raised where the program stands, so that what is half-written is removed on the way out."""


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Handle SIGTERM and Ctrl-C in the block, unless the program that runs it does so itself."""

    def terminate() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise Terminated

    def interrupt() -> None:
        raise KeyboardInterrupt

    with ExitStack() as handled:
        if threading.current_thread() is threading.main_thread():
            handled.enter_context(_handling(signal.SIGTERM, signal.SIG_DFL, terminate))
            handled.enter_context(_handling(signal.SIGINT, signal.default_int_handler, interrupt))
        yield


@contextmanager
def _handling(number: signal.Signals, usual: object, end: Callable[[], None]) -> Iterator[None]:
    """Have a signal ``end`` the block, once no library is being loaded, where it is handled as usual."""

    def handle(_: int, frame: FrameType | None) -> None:
        if _is_loading(frame):
            later = threading.Timer(LOADING_SECONDS, signal.raise_signal, [number])
            later.daemon = True
            later.start()
        else:
            end()

    before = signal.getsignal(number)
    if before != usual:
        yield
        return
    signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def _is_loading(frame: FrameType | None) -> bool:
    """Tell whether an extension module is being loaded, or a module's lock let go of.

    What is raised there aborts, or is told as another error, or is lost.
    """
    while frame is not None:
        code = frame.f_code
        if isinstance(frame.f_locals.get("self"), ExtensionFileLoader) or code.co_qualname == _LETTING_GO:
            return True
        frame = frame.f_back
    return False
