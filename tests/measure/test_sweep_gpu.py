"""Sweeps on a GPU: the same numbers as the CPU where the index is exact, and memory as the driver counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.index.gpu_memory import gpu_states
from semrec_faiss.measure.sweep import run_sweep

pytestmark = pytest.mark.gpu

GRID = [
    {"type": "flat", "device": {"kind": "gpu", "float16": [False, True]}},
    {"type": ["ivf_flat", "ivf_sq"], "device": "gpu", "build": {"nlist": 6}, "search": {"nprobe": [1, 6]}},
    {"type": "hnsw", "device": ["cpu", "gpu"]},
]


@pytest.mark.parametrize("isolated", [True, False])
def test_sweep_on_a_gpu(tmp_path: Path, tiny_data: Any, tiny_plan: Callable[..., Any], isolated: bool) -> None:
    plan = tiny_plan(tmp_path, tiny_data.root, grid=GRID)
    assert [one.reason.split(";")[0] for one in plan.invalid] == ["type hnsw runs on CPU only"]
    outcome = run_sweep(plan, isolated=isolated, arguments=["sweep"])
    assert [record["reason"] for record in outcome.records if record["status"] != "measured"] == []
    assert len(outcome.records) == 7 * 2 * 2
    for record in outcome.records:
        quality, kind = record["quality"], record["index"]["type"]
        if kind == "flat" and not record["device"]["float16"]:
            assert quality["recall"] == 1.0, "ground truth on the GPU ranks as the index does"
        if kind == "ivf_flat" and record["index"]["search"]["nprobe"] == 6:
            assert quality["recall"] == 1.0
        assert quality["fill_rate"] == 1.0
        if isolated and record["device"]["kind"] == "gpu" and gpu_states():
            assert record["memory"]["gpu_peak_bytes"] > 280 * 16 * 2
            assert record["build"]["gpu_peak_bytes"] is not None
            assert "memory.gpu_peak_bytes" not in record["not_measured"]
    assert {record["device"]["name"] for record in outcome.records} >= {"cpu"}
