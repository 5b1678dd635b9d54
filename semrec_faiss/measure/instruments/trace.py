"""A Chrome trace of one query of each test, with CUDA's kernels where torch's profiler can see them.

Open the file in chrome://tracing or ui.perfetto.dev.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Part, Share
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.results import NotMeasured, save_text
from semrec_faiss.measure.instruments.cuda_time import ClockTimes, cuda_torch, event_times, on_torch_stream
from semrec_faiss.measure.instruments.timing import Work

LARGEST = 10
"""Kernels that the table names."""


class Kernel(Part):
    """A kernel or copy: how often it ran, how long in all, and which share of all time on the GPU that is."""

    name: str
    calls: AtLeastOne
    total_ms: Amount
    share: Share


class Trace(WithGaps):
    """What a trace tells.

    Attributes:
        trace: the name of its file.
        traced_by: ``torch.profiler``, or ``the wall clock`` where that sees no GPU.
        kernels: the largest, by time on the GPU.
        events: CUDA's clock beside the wall's, by piece of work.
    """

    trace: str | None
    traced_by: str | None = None
    kernels: list[Kernel] | None = None
    events: dict[str, ClockTimes | None] | None = None


def traced(work: Mapping[str, Work], index: VectorIndex, path: Path) -> Trace:
    """Run each piece of work once while it is traced, after one run that is not.

    Args:
        work: by name, each returning when it is done.
        index: what they search.
        path: where the trace goes.

    Raises:
        StorageError: the trace cannot be written.
    """
    for one in work.values():
        one()
    missing = NotMeasured("the index is searched on the CPU: no CUDA kernels run") if not index.device.gpus else None
    torch = missing or cuda_torch()
    if isinstance(torch, NotMeasured):
        save_text(json.dumps(_spans(work)), path)
        return Trace.of(trace=path.name, traced_by="the wall clock", kernels=torch, events=torch)
    events = {name: event_times(index, one) for name, one in work.items()}
    try:
        kernels: list[Kernel] | NotMeasured = _with_torch(torch, work, index, path)
    except RuntimeError as error:  # a driver that lets nobody profile
        save_text(json.dumps(_spans(work)), path)
        kernels = NotMeasured(f"torch's profiler failed: {str(error).splitlines()[0]}")
        return Trace.of(trace=path.name, traced_by="the wall clock", kernels=kernels, events=events)
    if not kernels:
        kernels = NotMeasured("the profiler saw no kernel; the driver may not let this process use CUPTI")
    return Trace.of(trace=path.name, traced_by="torch.profiler", kernels=kernels, events=events)


def _spans(work: Mapping[str, Work]) -> dict[str, Any]:
    """Trace by the wall clock alone: one span a piece of work."""
    events = []
    for name, one in work.items():
        started = time.perf_counter()
        one()
        elapsed = time.perf_counter() - started
        span = {"name": name, "ph": "X", "ts": started * 1e6, "dur": elapsed * 1e6, "pid": os.getpid(), "tid": 0}
        events.append(span)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _with_torch(torch: Any, work: Mapping[str, Work], index: VectorIndex, path: Path) -> list[Kernel]:
    profiler = torch.profiler
    activities = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    with (
        torch.cuda.device(index.device.gpus[0]),
        on_torch_stream(torch, index),
        profiler.profile(activities=activities) as recorded,
    ):
        for name, one in work.items():
            with profiler.record_function(name):
                one()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "trace.json"
        recorded.export_chrome_trace(str(written))
        text = written.read_text(encoding="utf-8", errors="replace")
    save_text(text, path)
    return largest_kernels(json.loads(text))


def largest_kernels(trace: dict[str, Any], count: int = LARGEST) -> list[Kernel]:
    """Sum up a Chrome trace's kernels and copies by name, the longest in all first."""
    totals: dict[str, list[float]] = {}
    for event in trace.get("traceEvents", []):
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset") and "dur" in event:
            totals.setdefault(str(event["name"]), []).append(float(event["dur"]) / 1e3)
    everything = sum(map(sum, totals.values()))
    ordered = sorted(totals.items(), key=lambda item: (-sum(item[1]), item[0]))[:count]
    return [
        Kernel(name=name, calls=len(times), total_ms=round(sum(times), 6), share=sum(times) / everything)
        for name, times in ordered
    ]
