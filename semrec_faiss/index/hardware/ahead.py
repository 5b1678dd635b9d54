"""What takes long while an index is opened, done in a thread beside the rest: importing torch, waking the GPU, reading
users."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    return partial(_import_torch, config.device.gpus) if wanted and has_driver() else None


def _import_torch(gpus: Sequence[int]) -> None:
    """Import torch and Triton, and do what both leave to the first kernel, on ``gpus``.

    Triton hashes all its files, half a second and more in which Python is free to import torch, and looks for CUDA's
    driver; the driver makes a context on each GPU. What goes wrong is told by who does it in earnest.
    """
    with contextlib.suppress(Exception), beside(partial(_make_contexts, gpus)):
        from triton.runtime.cache import triton_key

        with beside(triton_key):  # which it remembers
            import torch  # noqa: F401
        from triton.runtime import driver

        getattr(driver.active, "utils", None)


def _make_contexts(gpus: Sequence[int]) -> None:
    """Have CUDA's driver make the contexts that whoever uses these GPUs first in this process would wait for."""
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        for gpu in gpus if driver.cuInit(0) == 0 else ():
            if driver.cuDeviceGet(ctypes.byref(device), gpu) == 0:
                driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
