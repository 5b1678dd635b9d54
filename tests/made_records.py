"""Records of trials that nobody measured, whole and sound: what a test is about is given, the rest is as usual."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.profile import Profile
from semrec_faiss.measure.evaluate.record import MeasuredProfile, ProfileSettings, Summary
from semrec_faiss.measure.trials.plan_record import SWEEP_PLAN, SweepPlan
from semrec_faiss.measure.trials.record import Failed, Measured, TrialSettings

SETTINGS: dict[str, Any] = {
    "data": {"name": "films", "digest": "d", "titles": 100, "dim": 8},
    "index": {"type": "flat"},
    "device": {
        "kind": "cpu",
        "name": "cpu",
        "gpus": [],
        "float16": False,
        "temp_memory_mb": None,
        "processor": None,
    },
    "filter": None,
    "k": 10,
    "batch": 1,
    "queries": {"titles": 1, "users": 0, "seed": 7},
    "repeats": 1,
    "warmup": 0,
    "slice": None,
    "faiss": "1",
}

STAMP: dict[str, Any] = {
    "date": "2026-01-01",
    "command": "semrec sweep",
    "git": None,
    "versions": {},
    "os": "Linux",
    "cpu": {"model": None, "usable_cores": 1},
    "faiss_threads": 1,
    "gpus": [],
}


def settings(**changes: Any) -> dict[str, Any]:
    """What a trial measures, with its digest in the first format."""
    values = SETTINGS | changes
    index = TypeAdapter(IndexConfig).validate_python(values["index"])
    values["index"] = index.model_dump(mode="json")
    return values | {"digest": TrialSettings.model_validate(values).digest_in("trial-1")}


def latency(p50: float, p95: float, qps: float, batch: int) -> dict[str, Any]:
    """21 times that have these percentiles and this mean."""
    times = [p50] * 19 + [p95]
    times.append(21e3 * batch / qps - sum(times))
    assert times[-1] >= p95 - 1e-9, "no times have such a median and such a mean"
    names = zip(("p50_ms", "p95_ms", "p99_ms"), np.percentile(times, (50, 95, 99)).tolist(), strict=True)
    return {"mean_ms": float(np.mean(times)), **dict(names), "qps": qps, "times_ms": times}


def measured(
    label: str,
    recall: float | None,
    p50: float,
    p95: float | None = None,
    qps: float | None = None,
    host_bytes: int | None = 0,
    **changes: Any,
) -> Measured:
    """A trial that was measured; ``changes`` are of its settings, or replace a part of its results."""
    told = settings(**{name: value for name, value in changes.items() if name in SETTINGS})
    speed = latency(p50, p95 or p50, qps or 1e3 * told["batch"] / p50, told["batch"])
    reasons = dict.fromkeys(
        (
            "build.gpu_peak_bytes",
            "memory.gpu_peak_bytes",
            "memory.host_peak_bytes",
            "quality.recall",
            "quality.recall_interval",
            "quality.recall_titles",
            "quality.recall_users",
            "quality.ndcg",
            "quality.fill_rate",
            "quality.by_popularity",
            "quality.by_slice",
        ),
        "not asked for",
    )
    results = {
        "build": {
            "train_s": 1.0,
            "add_s": 0.5,
            "index_bytes": 1000,
            "originals_bytes": 0,
            "host_peak_bytes": 0,
            "gpu_peak_bytes": None,
            "notes": [],
        },
        "load": {"load_s": 0.0, "cold_query_ms": 1.0},
        "quality": {
            "recall": recall,
            "recall_interval": None,
            "recall_titles": recall,
            "recall_users": None,
            "ndcg": None,
            "fill_rate": None,
            "matching": told["data"]["titles"],
            "selectivity": 1.0,
            "coverage": 0.5,
            "coverage_exact": 0.5,
            "by_popularity": None,
            "by_slice": None,
            "strategy": "index",
        },
        "latency": speed,
        "memory": {"host_peak_bytes": host_bytes, "gpu_peak_bytes": None},
        "examples": [],
        "not_measured": reasons,
        "elapsed_s": 1.0,
    }
    others = {name: value for name, value in changes.items() if name not in SETTINGS}
    return Measured.model_validate({"status": "measured", "reason": None, "label": label, **told, **results, **others})


def failed(label: str, reason: str, **changes: Any) -> Failed:
    """A trial that failed."""
    return Failed.model_validate({"status": "failed", "reason": reason, "label": label, **settings(**changes)})


def plan(*records: Measured | Failed, **sweep: Any) -> SweepPlan:
    """The plan of a sweep of these trials."""
    asked = {
        "dataset": ["data/films"],
        "queries": {"titles": 1, "users": 0, "seed": 7},
        "k": [10],
        "batch": [1],
        "repeats": 1,
        "warmup": 0,
    }
    trials = [{"digest": record.digest, "what": record.label, "pruned": None} for record in records]
    return SWEEP_PLAN.validate_python(
        {"name": "films", "sweep": asked | sweep, "environment": STAMP, "trials": trials, "invalid": []}
    )


def lists(ndcg: float) -> dict[str, Any]:
    """Numbers of lists of one length, of which the nDCG alone differs."""
    ends = {"low": ndcg - 0.1, "high": ndcg + 0.1}
    means = {name: {"mean": ndcg, "interval": ends} for name in ("hit_rate", "recall", "ndcg", "mrr")}
    return means | {"novelty": {"mean": 5.0, "interval": ends}, "coverage": 0.5}


def summary(ndcg: float) -> Summary:
    """Numbers of lists of both lengths."""
    return Summary.model_validate({"at_10": lists(ndcg), "at_100": lists(ndcg)})


def profile(label: str, ndcg: float) -> MeasuredProfile:
    """A profile that was measured."""
    index = {"name": "ml", "digest": "d", "settings": {}, "exact": True, "titles": 9, "users": 9, "ratings": 9}
    told = {
        "index": index,
        "device": {"kind": "cpu", "float16": False},
        "profile": Profile(),
        "faiss": "1",
        "protocol": {"held_out": 1, "liked": 4.0, "users": 1, "seed": 7, "strict": True},
    }
    head = {"digest": ProfileSettings.model_validate(told).settings_digest, "reason": None, "label": label}
    results = {"users_evaluated": 9, "not_measured": {}, "elapsed_s": 1.0, **summary(ndcg).as_json()}
    return MeasuredProfile.model_validate({"status": "measured", **head, **told, **results})
