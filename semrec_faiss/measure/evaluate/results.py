"""The results of an evaluated sweep as they lie on the disk: the plan, the ledger, and what the winners came to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.config.profile import Profile
from semrec_faiss.errors import DataError, NotFoundError, StorageError
from semrec_faiss.measure.evaluate.evaluator import best_profile
from semrec_faiss.measure.evaluate.plan import EvaluationPlan
from semrec_faiss.measure.evaluate.record import mistake_in, mistake_in_document, mistake_in_plan
from semrec_faiss.measure.trials.kind import EVALUATION, PLAN
from semrec_faiss.measure.trials.ledger import LEDGER, read_ledger
from semrec_faiss.measure.trials.record import FAILED, MEASURED
from semrec_faiss.storage import new_file

DOCUMENT = "evaluation.json"

Record = dict[str, Any]


@dataclass(frozen=True)
class EvaluationResults:
    """What an evaluated sweep found.

    Attributes:
        folder: where.
        plan: the content of plan.json.
        records: of the plan's trials, in its order; measured and failed ones.
        document: the content of evaluation.json; None where profiles are left to try, so that nothing is chosen yet.
    """

    folder: Path
    plan: dict[str, Any]
    records: tuple[Record, ...]
    document: dict[str, Any] | None

    @classmethod
    def read(cls, folder: str | Path) -> EvaluationResults:
        """Read the results in a folder.

        Raises:
            NotFoundError: there are none.
            DataError: a file is damaged; the message names file and field.
        """
        place = Path(folder)
        plan = _read_json(place / PLAN)
        if plan is None:
            raise NotFoundError(f"{place} holds no sweep: {PLAN} is not there", fix="run `semrec sweep` first")
        _refuse(place / PLAN, mistake_in_plan(plan))
        known = read_ledger(place / LEDGER, mistake_in)
        digests = [trial["digest"] for trial in plan["trials"]]
        records = tuple(
            named(known[trial["digest"]], trial["index"]) for trial in plan["trials"] if trial["digest"] in known
        )
        document = _read_json(place / DOCUMENT)
        if document is not None:
            _refuse(place / DOCUMENT, mistake_in_document(document))
            chosen_from = {digest for one in document["evaluations"] for digest in one["trials"]}
            is_of_this = document["by"] == plan["sweep"]["evaluate"]["by"] and chosen_from == set(digests)
            if is_of_this and len(records) == len(digests):
                _refuse(place / DOCUMENT, _wrong_winner(document, records))
            else:  # of an earlier grid or choice, or records of this one were lost
                document = None
        return cls(place, plan, records, document)

    @property
    def measured(self) -> list[Record]:
        """The records of trials that did not fail."""
        return [record for record in self.records if record["status"] == MEASURED]

    @property
    def failed(self) -> list[Record]:
        """The records of trials that failed."""
        return [record for record in self.records if record["status"] == FAILED]

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The plan's trials that have no record."""
        known = {record["digest"] for record in self.records}
        return [trial for trial in self.plan["trials"] if trial["digest"] not in known]


def _wrong_winner(document: dict[str, Any], records: Sequence[Record]) -> str | None:
    """Say which winner is not the one that the ledger gives; None where all are."""
    for one in document["evaluations"]:
        tried = {Profile(**record["profile"]): record for record in records
                 if record["digest"] in one["trials"] and record["status"] == MEASURED}  # fmt: skip
        if not tried or best_profile(tried, document["by"]).model_dump() != one["profile"]:
            return f"profile is not the best of {LEDGER} by {document['by']} on {one['name']}"
    return None


def save_plan(plan: EvaluationPlan, environment: dict[str, Any]) -> None:
    """Write which trials a sweep consists of, beside the ledger that may hold those of earlier grids too.

    What says the same already stays as it is, with the stamp of the run that measured.
    """
    document = {
        "kind": EVALUATION,
        "name": plan.sweep.name,
        "sweep": plan.sweep.model_dump(mode="json"),
        "environment": environment,
        "trials": [{"digest": trial.digest, "what": trial.what, "index": trial.index_name} for trial in plan.trials],
        "invalid": [{"what": one.what, "reason": one.reason} for one in plan.invalid],
    }
    path = plan.sweep.folder / PLAN
    if not _says_the_same(_read_whole(path), document):
        _write(path, document)


def save_document(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Write evaluation.json, unless it says the same already and only the stamp is another; return what it holds."""
    before = read_document(folder)
    if before is not None and _says_the_same(before, document):
        return before
    _write(folder / DOCUMENT, document)
    return document


def named(record: Record, index: str) -> Record:
    """Return a record with the index's name of now: records are known by content, whatever it was called then."""
    return record | {"index": record["index"] | {"name": index}}


def read_document(folder: Path) -> dict[str, Any] | None:
    """Read evaluation.json; None where there is none that is whole."""
    document = _read_whole(folder / DOCUMENT)
    return None if document is None or mistake_in_document(document) is not None else document


def _read_whole(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none."""
    try:
        document = _read_json(path)
    except DataError:
        return None
    return document if isinstance(document, dict) else None


def _says_the_same(before: dict[str, Any] | None, document: dict[str, Any]) -> bool:
    return before is not None and before | {"environment": None} == document | {"environment": None}


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        with new_file(path) as file:
            file.write(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="free disk space") from error


def _read_json(path: Path) -> Any:
    """Read a JSON file; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}", fix=_AGAIN) from error


def _refuse(path: Path, mistake: str | None) -> None:
    if mistake is not None:
        raise DataError(f"{path} is not whole: {mistake}", fix=_AGAIN)


_AGAIN = "run `semrec sweep` again, which writes it anew and measures nothing twice"
