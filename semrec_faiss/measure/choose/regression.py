"""Two sweeps side by side: trials that measured the same, and which of them got worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.measure.trials.record import Failed, Measured
from semrec_faiss.measure.trials.results import SweepResults

SAME = ("index", "filter", "k", "batch", "queries")
"""What two trials must share to be comparable, beside data and kind of device."""


@dataclass(frozen=True)
class Regression:
    """One number of one trial that got worse than is tolerated.

    Attributes:
        what: the trial.
        number: which.
        before: in the baseline.
        after: in the new sweep; None where the trial failed.
        limit: what it may be at worst.
    """

    what: str
    number: str
    before: float
    after: float | None
    limit: float


@dataclass(frozen=True)
class Comparison:
    """What became of a baseline's trials.

    Attributes:
        pairs: (baseline, new), both measured.
        regressions: numbers that got worse than is tolerated.
        lost: trials that the baseline measured and the new sweep does not have.
        added: trials that only the new sweep measured.
        other_hardware: the devices where they differ: (baseline's, new's).
    """

    pairs: tuple[tuple[Measured, Measured], ...]
    regressions: tuple[Regression, ...]
    lost: tuple[str, ...]
    added: tuple[str, ...]
    other_hardware: tuple[str, str] | None


def identity(record: Measured | Failed) -> str:
    """Return what a trial measures, whatever FAISS version, repeats and hardware it was measured with."""
    told = record.settings_as_json()
    device = {name: told["device"][name] for name in ("kind", "gpus", "float16")}
    return json.dumps([record.data.digest, device, *(told[name] for name in SAME)], sort_keys=True)


def compare(baseline: SweepResults, new: SweepResults, tolerance: float, recall_tolerance: float) -> Comparison:
    """Hold a sweep against an earlier one.

    A trial got worse when its median latency, its index's size or its GPU memory grew by more than ``tolerance``,
    when it finds less recall by more than ``recall_tolerance``, or when it fails now.

    Args:
        baseline: the earlier sweep.
        new: the later one.
        tolerance: a share: 0.1 for 10 %.
        recall_tolerance: an absolute difference.

    Raises:
        UsageError: the two have no trial in common.
    """
    before = {identity(record): record for record in baseline.measured}
    after = {identity(record): record for record in new.records}
    shared = [key for key in before if key in after]
    if not shared:
        raise UsageError(
            f"{baseline.folder} and {new.folder} have no trial in common",
            fix="compare sweeps of the same data, queries, k, batch sizes and index settings",
        )
    changes: list[Regression] = []
    pairs = []
    for key in shared:
        old, now = before[key], after[key]
        if isinstance(now, Failed):
            p50 = old.latency.p50_ms
            changes.append(Regression(f"{now.what}: {now.reason}", "failed", p50, None, p50))
            continue
        pairs.append((old, now))
        changes += _worse(old, now, tolerance, recall_tolerance)
    devices = [{record.hardware for record in results.records} for results in (baseline, new)]
    names = tuple(", ".join(sorted(each)) for each in devices)
    return Comparison(
        tuple(pairs),
        tuple(changes),
        tuple(before[key].what for key in before if key not in after),
        tuple(record.what for key, record in after.items() if key not in before and isinstance(record, Measured)),
        None if names[0] == names[1] else (names[0], names[1]),
    )


NUMBERS: dict[str, Callable[[Measured], float | None]] = {
    "p50_ms": lambda record: record.latency.p50_ms,
    "index_bytes": lambda record: record.build.index_bytes,
    "gpu_peak_bytes": lambda record: record.memory.gpu_peak_bytes,
}
"""Of which more is worse."""


def _worse(old: Measured, now: Measured, tolerance: float, recall_tolerance: float) -> list[Regression]:
    changes = []
    for name, value_of in NUMBERS.items():
        before, after = value_of(old), value_of(now)
        if before is not None and after is not None and after > before * (1 + tolerance):
            changes.append(Regression(now.what, name, before, after, before * (1 + tolerance)))
    before, after = old.quality.recall, now.quality.recall
    if before is not None and after is not None and after < before - recall_tolerance:
        changes.append(Regression(now.what, "recall", before, after, before - recall_tolerance))
    return changes


def parse_share(text: str) -> float:
    """Read ``10%`` or ``0.1``.

    Raises:
        UsageError: it is neither, or negative.
    """
    try:
        value = float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{quoted(text)} is not a tolerance", fix="for example: 10% or 0.1")
    return value
