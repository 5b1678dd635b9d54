"""What takes long while an index is opened, done in a thread beside the rest: importing torch, reading users."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.config.schema import Config
from semrec_faiss.forking import OWN_THREADS
from semrec_faiss.index.hardware.device import has_driver


@contextlib.contextmanager
def beside(work: Callable[[], object] | None) -> Iterator[None]:
    """Do ``work`` in a thread beside what is done here, and wait for it in the end; raises what it raises."""
    if work is None:
        yield
        return
    with ThreadPoolExecutor(1, thread_name_prefix=f"{OWN_THREADS}beside") as thread:
        done = thread.submit(work)
        yield
        done.result()


def torch_for(config: Config) -> Callable[[], object] | None:
    """Return what imports torch and Triton, where an index will be searched by them and they are not imported yet."""
    wanted = isinstance(config.index, FusedIndex) and config.device.kind != "cpu" and "torch" not in sys.modules
    return _import_torch if wanted and has_driver() else None


def _import_torch() -> None:
    """Import torch and Triton, and have Triton find out what it is: before its first kernel it hashes all its files.

    That takes more than a second. What goes wrong is told by who imports them in earnest.
    """
    with contextlib.suppress(Exception):
        import torch  # noqa: F401
        from triton.runtime.cache import triton_key

        triton_key()  # which it remembers
