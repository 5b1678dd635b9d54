"""Try the profiles of a sweep: what is measured is passed over, and each index's winner is judged at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from semrec_faiss.config.profile import Profile
from semrec_faiss.measure.documents.results import settle
from semrec_faiss.measure.evaluate.document import judgement_of
from semrec_faiss.measure.evaluate.lists import queries_key
from semrec_faiss.measure.evaluate.plan import EvaluationPlan, ProfileTrial, command_of
from semrec_faiss.measure.evaluate.record import (
    PROFILE_RECORD,
    WINNERS,
    AnyProfile,
    EvaluationPlanRecord,
    FailedProfile,
    MeasuredProfile,
    Winner,
    WinnerHead,
    Winners,
    best_profile,
    named,
)
from semrec_faiss.measure.evaluate.results import DOCUMENT
from semrec_faiss.measure.trials import run
from semrec_faiss.measure.trials.kind import refuse_indexes
from semrec_faiss.measure.trials.results import read_whole, save_document
from semrec_faiss.measure.trials.run import FAILURES, Rerun, Run, reason_of, says_the_same

ProfileState = run.State[AnyProfile]


@dataclass(frozen=True)
class EvaluationOutcome(run.Outcome[ProfileTrial, AnyProfile]):
    """What became of a sweep.

    Attributes:
        document: the content of evaluation.json; None where trials are left or all failed.
    """

    document: Winners | None


def run_evaluation_sweep(
    plan: EvaluationPlan, *, rerun: Rerun = "none", watch: Callable[[ProfileState], None] = lambda state: None
) -> EvaluationOutcome:
    """Measure every profile of a plan that the ledger does not have; when none is left, judge the winners.

    Args:
        plan: what to measure.
        rerun: measure ``failed`` or ``all`` trials again; their latest record counts.
        watch: told the state whenever it changes; ``best`` are the records of the index at work, the best first.

    Raises:
        UsageError: another process runs this sweep, or the folder holds a sweep of indexes.
        StorageError: the disk is full or refuses.
        DataError: the ledger is damaged.
    """
    refuse_indexes(plan.sweep.folder)
    this = _ProfileRun(plan, rerun, watch)
    done = this.go()
    records = [
        named(this.ledger.records[one.digest], one.index_name)
        for one in plan.trials
        if one.digest in this.ledger.records
    ]
    return EvaluationOutcome(tuple(records), done.measured_now, done.left, done.pruned, this.document)


class _ProfileRun(Run[ProfileTrial, AnyProfile]):
    kind = PROFILE_RECORD

    def __init__(self, plan: EvaluationPlan, rerun: Rerun, watch: Callable[[ProfileState], None]) -> None:
        super().__init__(plan.sweep.folder, plan.trials, plan.sweep.time_budget_s, rerun, watch)
        self._plan = plan
        self.document: Winners | None = None

    def plan_record(self) -> EvaluationPlanRecord:
        return self._plan.record()

    def seconds_left(self) -> float | None:
        return seconds_left(list(self.left.values()), self.ledger.records)

    def measure_all(self) -> None:
        for trial in self._in_order():
            if trial.digest not in self.left:  # two indexes may hold the same
                continue
            if self.measured_now:
                self.check_budget()
            self._begin(trial.what, self._records_of(trial))
            self.take(self._measure(trial))

    def _in_order(self) -> list[ProfileTrial]:
        """Order trials so that those that share queries come one after the other."""
        names = list(dict.fromkeys(trial.index_name for trial in self.trials))
        wanted = [trial for trial in self.trials if trial.digest in self.left]
        return sorted(wanted, key=lambda one: (names.index(one.index_name), queries_key(one.profile)))

    def _begin(self, what: str, records: Iterable[AnyProfile]) -> None:
        self.state.best = list(ranked(records, self._plan.sweep.evaluate.by))
        self.stage(what)

    def _records_of(self, trial: ProfileTrial) -> list[AnyProfile]:
        planned = [one.digest for one in self.trials if one.index_name == trial.index_name]
        return [self.ledger.records[digest] for digest in planned if digest in self.ledger.records]

    def _measure(self, trial: ProfileTrial) -> AnyProfile:
        """Return the record of a trial; what FAISS and numpy raise makes it a failed one."""
        started = time.perf_counter()
        stamp = self._plan.stamp.of_a_record()
        head = {"digest": trial.digest, "label": trial.label, **dict(trial.settings), "environment": stamp}

        def elapsed() -> dict[str, float]:
            return {"elapsed_s": round(time.perf_counter() - started, 3)}

        try:
            summary = trial.evaluator.try_profile(trial.profile, self.step)
            users = trial.evaluator.users_of(trial.evaluator.before)
            told = {"status": "measured", "reason": None, "users_evaluated": users, **settle(dict(summary))}
            return MeasuredProfile.model_validate(head | told | elapsed())
        except FAILURES as error:
            return FailedProfile.model_validate(head | {"status": "failed", "reason": reason_of(error)} | elapsed())

    def end(self) -> None:
        """Choose each index's best profile and measure it on the titles that it was not chosen by."""
        if self.left:
            return
        sweep, path = self._plan.sweep, self.folder / DOCUMENT
        before = read_whole(path, WINNERS)
        known = {} if before is None or self.rerun == "all" else {one.digest: one for one in before.evaluations}
        winners = []
        for trials in self._plan.by_index():
            tried = {
                trial.profile: record
                for trial in trials
                if isinstance(record := self.ledger.records[trial.digest], MeasuredProfile)
            }
            if tried:
                winners.append(self._winner(trials, tried, known))
        if not winners:
            return
        document = Winners(name=sweep.name, by=sweep.evaluate.by, environment=self._plan.stamp, evaluations=winners)
        if before is not None and says_the_same(before, document):
            document = before
        else:
            save_document(path, document)
        self.document = document

    def _winner(
        self, trials: Sequence[ProfileTrial], tried: Mapping[Profile, MeasuredProfile], known: Mapping[str, Winner]
    ) -> Winner:
        settings, evaluator = self._plan.sweep.evaluate, trials[0].evaluator
        chosen = best_profile(tried, settings.by)
        digests = {trial.profile: trial.digest for trial in trials}
        digest = hashlib.sha256(f"{digests[chosen]} beside {digests[evaluator.given]}".encode()).hexdigest()
        self._begin(f"the winner on {trials[0].index_name}: {chosen.describe()}", tried.values())
        head = WinnerHead(
            name=trials[0].index_name,
            digest=digest,
            command=command_of(evaluator, chosen, settings),
            trials=[trial.digest for trial in trials],
        )
        earlier = known.get(digest)
        judged = evaluator.judge(chosen, evaluator.given, self.step) if earlier is None else earlier
        told = judgement_of(evaluator, chosen, settings.by, tried, judged)
        return Winner.model_validate(dict(head) | dict(told))


def ranked(records: Iterable[AnyProfile], by: str) -> list[MeasuredProfile]:
    """Return the measured records, the one with the highest mean of a metric first, of several the first."""
    measured = [record for record in records if isinstance(record, MeasuredProfile)]
    return sorted(measured, key=lambda record: -record.metric(by).mean)


def seconds_left(left: Sequence[ProfileTrial], records: Mapping[str, AnyProfile]) -> float | None:
    """Estimate how long trials will take, by those of as many interests, or else by all; None where none is known."""
    times: dict[int, list[float]] = {}
    for record in records.values():
        times.setdefault(record.profile.interests, []).append(record.elapsed_s)
    every = [one for group in times.values() for one in group]
    if not every:
        return None
    groups = [times.get(trial.profile.interests, every) for trial in left]
    return sum(sum(group) / len(group) for group in groups)
