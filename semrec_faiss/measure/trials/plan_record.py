"""The plan.json of a sweep: which trials it consists of, what is none, and the stamp; whatever its kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from semrec_faiss.measure.documents.fields import AtLeastOne, Count, Part, Text
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.trials.record import Questions

AtLeastOneOf = Field(min_length=1)


class PlannedTrial(Part):
    """A trial that is to be measured."""

    digest: Text
    what: str


class InvalidOne(Part):
    """A combination that is not measured."""

    what: str
    reason: str


class PlanRecord(Part):
    """What the plans of all kinds have."""

    name: Text
    environment: Stamp
    invalid: list[InvalidOne]


class SweptSettings(Part):
    """The sweep file, as far as it is read again."""

    dataset: Annotated[list[Text], AtLeastOneOf]
    queries: Questions
    k: Annotated[list[AtLeastOne], AtLeastOneOf]
    batch: Annotated[list[AtLeastOne], AtLeastOneOf]
    repeats: AtLeastOne
    warmup: Count


class PrunableTrial(PlannedTrial):
    """A trial of an index, and why it was pruned."""

    pruned: str | None


class SweepPlan(PlanRecord):
    """The plan of a sweep of indexes."""

    sweep: SweptSettings
    trials: list[PrunableTrial]


SWEEP_PLAN = TypeAdapter(SweepPlan)
