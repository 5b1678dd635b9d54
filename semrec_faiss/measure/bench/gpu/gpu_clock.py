"""Times by a GPU's own clock: what it takes from the first kernel of a piece of work to the end of the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.measure.instruments.timing import Timing


def time_on_gpu(work: Callable[[], Any], seconds: float) -> Timing:
    """Time with CUDA events, over and over for about ``seconds``."""
    first = min(gpu_ms(work) for _ in range(2))
    return Timing(tuple(gpu_ms(work) for _ in range(repeats_of(seconds, first))))


def gpu_ms(work: Callable[[], Any]) -> float:
    """Return how many milliseconds the current GPU takes for what ``work`` launches."""
    start, end = (load_torch().cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def repeats_of(seconds: float, each_ms: float) -> int:
    """Return how often to time what takes ``each_ms`` within about ``seconds``, from 3 to 200 times."""
    return max(3, min(200, int(1e3 * seconds / max(each_ms, 1e-3))))
