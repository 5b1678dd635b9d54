"""From a sweep's trials and what is required to the best configuration, and why each of the others lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from semrec_faiss.arguments import number_from
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.measure.trials.record import Failed, Measured
from semrec_faiss.measure.trials.results import SweepResults, measured_of

By = Literal["qps", "p50", "p95", "recall", "memory", "build"]

GB = 1e9
NEAREST = 3
"""Misses that are shown where nothing meets the requirements."""


@dataclass(frozen=True)
class Wanted:
    """What a configuration must do; None requires nothing. Raises UsageError for what is not a number or out of range.

    Attributes:
        recall: at least this recall@k.
        p95_ms: at most this 95th percentile of the latency.
        p50_ms: at most this median latency.
        qps: at least this many queries per second.
        memory_gb: at most this much memory, in 10⁹ bytes, where the search runs.
        build_s: at most this long to train and fill.
        k: titles returned per query; the sweep's first by default.
        batch: queries searched at once; the sweep's first by default.
        where: the filter; none by default.
        device: ``cpu``, ``gpu`` or a name such as ``h200``; any by default.
        data: the data folder's name; needed where the sweep has several.
        by: what to choose by among those that meet all.

    Example:
        >>> from semrec_faiss import Wanted
        >>> Wanted(recall=0.95, p95_ms=5, by="memory").by
        'memory'
    """

    recall: float | None = None
    p95_ms: float | None = None
    p50_ms: float | None = None
    qps: float | None = None
    memory_gb: float | None = None
    build_s: float | None = None
    k: int | None = None
    batch: int | None = None
    where: str | None = None
    device: str | None = None
    data: str | None = None
    by: By = "qps"

    def __post_init__(self) -> None:
        """Refuse limits that are no numbers, or that nothing could be."""
        for name in ("recall", "p95_ms", "p50_ms", "qps", "memory_gb", "build_s"):
            if getattr(self, name) is not None:
                number_from(getattr(self, name), name, 0, 1 if name == "recall" else math.inf)


@dataclass(frozen=True)
class _Requirement:
    """One requirement: what it is about, its limit, and how to read and print the number."""

    name: str
    option: str
    limit: float
    at_least: bool
    value_of: Callable[[Measured], float | None]
    spell: Callable[[float], str]

    def missed_by(self, record: Measured) -> float:
        """By what share of the limit a record misses it: 0 when it meets it, infinite when it is not measured."""
        value = self.value_of(record)
        if value is None:
            return float("inf")
        short = self.limit - value if self.at_least else value - self.limit
        return max(0.0, short / self.limit) if self.limit else float(short > 0)

    def why(self, record: Measured) -> str:
        """Say how a record misses it."""
        value = self.value_of(record)
        if value is None:
            return f"{self.name} was not measured"
        sign = "<" if self.at_least else ">"
        return f"{self.name} {self.spell(value)} {sign} {self.spell(self.limit)}"


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        wanted: what was required, with k, batch and data filled in.
        winner: the best record that meets all; None where none does.
        runner_up: the next best.
        losers: every other record with the reason why it lost; failed ones included.
        nearest: where nothing meets all, the records that miss by least, with how.
        relax: what to relax so that one record meets all: the option with its value, and which record that is.
    """

    wanted: Wanted
    winner: Measured | None
    runner_up: Measured | None
    losers: tuple[tuple[Measured | Failed, str], ...]
    nearest: tuple[tuple[Measured, str], ...]
    relax: tuple[tuple[str, Measured], ...]


