"""bench learn: the made-up history, the line through the runs, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Semrec

from semrec_faiss.measure.bench.learn import TASTES, LearnRun, made_up_history, predicted


def test_people_see_titles_once_and_prefer_their_own_taste() -> None:
    made = made_up_history(20_000, 40_000, seed=3)
    users = len(made.offsets) - 1
    assert users == 20_000 // 154
    assert len(made.rows) == 20_000
    who = np.repeat(np.arange(users), np.diff(made.offsets))
    assert len(np.unique(who * 40_000 + made.rows)) == len(made.rows)
    assert made.rows.min() >= 0 and made.rows.max() < 40_000
    tastes = np.random.default_rng(3).integers(TASTES, size=40_000)
    own = tastes[made.rows] == who % TASTES
    assert 0.4 < own.mean() < 0.6  # about half of them are moved to it; by chance it would be one in 64
    assert made.ratings is not None
    assert made.ratings[own].mean() == pytest.approx(4.0, abs=0.02)
    assert made.ratings[~own].mean() == pytest.approx(3.0, abs=0.02)


def _run(interactions: int, cpu: float, peak: int | None) -> LearnRun:
    return LearnRun(
        interactions=interactions, users=1, seconds=cpu, cpu_seconds=cpu, user_seconds=0, data_bytes=1, peak_bytes=peak
    )


def test_the_largest_run_is_predicted_by_a_line_through_the_others() -> None:
    told = predicted([_run(1_000, 3.0, 500), _run(2_000, 5.0, 700), _run(10_000, 42.0, 2_530)])
    assert told.cpu_seconds == 21.0  # 1 + 2 a thousand
    assert told.peak_bytes == 2_300
    assert told.measured_to_predicted_cpu == 2.0
    assert told.measured_to_predicted_peak == 1.1
    assert predicted([_run(1, 1, 1), _run(2, 1, None), _run(3, 1, 1)]).peak_bytes is None


@pytest.mark.slow
def test_the_command_writes_every_run_and_says_what_was_predicted(tmp_path: Path, semrec: Semrec) -> None:
    sizes = [part for size in (4_000, 2_000, 8_000) for part in ("--interactions", str(size))]
    result = semrec("bench", "learn", *sizes, "--titles", "300", "--dim", "16", "--out", tmp_path)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "bench-learn-cpu.json").read_text())
    assert [run["interactions"] for run in document["runs"]] == [2_000, 4_000, 8_000]
    assert all(run["cpu_seconds"] > 0 and run["seconds"] > 0 for run in document["runs"])
    assert document["prediction"]["interactions"] == document["runs"][2]["interactions"]
    assert "the fewer predict" in result.out
