"""What doctor finds of an index: counts, lengths, damage, and a GPU that goes unused."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_python

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index import diagnosis
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.diagnosis import Check
from semrec_faiss.index.hardware import gpu_drivers
from semrec_faiss.index.hardware.gpu_memory import GpuState


def semrec(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "semrec_faiss", *arguments)


def test_doctor_names_a_package_of_every_extra() -> None:
    extras = set(metadata.metadata("semrec-faiss").get_all("Provides-Extra") or ()) - {"cpu", "test"}
    assert {extra for _, _, extra, _ in diagnosis._OPTIONAL} - {""} == extras


@pytest.mark.slow
def test_doctor_looks_at_an_index(make_folder: Any, tmp_path: Path) -> None:
    made = make_folder(tmp_path / "data", titles=80, users=6)
    good = {"dataset": str(made.root), "output": str(tmp_path / "good"), "device": "cpu"}
    build_index(config_from_dict(good))
    checks = {check.name: check for check in diagnosis.diagnose_index(tmp_path / "good")}
    assert checks["index"].found == "80 titles, as many vectors; 6 users, as many ids"
    assert checks["vectors"].state == "ok"
    long = made.vectors * np.linspace(1, 3, 80)[:, None].astype(np.float32)
    loose = make_folder(tmp_path / "loose", vectors=long)
    settings = {"dataset": str(loose.root), "output": str(tmp_path / "bad"), "index": {"normalize": False}}
    build_index(config_from_dict(settings | {"device": "cpu"}))
    (vectors,) = [check for check in diagnosis.diagnose_index(tmp_path / "bad") if check.name == "vectors"]
    assert vectors.state == "missing"
    assert vectors.found.startswith("not of unit length (norms from 1 to 3)")
    assert vectors.fix == "set index.normalize: true and build the index again"
    assert semrec("doctor", str(tmp_path / "good"), "--json").returncode == semrec("doctor", "--json").returncode
    assert semrec("doctor", str(tmp_path / "none")).returncode == 4


def test_doctor_finds_a_gpu_that_goes_unused(make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_folder(tmp_path / "data", titles=40)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    monkeypatch.setattr(diagnosis, "gpu_count", lambda: 1)
    (device,) = [check for check in diagnosis.diagnose_index(tmp_path / "index") if check.name == "device"]
    assert device.state == "missing"
    assert "the GPU goes unused" in device.found
    assert device.fix == "--set device.kind=auto, or build it again so"


@pytest.mark.slow
def test_doctor_says_that_a_damaged_index_is_damaged(make_folder: Any, tmp_path: Path) -> None:
    made = make_folder(tmp_path / "data", titles=40)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    (faiss_file,) = (tmp_path / "index").glob("gen-*/index.faiss")
    faiss_file.write_bytes(faiss_file.read_bytes()[:-1])
    (check,) = diagnosis.diagnose_index(tmp_path / "index")
    assert (check.name, check.state) == ("index", "problem")
    assert semrec("doctor", str(tmp_path / "index")).returncode == 6


@pytest.mark.parametrize(("found", "state"), [("2.13.0 CPU build", "problem"), ("2.13.0 CUDA 12.8, 1 GPUs", "ok")])
def test_doctor_objects_to_a_torch_without_cuda_beside_a_gpu(
    monkeypatch: pytest.MonkeyPatch, found: str, state: str
) -> None:
    monkeypatch.setattr(diagnosis, "_gpus", lambda: diagnosis.Check("gpu", "ok", "FAISS sees 1"))
    monkeypatch.setattr(diagnosis, "_package", lambda name, *_: diagnosis.Check(name, "ok", found))
    (torch,) = [check for check in diagnosis.diagnose() if check.name == "torch"]
    assert torch.state == state
    assert ("unused" in torch.found) is (state == "problem")
    monkeypatch.setattr(diagnosis, "_gpus", lambda: diagnosis.Check("gpu", "missing", "none"))
    assert {check.state for check in diagnosis.diagnose() if check.name == "torch"} == {"ok"}


def state(driver: str, capability: tuple[int, int] = (9, 0)) -> GpuState:
    return GpuState(0, "NVIDIA Card", driver, 80 << 30, 0, "", capability)


def test_a_driver_too_old_for_torch_is_named_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 580 FAISS for CUDA 12 works and torch for CUDA 13 does not."""
    sees, torch = Check("gpu", "ok", "FAISS sees 1"), Check("torch", "ok", "2.13.0 CUDA 13.0, no GPU usable")
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("570.86.15")])
    found = diagnosis._used(torch, sees)
    assert found.state == "problem"
    assert "CUDA 13.0, no GPU usable, which needs driver 580 or later; this is 570.86.15" in found.found
    assert "uv pip install --torch-backend cu126" in str(found.fix)
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("580.65.06")])
    monkeypatch.setattr(diagnosis, "_torch_architectures", lambda: ["sm_80", "sm_90"])
    assert diagnosis._used(torch, sees) is torch
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("570.86.15")])
    older = Check("torch", "ok", "2.8.0 CUDA 12.6, 1 GPUs")
    assert diagnosis._used(older, sees) is older


