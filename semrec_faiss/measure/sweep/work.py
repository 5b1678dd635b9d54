"""The measuring half of a sweep: the trials of one index in, a record a trial out, failures included."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import JsonValue

from semrec_faiss.arrays import Rows
from semrec_faiss.errors import SemrecError
from semrec_faiss.measure.documents.results import Unsettled, settle
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.instruments.gpu_memory import GpuMemoryWatch
from semrec_faiss.measure.instruments.other_programs import OtherPrograms
from semrec_faiss.measure.sweep.answers import examples_of, quality_of
from semrec_faiss.measure.sweep.prune import hopeless
from semrec_faiss.measure.trials.questions import SweepData
from semrec_faiss.measure.trials.record import FORMAT, Failed, Measured
from semrec_faiss.measure.trials.record_parts import Example
from semrec_faiss.measure.trials.run import FAILURES, reason_of
from semrec_faiss.measure.trials.tested_index import BuiltIndex, LoadedIndex, build, temporary_index_folder
from semrec_faiss.measure.trials.trial import Trial
from semrec_faiss.progress import Progress

Emit = Callable[["Message"], None]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Message:
    """What the measuring half tells the other one.

    Attributes:
        kind: ``stage`` (about to do something), ``record`` (a trial is done), ``pruned``, ``step`` (progress), or
            ``refused`` (the data or a filter is at fault, and with it the whole sweep), or ``done`` (with all trials).
        what: the stage, the step, or why a trial is pruned.
        digests: the trials that hang on a stage, or the one that is pruned.
        record: the trial's record.
        done: of a step, how far it is.
        total: of a step, how far it goes.
        error: of a refusal, its kind, message and fix.
    """

    kind: Literal["stage", "record", "pruned", "step", "refused", "done"]
    what: str = ""
    digests: tuple[str, ...] = ()
    record: Measured | Failed | None = None
    done: int = 0
    total: int = 0
    error: tuple[type[SemrecError], str, str | None] | None = None


class SweepWork:
    """Measures trials; keeps what trials over one data folder share."""

    def __init__(self, cache: Path, stamp: Stamp) -> None:
        """Note the GPU memory in use before this process uses a GPU.

        Args:
            cache: a folder for exact answers, vectors and the index at hand.
            stamp: of the run, for the records.
        """
        self._cache = cache
        self._gpu = GpuMemoryWatch()
        self._data: tuple[Any, SweepData] | None = None
        self._stamp = stamp.of_a_record()

    def run(self, trials: Sequence[Trial], known: Mapping[str, Measured | Failed], emit: Emit, *, prune: bool) -> None:
        """Measure the trials of one build.

        Args:
            trials: which share a ``build_key``, in the order to run.
            known: records of the sweep's trials that are measured already, by digest; pruning looks at them.
            emit: told every stage and record; what it raises ends the run.
            prune: pass over trials that cheaper ones make hopeless.

        Raises:
            SemrecError: the data is at fault; anything else that fails is a failed trial.
        """
        measured = [record for record in known.values() if isinstance(record, Measured)]
        everything = tuple(trial.digest for trial in trials)
        first = trials[0]
        with temporary_index_folder(self._cache, first.build_key) as folder:
            emit(Message("stage", f"building {first.label}", everything))
            data = self._data_of(trials[0], _steps_of(emit))
            built = _attempt(lambda: self._build(trials, data, folder, emit))
            if isinstance(built, str):
                return self._fail(trials, built, emit)
            for _, same in groupby(trials, key=lambda trial: trial.load_key):
                self._on_device(list(same), data, built, measured, emit, prune)
        return None

    def _build(self, trials: Sequence[Trial], data: SweepData, folder: Path, emit: Emit) -> BuiltIndex:
        step = _steps_of(emit)
        most = max(trial.k for trial in trials)
        for where in dict.fromkeys(trial.where for trial in trials):
            step("exact answers", 0, 1)
            data.truth(where, most)
        truth = data.truth(trials[0].where, most)  # judged as answers will be: what that keeps is no trial's memory
        quality_of(truth.rows, data, truth, field=trials[0].protocol.slice)
        examples_of(truth.rows, data, truth)
        data.release()  # nor is the exact index's
        return build(trials[0], data, folder, self._gpu, step)

    def _data_of(self, trial: Trial, step: Progress) -> SweepData:
        key = (trial.data, trial.protocol.queries, trial.index.normalize)
        if self._data is None or self._data[0] != key:
            self._data = None
            data = SweepData(
                trial.data.path,
                trial.data.digest,
                trial.protocol.queries,
                normalize=trial.index.normalize,
                cache=self._cache,
                progress=step,
            )
            self._data = (key, data)
        return self._data[1]

    def _on_device(
        self, trials: list[Trial], data: SweepData, built: BuiltIndex, known: list[Measured], emit: Emit, prune: bool
    ) -> None:
        emit(Message("stage", f"loading {trials[0].label}", tuple(trial.digest for trial in trials)))
        loaded = _attempt(lambda: LoadedIndex(built, trials[0], data, self._gpu))
        if isinstance(loaded, str):
            return self._fail(trials, loaded, emit)
        for _, same in groupby(trials, key=lambda trial: (trial.search_key, trial.where, trial.k)):
            answered = _Answered(loaded, data)
            for trial in same:
                reason = hopeless(trial, known) if prune else None
                if reason is not None:
                    emit(Message("pruned", reason, (trial.digest,)))
                    continue
                emit(Message("stage", trial.what, (trial.digest,)))
                record = _attempt(lambda: self._measure(trial, answered, built))  # noqa: B023 - called at once
                if isinstance(record, str):
                    self._fail([trial], record, emit)
                    continue
                known.append(record)
                emit(Message("record", record=record))
        return None

    def _measure(self, trial: Trial, answered: _Answered, built: BuiltIndex) -> Measured:
        started, others = time.perf_counter(), OtherPrograms()
        latency, memory = answered.loaded.speed(trial, answered.loaded.search_of(trial))
        measured = {
            "build": built.costs,
            "load": answered.loaded.costs,
            "quality": answered.quality(trial),
            "latency": latency,
            "memory": memory,
            "examples": answered.examples(trial),
            "others_used_cores": others.cores_used_by_them(),
        }
        elapsed = round(time.perf_counter() - started, 3)
        head = _head(trial, None, self._stamp) | {"status": "measured"}
        return Measured.model_validate(head | settle(measured) | {"elapsed_s": elapsed})

    def _fail(self, trials: Iterable[Trial], reason: str, emit: Emit) -> None:
        for trial in trials:
            emit(Message("record", record=failed(trial, reason, self._stamp)))


def failed(trial: Trial, reason: str, stamp: dict[str, JsonValue] | None) -> Failed:
    """Return the record of a trial that failed."""
    return Failed.model_validate(_head(trial, reason, stamp) | {"status": "failed"})


def _head(trial: Trial, reason: str | None, stamp: dict[str, JsonValue] | None) -> Unsettled:
    """Return what every record of a trial begins with."""
    told = {"digest": trial.digest, "format": FORMAT, "reason": reason, "label": trial.label, "environment": stamp}
    return told | dict(trial.settings)


def _attempt(work: Callable[[], Made]) -> Made | str:
    """Return what ``work`` returns, or why it cannot, as text."""
    try:
        return work()
    except FAILURES as error:
        return reason_of(error)


def _steps_of(emit: Emit) -> Progress:
    def step(what: str, done: int, total: int, /) -> None:
        emit(Message("step", what, done=done, total=total))

    return step


class _Answered:
    """The answers of one index to all questions under one filter and k.

    Without a filter they are the same for every batch size, and are asked for at once. Under a filter the way that they
    are found depends on the batch size, and with it what is found, so there they are asked for as they are timed.
    """

    def __init__(self, loaded: LoadedIndex, data: SweepData) -> None:
        self.loaded = loaded
        self._data = data
        self._rows: Rows | None = None
        self._quality: Unsettled | None = None

    def quality(self, trial: Trial) -> Unsettled:
        if self._quality is None or trial.where is not None:
            truth = self._data.truth(trial.where, trial.k)
            self._rows, strategy = self._ask(trial)
            self._quality = quality_of(self._rows, self._data, truth, field=trial.protocol.slice)
            self._quality["strategy"] = strategy
        return self._quality

    def _ask(self, trial: Trial) -> tuple[Rows, str]:
        questions = self._data.questions.vectors
        step = len(questions) if trial.where is None else trial.batch
        search = self.loaded.search_of(trial)
        found = [search(questions[start : start + step]) for start in range(0, len(questions), step)]
        strategies = dict.fromkeys(one.strategy for one in found)
        return np.concatenate([one.rows for one in found]), ", ".join(strategies)

    def examples(self, trial: Trial) -> list[Example]:
        """Write out some answers without a filter; under one, whose exact lists differ, none."""
        if trial.where is not None:
            return []
        self.quality(trial)
        if self._rows is None:
            raise RuntimeError("no question was asked")
        return examples_of(self._rows, self._data, self._data.truth(trial.where, trial.k))
