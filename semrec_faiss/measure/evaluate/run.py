"""Try the profiles of a sweep: what is measured is passed over, and each index's winner is judged at the end."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from semrec_faiss.config.profile import Profile
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.device import first_line, is_out_of_memory
from semrec_faiss.measure.documents.results import settle
from semrec_faiss.measure.evaluate.document import evaluation_document
from semrec_faiss.measure.evaluate.evaluator import best_profile, metric_of
from semrec_faiss.measure.evaluate.lists import queries_key
from semrec_faiss.measure.evaluate.plan import EvaluationPlan, ProfileTrial, command_of
from semrec_faiss.measure.evaluate.record import mistake_in
from semrec_faiss.measure.evaluate.results import named, read_document, save_document, save_plan
from semrec_faiss.measure.instruments.environment import environment
from semrec_faiss.measure.trials.kind import refuse_indexes
from semrec_faiss.measure.trials.ledger import Ledger
from semrec_faiss.measure.trials.record import FAILED, MEASURED
from semrec_faiss.measure.trials.results import Rerun

Record = dict[str, Any]

JUDGED = ("protocol", "methods", "differences", "beside")
"""What an evaluation holds of the titles that its profile was not chosen by."""


@dataclass
class ProfileState:
    """How far a sweep is.

    Attributes:
        total: the trials of the plan.
        done: those that are measured or failed, in this run or before.
        now: what is being done.
        step: its step, how far it is and how far it goes.
        best: the records of the index at work, the best first.
        seconds_left: an estimate; None before the first trial is done.
    """

    total: int
    done: int = 0
    now: str = ""
    step: tuple[str, int, int] = ("", 0, 0)
    best: list[Record] = field(default_factory=list)
    seconds_left: float | None = None


@dataclass(frozen=True)
class EvaluationOutcome:
    """What became of a sweep.

    Attributes:
        records: the plan's trials that have one, in the plan's order.
        measured_now: how many were measured in this run.
        left: the trials that the time budget left out.
        document: the content of evaluation.json; None where trials are left or all failed.
    """

    records: tuple[Record, ...]
    measured_now: int
    left: tuple[ProfileTrial, ...]
    document: dict[str, Any] | None


def run_evaluation_sweep(
    plan: EvaluationPlan,
    *,
    rerun: Rerun = "none",
    watch: Callable[[ProfileState], None] = lambda state: None,
    arguments: Sequence[str] | None = None,
) -> EvaluationOutcome:
    """Measure every profile of a plan that the ledger does not have; when none is left, judge the winners.

    Args:
        plan: what to measure.
        rerun: measure ``failed`` or ``all`` trials again; their latest record counts.
        watch: told the state whenever it changes.
        arguments: the command line, for the stamp; this process's own by default.

    Raises:
        UsageError: another process runs this sweep, or the folder holds a sweep of indexes.
        StorageError: the disk is full or refuses.
        DataError: the ledger is damaged.
    """
    return _Run(plan, rerun, watch, sys.argv[1:] if arguments is None else arguments).go()


class _Run:
    def __init__(
        self, plan: EvaluationPlan, rerun: Rerun, watch: Callable[[ProfileState], None], arguments: Sequence[str]
    ) -> None:
        self._plan = plan
        self._rerun = rerun
        self._watch = watch
        self._arguments = arguments
        self._started = time.monotonic()
        self._measured = 0
        self._state = ProfileState(len(plan.trials))

    @cached_property
    def _stamp(self) -> dict[str, Any]:
        return environment(self._arguments)

    def go(self) -> EvaluationOutcome:
        folder = self._plan.sweep.folder
        refuse_indexes(folder)
        with Ledger(folder, mistake_in) as ledger:
            left = [trial for trial in self._plan.trials if self._is_wanted(trial, ledger.records)]
            self._state.done = len(self._plan.trials) - len(left)
            save_plan(self._plan, self._stamp)
            for trial in self._in_order(left):
                if trial not in left:  # two indexes may hold the same
                    continue
                if self._measured and self._is_over_budget():
                    break
                self._about_to(trial.what, self._best_of(trial, ledger.records))
                ledger.append(self._measure(trial))
                left = [one for one in left if one.digest != trial.digest]
                self._measured += 1
                self._state.done = len(self._plan.trials) - len(left)
                self._state.seconds_left = seconds_left(left, ledger.records)
            records = [named(ledger.records[trial.digest], trial.index_name) for trial in self._plan.trials
                       if trial.digest in ledger.records]  # fmt: skip
            document = None if left else self._judge(ledger.records)
        return EvaluationOutcome(tuple(records), self._measured, tuple(left), document)

    def _is_wanted(self, trial: ProfileTrial, records: Mapping[str, Record]) -> bool:
        status = records.get(trial.digest, {}).get("status")
        again = {"none": (), "failed": (FAILED,), "all": (MEASURED, FAILED)}[self._rerun]
        return status is None or status in again

    def _in_order(self, wanted: Sequence[ProfileTrial]) -> list[ProfileTrial]:
        """Order trials so that those that share queries come one after the other."""
        names = list(dict.fromkeys(trial.index_name for trial in self._plan.trials))
        return sorted(wanted, key=lambda one: (names.index(one.index_name), queries_key(one.profile)))

    def _is_over_budget(self) -> bool:
        budget = self._plan.sweep.time_budget_s
        return budget is not None and time.monotonic() - self._started > budget

    def _about_to(self, what: str, best: list[Record]) -> None:
        state = self._state
        state.now, state.step, state.best = what, ("", 0, 0), best
        self._watch(state)

    def _step(self, what: str, done: int, total: int, /) -> None:
        self._state.step = (what, done, total)
        self._watch(self._state)

    def _best_of(self, trial: ProfileTrial, records: Mapping[str, Record]) -> list[Record]:
        planned = [one.digest for one in self._plan.trials if one.index_name == trial.index_name]
        known = [records[digest] for digest in planned if digest in records]
        return ranked(known, self._plan.sweep.evaluate.by)

    def _measure(self, trial: ProfileTrial) -> Record:
        """Return the record of a trial; what FAISS and numpy raise makes it a failed one."""
        started = time.perf_counter()
        head = {"digest": trial.digest, "status": FAILED, "reason": None, "label": trial.label, **trial.settings}
        told = self._stamp
        head["environment"] = {name: told[name] for name in ("date", "git", "versions", "cpu", "gpus", "faiss_threads")}
        try:
            summary = trial.evaluator.try_profile(trial.profile, self._step)
            users = trial.evaluator.users_of(trial.evaluator.before)
            measured = settle({"status": MEASURED, "users_evaluated": users, **summary})
        except SemrecError as error:
            measured = {"reason": error.message}
        except (RuntimeError, MemoryError, OSError, ValueError, AssertionError) as error:
            kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
            measured = {"reason": f"{kind}: {first_line(error)}"}
        return head | measured | {"elapsed_s": round(time.perf_counter() - started, 3)}

    def _judge(self, records: Mapping[str, Record]) -> dict[str, Any] | None:
        """Choose each index's best profile and measure it on the titles that it was not chosen by."""
        sweep = self._plan.sweep
        before = None if self._rerun == "all" else read_document(sweep.folder)
        known = {one["digest"]: one for one in before["evaluations"]} if before else {}
        evaluations = []
        for trials in self._plan.by_index():
            tried = {trial.profile: records[trial.digest] for trial in trials
                     if records[trial.digest]["status"] == MEASURED}  # fmt: skip
            if tried:
                evaluations.append(self._evaluation(trials, tried, known))
        if not evaluations:
            return None
        document = {
            "name": sweep.name, "by": sweep.evaluate.by, "environment": self._stamp, "evaluations": evaluations,
        }  # fmt: skip
        return save_document(sweep.folder, document)

    def _evaluation(
        self, trials: Sequence[ProfileTrial], tried: Mapping[Profile, Record], known: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        settings, evaluator = self._plan.sweep.evaluate, trials[0].evaluator
        chosen = best_profile(tried, settings.by)
        digests = {trial.profile: trial.digest for trial in trials}
        digest = hashlib.sha256(f"{digests[chosen]} beside {digests[evaluator.given]}".encode()).hexdigest()
        what = f"the winner on {trials[0].index_name}: {chosen.describe()}"
        self._about_to(what, ranked(tried.values(), settings.by))
        earlier = known.get(digest)
        if earlier is None:
            judged = evaluator.judge(chosen, evaluator.given, self._step)
        else:
            judged = {name: earlier[name] for name in JUDGED}
        document = evaluation_document(evaluator, chosen, settings.by, tried, judged)
        if earlier is not None:
            document["not_measured"] = earlier["not_measured"]
        head = {
            "name": trials[0].index_name,
            "digest": digest,
            "command": command_of(evaluator, chosen, settings),
            "trials": [trial.digest for trial in trials],
        }
        return head | document


def ranked(records: Iterable[Record], by: str) -> list[Record]:
    """Return the measured records, the one with the highest mean of a metric first, of several the first."""
    measured = [record for record in records if record["status"] == MEASURED]
    return sorted(measured, key=lambda record: -float(metric_of(record, by)["mean"]))


def seconds_left(left: Sequence[ProfileTrial], records: Mapping[str, Record]) -> float | None:
    """Estimate how long trials will take, by those of as many interests, or else by all; None where none is known."""
    times: dict[int, list[float]] = {}
    for record in records.values():
        times.setdefault(record["profile"]["interests"], []).append(float(record["elapsed_s"]))
    every = [one for group in times.values() for one in group]
    if not every:
        return None
    groups = [times.get(trial.profile.interests, every) for trial in left]
    return sum(sum(group) / len(group) for group in groups)
