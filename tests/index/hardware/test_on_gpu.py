"""When FAISS's indexes on GPUs are freed, and under whose locks; a CPU's index stands for a GPU's."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from conftest import HANG_SECONDS

from semrec_faiss.index.hardware import on_gpu
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.on_gpu import GpuResources, freed_under_locks, held

MIB = 1 << 20


class Noted:
    """A lock that notes when it is taken and left, and how much memory there is then."""

    def __init__(self, name: str, events: list[tuple[str, int]]) -> None:
        self.name, self.events, self.own = name, events, threading.RLock()

    def acquire(self, blocking: bool = True) -> bool:
        taken = self.own.acquire(blocking)
        self.events.append((f"{self.name} {'taken' if taken else 'refused'}", _resident()))
        return taken

    def release(self) -> None:
        self.events.append((f"{self.name} left", _resident()))
        self.own.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _resources(*gpus: int, events: list[tuple[str, int]]) -> list[GpuResources]:
    locks: list[Any] = [Noted(str(gpu), events) for gpu in gpus]
    return [GpuResources(gpu, None, lock) for gpu, lock in zip(gpus, locks, strict=True)]


def _index(resources: list[GpuResources]) -> Any:
    index = load_faiss().IndexFlatIP(64)
    index.add(np.ones((1 << 18, 64), np.float32))  # 64 MiB
    return freed_under_locks(index, resources)[0]


def test_an_index_is_freed_while_the_locks_of_its_resources_are_held() -> None:
    events: list[tuple[str, int]] = []
    index = _index(_resources(0, 1, events=events))
    assert index.search(np.ones((1, 64), np.float32), 1)[0].tolist() == [[64.0]]
    gc.collect()
    assert not events
    del index
    assert [name for name, _ in events] == ["0 taken", "1 taken", "1 left", "0 left"]
    assert events[1][1] - events[2][1] >= 60 * MIB


def test_who_drops_an_index_waits_for_nobody_and_who_holds_the_lock_frees_it() -> None:
    """The garbage collector may drop it in a thread that holds what the holder of the lock waits for."""
    events: list[tuple[str, int]] = []
    resources = _resources(0, 1, events=events)
    cycle: list[Any] = [_index(resources), _index(resources)]
    cycle.append(cycle)
    dropped = threading.Event()
    of_another = threading.Lock()

    def collects() -> None:
        nonlocal cycle
        with of_another:
            del cycle
            gc.collect()
        dropped.set()

    with held(resources[1:]):
        collecting = threading.Thread(target=collects, daemon=True)
        collecting.start()
        assert dropped.wait(HANG_SECONDS), "it waits for the lock that is held here"
        collecting.join()
        with of_another:
            before = _resident()
    assert before - _resident() >= 120 * MIB
    assert not on_gpu._dropped
    assert [name for name, _ in events[:4]] == ["1 taken", "0 taken", "1 refused", "0 left"]


def test_locks_are_taken_in_the_order_of_the_gpus_whatever_the_order_they_are_named_in() -> None:
    events: list[tuple[str, int]] = []
    with held(_resources(3, 0, 2, events=events)):
        assert [name for name, _ in events] == ["0 taken", "2 taken", "3 taken"]


def test_a_forked_child_frees_nothing_of_its_parent() -> None:
    """CUDA would end it. What the parent had dropped and not freed yet is the parent's, too."""
    events: list[tuple[str, int]] = []
    resources = _resources(0, events=events)
    index, waiting = _index(resources), _index(resources)
    its = weakref.ref(index)
    holds, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with held(resources):
            holds.set()
            goes_on.wait(HANG_SECONDS)

    holding = threading.Thread(target=hold)
    holding.start()
    holds.wait(HANG_SECONDS)
    del waiting
    assert len(on_gpu._dropped) == 1
    child = os.fork()
    if not child:
        before = _resident()
        asked = len(events)
        del index
        gc.collect()
        is_kept = its() is None and len(events) == asked and not on_gpu._dropped and before - _resident() < MIB
        os._exit(0 if is_kept else 1)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        goes_on.set()
        holding.join()
    assert not on_gpu._dropped
