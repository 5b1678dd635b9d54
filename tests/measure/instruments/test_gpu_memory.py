"""GPU memory of this process alone, by a driver that is made up: whatever others take is never told as its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.measure.instruments import gpu_memory
from semrec_faiss.measure.instruments import index_memory_child as child
from semrec_faiss.measure.instruments.gpu_memory import NO_DRIVER, OTHERS, GpuMemoryWatch, others_use

KEPT = 100
"""Bytes that the driver keeps for itself."""

OURS, HERS, HIS = os.getpid(), -1, -2


class Driver:
    """NVML as far as memory is read by it.

    Attributes:
        gpus: by GPU the bytes of each process.
        numbers: the number by which the driver lists a process; None hides it.
    """

    def __init__(self, *gpus: dict[int, int]) -> None:
        self.gpus = gpus
        self.numbers: dict[int, int | None] = {}

    def processes(self, gpu: int) -> list[SimpleNamespace]:
        numbered = [(self.numbers.get(one, one), size) for one, size in self.gpus[gpu].items()]
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in numbered if pid is not None]

    def module(self) -> SimpleNamespace:
        return SimpleNamespace(
            NVMLError=RuntimeError,
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlSystemGetDriverVersion=lambda: "580.1",
            nvmlDeviceGetCount=lambda: len(self.gpus),
            nvmlDeviceGetHandleByIndex=lambda gpu: gpu,
            nvmlDeviceGetName=lambda gpu: "NVIDIA A",
            nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpu}",
            nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(
                total=10_000, used=KEPT + sum(self.gpus[gpu].copy().values())
            ),
            nvmlDeviceGetCudaComputeCapability=lambda gpu: [9, 0],
            nvmlDeviceGetComputeRunningProcesses=self.processes,
        )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver({}, {})
    monkeypatch.setitem(sys.modules, "pynvml", made.module())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


HIDDEN: Mapping[int, int | None] = {OURS: None, HERS: None, HIS: None}
RENUMBERED: Mapping[int, int | None] = {OURS: 4_000_001}


@pytest.mark.parametrize(
    ("numbers", "before", "meanwhile", "peak"),
    [
        ({}, {}, {OURS: 300}, 300),
        ({}, {HERS: 500}, {OURS: 300, HERS: 100}, 300),  # she frees more than is taken
        ({}, {}, {OURS: 300, HERS: 900}, 300),
        ({}, {OURS: 50}, {OURS: 300}, 250),
        (RENUMBERED, {}, {OURS: 300}, 300),
        (RENUMBERED, {OURS: 50}, {OURS: 300}, 250),
        (RENUMBERED, {HERS: 500}, {OURS: 300, HERS: 500}, OTHERS),
        (RENUMBERED, {HERS: 500}, {OURS: 300}, OTHERS),
        (RENUMBERED, {}, {OURS: 300, HERS: 10}, OTHERS),
        (HIDDEN, {}, {OURS: 300}, 300),
        (HIDDEN, {HERS: 500}, {OURS: 300, HERS: 500}, 300),
        (HIDDEN, {HERS: 500}, {OURS: 300}, OTHERS),  # less is in use than before
        (HIDDEN, {HERS: 500}, {OURS: 300, HERS: 200}, OTHERS),  # not a byte more
        (HIDDEN, {HERS: 500}, {OURS: 300, HERS: 300}, OTHERS),  # 100 more, and FAISS alone has 200
    ],
)
def test_the_peak_is_this_process_s_or_told_by_nobody(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    numbers: Mapping[int, int | None],
    before: dict[int, int],
    meanwhile: dict[int, int],
    peak: object,
) -> None:
    driver.numbers |= numbers
    driver.gpus[0].update(before)
    watch = GpuMemoryWatch()
    monkeypatch.setattr(gpu_memory, "faiss_allocations", lambda gpus: {"FlatData": 200})

    def work() -> None:
        driver.gpus[0].clear()
        driver.gpus[0].update(meanwhile)

    assert watch.peak_bytes([0], work) == peak
    assert watch.added_bytes([0]) == peak


def test_peaks_of_several_gpus_are_summed_and_forgotten_before_the_next(driver: Driver) -> None:
    watch = GpuMemoryWatch()
    first, second = driver.gpus
    assert watch.peak_bytes([0, 1], lambda: (first.update({OURS: 300}), second.update({OURS: 10, HERS: 900}))) == 310
    assert watch.peak_bytes([1], lambda: first.update({OURS: 70})) == 10
    assert watch.peak_bytes([0, 1], lambda: None) == 80
    assert watch.added_bytes([0]) == 70


def test_one_who_is_on_another_gpu_only_takes_nothing_of_ours(driver: Driver) -> None:
    driver.numbers |= RENUMBERED
    driver.gpus[1][HERS] = 900
    watch = GpuMemoryWatch()
    assert watch.peak_bytes([0], lambda: driver.gpus[0].update({OURS: 300})) == 300
    assert watch.peak_bytes([0, 1], lambda: driver.gpus[1].update({OURS: 300})) == OTHERS


def watched(driver: Driver, meanwhile: dict[int, int]) -> Any:
    watch = GpuMemoryWatch()
    with watch:
        driver.gpus[0].update({OURS: 900} | meanwhile)
        while watch._seen[0].whole().peak_bytes < 900:  # the thread's first reading
            pass
        driver.gpus[0][OURS] = 300
    return watch.told()


def test_memory_is_read_before_at_its_peak_and_after(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "INTERVAL_S", 0.001)
    told = watched(driver, {HERS: 50}).as_json()
    assert told == {
        "read_every_ms": 1.0,
        "of_this_process": True,
        "gpus": [
            {"gpu": 0, "before_bytes": 0, "peak_bytes": 900, "after_bytes": 300},
            {"gpu": 1, "before_bytes": 0, "peak_bytes": 0, "after_bytes": 0},
        ],
    }


def test_memory_of_a_process_that_is_not_listed_is_all_that_is_in_use_unless_others_are_there(driver: Driver) -> None:
    driver.numbers |= RENUMBERED
    told = watched(driver, {}).as_json()
    assert told["of_this_process"] is False
    assert told["gpus"][0] == {"gpu": 0, "before_bytes": KEPT, "peak_bytes": KEPT + 900, "after_bytes": KEPT + 300}
    assert watched(driver, {HERS: 50}) == OTHERS


def test_without_a_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "gpu_states", list)
    with GpuMemoryWatch() as watch:
        pass
    assert watch.told() == watch.added_bytes([0]) == watch.peak_bytes([0], lambda: None) == NO_DRIVER


@pytest.mark.parametrize(
    ("numbers", "here", "others"),
    [
        ({}, {OURS: 1}, False),
        ({}, {OURS: 1, HERS: 1}, True),
        (RENUMBERED, {OURS: 1}, False),
        (RENUMBERED, {OURS: 1, HERS: 1}, True),
        (HIDDEN, {OURS: 1, HERS: 1}, False),
    ],
)
def test_others_are_told_by_their_numbers(
    driver: Driver, numbers: Mapping[int, int | None], here: dict[int, int], others: bool
) -> None:
    driver.numbers |= numbers
    driver.gpus[0].update(here)
    driver.gpus[1].update({HERS: 1, HIS: 1})
    assert others_use(0) is others


def test_an_index_whose_memory_others_disturbed_is_not_measured(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = SimpleNamespace(device=SimpleNamespace(gpus=(0,)))
    monkeypatch.setattr(child, "SavedIndex", lambda index, settings: saved)
    monkeypatch.setattr(child, "_load_cuda", lambda gpu: driver.gpus[0].pop(HERS))
    driver.numbers |= HIDDEN
    driver.gpus[0].update({OURS: 1, HERS: 5})
    assert child.main(['{"index": "index", "settings": [], "batches": [1], "k": 10}']) == 0
    assert capsys.readouterr().out == '{"error": "other processes used the GPU meanwhile"}\n'
