"""One index of a sweep: built once, loaded once a device, searched with all its settings; a record a trial."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.errors import StorageError
from semrec_faiss.index.factory import holds_vectors_exactly
from semrec_faiss.index.generations.file_names import BOUNDS_NAME
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.manifest import Screening
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.saved.saved_index import INDEX_NAME, read_for_search
from semrec_faiss.index.screening.bounds import DIRECTIONS_NAME, Rounding
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.screening.written import write_screening
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.results import NotMeasured, Unsettled
from semrec_faiss.measure.instruments.gpu_memory import GpuMemoryWatch
from semrec_faiss.measure.instruments.host_memory import HostPeak
from semrec_faiss.measure.instruments.timing import measure, measure_steady
from semrec_faiss.measure.quality.metrics import Latency
from semrec_faiss.measure.trials.questions import SweepData
from semrec_faiss.measure.trials.trial import Trial
from semrec_faiss.progress import Progress
from semrec_faiss.search.filters.filter import Selection
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.topk import restricted_top_k

MOST_REPEATS = 10
"""Batches so small that their repeats do not ask every question get up to this many times the repeats."""

INDEX_FOLDERS = "index-"
"""What the folders' names of indexes at hand begin with; the process's number ends them."""

ON_CPU = NotMeasured("the index is searched on the CPU")


@dataclass(frozen=True)
class BuiltIndex:
    """An index that was built and written.

    Attributes:
        path: the FAISS file.
        exact: whether it holds the vectors exactly, so that none are needed beside it.
        screening: the principal directions that lie beside it; None where it has none.
        costs: what building took, for the record.
    """

    path: Path
    exact: bool
    screening: Screening | None
    costs: Unsettled

    def opened_screening(self, trial: Trial) -> dict[str, Any]:
        """Open what a search leaves titles out by, as an index on disk does: bounds on a CPU, directions on a GPU."""
        about, folder = self.screening, self.path.parent
        if about is None or (trial.device.gpus and not isinstance(trial.index, FusedIndex)):
            return {}
        directions = np.load(folder / DIRECTIONS_NAME, allow_pickle=False)
        if trial.device.gpus:
            return {"directions": directions}
        bounds = np.load(folder / BOUNDS_NAME, mmap_mode="r", allow_pickle=False)
        return {"screen": Screen(directions, bounds, Rounding(about.scale, about.error, about.norm))}


def build(trial: Trial, data: SweepData, folder: Path, gpu: GpuMemoryWatch, progress: Progress) -> BuiltIndex:
    """Train, fill and write the index of a trial, as a build does, and measure what that takes.

    Raises:
        SemrecError: FAISS, the device or the disk refuses.
    """
    faiss = load_faiss()
    host, steps = HostPeak(), _Steps(progress)
    made: list[Any] = []
    new = NewGeneration(folder, "", None)

    def work() -> None:
        steps.start()
        made.append(build_faiss_index(trial.index, data.blocks, data.count, data.dim, trial.device, steps))
        made.append(write_screening(new, trial.index, data.blocks, data.count, data.dim, steps)[1])
        steps.stop()

    on_gpu: int | NotMeasured = ON_CPU
    path = folder / INDEX_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", RuntimeWarning)
            if trial.device.gpus:
                on_gpu = gpu.peak_bytes(trial.device.gpus, work)
            else:
                work()
        index, screening = made
        made.clear()
        with path.open("wb") as file:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="free disk space") from error
    exact = holds_vectors_exactly(index)
    return BuiltIndex(
        path,
        exact,
        screening,
        {
            "train_s": steps.train_s,
            "add_s": steps.add_s,
            "index_bytes": path.stat().st_size + sum(entry.bytes for entry in new.files.values()),
            "originals_bytes": 0 if exact else data.count * data.dim * 4,
            "host_peak_bytes": host.added_bytes(),
            "gpu_peak_bytes": on_gpu,
            "notes": [str(note.message) for note in notes if issubclass(note.category, RuntimeWarning)],
        },
    )


class _Steps:
    """Passes progress on, and tells training from adding by its steps."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = self._trained = self._stopped = 0.0

    def __call__(self, what: str, done: int, total: int, /) -> None:
        if what == "training" and done == total:
            self._trained = time.perf_counter()
        self._progress(what, done, total)

    def start(self) -> None:
        self._started = self._trained = time.perf_counter()

    def stop(self) -> None:
        self._stopped = time.perf_counter()

    @property
    def train_s(self) -> float:
        return round(self._trained - self._started, 4)

    @property
    def add_s(self) -> float:
        return round(self._stopped - self._trained, 4)


