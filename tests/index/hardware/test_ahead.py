"""What is done in a thread while an index is opened."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from conftest import HANG_SECONDS

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.hardware import ahead

FUSED = config_from_dict({"index": {"type": "fused"}})


def test_work_is_done_beside_and_waited_for() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        assert go_on.wait(HANG_SECONDS)
        done.append(threading.current_thread())

    with ahead.beside(work):
        assert begun.wait(HANG_SECONDS)
        assert not done
        go_on.set()
    assert done != [threading.current_thread()]
    assert len(done) == 1


def test_what_the_work_raises_is_raised_here() -> None:
    def work() -> None:
        raise ValueError("said beside")

    with pytest.raises(ValueError, match="said beside"), ahead.beside(work):
        pass


def test_what_fails_here_is_told_rather_than_what_fails_beside() -> None:
    def work() -> None:
        raise ValueError("said beside")

    with pytest.raises(KeyError, match="said here"), ahead.beside(work):
        raise KeyError("said here")


def test_an_interrupt_does_not_wait() -> None:
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(HANG_SECONDS)
        done.set()

    with pytest.raises(KeyboardInterrupt), ahead.beside(work):
        raise KeyboardInterrupt
    assert not done.is_set()
    go_on.set()
    assert done.wait(HANG_SECONDS)


def test_nothing_to_do_is_no_thread() -> None:
    before = threading.active_count()
    with ahead.beside(None):
        assert threading.active_count() == before


def test_torch_is_imported_for_type_fused_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(ahead, "has_driver", lambda: True)
    assert ahead.torch_for(FUSED) is not None
    assert ahead.torch_for(config_from_dict({"index": {"type": "flat"}})) is None
    assert ahead.torch_for(config_from_dict({"index": {"type": "fused"}, "device": {"kind": "cpu"}})) is None
    monkeypatch.setattr(ahead, "has_driver", lambda: False)
    assert ahead.torch_for(FUSED) is None
    monkeypatch.setattr(ahead, "has_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert ahead.torch_for(FUSED) is None


class _Driver:
    """CUDA's driver: what it is asked, and how its beginning ends."""

    def __init__(self, begun: int) -> None:
        self.asked: list[str] = []
        self._begun = begun

    def cuInit(self, _: int) -> int:
        return self._begun

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = 10 + number
        return int(number == 2)

    def cuDevicePrimaryCtxRetain(self, _: Any, device: Any) -> int:
        self.asked.append(f"context on {device.value}")
        return 0


def test_contexts_are_made_on_the_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for begun, expected in ((0, ["context on 10", "context on 11"]), (999, [])):
        driver = _Driver(begun)
        monkeypatch.setattr(ahead.ctypes, "CDLL", lambda _, driver=driver: driver)
        ahead._make_contexts((0, 2, 1))
        assert driver.asked == expected

    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ahead.ctypes, "CDLL", missing)
    ahead._make_contexts((0,))


def test_triton_knows_what_it_is_afterwards() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    asked = """
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.hardware import ahead
ahead.has_driver = lambda: True
with ahead.beside(ahead.torch_for(config_from_dict({"index": {"type": "fused"}}))):
    pass
from triton.runtime.cache import triton_key
print(triton_key.cache_info().currsize)
"""
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS, check=True
    )
    assert said.stdout.split() == ["1"]
