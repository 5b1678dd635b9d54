"""FAISS's indexes on GPUs: the resources that they share, how they are copied there, and when they are freed."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from semrec_faiss.errors import DeviceError
from semrec_faiss.forking import keep_for_ever, renewed_after_fork
from semrec_faiss.index.hardware.device import GPU_PQ_FLOAT32_M, Device, first_line, is_out_of_memory, load_faiss


@dataclass(frozen=True)
class GpuResources:
    """FAISS's scratch memory and streams on one GPU, and the lock that every use of them takes.

    FAISS's GPU indexes are not thread-safe: two threads in one resources object end the process.
    """

    gpu: int
    handle: Any
    lock: threading.RLock


_resources: dict[tuple[int, int | None], GpuResources] = {}
_resources_lock = threading.Lock()


def gpu_resources(gpu: int, temp_memory_mb: int | None = None) -> GpuResources:
    """Return the process's resources object of one GPU, made on first use and shared by all its indexes."""
    faiss = load_faiss()
    with _resources_lock:
        key = (gpu, temp_memory_mb)
        if key not in _resources:
            handle = faiss.StandardGpuResources()
            if temp_memory_mb is not None:
                handle.setTempMemory(temp_memory_mb << 20)
            _resources[key] = GpuResources(gpu, handle, threading.RLock())
        return _resources[key]


def faiss_allocations(gpus: Iterable[int]) -> dict[str, int]:
    """Ask FAISS for the bytes that all indexes of this process hold on GPUs, by kind; empty where it tells none."""
    totals: dict[str, int] = {}
    with contextlib.suppress(AttributeError, TypeError, ValueError):  # another version's way of telling
        for resource in [one for one in _resources.values() if one.gpu in gpus]:
            with resource.lock:
                counted = resource.handle.getMemoryInfo()
            for kinds in counted.values():
                for kind, (_, size) in kinds.items():
                    totals[str(kind)] = totals.get(str(kind), 0) + int(size)
    return totals


def to_gpu(index: Any, device: Device) -> tuple[Any, list[GpuResources]]:
    """Copy a trained CPU index to the device's GPUs; several share the titles, or as replicas the queries.

    Returns:
        The GPU index and the resources whose locks a search must hold.

    Raises:
        DeviceError: FAISS has no GPU code for this index, or its memory does not suffice.
    """
    faiss = load_faiss()
    resources = [gpu_resources(gpu, device.temp_memory_mb) for gpu in device.gpus]
    options = faiss.GpuMultipleClonerOptions() if len(resources) > 1 else faiss.GpuClonerOptions()
    ivf = faiss.try_extract_index_ivf(index)
    quantizer = None if ivf is None else getattr(faiss.downcast_index(ivf), "pq", None)
    # For product quantisation this option means float16 look-up tables, which large M needs to fit shared memory.
    options.useFloat16 = device.float16 or (quantizer is not None and quantizer.M > GPU_PQ_FLOAT32_M)
    try:
        with held(resources):
            return freed_under_locks(_copy_to(resources, index, options, shard=device.layout != "replicas"), resources)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceError(
                f"the index does not fit GPU {device.gpus} memory: {first_line(error)}",
                fix="take ivf_sq or ivf_pq, set device.float16=true for flat, name more GPUs, or set device.kind=cpu",
            ) from error
        raise DeviceError(
            f"FAISS cannot put this index on a GPU: {first_line(error)}", fix="set device.kind=cpu"
        ) from error


@contextlib.contextmanager
def held(resources: Iterable[GpuResources]) -> Iterator[None]:
    """Hold the locks of some resources, in the order of their GPUs, which is everybody's; free what waits for them."""
    try:
        with contextlib.ExitStack() as locks:
            for resource in sorted(resources, key=lambda resource: resource.gpu):
                locks.enter_context(resource.lock)
            yield
    finally:
        _free_dropped()


@dataclass(eq=False)
class _Dropped:
    """An index that nobody uses any more: the same C++ object, which has not been freed yet."""

    index: list[Any]
    resources: list[GpuResources]
    process: int = field(default_factory=os.getpid)


_dropped: deque[_Dropped] = deque()


def freed_under_locks(index: Any, resources: list[GpuResources]) -> tuple[Any, list[GpuResources]]:
    """Have FAISS's index freed while nothing else uses its resources, whichever thread drops it, and return both.

    FAISS keeps count of a GPU's memory in the resources object without a lock: an index that was freed while another
    one was searched, such as that of the generation before, ended the process. Nobody waits for the locks, though: an
    index may be dropped by the garbage collector, in a thread that holds what the holder of a lock is waiting for. Who
    holds one frees it in the end.
    """
    dropped = _Dropped([load_faiss().downcast_index(index)], resources)
    index.this.disown()
    weakref.finalize(index, _drop, dropped).atexit = False
    return index, resources


def _drop(dropped: _Dropped) -> None:
    if dropped.process != os.getpid():  # forked from the one whose GPU it is on, where CUDA would end the process
        keep_for_ever(dropped)
        return
    _dropped.append(dropped)
    _free_dropped()


def _free_dropped() -> None:
    """Free what was dropped, up to the first whose locks others hold: they go on from there when they are done."""
    while _dropped:
        with contextlib.suppress(IndexError, ValueError), contextlib.ExitStack() as locks:  # another thread was faster
            first = _dropped[0]
            for resource in first.resources:
                if not resource.lock.acquire(blocking=False):
                    return
                locks.callback(resource.lock.release)
            _dropped.remove(first)
            first.index[0].this.acquire()
            first.index.clear()


@renewed_after_fork
def _lose_copies() -> None:
    """Keep what lies on GPUs in a forked child, where CUDA cannot be asked to free it."""
    keep_for_ever(_resources)
    keep_for_ever(list(_dropped))
    _dropped.clear()


def _copy_to(resources: list[GpuResources], index: Any, options: Any, *, shard: bool) -> Any:
    faiss = load_faiss()
    if len(resources) == 1:
        return faiss.index_cpu_to_gpu(resources[0].handle, resources[0].gpu, index, options)
    options.shard = shard
    handles, ids = faiss.GpuResourcesVector(), faiss.Int32Vector()
    for resource in resources:
        handles.push_back(resource.handle)
        ids.push_back(resource.gpu)
    return faiss.index_cpu_to_gpu_multiple(handles, ids, index, options)
