"""A sweep that is killed at random instants, and run again, gives the same table as an unbroken one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, run_python

from semrec_faiss.measure.trials.results import SweepResults

KILLS = 20

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")]


def test_killed_at_twenty_random_instants(
    tmp_path: Path, tiny_data: Any, tiny_plan: Callable[..., Any], lasting_part: Callable[..., Any]
) -> None:
    tiny_plan(tmp_path, tiny_data.root, filters=[])
    told = (Path(__file__).with_name("kill_sweeps.py"), tmp_path / "sweep.yaml", KILLS)
    done = run_python(*told, seconds=2 * HANG_SECONDS, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    seen = json.loads(done.stdout)
    assert len(seen["outcomes"]) >= KILLS
    assert all(one["after"] >= one["before"] for one in seen["outcomes"]), "what was measured is never lost"
    assert sum(one["after"] > one["before"] for one in seen["outcomes"]) >= 5, "kills must hit sweeps at work"
    unbroken = SweepResults.read(tmp_path / "results" / "unbroken")
    expected = [lasting_part(record) for record in unbroken.records]
    assert len(expected) == 8
    for number in range(seen["sweeps"]):
        killed = SweepResults.read(tmp_path / "results" / f"killed{number}")
        assert [lasting_part(record) for record in killed.records] == expected
        assert len((killed.folder / "trials.jsonl").read_text().splitlines()) == 8, "no trial was measured twice"
