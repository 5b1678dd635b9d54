"""How long a sweep will take: what was measured before counts as it was, the rest by the work that it is."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np

from semrec_faiss.config.index_types import FactoryIndex, FlatIndex, FusedIndex, HnswIndex
from semrec_faiss.index.memory.stored_bytes import lists_of
from semrec_faiss.measure.trials.record import Failed, Measured
from semrec_faiss.measure.trials.tested_index import MOST_REPEATS
from semrec_faiss.measure.trials.trial import Trial

CLUSTERING_ROUNDS = 10
"""Of FAISS's k-means when it trains inverted lists."""

POINTS_A_LIST = 256
"""Vectors that FAISS trains with at most for each list."""

GRAPH_SHARE = 0.02
"""Of a matrix product's speed, at which a graph's random accesses compare vectors."""

LIST_SHARE = 0.15
"""Of a matrix product's speed, at which inverted lists are scanned."""

GPU_FLOPS = 20e12
"""Of a float32 matrix product on a data-centre GPU; its calls take `GPU_CALL_S` besides."""

GPU_CALL_S = 2e-4
CALL_S = 1e-4
TRIAL_S = 0.05
"""What a trial takes beside its searches: scoring the answers, writing the record."""


class Estimate:
    """Seconds that trials and builds will take on this machine, corrected by what they have taken so far."""

    def __init__(self, trials: Sequence[Trial], records: Mapping[str, Measured | Failed]) -> None:
        self._trials = {trial.digest: trial for trial in trials}
        self._builds: dict[str, Trial] = {}
        for trial in trials:
            self._builds.setdefault(trial.build_key, trial)
        self._records = records
        self._all: float | None = None

    def seconds(self, digests: Collection[str]) -> float:
        """Return the time for these trials and the indexes that they need."""
        trials = [self._trials[digest] for digest in digests]
        builds = {trial.build_key for trial in trials}
        return sum(map(self._trial_s, trials)) + sum(build_seconds(self._builds[key]) for key in builds)

    def seconds_left(self, left: Collection[str], spent: float) -> float:
        """Return the time for what is left, in proportion to what the trials that are done took.

        Args:
            left: the digests of the trials to come.
            spent: seconds since the beginning of the run.
        """
        remaining = self.seconds(left)
        if self._all is None:  # the first trial of this run is done
            self._all = remaining + max(spent, 1e-3)
        done = max(self._all - remaining, 1e-3)
        return remaining * min(10.0, max(0.1, spent / done))

    def _trial_s(self, trial: Trial) -> float:
        known = self._records.get(trial.digest)
        return known.elapsed_s if isinstance(known, Measured) else trial_seconds(trial)


def trial_seconds(trial: Trial) -> float:
    """Estimate how long a trial takes: its repeats, and one search of all questions."""
    asked = trial.protocol.queries.titles + trial.protocol.queries.users
    repeats = max(trial.protocol.repeats, min(MOST_REPEATS * trial.protocol.repeats, asked // trial.batch))
    queries = (repeats + trial.protocol.warmup) * trial.batch + asked
    calls = repeats + trial.protocol.warmup + 1
    call_s = GPU_CALL_S if trial.device.gpus else CALL_S
    if not trial.device.gpus and isinstance(trial.index, FlatIndex | FusedIndex) and trial.batch == 1:
        queries *= 8  # bound by memory and not by arithmetic
    return TRIAL_S + calls * call_s + 2 * queries * _compared(trial) * trial.data.dim / _flops(trial)


def build_seconds(trial: Trial) -> float:
    """Estimate how long building a trial's index, writing and loading it takes."""
    titles, dim = trial.data.titles, trial.data.dim
    copied = 4e-9 * 4 * titles * dim
    nlist = lists_of(trial.index) if not isinstance(trial.index, FlatIndex | HnswIndex) else 0
    if isinstance(trial.index, HnswIndex):
        compared = int(trial.index.build.efConstruction) * int(trial.index.build.M)
        return copied + 2.0 * titles * compared * dim / (GRAPH_SHARE * 4 * cpu_flops())
    trained = CLUSTERING_ROUNDS * min(titles, max(POINTS_A_LIST * nlist, 1 << 16))
    speed = GPU_FLOPS if trial.device.gpus else cpu_flops()
    return copied + 2.0 * (trained + titles) * nlist * dim / speed


def _compared(trial: Trial) -> float:
    """Return how many vectors a query is compared with, or the like of it."""
    index, titles = trial.index, trial.data.titles
    if isinstance(index, HnswIndex):
        return 2.0 * int(index.search.efSearch) * int(index.build.M) / 4
    nlist = 0 if isinstance(index, FlatIndex) else lists_of(index)
    if not nlist:
        return float(titles)
    nprobe = int(getattr(index.search, "nprobe", None) or (1 if isinstance(index, FactoryIndex) else nlist))
    return nlist + titles * min(1.0, nprobe / nlist)


def _flops(trial: Trial) -> float:
    if trial.device.gpus:
        return GPU_FLOPS if isinstance(trial.index, FlatIndex | FusedIndex) else GPU_FLOPS * LIST_SHARE
    share = {FlatIndex: 1.0, FusedIndex: 1.0, HnswIndex: GRAPH_SHARE}.get(type(trial.index), LIST_SHARE)
    return cpu_flops() * share


@lru_cache(maxsize=1)
def cpu_flops() -> float:
    """Measure how many float32 operations a second a matrix product does here; takes some hundredths of a second."""
    random = np.random.default_rng(0)
    left, right = (random.random((1024, 256), dtype=np.float32) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        left @ right.T
        best = min(best, time.perf_counter() - started)
    return 2 * 1024 * 1024 * 256 / best
