"""What takes long while an index is opened, done in a thread beside the rest: importing torch, reading users."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.config.schema import Config
from semrec_faiss.forking import OWN_THREADS
from semrec_faiss.index.hardware.device import has_driver


@contextlib.contextmanager
def beside(work: Callable[[], object] | None) -> Iterator[None]:
    """Do ``work`` in a thread beside what is done here, and wait for it in the end; raises what it raises.

    Ctrl-C does not wait: it may leave Python's lock of imports taken, for which a thread that imports waits for ever.
    """
    if work is None:
        yield
        return
    raised: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:  # raised again where it is waited for
            raised.append(error)

    thread = threading.Thread(target=do, name=f"{OWN_THREADS}beside", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        thread.join()
        raise
    thread.join()
    if raised:
        raise raised[0]


def torch_for(config: Config) -> Callable[[], object] | None:
    """Return what imports torch and Triton, where an index will be searched by them and they are not imported yet."""
    wanted = isinstance(config.index, FusedIndex) and config.device.kind != "cpu" and "torch" not in sys.modules
    return _import_torch if wanted and has_driver() else None


def _import_torch() -> None:
    """Import torch and Triton, and have Triton find out what it is: before its first kernel it hashes all its files.

    That takes half a second and more, in which Python is free to import torch. What goes wrong is told by who imports
    them in earnest.
    """
    with contextlib.suppress(Exception):
        from triton.runtime.cache import triton_key

        with beside(triton_key):  # which it remembers
            import torch  # noqa: F401
