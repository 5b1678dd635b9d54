"""Test 3 of the guide: batches of users at once, and how throughput grows with their size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DeviceError
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.details import BatchDetails, BatchTimes, Kind
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Side, Sides, hearing_of_memory, steady
from semrec_faiss.measure.guide.record import BatchNumbers
from semrec_faiss.measure.instruments.timing import Timing
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

KEYS = ("total_time_ms", "time_per_query_ms", "throughput_qps")


def batches_test(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Search batches of users' vectors, on both sides; of made-up ones where there are too few users."""
    sizes = settings.batch.sizes
    queries, made_by = batch_queries(sides.cpu.recommender, max(sizes), settings.seed)
    rows: dict[int, BatchNumbers] = {}
    times: dict[str, BatchTimes] = {}
    heard: dict[Kind, list[str]] = {side.kind: [] for side in sides}
    for done, size in enumerate(sizes):
        timings: dict[Kind, Timing | NotMeasured] = {"gpu": sides.no_gpu}
        for number, side in enumerate(sides):
            progress("3 batches", 2 * done + number, 2 * len(sizes))
            with hearing_of_memory() as said:
                timings[side.kind] = _timed(side, queries[:size], settings)
            heard[side.kind] += said
        rows[size] = batch_numbers(timings, size)
        told = {f"{kind}_times": timing.told() for kind, timing in timings.items() if isinstance(timing, Timing)}
        times[f"batch_{size}"] = BatchTimes.model_validate(told)
    progress("3 batches", 2 * len(sizes), 2 * len(sizes))
    details = BatchDetails.model_validate({"queries": made_by, "memory_ran_out": heard, **times})
    guide = {f"batch_{size}": row for size, row in rows.items()}
    return Outcome(guide, details, batch_criteria(rows, heard, sides.main.kind, settings))


def batch_queries(recommender: Recommender, count: int, seed: int) -> tuple[Vectors, str]:
    """Return queries, float32 (count, dim), and what they are: users', evenly spread, where there are as many."""
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


def batch_numbers(timings: Mapping[Kind, Timing | NotMeasured], size: int) -> BatchNumbers:
    """Return the guide's three numbers of a batch by side: in all, per query, and queries per second.

    Args:
        timings: by side, or why there is none.
        size: queries of the batch.
    """
    numbers: dict[str, float | NotMeasured] = {}
    for kind, timing in timings.items():
        names = [BatchNumbers.name(kind, key) for key in KEYS]
        if isinstance(timing, NotMeasured):
            numbers |= dict.fromkeys(names, timing)
            continue
        total = timing.median_ms
        values = (round(total, 4), round(total / size, 6), round(1e3 * size / total, 1))
        numbers |= dict(zip(names, values, strict=True))
    return BatchNumbers.of(**numbers)


def batch_criteria(
    rows: Mapping[int, BatchNumbers], heard: Mapping[Kind, list[str]], kind: Kind, settings: CompareSettings
) -> list[Criterion]:
    """Judge throughput at 100, growth up to 1,000, and memory.

    Args:
        rows: the numbers by the batch's size.
        heard: what each side said about memory that ran out.
        kind: the side that is judged.
        settings: the targets.
    """
    speeds = {size: row.of_side(kind, "throughput_qps") for size, row in rows.items()}
    sizes = [size for size in speeds if size <= 1000]
    first, last = min(sizes, default=0), max(sizes, default=0)
    few, many, at_100 = (speeds.get(size) for size in (first, last, 100))
    growth = None if few is None or many is None or first == last else many / few
    failed = sum(speed is None for speed in speeds.values())
    return [
        Criterion.judge(
            3,
            "throughput",
            "queries a second in batches of 100",
            at_100,
            settings.batch.target_qps_at_100,
            "qps",
            at_least=True,
            reason=None if at_100 is not None else "no batch of 100 was searched",
        ),
        Criterion.judge(
            3,
            "scaling",
            f"throughput of {last:,} at once to that of {first:,}: at least linear",
            growth,
            1.0,
            "x",
            at_least=True,
            reason=None if growth is not None else "two batches of up to 1,000 are needed",
        ),
        Criterion.judge(
            3, "out_of_memory", "batches for which memory ran out", float(len(heard[kind]) + failed), 0.0, "count"
        ),
    ]