class Found(Protocol):
    """What a search of either kind returns, of which this is needed."""

    @property
    def rows(self) -> Rows:
        """Titles found: int64 (queries, at most k), -1 where there is none."""

    @property
    def strategy(self) -> str:
        """How they were found."""


class LoadedIndex:
    """An index that is loaded, and searched with one set of settings after the other.

    Attributes:
        costs: what loading took, for the record.
    """

    def __init__(self, built: BuiltIndex, trial: Trial, data: SweepData, gpu: GpuMemoryWatch) -> None:
        """Load an index as opening it from disk does, and search it for the first time.

        Raises:
            SemrecError: the device cannot hold or run it.
        """
        self._data = data
        self._gpu = gpu
        self._host = HostPeak()
        started = time.perf_counter()
        cpu_index = read_for_search(built.path, trial.index, trial.device)
        originals = None if built.exact else data.vectors
        screening = built.opened_screening(trial)
        self.index = VectorIndex(cpu_index, trial.index, trial.device, originals=originals, **screening)
        load_s = time.perf_counter() - started
        one = data.questions.vectors[:1]
        cold = measure(lambda: self.index.search(one, trial.k, prepared=True), warmup=0, repeats=1)
        self.costs: Unsettled = {"load_s": round(load_s, 4), "cold_query_ms": round(cold.times_ms[0], 4)}
        self._selections: dict[str, Selection] = {}

    def search_of(self, trial: Trial) -> Callable[[Vectors], Found]:
        """Return a trial's search, from float32 (queries, dim).

        Raises:
            ConfigError: a search setting that the index does not have.
            UsageError: the filter is not understood.
        """
        self.index.set_search(trial.index)
        if trial.where is None:
            return lambda queries: self.index.search(queries, trial.k, prepared=True)
        selection = self._selection(trial.where)
        restriction = Restriction(self.index.count, selection.mask, None, selection.rows)
        gathered = selection.gathered  # as the Recommender has them from the second question on
        return lambda queries: restricted_top_k(self.index, queries, trial.k, restriction, gathered=gathered)

    def _selection(self, where: str) -> Selection:
        if where not in self._selections:
            mask = self._data.mask(where)
            rows = np.arange(self._data.count) if mask is None else np.flatnonzero(mask)
            self._selections = {where: Selection(rows, self._data.count, self.index)}  # one at a time: they are large
        return self._selections[where]

    def speed(self, trial: Trial, search: Callable[[Vectors], Found]) -> tuple[Unsettled, Unsettled]:
        """Time a trial's searches of float32 (batch, dim) and measure the memory that they need.

        Returns:
            The record's latency and its memory.
        """
        self._host.reset()
        batches = batches_of(self._data.questions.vectors, trial.batch)
        turns = itertools.cycle(batches)
        repeats = max(trial.protocol.repeats, min(MOST_REPEATS * trial.protocol.repeats, len(batches)))
        timing = measure_steady(lambda: search(next(turns)), warmup=trial.protocol.warmup, repeats=repeats)
        host = self._host.added_bytes()
        on_gpu: int | NotMeasured = ON_CPU
        if trial.device.gpus:  # searched once more, because reading the GPU's memory would disturb the times
            on_gpu = self._gpu.peak_bytes(trial.device.gpus, lambda: search(batches[0]))
        summary = Latency.of(timing.times_ms)
        latency = {
            "mean_ms": round(summary.mean_ms, 5),
            "p50_ms": round(summary.p50_ms, 5),
            "p95_ms": round(summary.p95_ms, 5),
            "p99_ms": round(summary.p99_ms, 5),
            "qps": round(1e3 * trial.batch / summary.mean_ms, 3),
            "warmups": timing.warmups,
            "times_ms": [round(value, 4) for value in timing.times_ms],
        }
        return latency, {"host_peak_bytes": host, "gpu_peak_bytes": on_gpu}


def batches_of(questions: Vectors, batch: int) -> list[Vectors]:
    """Cut float32 (questions, dim) into batches; they are asked over again where one batch needs more of them."""
    if batch >= len(questions):
        return [np.ascontiguousarray(np.resize(questions, (batch, questions.shape[1])))]
    whole = len(questions) // batch
    return [np.ascontiguousarray(questions[turn * batch : (turn + 1) * batch]) for turn in range(whole)]


def remove_remains(cache: Path) -> None:
    """Remove the indexes that runs which were killed left behind."""
    for folder in cache.glob(f"{INDEX_FOLDERS}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_index_folder(cache: Path, key: str) -> Iterator[Path]:
    """Give a folder for an index that is needed for a while."""
    folder = cache / f"{INDEX_FOLDERS}{key[:24]}-{os.getpid()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
