"""A sweep's results as they lie on the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semrec_faiss.errors import DataError, NotFoundError
from semrec_faiss.measure.trials.kind import PLAN, refuse_evaluation
from semrec_faiss.measure.trials.ledger import LEDGER, Record, read_ledger
from semrec_faiss.measure.trials.plan_record import mistake_in_plan
from semrec_faiss.measure.trials.record import FAILED, MEASURED

Rerun = Literal["none", "failed", "all"]


@dataclass(frozen=True)
class SweepResults:
    """A sweep's results as they lie on the disk.

    Attributes:
        folder: where.
        plan: the content of plan.json: the trials, what was pruned, what is invalid, the environment.
        records: of the plan's trials, in its order; measured and failed ones.
    """

    folder: Path
    plan: dict[str, Any]
    records: tuple[Record, ...]

    @classmethod
    def read(cls, folder: str | Path) -> SweepResults:
        """Read the results in a folder.

        Raises:
            NotFoundError: there is no sweep.
            UsageError: it evaluates recommendations.
            DataError: its plan or its ledger is damaged; the message names file and field.
        """
        place = Path(folder)
        refuse_evaluation(place)
        try:
            plan = json.loads((place / PLAN).read_text(encoding="utf-8"))
            mistake = mistake_in_plan(plan)
        except OSError as error:
            raise NotFoundError(
                f"{place} holds no sweep: {PLAN} is not there or cannot be read", fix="run `semrec sweep` first"
            ) from error
        except (ValueError, RecursionError) as error:
            mistake = f"it is no JSON ({error})"
        if mistake is not None:
            raise DataError(
                f"{place / PLAN} is no plan of a sweep: {mistake}",
                fix="run `semrec sweep` again, which writes it anew and measures nothing twice",
            )
        known = read_ledger(place / LEDGER)
        records = [known[trial["digest"]] for trial in plan["trials"] if trial["digest"] in known]
        return cls(place, plan, tuple(records))

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
        """The plan's trials that have no record, with ``what`` and, where they were pruned, the reason."""
        known = {record["digest"] for record in self.records}
        return [trial for trial in self.plan["trials"] if trial["digest"] not in known]
