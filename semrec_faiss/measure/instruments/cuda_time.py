"""How much of a search is spent in FAISS on the GPU, and what CUDA's own clock says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from semrec_faiss.index.hardware.device import first_line, load_faiss
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.fields import Part
from semrec_faiss.measure.documents.results import NotMeasured

EVENT_REPEATS = 20


class InFaiss:
    """Adds up the milliseconds spent inside FAISS's search calls."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.elapsed_ms = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a call so that its time is added."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.elapsed_ms += (time.perf_counter() - started) * 1e3

        return wrapped


class _TimedSearcher:
    """Stands for the searched FAISS index and times its searches."""

    def __init__(self, searcher: Any, clock: InFaiss) -> None:
        self._searcher = searcher
        self.search = clock.timed(searcher.search)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._searcher, name)


@contextmanager
def time_in_faiss(index: VectorIndex) -> Iterator[InFaiss]:
    """Count the time inside FAISS while the block runs; for an index on a GPU, and one thread."""
    faiss, clock = load_faiss(), InFaiss()
    searcher, knn_gpu = index.faiss_index, getattr(faiss, "knn_gpu", None)
    if hasattr(searcher, "search"):
        index.faiss_index = _TimedSearcher(searcher, clock)
    if knn_gpu is not None:
        faiss.knn_gpu = clock.timed(knn_gpu)
    try:
        yield clock
    finally:
        index.faiss_index = searcher
        if knn_gpu is not None:
            faiss.knn_gpu = knn_gpu


class ClockTimes(Part):
    """Milliseconds by CUDA's clock and by the wall's, in pairs: the medians, and all repeats."""

    cuda_ms: float
    wall_ms: float
    cuda_times_ms: list[float]
    wall_times_ms: list[float]


def event_times(index: VectorIndex, work: Callable[[], object]) -> ClockTimes | NotMeasured:
    """Time work by CUDA events on the stream that FAISS is given for it, and by the wall clock beside them.

    Args:
        index: on one GPU.
        work: searches it, and returns when it is done.
    """
    if not index.device.gpus:
        return NotMeasured("the index is searched on the CPU")
    torch = cuda_torch()
    if isinstance(torch, NotMeasured):
        return torch
    try:
        return _event_times(torch, index, work)
    except RuntimeError as error:
        return NotMeasured(f"CUDA events failed: {first_line(error)}")


def cuda_torch() -> Any | NotMeasured:
    """Return torch where it can use a GPU, or why it cannot."""
    try:
        import torch
    except ImportError:
        return NotMeasured("torch is not installed: pip install 'semrec-faiss[gpu]'")
    if not torch.cuda.is_available():
        return NotMeasured("the installed torch cannot use a GPU")
    return torch


def _event_times(torch: Any, index: VectorIndex, work: Callable[[], object]) -> ClockTimes:
    gpu = index.device.gpus[0]
    with torch.cuda.device(gpu), on_torch_stream(torch, index):
        work()
        wall_ms, cuda_ms = [], []
        for _ in range(EVENT_REPEATS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            started = time.perf_counter()
            begin.record()
            work()
            end.record()
            end.synchronize()
            wall_ms.append((time.perf_counter() - started) * 1e3)
            cuda_ms.append(float(begin.elapsed_time(end)))
    return ClockTimes(
        cuda_ms=round(float(np.median(cuda_ms)), 4),
        wall_ms=round(float(np.median(wall_ms)), 4),
        cuda_times_ms=[round(value, 4) for value in cuda_ms],
        wall_times_ms=[round(value, 4) for value in wall_ms],
    )


@contextmanager
def on_torch_stream(torch: Any, index: VectorIndex) -> Iterator[None]:
    """Let FAISS work on torch's current stream, which torch's events and profiler see, and give it back its own."""
    faiss = load_faiss()
    with ExitStack() as undo:
        for resources in index.resources:
            stream = torch.cuda.current_stream(resources.gpu).cuda_stream
            with resources.lock:
                before = resources.handle.getDefaultStream(resources.gpu)
                resources.handle.setDefaultStream(resources.gpu, faiss.cast_integer_to_cudastream_t(stream))
            undo.callback(resources.handle.setDefaultStream, resources.gpu, before)
        yield
        torch.cuda.synchronize()
