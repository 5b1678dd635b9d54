"""What the plan.json of a sweep must hold before its results are read: which trials it consists of, and the stamp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from semrec_faiss.measure.documents.fields import Count, Part, Positive, Text, mistakes_by, unsound_values

AtLeastOneOf = Field(min_length=1)


class _Questions(Part):
    titles: Count
    users: Count
    seed: Count


class _Sweep(Part):
    dataset: Annotated[list[Text], AtLeastOneOf]
    queries: _Questions
    k: Annotated[list[Positive], AtLeastOneOf]
    batch: Annotated[list[Positive], AtLeastOneOf]
    repeats: Positive
    warmup: Count


class _Git(Part):
    commit: str | None
    dirty: bool | None


class _Cpu(Part):
    model: str | None
    usable_cores: Positive | None


class _Gpu(Part):
    name: str
    driver: str | None


class Environment(Part):
    """The stamp of `environment.environment`, as far as reports show it."""

    date: str
    command: str
    git: _Git | None
    versions: dict[str, str | None]
    os: str
    cpu: _Cpu
    faiss_threads: Positive | None
    gpus: list[_Gpu]


class _PlannedTrial(Part):
    digest: Text
    what: str
    pruned: str | None


class InvalidOne(Part):
    """A combination that is not measured."""

    what: str
    reason: str


class _Plan(Part):
    name: Text
    sweep: _Sweep
    environment: Environment
    trials: list[_PlannedTrial]
    invalid: list[InvalidOne]


def mistake_in_plan(plan: Any) -> str | None:
    """Say which field of a plan.json is not as it must be, and why; None where all is well."""
    return next(_mistakes(plan), None)


def _mistakes(plan: Any) -> Iterator[str]:
    if not isinstance(plan, dict):
        yield "it is no JSON object"
    yield from unsound_values(plan)
    yield from mistakes_by(_Plan, plan)
