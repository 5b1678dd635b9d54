"""How much GPU memory this process takes, and never what others take, as the driver counts it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from semrec_faiss.index.hardware.gpu_memory import GpuState, gpu_states
from semrec_faiss.index.hardware.on_gpu import faiss_allocations
from semrec_faiss.measure.documents.fields import Count, Part, Time
from semrec_faiss.measure.documents.results import NotMeasured

INTERVAL_S = 0.005
"""Between two readings; an allocation that lives shorter can be missed."""

NO_DRIVER = NotMeasured("nvidia-ml-py is not installed, or finds no driver")
OTHERS = NotMeasured("other processes used the GPU meanwhile")


class GpuBytes(Part):
    """Bytes in use on one GPU."""

    gpu: Count
    before_bytes: Count
    peak_bytes: Count
    after_bytes: Count | None


class WatchedMemory(Part):
    """What a `GpuMemoryWatch` saw of all GPUs.

    Attributes:
        read_every_ms: between two readings.
        of_this_process: whether that is what the driver tells of this process alone. Else it is all that is in use,
            what the driver itself keeps included, and no other process was seen.
        gpus: what was in use.
    """

    read_every_ms: Time
    of_this_process: bool = False
    gpus: list[GpuBytes]


class GpuMemoryWatch:
    """Reads the GPUs' memory over and over in a thread during ``with`` blocks, of which it can have several.

    It tells this process's memory where the driver lists that, and else all that is in use, unless others have a part
    in that. Where the driver lists no process at all, others are noticed only by what they free.
    """

    def __init__(self) -> None:
        """Read the memory that is in use before; where a container hides processes, before this one uses a GPU."""
        self._seen = {state.gpu: _Seen(state) for state in gpu_states()}
        self._allocated_before = _allocated(self._seen)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuMemoryWatch:
        if self._seen:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._read()

    def _read(self) -> None:
        for state in gpu_states():
            if state.gpu in self._seen:
                self._seen[state.gpu].note(state)

    def told(self) -> WatchedMemory | NotMeasured:
        """Return bytes in use before, at the peak and after, by GPU."""
        if not self._seen:
            return NO_DRIVER
        seen = self._seen.values()
        own = any(one.is_listed for one in seen)
        if not own and _foreign(seen):
            return OTHERS
        gpus = [one.own() if own else one.whole() for one in seen]
        return WatchedMemory(read_every_ms=INTERVAL_S * 1e3, of_this_process=own, gpus=gpus)

    def peak_bytes(self, gpus: Sequence[int], work: Callable[[], object]) -> int | NotMeasured:
        """Run ``work`` and return the most that all ``gpus`` together held meanwhile, context and scratch included.

        What this process held when the watch was made does not count.
        """
        for one in self._seen.values():
            one.forget_peak()
        with self:
            work()
        return self._added(gpus, lambda one: one.peak_bytes)

    def added_bytes(self, gpus: Sequence[int]) -> int | NotMeasured:
        """Return how much more than when the watch was made this process holds now on all ``gpus`` together."""
        self._read()
        return self._added(gpus, lambda one: one.after_bytes or 0)

    def _added(self, gpus: Sequence[int], of: Callable[[GpuBytes], int]) -> int | NotMeasured:
        seen = [self._seen[gpu] for gpu in gpus if gpu in self._seen]
        if not seen:
            return NO_DRIVER
        if any(one.is_listed for one in seen):
            return sum(max(0, of(told) - told.before_bytes) for told in (one.own() for one in seen))
        added = sum(of(told) - told.before_bytes for told in (one.whole() for one in seen))
        surely = max(1, _allocated(gpus) - self._allocated_before)
        if _foreign(seen) or any(one.was_freed for one in seen) or added < surely:
            return OTHERS
        return added


class _Seen:
    """The readings of one GPU.

    Attributes:
        is_listed: whether the driver lists this process there.
        was_freed: whether less was in use at times than before.
        others: the numbers of all other processes there.
    """

    def __init__(self, first: GpuState) -> None:
        self._first = self._last = first
        self._peak, self._own_peak = first.used_bytes, first.own_bytes or 0
        self.is_listed = first.own_bytes is not None
        self.was_freed = False
        self.others = set(first.others)

    def note(self, state: GpuState) -> None:
        self._last = state
        self._peak = max(self._peak, state.used_bytes)
        self._own_peak = max(self._own_peak, state.own_bytes or 0)
        self.is_listed |= state.own_bytes is not None
        self.was_freed |= state.used_bytes < self._first.used_bytes
        self.others |= state.others

    def forget_peak(self) -> None:
        self._peak = self._own_peak = 0

    def own(self) -> GpuBytes:
        return self._told(self._first.own_bytes or 0, self._own_peak, self._last.own_bytes or 0)

    def whole(self) -> GpuBytes:
        return self._told(self._first.used_bytes, self._peak, self._last.used_bytes)

    def _told(self, before: int, peak: int, after: int) -> GpuBytes:
        return GpuBytes(gpu=self._first.gpu, before_bytes=before, peak_bytes=peak, after_bytes=after)


def _foreign(seen: Iterable[_Seen]) -> bool:
    """Tell whether others are on GPUs where the driver does not list this process: a single number is its own."""
    return len(frozenset[int]().union(*(one.others for one in seen))) > 1


def others_use(gpu: int) -> bool:
    """Tell whether the driver lists other processes than this one on a GPU that this one uses."""
    return any(len(state.others) > (state.own_bytes is None) for state in gpu_states() if state.gpu == gpu)


def _allocated(gpus: Iterable[int]) -> int:
    """Return the bytes that FAISS and torch hold of GPUs for this process: it takes these at least."""
    gpus = frozenset(gpus)
    torch = sys.modules.get("torch")
    of_torch = 0 if torch is None else sum(int(torch.cuda.memory_reserved(gpu)) for gpu in gpus)
    return sum(faiss_allocations(gpus).values()) + of_torch
