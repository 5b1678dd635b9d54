"""Test 3 of the guide: batches of users at once, and how throughput grows with their size."""

from __future__ import annotations

from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DeviceError
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.sides import Outcome, Side, Sides, hearing_of_memory, steady
from semrec_faiss.measure.instruments.timing import Timing
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

KEYS = ("total_time_ms", "time_per_query_ms", "throughput_qps")


def batches_test(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Search batches of users' vectors, on both sides; of made-up ones where there are too few users."""
    sizes = settings.batch.sizes
    queries, made_by = batch_queries(sides.cpu.recommender, max(sizes), settings.seed)
    guide: dict[str, Any] = {}
    details: dict[str, Any] = {"queries": made_by}
    heard: dict[str, list[str]] = {side.kind: [] for side in sides}
    for done, size in enumerate(sizes):
        row: dict[str, Any] = dict.fromkeys(KEYS, sides.no_gpu) if sides.gpu is None else {}
        times: dict[str, Any] = {}
        for number, side in enumerate(sides):
            progress("3 batches", 2 * done + number, 2 * len(sizes))
            with hearing_of_memory() as said:
                timing = _timed(side, queries[:size], settings)
            heard[side.kind] += said
            prefix = "" if side.kind == "gpu" else "cpu_"
            row |= {f"{prefix}{key}": value for key, value in figures(timing, size).items()}
            if isinstance(timing, Timing):
                times[f"{side.kind}_times"] = timing.as_dict()
        guide[f"batch_{size}"] = row
        details[f"batch_{size}"] = times
    progress("3 batches", 2 * len(sizes), 2 * len(sizes))
    details["memory_ran_out"] = heard
    return Outcome(guide, details, batch_criteria(guide, heard, sides.main.kind, settings))


def batch_queries(recommender: Recommender, count: int, seed: int) -> tuple[Vectors, str]:
    """Return ``count`` query vectors and what they are: users', evenly spread, where there are as many."""
    users = recommender.saved.users
    if users is not None and users.count >= count:
        rows = np.linspace(0, users.count - 1, count).astype(np.int64)
        return np.ascontiguousarray(users.vectors[rows]), "users"
    return made_up_queries(recommender.index, count, seed), f"made up between titles, seed {seed}"


def _timed(side: Side, queries: Vectors, settings: CompareSettings) -> Timing | NotMeasured:
    k = settings.batch.k
    try:
        return steady(lambda: side.recommender.search(queries, k), settings.repeats)
    except DeviceError as error:
        return NotMeasured(error.message)


def figures(timing: Timing | NotMeasured, size: int) -> dict[str, float | NotMeasured]:
    """Return the guide's three numbers of a batch: in all, a query, and queries a second."""
    if isinstance(timing, NotMeasured):
        return dict.fromkeys(KEYS, timing)
    total = timing.median_ms
    values = (round(total, 4), round(total / size, 6), round(1e3 * size / total, 1))
    return dict(zip(KEYS, values, strict=True))


def batch_criteria(
    guide: dict[str, Any], heard: dict[str, list[str]], kind: str, settings: CompareSettings
) -> list[Criterion]:
    """Judge throughput at 100, growth up to 1,000, and memory.

    Args:
        guide: the rows by ``batch_N``.
        heard: what each side said about memory that ran out.
        kind: the side that is judged, ``gpu`` or ``cpu``.
        settings: the targets.
    """
    prefix = "" if kind == "gpu" else "cpu_"

    def value(size: int, key: str) -> float | None:
        found = guide.get(f"batch_{size}", {}).get(f"{prefix}{key}")
        return None if found is None or isinstance(found, NotMeasured) else float(found)

    sizes = [size for size in settings.batch.sizes if size <= 1000]
    first, last = min(sizes, default=0), max(sizes, default=0)
    few, many = value(first, "throughput_qps"), value(last, "throughput_qps")
    growth = None if few is None or many is None or first == last else many / few
    failed = [
        f"{size} queries"
        for size in settings.batch.sizes
        if isinstance(guide[f"batch_{size}"][f"{prefix}total_time_ms"], NotMeasured)
    ]
    qps = value(100, "throughput_qps")
    return [
        Criterion(
            3,
            "throughput",
            "queries a second in batches of 100",
            qps,
            settings.batch.target_qps_at_100,
            True,
            "qps",
            None if qps is not None else "no batch of 100 was searched",
        ),
        Criterion(
            3,
            "scaling",
            f"throughput of {last:,} at once to that of {first:,}: at least linear",
            growth,
            1.0,
            True,
            "x",
            None if growth is not None else "two batches of up to 1,000 are needed",
        ),
        Criterion(
            3,
            "out_of_memory",
            "batches for which memory ran out",
            float(len(heard[kind]) + len(failed)),
            0.0,
            False,
            "count",
        ),
    ]