def pick(results: SweepResults | str | Path, wanted: Wanted) -> Choice:
    """Choose the best configuration of a sweep.

    Args:
        results: a sweep's results, or their folder.
        wanted: what it must do, and what to choose by.

    Raises:
        NotFoundError: there is no such sweep.
        UsageError: the sweep measured nothing of that k, batch size, filter, device or data folder.

    Example:
        >>> from semrec_faiss import Wanted, pick
        >>> chosen = pick("results/sweep-demo", Wanted(recall=0.95))  # which `semrec sweep` has made
        >>> chosen.winner.index.type, chosen.winner.quality.recall
        ('hnsw', 0.969)
    """
    if not isinstance(wanted, Wanted):
        raise UsageError(
            f"what is wanted is {quoted(wanted)} ({type(wanted).__name__})", fix="give a Wanted: Wanted(recall=0.95)"
        )
    found = results if isinstance(results, SweepResults) else SweepResults.read(results)
    wanted = _completed(found, wanted)
    candidates = [record for record in found.records if _is_asked_for(record, wanted)]
    measured = measured_of(candidates)
    if not measured:
        raise UsageError(f"no trial of {found.folder} measured what is asked for", fix=_offer(found))
    empty = [record for record in measured if record.quality.recall is None]
    measured = [record for record in measured if record not in empty]
    requirements = _requirements(wanted)
    order = _ORDERS[wanted.by]
    good = sorted((record for record in measured if not _misses(record, requirements)), key=order)
    losers: list[tuple[Measured | Failed, str]] = [
        (record, _why_behind(record, good[0], wanted.by)) for record in good[2:]
    ]
    losers += [(record, "; ".join(_misses(record, requirements))) for record in measured if record not in good]
    losers += [(record, "no title matches the filter") for record in empty]
    losers += [(record, f"failed: {record.reason}") for record in candidates if isinstance(record, Failed)]
    if good:
        return Choice(wanted, good[0], good[1] if len(good) > 1 else None, tuple(losers), (), ())
    nearest = sorted(measured, key=lambda one: (sum(each.missed_by(one) for each in requirements), order(one)))
    misses = tuple((record, "; ".join(_misses(record, requirements))) for record in nearest[:NEAREST])
    return Choice(wanted, None, None, tuple(losers), misses, tuple(_relaxations(measured, requirements, order)))


def _completed(results: SweepResults, wanted: Wanted) -> Wanted:
    """Fill in k, batch size and data folder, and refuse those that the sweep does not have."""
    if wanted.by not in get_args(By):
        raise UsageError(f"cannot choose by {quoted(wanted.by)}", fix=f"choose by {', '.join(get_args(By))}")
    sweep = results.plan.sweep
    names = list(dict.fromkeys(record.data.name for record in results.records))
    data = wanted.data
    if data is None and len(names) > 1:
        raise UsageError(f"{results.folder} has several data folders", fix=f"choose one: --data {' or '.join(names)}")
    return replace(
        wanted,
        k=sweep.k[0] if wanted.k is None else wanted.k,
        batch=sweep.batch[0] if wanted.batch is None else wanted.batch,
        data=next(iter(names), None) if data is None else data,
    )


def _is_asked_for(record: Measured | Failed, wanted: Wanted) -> bool:
    on = record.device
    device = wanted.device is None or wanted.device in (on.kind, on.name)
    same = record.k == wanted.k and record.batch == wanted.batch and record.filter == wanted.where
    return same and device and record.data.name == wanted.data


def _offer(results: SweepResults) -> str:
    """Say which k, batch sizes, filters, devices and data folders a sweep has."""
    records = results.measured
    parts = {
        "-k": {str(record.k): None for record in records},
        "--batch": {str(record.batch): None for record in records},
        "--device": {record.device.name: None for record in records},
        "--data": {record.data.name: None for record in records},
        "--where": {repr(record.filter): None for record in records if record.filter},
    }
    return "; ".join(f"{option} {' or '.join(values)}" for option, values in parts.items() if values)


