"""Run a sweep: what is measured already is passed over, every record is on the disk before the next trial begins."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.measure.instruments.environment import environment
from semrec_faiss.measure.sweep.estimate import Estimate
from semrec_faiss.measure.sweep.plan import Plan
from semrec_faiss.measure.sweep.process import WorkerProcess
from semrec_faiss.measure.sweep.work import Emit, Message, Record, SweepWork
from semrec_faiss.measure.trials.frontier import frontier
from semrec_faiss.measure.trials.kind import PLAN, refuse_evaluation
from semrec_faiss.measure.trials.ledger import Ledger
from semrec_faiss.measure.trials.record import FAILED, MEASURED
from semrec_faiss.measure.trials.results import Rerun
from semrec_faiss.measure.trials.tested_index import remove_remains
from semrec_faiss.measure.trials.trial import Trial
from semrec_faiss.storage import new_file

CACHE = ".cache"


@dataclass
class State:
    """How far a sweep is.

    Attributes:
        total: the trials of the plan.
        done: those that are measured, failed or pruned, in this run or before.
        now: what is being done.
        step: its step, how far it is and how far it goes.
        frontier: the records that no other beats so far, of the first data folder, k and batch size without a filter.
        seconds_left: an estimate; None before the first trial is done.
    """

    total: int
    done: int = 0
    now: str = ""
    step: tuple[str, int, int] = ("", 0, 0)
    frontier: list[Record] = field(default_factory=list)
    seconds_left: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a sweep.

    Attributes:
        records: the plan's trials that have one, in the plan's order.
        measured_now: how many were measured in this run.
        pruned: digest to reason.
        left: the trials that the time budget left out.
    """

    records: tuple[Record, ...]
    measured_now: int
    pruned: Mapping[str, str]
    left: tuple[Trial, ...]


class _Worker(Protocol):
    def run(self, trials: Sequence[Trial], known: Mapping[str, Record], emit: Emit, *, prune: bool) -> None: ...


class _BudgetSpentError(Exception):
    """The time is over; what is left stays for the next run."""


def run_sweep(
    plan: Plan,
    *,
    rerun: Rerun = "none",
    prune: bool = False,
    isolated: bool = True,
    watch: Callable[[State], None] = lambda state: None,
    arguments: Sequence[str] | None = None,
) -> Outcome:
    """Measure every trial of a plan that the ledger does not have.

    Args:
        plan: what to measure.
        rerun: measure ``failed`` or ``all`` trials again; their latest record counts.
        prune: pass over trials that their own cheaper settings make hopeless.
        isolated: measure in a process of its own, so that a crash is a failed trial; else in this one.
        watch: told the state whenever it changes.
        arguments: the command line, for the records' stamp; this process's own by default.

    Raises:
        UsageError: another process runs this sweep, or no combination can be measured.
        StorageError: the disk is full or refuses.
        DataError: the ledger is damaged.
    """
    run = _Run(plan, rerun, prune, watch, sys.argv[1:] if arguments is None else arguments)
    return run.go(isolated)


