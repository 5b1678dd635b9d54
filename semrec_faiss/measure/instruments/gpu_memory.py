"""The most GPU memory in use while something runs, as the driver counts it."""

from __future__ import annotations

import threading
from types import TracebackType

from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.measure.documents.fields import Count, Part, Time

INTERVAL_S = 0.005
"""Between two readings; an allocation that lives shorter can be missed."""


class GpuBytes(Part):
    """Bytes in use on one GPU."""

    gpu: Count
    before_bytes: Count
    peak_bytes: Count
    after_bytes: Count | None


class WatchedMemory(Part):
    """What a `GpuMemoryWatch` saw of all GPUs."""

    read_every_ms: Time
    gpus: list[GpuBytes]


class GpuMemoryWatch:
    """Reads the GPUs' memory over and over in a thread during ``with`` blocks, of which it can have several.

    Other processes' memory counts too: watch on a machine that does nothing else.
    """

    def __init__(self) -> None:
        """Read the memory that is in use before."""
        self._before = _used()
        self._peak = dict(self._before)
        self._after: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuMemoryWatch:
        if self._before:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._after = self._read()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._read()

    def _read(self) -> dict[int, int]:
        used = _used()
        for gpu, count in used.items():
            self._peak[gpu] = max(self._peak.get(gpu, 0), count)
        return used

    def told(self) -> WatchedMemory | None:
        """Return bytes in use before, at the peak and after, by GPU; None where the driver tells nothing."""
        if not self._before:
            return None
        gpus = [
            GpuBytes(gpu=gpu, before_bytes=before, peak_bytes=self._peak[gpu], after_bytes=self._after.get(gpu))
            for gpu, before in self._before.items()
        ]
        return WatchedMemory(read_every_ms=INTERVAL_S * 1e3, gpus=gpus)


def _used() -> dict[int, int]:
    return {state.gpu: state.used_bytes for state in gpu_states()}
