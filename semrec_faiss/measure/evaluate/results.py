"""The results of an evaluated sweep as they lie on the disk: the plan, the ledger, and what the winners came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semrec_faiss.errors import DataError
from semrec_faiss.measure.evaluate.record import (
    EVALUATION_PLAN,
    PROFILE_RECORD,
    WINNERS,
    AnyProfile,
    EvaluationPlanRecord,
    FailedProfile,
    MeasuredProfile,
    PlannedProfile,
    Winners,
    best_profile,
    named,
)
from semrec_faiss.measure.trials.ledger import LEDGER, read_ledger
from semrec_faiss.measure.trials.results import AGAIN, Results, read_document, read_plan

DOCUMENT = "evaluation.json"


@dataclass(frozen=True)
class EvaluationResults(Results[EvaluationPlanRecord, AnyProfile]):
    """What an evaluated sweep found.

    Attributes:
        document: the content of evaluation.json; None where profiles are left to try, so that nothing is chosen yet.
    """

    document: Winners | None

    @classmethod
    def read(cls, folder: str | Path) -> EvaluationResults:
        """Read the results in a folder.

        Raises:
            NotFoundError: there are none.
            DataError: a file is damaged; the message names file and field.
        """
        place = Path(folder)
        plan = read_plan(place, EVALUATION_PLAN)
        known = read_ledger(place / LEDGER, PROFILE_RECORD)
        records = tuple(named(known[one.digest], one.index) for one in plan.trials if one.digest in known)
        document = read_document(place / DOCUMENT, WINNERS, NOT_WHOLE)
        if document is not None:
            chosen_from = {digest for one in document.evaluations for digest in one.trials}
            is_of_this = document.by == plan.sweep.evaluate.by and chosen_from == {one.digest for one in plan.trials}
            if is_of_this and len(records) == len(plan.trials):
                _refuse_wrong_winner(place / DOCUMENT, document, records)
            else:  # of an earlier grid or choice, or records of this one were lost
                document = None
        return cls(place, plan, records, document)

    @property
    def measured(self) -> list[MeasuredProfile]:
        """The records of profiles that did not fail."""
        return [record for record in self.records if isinstance(record, MeasuredProfile)]

    @property
    def failed(self) -> list[FailedProfile]:
        """The records of profiles that failed."""
        return [record for record in self.records if isinstance(record, FailedProfile)]

    @property
    def missing(self) -> list[PlannedProfile]:
        """The plan's profiles that have no record."""
        known = {record.digest for record in self.records}
        return [trial for trial in self.plan.trials if trial.digest not in known]


NOT_WHOLE = "is not whole"


def _refuse_wrong_winner(path: Path, document: Winners, records: Sequence[AnyProfile]) -> None:
    """Refuse a winner that is not the one that the ledger gives."""
    for one in document.evaluations:
        tried = {
            record.profile: record
            for record in records
            if record.digest in one.trials and isinstance(record, MeasuredProfile)
        }
        if not tried or best_profile(tried, document.by) != one.profile:
            mistake = f"profile is not the best of {LEDGER} by {document.by} on {one.name}"
            raise DataError(f"{path} {NOT_WHOLE}: {mistake}", fix=AGAIN)
