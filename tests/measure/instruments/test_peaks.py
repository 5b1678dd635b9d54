"""Peak memory of this process, and what makes a trial hopeless."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_records
import numpy as np
import pytest

from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments import host_memory as host_peak
from semrec_faiss.measure.instruments.host_memory import UNTOLD, HostPeak
from semrec_faiss.measure.sweep.prune import hopeless

MB = 1_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its own peak")
def test_host_peak_is_what_was_held_beyond_the_start_and_can_be_forgotten() -> None:
    held = np.ones(100 * MB // 8)
    peak = HostPeak()
    if peak.added_bytes() == UNTOLD:
        pytest.skip("this container does not let a process reset its own peak")
    block = np.ones(200 * MB // 8)
    del block
    first = peak.added_bytes()
    peak.reset()
    second = peak.added_bytes()
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert 150 * MB < first < 250 * MB, "what was held before does not count"
    assert second < 50 * MB
    assert held.size


def test_host_peak_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_peak, "_CLEAR", tmp_path / "no" / "such")
    assert isinstance(HostPeak().added_bytes(), NotMeasured)
    monkeypatch.setattr(host_peak, "_STATUS", tmp_path / "no" / "status")
    assert isinstance(HostPeak().added_bytes(), NotMeasured)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({1: 0.5, 2: 0.8}, None),
        ({1: 0.5, 2: 0.9995}, "nprobe 2 finds 0.9995 already"),
        ({1: 0.5, 2: 0.97, 3: 0.9705}, "recall has stopped to grow: 0.9700 at nprobe 2, 0.9705 at 3"),
        ({1: 0.97, 2: 0.97, 3: 0.99}, None),  # it has begun to grow again
        ({5: 1.0, 6: 1.0}, None),  # dearer ones tell nothing
        ({1: 0.9995}, "nprobe 1 finds 0.9995 already"),
        ({}, None),
    ],
)
def test_hopeless(
    tmp_path: Path, tiny_data: Any, tiny_plan: Callable[..., Any], known: dict[int, float], reason: str | None
) -> None:
    grid = [{"type": "ivf_flat", "build": {"nlist": 6}, "search": {"nprobe": [1, 2, 3, 4, 5, 6]}}]
    plan = tiny_plan(tmp_path, tiny_data.root, grid=grid, filters=[], batch=1)
    trials = {trial.effort[0]: trial for trial in plan.trials}
    records = [
        made_records.measured("x", recall, 1.0, **trials[nprobe].settings.settings_as_json())
        for nprobe, recall in known.items()
    ]
    assert hopeless(trials[4], records) == reason
    others = [
        made_records.measured("x", recall, 1.0, **trials[nprobe].settings.settings_as_json() | {"batch": 99})
        for nprobe, recall in known.items()
    ]
    assert hopeless(trials[4], others) is None, "other trials tell nothing of this one"
