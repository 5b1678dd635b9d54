"""Kernels before they run: a word about their being compiled, which the first to ask waits for; and recordings."""

from __future__ import annotations

import contextlib
import gc
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_compiled = itertools.count()


def tell_of_compiling() -> None:
    """Have the first of our kernels that Triton compiles in this process, and does not find on the disk, warned of.

    Where somebody else listens to Triton already, or it tells nobody, nothing is said.
    """
    from triton import knobs

    if getattr(knobs.compilation, "listener", tell_of_compiling) is None:
        knobs.compilation.listener = _tell


def _tell(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
    """Hear of a kernel from Triton, which says how many microseconds it took."""
    if cache_hit or not str(getattr(getattr(src, "fn", None), "__module__", "")).startswith("semrec_faiss."):
        return
    if next(_compiled) == 0:
        from triton import knobs

        warnings.warn(
            f"Triton compiles the kernels of type fused as they are first used, the first in {times.total / 1e6:.1f} s,"
            f" and keeps them in {knobs.cache.dir}; `semrec warm INDEX` has all of them compiled beforehand",
            RuntimeWarning,
            stacklevel=2,
        )


def recorded(launches: Callable[[], None], device: Any) -> Any:
    """Record what ``launches`` launches, once without a recording before: a CUDA graph to replay."""
    import torch

    launches()  # compiles what is not compiled yet, which a recording does not allow
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    # A stream of this GPU's own: torch's default one is the first GPU's. Thread-local: what other threads do on other
    # GPUs meanwhile must not end the recording.
    own = {"stream": torch.cuda.Stream(device), "capture_error_mode": "thread_local"}
    with torch.cuda.device(device), _no_rubbish_collected(), torch.cuda.graph(graph, **own):
        launches()
    return graph


@contextlib.contextmanager
def _no_rubbish_collected() -> Iterator[None]:
    """Let no graph or page-locked memory of a search that is over be freed meanwhile: CUDA would end the recording."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