class _Run:
    def __init__(
        self, plan: Plan, rerun: Rerun, prune: bool, watch: Callable[[State], None], arguments: Sequence[str]
    ) -> None:
        self._plan = plan
        self._rerun = rerun
        self._prune = prune
        self._watch = watch
        self._arguments = arguments
        self._folder = plan.sweep.folder
        self._started = time.monotonic()
        self._measured = 0
        self._pruned: dict[str, str] = {}
        self._state = State(len({trial.digest for trial in plan.trials}))

    def go(self, isolated: bool) -> Outcome:
        if not self._plan.trials:
            reasons = "; ".join(dict.fromkeys(one.reason for one in self._plan.invalid))
            raise UsageError(f"no combination of the grid can be measured: {reasons}", fix="see --dry-run")
        refuse_evaluation(self._folder)
        with Ledger(self._folder) as ledger:
            remove_remains(self._folder / CACHE)
            wanted = frozenset(trial.digest for trial in self._plan.trials if self._is_wanted(trial, ledger.records))
            self._estimate = Estimate(self._plan, ledger.records)
            self._state.done = self._state.total - len(wanted)
            left: set[str] = set(wanted)

            def emit(message: Message) -> None:
                self._take(message, ledger, left)

            with contextlib.suppress(_BudgetSpentError), self._worker(isolated) as worker:
                for group in self._plan.groups(wanted):
                    worker.run(group, self._known(ledger, wanted), emit, prune=self._prune)
            self._save_plan()
            records = [ledger.records[trial.digest] for trial in self._plan.trials if trial.digest in ledger.records]
        remaining = tuple(trial for trial in self._plan.trials if trial.digest in left)
        return Outcome(tuple(records), self._measured, dict(self._pruned), remaining)

    def _is_wanted(self, trial: Trial, records: Mapping[str, Record]) -> bool:
        status = records.get(trial.digest, {}).get("status")
        again = {"none": (), "failed": (FAILED,), "all": (MEASURED, FAILED)}[self._rerun]
        return status is None or status in again

    def _known(self, ledger: Ledger, wanted: frozenset[str]) -> dict[str, Record]:
        """The records that pruning may look at: all of the plan but those that are to be measured again."""
        planned = {trial.digest for trial in self._plan.trials}
        return {digest: record for digest, record in ledger.records.items()
                if digest in planned and (digest not in wanted or self._rerun == "none")}  # fmt: skip

    @contextlib.contextmanager
    def _worker(self, isolated: bool) -> Iterator[_Worker]:
        cache = self._folder / CACHE
        if isolated:
            with WorkerProcess(cache, self._arguments) as process:
                yield process
        else:
            yield SweepWork(cache, arguments=self._arguments)

    def _take(self, message: Message, ledger: Ledger, left: set[str]) -> None:
        state = self._state
        if message.kind == "record" and message.record is not None:
            if not self._measured:  # not before: a sweep that is refused leaves no results
                self._save_plan()
            ledger.append(message.record)
            self._measured += 1
            self._done(message.record["digest"], left)
            state.frontier = self._frontier(ledger.records)
        elif message.kind == "pruned":
            self._pruned[message.digests[0]] = message.what
            self._done(message.digests[0], left)
        elif message.kind == "stage":
            state.now, state.step = message.what, ("", 0, 0)
        else:
            state.step = (message.what, message.done, message.total)
        self._watch(state)
        budget = self._plan.sweep.time_budget_s
        if budget is not None and left and time.monotonic() - self._started > budget:
            raise _BudgetSpentError

    def _done(self, digest: str, left: set[str]) -> None:
        left.discard(digest)
        self._state.done = self._state.total - len(left)
        spent = time.monotonic() - self._started
        self._state.seconds_left = self._estimate.seconds_left(left, spent)

    def _frontier(self, records: Mapping[str, Record]) -> list[Record]:
        sweep = self._plan.sweep
        first = self._plan.trials[0].data.digest
        here = [trial for trial in self._plan.trials if trial.where is None and trial.k == sweep.k[0]
                and trial.batch == sweep.batch[0] and trial.data.digest == first]  # fmt: skip
        found = [records[trial.digest] for trial in here if trial.digest in records]
        return frontier(record for record in found if record["status"] == MEASURED)

    def _save_plan(self) -> None:
        """Write which trials the sweep consists of, beside the ledger that may hold those of earlier grids too."""
        document = {
            "name": self._plan.sweep.name,
            "sweep": self._plan.sweep.model_dump(mode="json"),
            "environment": environment(self._arguments),
            "trials": [
                {"digest": trial.digest, "what": trial.what, "pruned": self._pruned.get(trial.digest)}
                for trial in self._plan.trials
            ],
            "invalid": [{"what": one.what, "reason": one.reason} for one in self._plan.invalid],
        }
        path = self._folder / PLAN
        try:
            with new_file(path) as file:
                file.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="free disk space") from error
