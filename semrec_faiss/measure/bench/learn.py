"""``semrec bench learn``: what learning vectors of made-up interactions takes, and what more of them would take."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.interactions.hybrid import LearnSettings, learn
from semrec_faiss.data.interactions.profiles import user_vectors
from semrec_faiss.data.users import History
from semrec_faiss.measure.bench.record import SEED, BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.host_memory import HostPeak
from semrec_faiss.progress import Progress, silent

INTERACTIONS_A_USER = 154
"""As in ml-25m: 25,000,095 ratings of 162,541 users."""

TASTES = 64
DAY = 86_400
SETTINGS = LearnSettings()


@dataclass(frozen=True)
class LearnBench:
    """What to measure.

    Attributes:
        interactions: how many, from few to many; the last is predicted from those before it.
        titles: titles of the catalogue.
        dim: dimensions of their text vectors; 0: none.
    """

    interactions: tuple[int, ...] = (250_000, 1_000_000, 4_000_000)
    titles: int = 62_423
    dim: int = 384


class LearnRun(Part):
    """What learning from so many interactions took, in a process of its own.

    ``seconds`` and ``cpu_seconds`` are those of the titles' vectors, ``user_seconds`` those of the users' after it;
    ``peak_bytes`` is what was held at most beside the data, ``data_bytes`` the data.
    """

    interactions: AtLeastOne
    users: AtLeastOne
    seconds: Amount
    cpu_seconds: Amount
    user_seconds: Amount
    data_bytes: Count
    peak_bytes: Count | None


class LearnPrediction(Part):
    """What a straight line through the smaller runs says of the largest, beside what it was."""

    interactions: AtLeastOne
    cpu_seconds: Amount
    peak_bytes: Count | None
    measured_to_predicted_cpu: Amount
    measured_to_predicted_peak: Amount | None


class LearnResults(BenchResults):
    """A whole results file."""

    load_average_at_start: Amount | None
    titles: AtLeastOne
    text_dim: Count
    settings: LearnSettings
    seed: Count
    runs: list[LearnRun]
    prediction: LearnPrediction | None
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-learn-cpu.json``: it runs on a CPU."""
        return "bench-learn-cpu.json"


def bench_learn(bench: LearnBench, progress: Progress = silent) -> LearnResults:
    """Learn from made-up interactions, the fewest first, each in a process of its own."""
    load = load_average()
    runs = []
    for done, interactions in enumerate(sorted(bench.interactions)):
        progress(f"learning from {interactions:,} interactions", done, len(bench.interactions))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            runs.append(process.submit(_learned, replace(bench, interactions=(interactions,))).result())
    progress("learning", len(runs), len(runs))
    few = NotMeasured("a line needs two sizes below the one that it predicts")
    return LearnResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        titles=bench.titles,
        text_dim=bench.dim,
        settings=SETTINGS,
        seed=SEED,
        runs=runs,
        prediction=predicted(runs) if len(runs) > 2 else few,
    )


def made_up_history(interactions: int, titles: int, seed: int) -> History:
    """Return what made-up people did: each has one of 64 tastes, and half of what one sees is of that taste.

    Popularity falls as one over the square root of the rank. Nobody sees a title twice.

    Args:
        interactions: how many.
        titles: how many titles there are, several times `INTERACTIONS_A_USER`.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    users = max(1, interactions // INTERACTIONS_A_USER)
    tastes = random.integers(TASTES, size=titles)
    popularity = 1 / np.sqrt(1 + random.permutation(titles))
    pairs = np.empty(0, np.int64)
    while len(pairs) < interactions:
        missing = interactions - len(pairs)
        who = random.integers(users, size=2 * missing)
        rows = random.choice(titles, size=2 * missing, p=popularity / popularity.sum())
        new = np.setdiff1d(who * titles + _of_own_taste(rows, who % TASTES, tastes, random), pairs)
        pairs = np.concatenate((pairs, random.permutation(new)[:missing]))
    who, rows = np.divmod(np.sort(pairs), titles)
    liked = np.where(tastes[rows] == who % TASTES, 4.0, 3.0) + random.integers(-2, 3, size=len(rows)) / 2
    times = random.integers(3650, size=len(rows)) * DAY
    offsets = np.searchsorted(who, np.arange(users + 1))
    return History(offsets.astype(np.int64), rows.astype(np.int32), liked.astype(np.float32), times.astype(np.int64))


def _of_own_taste(rows: Rows, wanted: Rows, tastes: Rows, random: np.random.Generator) -> Rows:
    """Return the rows, half of them moved to a title of the taste that is wanted."""
    order = np.argsort(tastes, kind="stable")
    starts = np.searchsorted(tastes[order], np.arange(TASTES + 1))
    sizes = np.diff(starts)
    moved = (random.random(len(rows)) < 0.5) & (sizes[wanted] > 0)
    at = starts[wanted] + rows % np.maximum(sizes[wanted], 1)
    return np.where(moved, order[np.minimum(at, len(order) - 1)], rows)


def predicted(runs: list[LearnRun]) -> LearnPrediction:
    """Return what a straight line through all runs but the last says of the last.

    Args:
        runs: at least three, the one with most interactions last.
    """
    *smaller, last = runs
    at = [run.interactions for run in smaller]
    cpu = _line(at, [run.cpu_seconds for run in smaller], last.interactions)
    peaks = [run.peak_bytes for run in smaller if run.peak_bytes is not None]
    known = len(peaks) == len(smaller) and last.peak_bytes is not None
    peak = _line(at, peaks, last.interactions) if known else None
    return LearnPrediction(
        interactions=last.interactions,
        cpu_seconds=round(cpu, 2),
        peak_bytes=None if peak is None else round(peak),
        measured_to_predicted_cpu=round(last.cpu_seconds / cpu, 3),
        measured_to_predicted_peak=None if peak is None else round((last.peak_bytes or 0) / peak, 3),
    )


def _line(at: list[int], values: list[float] | list[int], wanted: int) -> float:
    slope, start = np.polyfit(at, values, 1)
    return float(start + slope * wanted)


def _learned(bench: LearnBench) -> LearnRun:
    (interactions,) = bench.interactions
    history = made_up_history(interactions, bench.titles, SEED)
    random = np.random.default_rng(SEED)
    falling = (1 / np.sqrt(1 + np.arange(bench.dim))).astype(np.float32)  # about a text model's spectrum
    texts = random.standard_normal((bench.titles, bench.dim), np.float32) * falling + np.float32(0.1)
    parts = (history.offsets, history.rows, history.ratings, history.timestamps, texts)
    data_bytes = sum(part.nbytes for part in parts if part is not None)
    learn(made_up_history(2_000, 500, SEED), 500, SETTINGS)  # imports are not learning
    peak = HostPeak()
    started, cpu = time.perf_counter(), time.process_time()
    vectors, _ = learn(history, texts if bench.dim else bench.titles, SETTINGS)
    learned, used = time.perf_counter(), time.process_time() - cpu
    for _ in user_vectors(history, vectors, SETTINGS.profile):
        pass
    ended, held = time.perf_counter(), peak.added_bytes()
    return LearnRun(
        interactions=len(history.rows),
        users=len(history.offsets) - 1,
        seconds=round(learned - started, 3),
        cpu_seconds=round(used, 3),
        user_seconds=round(ended - learned, 3),
        data_bytes=data_bytes,
        peak_bytes=held if isinstance(held, int) else None,
    )
