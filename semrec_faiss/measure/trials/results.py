"""A sweep's results as they lie on the disk, whatever its kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from semrec_faiss.arguments import path_of
from semrec_faiss.errors import DataError, NotFoundError, StorageError, UsageError
from semrec_faiss.measure.documents.fields import Checked, Part, Unsound, checked
from semrec_faiss.measure.documents.results import MOST_BYTES
from semrec_faiss.measure.trials.kind import PLAN, refuse_evaluation
from semrec_faiss.measure.trials.ledger import LEDGER, TrialRecord, read_ledger
from semrec_faiss.measure.trials.plan_record import SWEEP_PLAN, PlanRecord, PrunableTrial, SweepPlan
from semrec_faiss.measure.trials.record import TRIAL_RECORD, Failed, Measured
from semrec_faiss.storage import new_file, read_small

AGAIN = "run `semrec sweep` again, which writes it anew and measures nothing twice"

Plan = TypeVar("Plan", bound=PlanRecord)


@dataclass(frozen=True)
class Results(Generic[Plan, TrialRecord]):
    """What a sweep found.

    Attributes:
        folder: where.
        plan: the content of plan.json: the trials, what is invalid, the stamp.
        records: of the plan's trials, in its order; measured and failed ones.
    """

    folder: Path
    plan: Plan
    records: tuple[TrialRecord, ...]

    def check_measured(self, nothing: str) -> None:
        """Refuse results of which nothing was measured; ``nothing`` says why where nothing failed either.

        Raises:
            UsageError: nothing was measured, with the reasons.
        """
        if not any(record.status == "measured" for record in self.records):
            failed = dict.fromkeys(str(getattr(record, "reason", nothing)) for record in self.records)
            raise UsageError(f"nothing was measured in {self.folder}: {'; '.join(failed) or nothing}")


class SweepResults(Results[SweepPlan, Measured | Failed]):
    """What a sweep of indexes found."""

    @classmethod
    def read(cls, folder: str | Path) -> SweepResults:
        """Read the results in a folder.

        Raises:
            NotFoundError: there is no sweep.
            UsageError: it evaluates recommendations.
            DataError: its plan or its ledger is damaged; the message names file and field.
        """
        place = path_of(folder, "the results")
        refuse_evaluation(place)
        plan = read_plan(place, SWEEP_PLAN)
        known = read_ledger(place / LEDGER, TRIAL_RECORD)
        return cls(place, plan, tuple(known[trial.digest] for trial in plan.trials if trial.digest in known))

    @property
    def measured(self) -> list[Measured]:
        """The records of trials that did not fail."""
        return measured_of(self.records)

    @property
    def failed(self) -> list[Failed]:
        """The records of trials that failed."""
        return [record for record in self.records if isinstance(record, Failed)]

    @property
    def missing(self) -> list[PrunableTrial]:
        """The plan's trials that have no record."""
        known = {record.digest for record in self.records}
        return [trial for trial in self.plan.trials if trial.digest not in known]


def measured_of(records: Sequence[Measured | Failed]) -> list[Measured]:
    """Return the records of trials that did not fail."""
    return [record for record in records if isinstance(record, Measured)]


def read_plan(folder: Path, kind: TypeAdapter[Checked]) -> Checked:
    """Read a plan.json.

    Raises:
        NotFoundError: there is none.
        DataError: it is no plan; the message names the field.
    """
    plan = read_document(folder / PLAN, kind, "is no plan of a sweep")
    if plan is None:
        raise NotFoundError(f"{folder} holds no sweep: {PLAN} is not there", fix="run `semrec sweep` first")
    return plan


def read_document(path: Path, kind: TypeAdapter[Checked], wrong: str) -> Checked | None:
    """Read a file that a sweep wrote beside its ledger; None where it is not there.

    Args:
        path: of the file.
        kind: what it must hold.
        wrong: what to say where it does not.

    Raises:
        DataError: it holds something else; the message names the field.
        StorageError: it may not be read.
    """
    try:
        return checked(kind, json.loads(read_small(path, MOST_BYTES).decode("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except Unsound as error:
        mistake = str(error)
    except (ValueError, RecursionError) as error:
        mistake = f"it is not JSON ({error})"
    raise DataError(f"{path} {wrong}: {mistake}", fix=AGAIN)


def save_document(path: Path, document: Part) -> None:
    """Write a file beside the ledger, whole or not at all.

    Raises:
        StorageError: the disk is full or refuses.
    """
    text = json.dumps(document.as_json(), ensure_ascii=False, indent=1, allow_nan=False)
    try:
        with new_file(path) as file:
            file.write(text.encode() + b"\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="free disk space") from error


def read_whole(path: Path, kind: TypeAdapter[Checked]) -> Checked | None:
    """Read a file that a sweep wrote beside its ledger; None where there is none that is whole."""
    try:
        return read_document(path, kind, "")
    except DataError:
        return None
