"""What a ledger and a document of evaluated profiles must hold before anything is chosen or drawn by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from semrec_faiss.config.profile import Profile
from semrec_faiss.measure.documents.fields import (
    Amount,
    Count,
    Part,
    Positive,
    Share,
    Text,
    mistakes_by,
    unsound_values,
)
from semrec_faiss.measure.evaluate.evaluator import AS_GIVEN, BESIDE, CHANCE, METRICS, POPULAR, RECOMMENDER, TOGETHER
from semrec_faiss.measure.trials.plan_record import Environment, InvalidOne

Record = dict[str, Any]

FORMAT = "evaluation-2"
"""Part of every digest: another way of measuring gets another name."""

Signed = Annotated[float, Field(ge=-1, le=1)]


class _Span(Part):
    low: float
    high: float


class _Metric(Part):
    """A mean over users with its confidence interval."""

    mean: Share
    interval: _Span


class _Novelty(Part):
    mean: Amount | None
    interval: _Span | None


class _At(Part):
    hit_rate: _Metric
    recall: _Metric
    ndcg: _Metric
    mrr: _Metric
    novelty: _Novelty
    coverage: Share


class _Difference(Part):
    mean: Signed
    interval: _Span


class _Index(Part):
    name: Text
    digest: Text
    settings: dict[str, Any]
    exact: bool
    titles: Positive
    users: Count
    ratings: Count


class _Device(Part):
    kind: Literal["cpu", "gpu"]
    float16: bool


class _Protocol(Part):
    held_out: Positive
    liked: float
    users: Positive
    seed: Count
    strict: bool


class _Trial(Part):
    digest: Text
    format: Literal["evaluation-2"]
    status: Literal["measured", "failed"]
    reason: str | None
    label: Text
    index: _Index
    device: _Device
    protocol: _Protocol
    profile: Profile
    faiss: Text
    elapsed_s: Amount


class _Failed(_Trial):
    reason: str


class _Measured(_Trial):
    users_evaluated: Positive
    at_10: _At
    at_100: _At
    not_measured: dict[str, str]


class _Method(Part):
    at_10: _At
    at_100: _At


class _JudgedProtocol(Part):
    held_out: Positive
    liked: float
    users_evaluated: Positive
    users_with_too_few_liked: Count
    seed: Count
    strict: bool


class _Beside(Part):
    """The same by another protocol."""

    users_evaluated: Positive
    methods: dict[str, _Method]
    differences: dict[str, dict[str, _Difference]]


class _Evaluation(Part):
    name: Text
    digest: Text
    command: Text
    trials: list[Text]
    profile: Profile
    protocol: _JudgedProtocol
    methods: dict[str, _Method]
    differences: dict[str, dict[str, _Difference]]
    beside: dict[Literal[BESIDE], _Beside | None]  # type: ignore[valid-type]
    build: Text | None
    not_measured: dict[str, str]

    @model_validator(mode="after")
    def _all_methods(self) -> _Evaluation:
        others = {POPULAR, TOGETHER, CHANCE} | ({AS_GIVEN} & set(self.methods))
        if set(self.methods) != {RECOMMENDER} | others:
            raise ValueError(f"methods are {sorted(self.methods)}, not {sorted({RECOMMENDER} | others)}")
        if set(self.differences) != others or any(set(one) != set(METRICS) for one in self.differences.values()):
            raise ValueError("differences are not those of every metric to every other method")
        return self


class _Document(Part):
    name: Text
    by: Literal[METRICS]  # type: ignore[valid-type]
    environment: Environment
    evaluations: list[_Evaluation]


class _Evaluate(Part):
    by: Literal[METRICS]  # type: ignore[valid-type]
    index: list[Text]


class _PlannedTrial(Part):
    digest: Text
    what: str
    index: Text


class _Sweep(Part):
    evaluate: _Evaluate


class _Plan(Part):
    kind: Literal["evaluation"]
    name: Text
    sweep: _Sweep
    environment: Environment
    trials: list[_PlannedTrial]
    invalid: list[InvalidOne]


def digest_of(record: Record) -> str:
    """SHA-256 in hex of what a record says that it measures; the index's name and place are not part of it."""
    index = {name: record["index"][name] for name in ("digest", "settings")}
    settings = {name: record[name] for name in ("device", "protocol", "profile", "faiss")}
    hashed = json.dumps({"format": FORMAT, "index": index, **settings}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(hashed.encode()).hexdigest()


def mistake_in(record: Record) -> str | None:
    """Say which field of a ledger's record is not as it must be, and why; None where all is well."""
    return next(_mistakes(record), None)


def mistake_in_document(document: Any) -> str | None:
    """Say which field of an evaluation.json is not as it must be, and why; None where all is well."""
    return _first_mistake(_Document, document)


def mistake_in_plan(plan: Any) -> str | None:
    """Say which field of the plan.json of an evaluation is not as it must be, and why; None where all is well."""
    return _first_mistake(_Plan, plan)


def _first_mistake(model: type[Part], document: Any) -> str | None:
    if not isinstance(document, dict):
        return "it is no JSON object"
    return next(chain(unsound_values(document), mistakes_by(model, document)), None)


def _mistakes(record: Record) -> Iterator[str]:
    yield from unsound_values(record)
    yield from mistakes_by(_Failed if record.get("status") == "failed" else _Measured, record)
    if digest_of(record) != record["digest"]:
        yield "digest is not that of the settings beside it: one of them was changed after it was measured"
