"""How long something takes: warm-up, repeats, and pairs whose ratios hold when the machine drifts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semrec_faiss.measure.documents.times import Times
from semrec_faiss.progress import Progress, silent

Work = Callable[[], object]

STEADY_CALLS = 3
"""Calls whose median is held against that of as many before them."""

STEADY_FALL = 0.05
"""A share by which the median may fall from one to the next and still count as steady."""

STEADY_WITHIN_S = 2.0
"""How long work may be warmed up until it is steady."""


@dataclass(frozen=True)
class Timing:
    """The times of one piece of work.

    Attributes:
        times_ms: every repeat, in the order run.
        warmups: calls beforehand that were not counted.
    """

    times_ms: tuple[float, ...]
    warmups: int = 0

    @property
    def median_ms(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return float(np.median(self.times_ms))

    @property
    def mean_ms(self) -> float:
        """All of them together over how many they are."""
        return float(np.mean(self.times_ms))

    @property
    def p95_ms(self) -> float:
        """What 95 % of the repeats stay under, linearly interpolated between the nearest two."""
        return float(np.percentile(self.times_ms, 95))

    @property
    def min_ms(self) -> float:
        """The fastest one: what the machine can do when nothing disturbs it."""
        return min(self.times_ms)

    def told(self) -> Times:
        """Return the numbers as a results file holds them, every repeat included."""
        return Times(
            median_ms=round(self.median_ms, 4),
            p95_ms=round(self.p95_ms, 4),
            min_ms=round(self.min_ms, 4),
            times_ms=[round(value, 4) for value in self.times_ms],
        )


@dataclass(frozen=True)
class PairedTimings:
    """The times of several pieces of work that took turns, so that the n-th repeats of all lie side by side.

    Attributes:
        timings: by name, equally many repeats each.
    """

    timings: Mapping[str, Timing]

    def ratios(self, name: str, baseline: str) -> tuple[float, ...]:
        """Return, round by round, how many times as long ``name`` took as ``baseline``."""
        pairs = zip(self.timings[name].times_ms, self.timings[baseline].times_ms, strict=True)
        return tuple(ours / theirs for ours, theirs in pairs)

    def median_ratio(self, name: str, baseline: str) -> float:
        """Return the median of `ratios`: a drift that both sides share cancels out of it."""
        return float(np.median(self.ratios(name, baseline)))

    def added_ms(self, name: str, baseline: str) -> tuple[float, ...]:
        """Return, round by round, how many milliseconds longer ``name`` took than ``baseline``; negative if shorter."""
        pairs = zip(self.timings[name].times_ms, self.timings[baseline].times_ms, strict=True)
        return tuple(ours - theirs for ours, theirs in pairs)

    def median_added_ms(self, name: str, baseline: str) -> float:
        """Return the median of `added_ms`."""
        return float(np.median(self.added_ms(name, baseline)))


def measure(function: Work, *, warmup: int, repeats: int) -> Timing:
    """Time ``function`` over and over.

    Args:
        function: the work; on a GPU it must return only when the GPU is done.
        warmup: calls beforehand that are not counted.
        repeats: calls that are, at least 1.
    """
    return measure_paired({"": function}, warmup=warmup, repeats=repeats).timings[""]


def measure_steady(function: Work, *, warmup: int, repeats: int, within_s: float = STEADY_WITHIN_S) -> Timing:
    """Time ``function`` over and over, once it has stopped getting faster.

    What is only done once - loading a library, compiling a kernel, capturing a CUDA graph at the second call of its
    kind - makes early calls slow, and how many of them no number fixed beforehand tells.

    Args:
        function: the work; on a GPU it must return only when the GPU is done.
        warmup: calls beforehand that are not counted, at least.
        repeats: calls that are, at least 1.
        within_s: more calls are made until the median of the last `STEADY_CALLS` is no more than `STEADY_FALL` under
            that of as many before them; no longer than this, which for slow work is ``warmup`` calls alone.
    """
    gc.collect()
    started = time.perf_counter()
    times: list[float] = []
    while len(times) < warmup or (not _is_steady(times) and time.perf_counter() - started < within_s):
        times.append(_elapsed_ms(function))
    return Timing(tuple(_elapsed_ms(function) for _ in range(repeats)), len(times))


def _is_steady(times: Sequence[float]) -> bool:
    if len(times) < 2 * STEADY_CALLS:
        return False
    before, last = times[-2 * STEADY_CALLS : -STEADY_CALLS], times[-STEADY_CALLS:]
    return bool(np.median(last) >= (1 - STEADY_FALL) * np.median(before))


def measure_paired(
    functions: Mapping[str, Work], *, warmup: int, repeats: int, what: str = "", progress: Progress = silent
) -> PairedTimings:
    """Time several functions in turns, A B C, B C A, C A B, …, so that none always runs first or after the same other.

    Args:
        functions: the work by name; each returns only when it is done.
        warmup: rounds beforehand that are not counted.
        repeats: rounds that are, at least 1.
        what: the step's name for ``progress``.
        progress: told the rounds done.
    """
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()  # what earlier work left behind is not part of this one's time
    for turn in range(warmup + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            elapsed_ms = _elapsed_ms(functions[name])
            if turn >= warmup:
                times[name].append(elapsed_ms)
        progress(what, turn + 1, warmup + repeats)
    return PairedTimings({name: Timing(tuple(values)) for name, values in times.items()})


def _elapsed_ms(function: Work) -> float:
    started = time.perf_counter()
    result = function()
    elapsed_ms = (time.perf_counter() - started) * 1e3
    del result  # freed after the clock has stopped
    return elapsed_ms
