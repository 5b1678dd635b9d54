"""A tiny sweep, and what of its records is the same at every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from semrec_faiss.measure.sweep.plan import TrialsPlan, make_plan
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.measure.trials.record import Failed, Measured

TINY: dict[str, Any] = {
    "name": "tiny",
    "queries": {"titles": 20, "users": 10, "seed": 3},
    "k": 5,
    "batch": [1, 8],
    "filters": ["'Western' IN genres"],
    "slice": "genres",
    "repeats": 2,
    "warmup": 0,
    "grid": [
        {"type": "flat", "device": "cpu"},
        {"type": "ivf_flat", "device": "cpu", "build": {"nlist": 6}, "search": {"nprobe": [1, 2, 6]}},
    ],
}


def make_tiny_plan(folder: Path, data: Path, **changes: Any) -> TrialsPlan:
    """Plan a sweep over ``data`` whose results go to ``folder``/results/tiny."""
    values = TINY | {"dataset": str(data), "results": str(folder / "results")} | changes
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return make_plan(*load_sweep_file(path))


def lasting(of: Measured | Failed) -> dict[str, Any]:
    """Leave out of a record what differs from run to run: times, memory, the date, what else the machine did."""
    varies = ("latency", "memory", "load", "environment", "elapsed_s", "others_used_cores")
    record = of.as_json()
    kept = {name: value for name, value in record.items() if name not in varies}
    kept["not_measured"] = {name: why for name, why in record.get("not_measured", {}).items() if name not in varies}
    if "build" in kept:
        kept["build"] = {name: kept["build"][name] for name in ("index_bytes", "originals_bytes", "notes")}
    return kept | {"times": len(record["latency"]["times_ms"]) if "latency" in record else None}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Any:
    """A data folder of 300 titles and 20 users."""
    return make_folder(tmp_path_factory.mktemp("tiny") / "data", titles=300, dim=16, users=20)


@pytest.fixture(scope="session")
def tiny_plan() -> Callable[..., TrialsPlan]:
    """`make_tiny_plan`: plans a small sweep."""
    return make_tiny_plan


@pytest.fixture(scope="session")
def lasting_part() -> Callable[[Measured | Failed], dict[str, Any]]:
    """`lasting`: the part of a record that is the same at every run."""
    return lasting