def _requirements(wanted: Wanted) -> list[_Requirement]:
    def memory(record: Measured) -> float | None:
        return None if record.memory_bytes is None else record.memory_bytes / GB

    all_of_them: list[tuple[str, str, float | None, bool, Callable[[Measured], float | None], Callable[[float], str]]]
    all_of_them = [
        ("recall", "--recall", wanted.recall, True, lambda one: one.quality.recall, lambda value: f"{value:.4g}"),
        ("p95", "--p95-ms", wanted.p95_ms, False, lambda one: one.latency.p95_ms, _as_ms),
        ("p50", "--p50-ms", wanted.p50_ms, False, lambda one: one.latency.p50_ms, _as_ms),
        ("throughput", "--qps", wanted.qps, True, lambda one: one.latency.qps, _as_qps),
        ("memory", "--memory-gb", wanted.memory_gb, False, memory, _as_gb),
        ("build", "--build-s", wanted.build_s, False, lambda one: one.build_s, lambda value: f"{value:.3g} s"),
    ]
    return [
        _Requirement(name, option, limit, at_least, value_of, spell)
        for name, option, limit, at_least, value_of, spell in all_of_them
        if limit is not None
    ]


def _as_ms(value: float) -> str:
    return f"{value:.3g} ms"


def _as_qps(value: float) -> str:
    return f"{value:,.0f} queries/s"


def _as_gb(value: float) -> str:
    return f"{value:.3g} GB" if value >= 0.001 else "< 1 MB"


def _misses(record: Measured, requirements: Sequence[_Requirement]) -> list[str]:
    return [each.why(record) for each in requirements if each.missed_by(record) > 0]


def _known(value: float | None) -> float:
    return float("inf") if value is None else float(value)


_ORDERS: dict[str, Callable[[Measured], tuple[float, ...]]] = {
    # The first number decides; then more recall, then speed.
    "qps": lambda one: (-one.latency.qps, -one.recall_or_0),
    "p50": lambda one: (one.latency.p50_ms, -one.recall_or_0),
    "p95": lambda one: (one.latency.p95_ms, -one.recall_or_0),
    "recall": lambda one: (-one.recall_or_0, -one.latency.qps),
    "memory": lambda one: (_known(one.memory_bytes), -one.latency.qps),
    "build": lambda one: (one.build_s, -one.latency.qps),
}

_SPELLED: dict[str, Callable[[Measured], str]] = {
    "qps": lambda one: _as_qps(one.latency.qps),
    "p50": lambda one: _as_ms(one.latency.p50_ms),
    "p95": lambda one: _as_ms(one.latency.p95_ms),
    "recall": lambda one: f"recall {one.recall_or_0:.4f}",
    "memory": lambda one: _as_gb(_known(one.memory_bytes) / GB),
    "build": lambda one: f"{one.build_s:.3g} s",
}


def _why_behind(record: Measured, winner: Measured, by: By) -> str:
    return f"meets all, but {_SPELLED[by](record)} against the winner's {_SPELLED[by](winner)}"


def _relaxations(
    records: Sequence[Measured], requirements: Sequence[_Requirement], order: Callable[[Measured], tuple[float, ...]]
) -> list[tuple[str, Measured]]:
    """Find for each requirement the least change of it alone, or else of several, that lets a record meet all."""
    found = []
    for each in requirements:
        others = [other for other in requirements if other is not each]
        able = [one for one in records if not _misses(one, others) and each.value_of(one) is not None]
        if able:
            best = min(able, key=lambda one: (each.missed_by(one), order(one)))
            found.append((_just_met(each, best), best))
    if not found:  # no single one is enough: all that the nearest misses
        known = [one for one in records if all(each.value_of(one) is not None for each in requirements)]
        if known:
            best = min(known, key=lambda one: (sum(each.missed_by(one) for each in requirements), order(one)))
            missed = [each for each in requirements if each.missed_by(best) > 0]
            found.append((" ".join(_just_met(each, best) for each in missed), best))
    return found


def _just_met(each: _Requirement, record: Measured) -> str:
    value = _known(each.value_of(record))
    return f"{each.option} {_rounded_so_that_it_holds(value, at_least=each.at_least)}"


def _rounded_so_that_it_holds(value: float, *, at_least: bool) -> str:
    """Round to three digits, down for a lower limit and up for an upper one."""
    from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

    exact = Decimal(repr(value))
    step = Decimal(1).scaleb(exact.adjusted() - 2) if exact else Decimal(1)
    return format(exact.quantize(step, rounding=ROUND_FLOOR if at_least else ROUND_CEILING).normalize(), "f")