def test_a_driver_too_old_for_faiss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("470.57.02")])
    monkeypatch.setattr(diagnosis, "gpu_count", lambda: 0)
    monkeypatch.setattr(diagnosis, "has_driver", lambda: True)
    monkeypatch.setattr(diagnosis, "installed_faiss", lambda: {"faiss-gpu": "1.15.1"})
    monkeypatch.setattr(diagnosis, "faiss_cuda", lambda _: 12)
    found = diagnosis._gpus()
    assert found.found == "faiss-gpu is built for CUDA 12, which needs driver 525 or later; this is 470.57.02"
    assert found.state == "problem"


@pytest.mark.parametrize(
    ("required", "cuda"),
    [
        (["numpy>=1.25", "nvidia-cuda-runtime-cu12<13,>=12.6", "nvidia-curand-cu12<11"], 12),
        (["nvidia-cuda-runtime>=13.0,<14"], 13),
        (["numpy>=1.25"], None),
        (None, None),
    ],
)
def test_the_cuda_of_a_wheel_is_what_it_requires(
    required: list[str] | None, cuda: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_drivers.metadata, "requires", lambda _: required)
    assert gpu_drivers.faiss_cuda("faiss-gpu") == cuda


def test_a_card_too_old_for_type_fused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("580.1", (7, 5)), state("580.1", (8, 0))])
    (found,) = diagnosis._cards()
    assert found.found == "GPU 0 (NVIDIA Card) has compute capability 7.5; type fused needs 8.0"
    assert found.fix == "take type flat there"


TORCH_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
TORCH_126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.mark.parametrize(
    ("built", "capability", "fix"),
    [
        (TORCH_13, (9, 0), None),
        (TORCH_13, (8, 9), None),  # runs the code for 8.6
        (TORCH_13, (7, 0), "uv pip install --torch-backend cu126 --reinstall-package torch torch"),
        (TORCH_126, (12, 0), "pip install --upgrade --force-reinstall torch"),
        ([*TORCH_126, "compute_90"], (12, 0), None),  # the driver compiles it
        ([], (12, 0), None),  # nothing is told
        (TORCH_126, (0, 0), None),
    ],
)
def test_a_torch_without_code_for_a_card_is_named_with_the_line_that_mends_it(
    built: list[str], capability: tuple[int, int], fix: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("580.65.06"), state("580.65.06", capability)])
    monkeypatch.setattr(diagnosis, "_torch_architectures", lambda: [*built])
    torch = Check("torch", "ok", "2.13.0 CUDA 12.6, 2 GPUs")
    found = diagnosis._used(torch, Check("gpu", "ok", "FAISS sees 2"))
    assert found.fix == fix
    if fix is None:
        assert found is torch
    else:
        number = f"{capability[0]}.{capability[1]}"
        assert found.found == (
            f"2.13.0 CUDA 12.6, 2 GPUs, built for {', '.join(built)}; GPU 0 (NVIDIA Card) has compute capability"
            f" {number}: FAISS works, type fused does not"
        )


def test_a_faiss_without_code_for_a_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("580.65.06", (6, 1))])
    monkeypatch.setattr(diagnosis, "gpu_count", lambda: 1)
    monkeypatch.setattr(diagnosis, "code_in", lambda _: ["sm_70", "sm_90", "compute_90"])
    found = diagnosis._gpus()
    assert (found.state, found.fix) == ("problem", diagnosis._CPU_FAISS)
    assert found.found == (
        "FAISS is built for sm_70, sm_90, compute_90; GPU 0 (NVIDIA Card) has compute capability 6.1: searches there"
        " fail"
    )
    monkeypatch.setattr(diagnosis, "gpu_states", lambda: [state("580.65.06", (12, 0))])
    assert diagnosis._gpus().state == "ok", "newer cards run PTX"
