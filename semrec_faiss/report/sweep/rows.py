"""A sweep's records as flat rows for charts and tables, and the choices that a page makes among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.report.page.charts import Row

ENOUGH = 0.95
"""The recall from which a setting stands for its index in charts that have room for one."""


def row_of(record: Measured) -> Row:
    """Flatten a measured record: names with their unit, None where something was not measured."""
    quality, latency = record.quality, record.latency
    interval = quality.recall_interval
    return {
        "data": record.data.name,
        "titles": record.data.titles,
        "dim": record.data.dim,
        "series": series_of(record),
        "setting": setting_of(record),
        "device": record.device.name,
        "filter": record.filter,
        "selectivity": quality.selectivity,
        "k": record.k,
        "batch": record.batch,
        "recall": quality.recall,
        "recall_low": None if interval is None else interval.low,
        "recall_high": None if interval is None else interval.high,
        "recall_titles": quality.recall_titles,
        "recall_users": quality.recall_users,
        "ndcg": quality.ndcg,
        "fill_rate": quality.fill_rate,
        "strategy": quality.strategy,
        "coverage": quality.coverage,
        "mean_ms": latency.mean_ms,
        "p50_ms": latency.p50_ms,
        "p95_ms": latency.p95_ms,
        "p99_ms": latency.p99_ms,
        "qps": latency.qps,
        "train_s": record.build.train_s,
        "add_s": record.build.add_s,
        "load_s": record.load.load_s,
        "cold_query_ms": record.load.cold_query_ms,
        "index_bytes": record.build.index_bytes,
        "memory_bytes": record.memory_bytes,
        "host_peak_bytes": record.memory.host_peak_bytes,
        "gpu_peak_bytes": record.memory.gpu_peak_bytes,
        "digest": record.digest,
    }


def series_of(record: Measured) -> str:
    """Name an index by what it is built as and how it lies on its device: all but its search settings."""
    index = record.index.model_dump(mode="json")
    build = {name: value for name, value in index.get("build", {}).items() if name not in ("seed", "nbits")}
    if build.get("efConstruction") == 200:
        build.pop("efConstruction")
    if build.get("directions") == "auto":  # each build's own choice, by its vectors
        build.pop("directions")
    parts = [index.get("factory") or index["type"], *(f"{name}={value}" for name, value in build.items())]
    parts += ["float16"] if record.device.float16 else []
    return " ".join(parts)


def setting_of(record: Measured) -> str:
    """Name the search settings, empty where there is none."""
    return " ".join(f"{name}={value}" for name, value in record.index.search if value is not None)


def where(records: Iterable[Measured], **wanted: Any) -> list[Measured]:
    """Return the records of which everything wanted is true: ``data``, ``filter``, ``k``, ``batch``, ``device``."""

    def read(record: Measured, name: str) -> Any:
        value = getattr(record, name)
        return value.name if name in ("data", "device") else value

    return [one for one in records if all(read(one, name) == value for name, value in wanted.items())]


def names_of(records: Iterable[Measured]) -> list[str]:
    """Return the data folders' names, in order."""
    return list(dict.fromkeys(record.data.name for record in records))


def measured_of(results: SweepResults, name: str) -> tuple[int, int]:
    """Return how many of a data folder's trials were measured, and how many were planned."""
    digests = {record.digest for record in results.measured if record.data.name == name}
    planned = {trial.digest for trial in results.plan.trials if trial.what.startswith(f"{name}: ")}
    return len(digests), len(planned | digests)


def by_series(records: Iterable[Measured]) -> dict[tuple[str, str], list[Measured]]:
    """Group records by index and device."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for record in records:
        groups.setdefault((series_of(record), record.device.name), []).append(record)
    return groups


def representative(records: Sequence[Measured]) -> Measured:
    """Return the fastest of one index's settings that finds `ENOUGH`, or else the one that finds most."""
    enough = [record for record in records if record.recall_or_0 >= ENOUGH]
    if enough:
        return min(enough, key=lambda record: record.latency.p50_ms)
    return max(records, key=lambda record: record.recall_or_0)


def representatives(records: Iterable[Measured]) -> list[Measured]:
    """Return one record an index and device; see `representative`."""
    return [representative(group) for group in by_series(records).values()]


def crossings(records: Sequence[Measured]) -> list[Row]:
    """Find between which batch sizes one index overtakes another in time a batch.

    Args:
        records: unfiltered, of one data folder, k and device.

    Returns:
        A row a pair of indexes: which is faster up to which batch size, and from which on the other is. Pairs of which
        one is always faster have None for the other; only those with flat are told.
    """
    lines = {}
    for (series, _), group in by_series(records).items():
        times = {}
        for batch in sorted({record.batch for record in group}):
            best = representative(where(group, batch=batch))
            times[batch] = (best.latency.p50_ms, best.recall_or_0)
        lines[series] = times
    rows = []
    for first, second in combinations(lines, 2):
        shared = sorted(set(lines[first]) & set(lines[second]))
        if not shared or "flat" not in (first.split()[0], second.split()[0]):
            continue
        faster = [first if lines[first][batch] <= lines[second][batch] else second for batch in shared]
        change = next((place for place in range(1, len(shared)) if faster[place] != faster[place - 1]), None)
        rows.append(
            {
                "faster": faster[0],
                "until": None if change is None else shared[change - 1],
                "other": second if faster[0] == first else first,
                "from": None if change is None else shared[change],
            }
        )
    return rows


def best_of(records: Sequence[Measured]) -> Measured | None:
    """Return the fastest record that finds `ENOUGH`, None where none does."""
    enough = [record for record in records if record.recall_or_0 >= ENOUGH]
    return min(enough, key=lambda record: record.latency.p50_ms, default=None)
