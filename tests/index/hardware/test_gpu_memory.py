"""Which GPUs a process is shown, by a driver that is made up."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from semrec_faiss.index.hardware.gpu_memory import all_gpu_states, gpu_states

CARDS = [("NVIDIA A", "GPU-aa11", 10, 1), ("NVIDIA B", "GPU-ab22", 20, 2), ("NVIDIA C", "GPU-c333", 30, 3)]


OURS = os.getpid()


def processes(card: tuple[str, str, int, int]) -> list[SimpleNamespace]:
    if card[1] == "GPU-c333":
        raise RuntimeError("Insufficient Permissions")
    listed = {OURS: 7, OURS + 1: None} if card[1] == "GPU-aa11" else {OURS + 2: 5}
    return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in listed.items()]


@pytest.fixture(autouse=True)
def three_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlDeviceGetCount=lambda: len(CARDS),
        nvmlDeviceGetHandleByIndex=lambda number: CARDS[number],
        nvmlDeviceGetName=lambda card: card[0],
        nvmlDeviceGetUUID=lambda card: card[1],
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=card[2], used=card[3]),
        nvmlDeviceGetCudaComputeCapability=lambda _: [9, 0],
        nvmlDeviceGetComputeRunningProcesses=processes,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_all_are_shown_unless_told_otherwise() -> None:
    assert gpu_states() == all_gpu_states()
    assert [(state.gpu, state.name, state.total_bytes, state.used_bytes) for state in gpu_states()] == [
        (0, "NVIDIA A", 10, 1),
        (1, "NVIDIA B", 20, 2),
        (2, "NVIDIA C", 30, 3),
    ]


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        ("1", "B"),
        ("2,0", "CA"),
        (" 1 , 2", "BC"),
        ("GPU-c333", "C"),
        ("GPU-ab,0", "BA"),
        ("GPU-a,0", ""),  # two begin so
        ("0,7,1", "A"),
        ("-1", ""),
        ("", ""),
        ("1,1,0", "B"),
        ("1,NoDevFiles,0", "B"),
    ],
)
def test_cuda_numbers_what_it_shows(monkeypatch: pytest.MonkeyPatch, visible: str, shown: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [state.name[-1] for state in gpu_states()] == list(shown)
    assert [state.gpu for state in gpu_states()] == list(range(len(shown)))
    assert len(all_gpu_states()) == 3


def test_this_process_is_told_from_others() -> None:
    told = [(state.own_bytes, state.others) for state in gpu_states()]
    assert told == [(7, {OURS + 1}), (None, {OURS + 2}), (None, frozenset())]


def test_a_process_whose_size_is_not_told_is_not_told_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [SimpleNamespace(pid=OURS, usedGpuMemory=None), SimpleNamespace(pid=OURS + 1, usedGpuMemory=None)]
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlDeviceGetComputeRunningProcesses", lambda _: listed)
    assert [(state.own_bytes, state.others) for state in gpu_states()] == [(None, {OURS, OURS + 1})] * 3
