"""Sweeps on a GPU: the same numbers as the CPU where the index is exact, and memory as the driver counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.measure.instruments.gpu_memory import OTHERS
from semrec_faiss.measure.sweep.run import run_sweep

pytestmark = pytest.mark.gpu

GRID = [
    {"type": "flat", "device": {"kind": "gpu", "float16": [False, True]}},
    {"type": ["ivf_flat", "ivf_sq"], "device": "gpu", "build": {"nlist": 6}, "search": {"nprobe": [1, 6]}},
    {"type": "hnsw", "device": ["cpu", "gpu"]},
    {"type": "fused", "device": "gpu", "search": {"rescore": ["float32", "float16"]}},
]


@pytest.mark.parametrize("isolated", [True, False])
def test_sweep_on_a_gpu(
    tmp_path: Path, make_folder: Callable[..., Any], tiny_plan: Callable[..., Any], isolated: bool
) -> None:
    data = make_folder(tmp_path / "data", titles=300, dim=32, users=20)
    plan = tiny_plan(tmp_path, data.root, grid=GRID)
    assert [one.reason.split(";")[0] for one in plan.invalid] == ["type hnsw runs on CPU only"]
    outcome = run_sweep(plan, isolated=isolated)
    assert [record.reason for record in outcome.records if record.status != "measured"] == []
    assert len(outcome.records) == 9 * 2 * 2
    for record in outcome.records:
        quality, kind = record.quality, record.index.type
        exact = not record.device.float16 and getattr(record.index.search, "rescore", None) != "float16"
        if kind in ("flat", "fused") and exact:
            assert quality.recall == 1.0, "ground truth on the GPU ranks as the index does"
        if kind == "ivf_flat" and record.index.search.nprobe == 6:
            assert quality.recall == 1.0
        assert quality.fill_rate == 1.0
        if isolated and record.device.kind == "gpu" and gpu_states():
            for part in ("build", "memory"):
                peak, least = getattr(record, part).gpu_peak_bytes, 280 * 32 * 2 if part == "memory" else 0
                reason = record.not_measured.get(f"{part}.gpu_peak_bytes")
                assert reason == OTHERS.reason if peak is None else peak > least
    assert {record.device.name for record in outcome.records} >= {"cpu"}
