"""Run a sweep of whatever kind: what is measured is passed over, each record is on the disk before the next trial."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import TypeAdapter

from semrec_faiss.errors import SemrecError
from semrec_faiss.index.hardware.device import first_line, is_out_of_memory
from semrec_faiss.measure.documents.fields import Part
from semrec_faiss.measure.trials.kind import PLAN
from semrec_faiss.measure.trials.ledger import Ledger, TrialRecord
from semrec_faiss.measure.trials.plan_record import PlanRecord
from semrec_faiss.measure.trials.results import read_whole, save_document
from semrec_faiss.places import check_new_folder

Rerun = Literal["none", "failed", "all"]


class AnyTrial(Protocol):
    """A trial of whatever kind."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what is measured."""

    @property
    def what(self) -> str:
        """All that tells it from the others of its sweep."""


Trial = TypeVar("Trial", bound=AnyTrial)


@dataclass
class State(Generic[TrialRecord]):
    """How far a sweep is.

    Attributes:
        total: the trials of the plan.
        done: those that are measured, failed or pruned, in this run or before.
        now: what is being done.
        step: its step, how far it is and how far it goes.
        best: the records that stand out so far, by what a kind of sweep goes by.
        seconds_left: an estimate; None before the first trial is done.
    """

    total: int
    done: int = 0
    now: str = ""
    step: tuple[str, int, int] = ("", 0, 0)
    best: list[TrialRecord] = field(default_factory=list)
    seconds_left: float | None = None


@dataclass(frozen=True)
class Outcome(Generic[Trial, TrialRecord]):
    """What became of a sweep.

    Attributes:
        records: the plan's trials that have one, in the plan's order.
        measured_now: how many were measured in this run.
        left: the trials that the time budget left out.
        pruned: digest to reason.
    """

    records: tuple[TrialRecord, ...]
    measured_now: int
    left: tuple[Trial, ...]
    pruned: Mapping[str, str]


class BudgetSpentError(Exception):
    """The time is over; what is left stays for the next run."""


class Run(ABC, Generic[Trial, TrialRecord]):
    """One run of a sweep; a kind of sweep says how its trials are measured.

    Attributes:
        folder: where the results go.
        trials: all of the plan.
        ledger: what was measured, in this run or before.
        left: the trials to come, by digest.
        pruned: those that are passed over, with the reason.
        measured_now: how many this run has measured.
        state: what is told to whoever watches.
    """

    kind: TypeAdapter[TrialRecord]

    def __init__(
        self,
        folder: Path,
        trials: Sequence[Trial],
        budget_s: float | None,
        rerun: Rerun,
        watch: Callable[[State[TrialRecord]], None],
    ) -> None:
        self.folder = folder
        self.trials = trials
        self.left: dict[str, Trial] = {}
        self.pruned: dict[str, str] = {}
        self.measured_now = 0
        self.rerun = rerun
        self.state: State[TrialRecord] = State(len(trials))
        self._budget_s = budget_s
        self._watch = watch
        self._started = time.monotonic()

    @abstractmethod
    def measure_all(self) -> None:
        """Measure what is left, handing each record to `take`."""

    @abstractmethod
    def plan_record(self) -> PlanRecord:
        """Return the plan as plan.json holds it."""

    @abstractmethod
    def seconds_left(self) -> float | None:
        """Estimate how long what is left will take."""

    def end(self) -> None:
        """Do what is done when no more is measured, while the ledger is still open."""

    def go(self) -> Outcome[Trial, TrialRecord]:
        """Measure what the ledger does not have.

        Raises:
            UsageError: another process runs this sweep, or its folder cannot be one.
            StorageError: the disk is full or refuses.
            DataError: the ledger is damaged.
        """
        check_new_folder(self.folder, "folder of results")
        with self._opened_ledger():
            with contextlib.suppress(BudgetSpentError):
                self.measure_all()
            self._save_plan()
            self.end()
            records = [self.ledger.records[one.digest] for one in self.trials if one.digest in self.ledger.records]
        left = tuple(trial for trial in self.trials if trial.digest in self.left)
        return Outcome(tuple(records), self.measured_now, left, dict(self.pruned))

    @contextlib.contextmanager
    def _opened_ledger(self) -> Iterator[None]:
        with Ledger(self.folder, self.kind) as self.ledger:
            self.left = {trial.digest: trial for trial in self.trials if self._is_wanted(trial)}
            self._count()
            yield

    def _is_wanted(self, trial: Trial) -> bool:
        record = self.ledger.records.get(trial.digest)
        return record is None or self.rerun == "all" or (self.rerun == "failed" and record.status == "failed")

    def _count(self) -> None:
        self.state.done = sum(trial.digest not in self.left for trial in self.trials)

    def take(self, record: TrialRecord) -> None:
        """Append a trial's record to the ledger; it is on the disk when this returns."""
        if not self.measured_now:  # not before: a sweep that is refused leaves no results
            self._save_plan()
        self.ledger.append(record)
        self.measured_now += 1
        self._done(record.digest)

    def prune(self, digest: str, reason: str) -> None:
        """Pass over a trial."""
        self.pruned[digest] = reason
        self._done(digest)

    def _done(self, digest: str) -> None:
        self.left.pop(digest, None)
        self._count()
        self.state.seconds_left = self.seconds_left()

    def stage(self, what: str) -> None:
        """Tell what is begun."""
        self.state.now, self.state.step = what, ("", 0, 0)
        self.tell()

    def step(self, what: str, done: int, total: int, /) -> None:
        """Tell how far it is; a `Progress`."""
        self.state.step = (what, done, total)
        self.tell()

    def tell(self) -> None:
        """Tell the state."""
        self._watch(self.state)

    @property
    def spent_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def check_budget(self) -> None:
        """End the run where its time is over and trials are left; raises what ends it."""
        if self._budget_s is not None and self.left and self.spent_s > self._budget_s:
            raise BudgetSpentError

    def _save_plan(self) -> None:
        """Write which trials the sweep consists of, beside the ledger that may hold those of earlier grids too.

        What says the same already stays as it is, with the stamp of the run that measured.
        """
        path, plan = self.folder / PLAN, self.plan_record()
        before = read_whole(path, TypeAdapter(type(plan)))
        if before is None or self.measured_now or not says_the_same(before, plan):
            save_document(path, plan)


def says_the_same(before: Part, now: Part) -> bool:
    """Whether two documents differ in nothing but the stamp."""
    return before.as_json() | {"environment": None} == now.as_json() | {"environment": None}


def reason_of(error: Exception) -> str:
    """Say why a trial failed, in a line; see `FAILURES`."""
    if isinstance(error, SemrecError):
        return error.message
    return f"{'out of memory' if is_out_of_memory(error) else type(error).__name__}: {first_line(error)}"


FAILURES = (SemrecError, RuntimeError, MemoryError, OSError, ValueError, AssertionError)
"""What FAISS, numpy and this project raise where a trial cannot be measured."""
