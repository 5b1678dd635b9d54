"""Run a sweep of indexes: the trials of one build after the other, in a process of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.sweep.estimate import Estimate
from semrec_faiss.measure.sweep.plan import TrialsPlan
from semrec_faiss.measure.sweep.process import WorkerProcess
from semrec_faiss.measure.sweep.work import Emit, Message, SweepWork
from semrec_faiss.measure.trials import run
from semrec_faiss.measure.trials.frontier import frontier
from semrec_faiss.measure.trials.kind import refuse_evaluation
from semrec_faiss.measure.trials.plan_record import SweepPlan
from semrec_faiss.measure.trials.record import TRIAL_RECORD, Failed, Measured
from semrec_faiss.measure.trials.results import measured_of
from semrec_faiss.measure.trials.run import Rerun, Run
from semrec_faiss.measure.trials.tested_index import remove_remains
from semrec_faiss.measure.trials.trial import Trial

CACHE = ".cache"

State = run.State[Measured | Failed]
Outcome = run.Outcome[Trial, Measured | Failed]


class _Worker(Protocol):
    def run(
        self, trials: Sequence[Trial], known: Mapping[str, Measured | Failed], emit: Emit, *, prune: bool
    ) -> None: ...


def run_sweep(
    plan: TrialsPlan,
    *,
    rerun: Rerun = "none",
    prune: bool = False,
    isolated: bool = True,
    watch: Callable[[State], None] = lambda state: None,
) -> Outcome:
    """Measure every trial of a plan that the ledger does not have.

    Args:
        plan: what to measure.
        rerun: measure ``failed`` or ``all`` trials again; their latest record counts.
        prune: pass over trials that their own cheaper settings make hopeless.
        isolated: measure in a process of its own, so that a crash is a failed trial; else in this one.
        watch: told the state whenever it changes.

    Raises:
        UsageError: another process runs this sweep, or no combination can be measured.
        StorageError: the disk is full or refuses.
        DataError: the ledger is damaged.
    """
    if not plan.trials:
        reasons = "; ".join(dict.fromkeys(one.reason for one in plan.invalid))
        raise UsageError(f"no combination of the grid can be measured: {reasons}", fix="see --dry-run")
    refuse_evaluation(plan.sweep.folder)
    return _IndexRun(plan, rerun, watch, prune=prune, isolated=isolated).go()


class _IndexRun(Run[Trial, Measured | Failed]):
    kind = TRIAL_RECORD

    def __init__(
        self, plan: TrialsPlan, rerun: Rerun, watch: Callable[[State], None], *, prune: bool, isolated: bool
    ) -> None:
        super().__init__(plan.sweep.folder, plan.trials, plan.sweep.time_budget_s, rerun, watch)
        self._plan = plan
        self._prune = prune
        self._isolated = isolated

    def plan_record(self) -> SweepPlan:
        return self._plan.record(self.pruned)

    def seconds_left(self) -> float:
        return self._estimate.seconds_left(self.left, self.spent_s)

    def measure_all(self) -> None:
        remove_remains(self.folder / CACHE)
        self._estimate = Estimate(self._plan.trials, self.ledger.records)
        wanted = frozenset(self.left)
        with self._worker() as worker:
            for group in self._plan.groups(wanted):
                worker.run(group, self._known(wanted), self._hear, prune=self._prune)

    def _known(self, wanted: frozenset[str]) -> dict[str, Measured | Failed]:
        """The records that pruning may look at: all of the plan but those that are to be measured again."""
        records = self.ledger.records
        planned = {trial.digest for trial in self.trials if trial.digest in records}
        return {digest: records[digest] for digest in planned if digest not in wanted or self.rerun == "none"}

    @contextlib.contextmanager
    def _worker(self) -> Iterator[_Worker]:
        cache, stamp = self.folder / CACHE, self._plan.stamp
        if self._isolated:
            with WorkerProcess(cache, stamp) as process:
                yield process
        else:
            yield SweepWork(cache, stamp)

    def _hear(self, message: Message) -> None:
        if message.record is not None:
            self.take(message.record)
            self.state.best = list(self._frontier())
            self.tell()
        elif message.kind == "pruned":
            self.prune(message.digests[0], message.what)
            self.tell()
        elif message.kind == "stage":
            self.stage(message.what)
        else:
            self.step(message.what, message.done, message.total)
        self.check_budget()

    def _frontier(self) -> list[Measured]:
        """The records that no other beats so far, of the first data folder, k and batch size without a filter."""
        first, sweep = self.trials[0].data.digest, self._plan.sweep
        here = [
            trial.digest
            for trial in self.trials
            if (trial.where, trial.k, trial.batch, trial.data.digest) == (None, sweep.k[0], sweep.batch[0], first)
        ]
        return frontier(measured_of([self.ledger.records[one] for one in here if one in self.ledger.records]))
