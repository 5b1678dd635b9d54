"""Which FAISS is installed, which GPUs it sees, and what is said where either is missing."""

from __future__ import annotations

import importlib.abc
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, DeviceError, MissingPackageError
from semrec_faiss.index.hardware import device as device_module
from semrec_faiss.index.hardware.device import (
    BLAS_QUERY_BLOCK,
    BLAS_THRESHOLD,
    BLAS_TITLE_BLOCK,
    WAITING,
    Device,
    choose_device,
    first_line,
    gpu_count,
    installed_faiss,
    is_out_of_memory,
    load_faiss,
)


@pytest.fixture
def fresh_load() -> Iterator[None]:
    """Let `load_faiss` look again, and forget what it found afterwards."""
    load_faiss.cache_clear()
    yield
    load_faiss.cache_clear()
    load_faiss()


class _Breaks(importlib.abc.MetaPathFinder):
    """Makes ``import faiss`` raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise for faiss, know nothing of the rest."""
        if fullname == "faiss":
            raise self.error


def break_import(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the next ``import faiss`` raise ``error``."""
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Breaks(error), *sys.meta_path])


def choose(index: dict[str, Any], device: dict[str, Any]) -> Device:
    """Choose a device for a config."""
    config = config_from_dict({"index": index, "device": device})
    return choose_device(config.device, config.index)


def test_faiss_is_loaded_with_block_sizes_that_suit_batches() -> None:
    faiss = load_faiss()
    assert faiss.cvar.distance_compute_blas_threshold == BLAS_THRESHOLD == 20
    assert faiss.cvar.distance_compute_blas_query_bs == BLAS_QUERY_BLOCK
    assert faiss.cvar.distance_compute_blas_database_bs == BLAS_TITLE_BLOCK
    assert load_faiss() is faiss


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_share_cores_unless_told_otherwise(given: dict[str, str], spins: str | None) -> None:
    code = "import os, semrec_faiss.index.hardware.device as d; d.load_faiss(); print(os.environ.get('GOMP_SPINCOUNT'))"
    others = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=others | given, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == str(spins)


def test_exactly_one_wheel_is_installed_here() -> None:
    wheels = installed_faiss()
    assert len(wheels) <= 1
    for name, version in wheels.items():
        assert name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
        assert version[0].isdigit()


@pytest.mark.usefixtures("fresh_load")
def test_a_missing_faiss_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    break_import(monkeypatch, ModuleNotFoundError("No module named 'faiss'"))
    with pytest.raises(MissingPackageError, match="not installed") as caught:
        load_faiss()
    assert caught.value.exit_code == 7
    assert "pip install 'semrec-faiss[cpu]'" in str(caught.value.fix)


@pytest.mark.usefixtures("fresh_load")
def test_a_gpu_wheel_without_its_libraries_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    break_import(monkeypatch, RuntimeError("libcublas.so.12: cannot open shared object file"))
    with pytest.raises(MissingPackageError, match=r"GPU libraries.*libcublas") as caught:
        load_faiss()
    assert "semrec-faiss[gpu]" in str(caught.value.fix)


@pytest.mark.usefixtures("fresh_load")
def test_two_wheels_over_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "installed_faiss", lambda: {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"})
    with pytest.raises(MissingPackageError, match="faiss-cpu and faiss-gpu are both installed") as caught:
        load_faiss()
    assert "pip uninstall -y faiss-cpu faiss-gpu" in str(caught.value.fix)


def test_a_cpu_build_is_never_asked_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class CpuBuild:
        @staticmethod
        def get_compile_options() -> str:
            return "OPTIMIZE AVX2 "

    monkeypatch.setattr(device_module, "load_faiss", lambda: CpuBuild)
    assert gpu_count() == 0


@pytest.mark.parametrize(
    ("gpus", "index", "device", "expected"),
    [
        (0, {"type": "flat"}, {"kind": "auto"}, Device()),
        (0, {"type": "flat"}, {"kind": "cpu"}, Device()),
        (0, {"type": "flat"}, {"kind": "auto", "float16": True}, Device()),
        (0, {"type": "flat"}, {"kind": "auto", "gpus": [0, 1]}, Device()),
        (1, {"type": "flat"}, {"kind": "auto"}, Device(gpus=(0,))),
        (1, {"type": "flat"}, {"kind": "cpu"}, Device()),
        (1, {"type": "flat"}, {"kind": "gpu", "float16": True}, Device(gpus=(0,), float16=True)),
        (2, {"type": "flat"}, {"kind": "gpu", "gpus": [1, 0]}, Device(gpus=(1, 0))),
        (1, {"type": "flat"}, {"kind": "auto", "temp_memory_mb": 64}, Device(gpus=(0,), temp_memory_mb=64)),
        (1, {"type": "hnsw"}, {"kind": "auto"}, Device()),
        (1, {"type": "ivf_pq", "build": {"nbits": 4}}, {"kind": "auto"}, Device()),
        (1, {"type": "ivf_pq", "build": {"M": 5}}, {"kind": "auto"}, Device()),
        (1, {"type": "ivf_flat", "search": {"nprobe": 4096}}, {"kind": "auto"}, Device()),
        (1, {"factory": "HNSW32"}, {"kind": "auto"}, Device()),
        (1, {"factory": "IVF64,SQ8"}, {"kind": "auto"}, Device(gpus=(0,))),
    ],
)
def test_auto_takes_the_gpu_where_there_is_one_and_the_type_runs_on_it(
    gpus: int, index: dict[str, Any], device: dict[str, Any], expected: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "gpu_count", lambda: gpus)
    chosen = choose(index, device)
    assert chosen == expected
    assert chosen.kind == ("gpu" if expected.gpus else "cpu")


@pytest.mark.parametrize(
    ("wheel", "fix"), [("faiss-cpu", "pip install 'semrec-faiss[gpu]'"), ("faiss-gpu", "semrec doctor")]
)
def test_a_gpu_that_is_not_there_is_told_with_what_helps(wheel: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "has_driver", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device_module, "gpu_count", lambda: 1)
    monkeypatch.setattr(device_module, "installed_faiss", lambda: {wheel: "1.15.1"})
    with pytest.raises(DeviceError, match="GPU 3 was asked for, but FAISS sees 1") as caught:
        choose({"type": "flat"}, {"kind": "gpu", "gpus": [0, 3]})
    assert fix in str(caught.value.fix)
    monkeypatch.setattr(device_module, "gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="GPU 0 was asked for, but FAISS sees 0"):
        choose({"type": "flat"}, {"kind": "gpu"})


def test_a_type_that_does_not_run_on_a_gpu_is_refused_there_too() -> None:
    hnsw = config_from_dict({"index": {"type": "hnsw"}}).index
    wanted = config_from_dict({"device": {"kind": "gpu"}}).device
    with pytest.raises(ConfigError, match="hnsw runs on CPU only"):
        choose_device(wanted, hnsw)


@pytest.mark.parametrize(
    ("device", "text"),
    [(Device(), "cpu"), (Device(gpus=(0,)), "gpu 0"), (Device(gpus=(1, 3)), "gpu 1, 3")],
)
def test_a_device_is_named_as_a_person_would(device: Device, text: str) -> None:
    assert str(device) == text


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError("std::bad_alloc"), True),
        (
            RuntimeError("Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail type … out of memory"),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error 2 out of memory"), True),
        (RuntimeError("Error: 'nprobe > 0' failed"), False),
        (ValueError("memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_the_telling_line_of_a_faiss_message_is_kept() -> None:
    faiss = load_faiss()
    with pytest.raises(RuntimeError) as caught:
        faiss.index_factory(8, "PQ3", faiss.METRIC_INNER_PRODUCT)
    line = first_line(caught.value)
    assert "multiple" in line
    assert "\n" not in line
    assert "/faiss/" not in line
    assert first_line(RuntimeError("")) == "RuntimeError"
    assert first_line(RuntimeError("one\ntwo")) == "one"


def test_without_a_driver_no_gpu_wheel_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "gpu_count", lambda: 0)
    monkeypatch.setattr(device_module, "has_driver", lambda: False)
    with pytest.raises(DeviceError) as caught:
        choose({"type": "flat"}, {"kind": "gpu"})
    assert caught.value.fix == "this machine has no NVIDIA driver: set device.kind=cpu, or install a driver first"


def test_a_gpu_that_is_shown_twice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "gpu_count", lambda: 0)
    monkeypatch.setattr(device_module, "has_driver", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 0")
    with pytest.raises(DeviceError) as caught:
        choose({"type": "flat"}, {"kind": "gpu"})
    assert caught.value.fix == "CUDA_VISIBLE_DEVICES=0,0 names a GPU twice: name each once"
