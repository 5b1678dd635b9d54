"""What an evaluated sweep writes: the line of a profile, the document of the winners, the plan; all checked whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, field_serializer, model_validator

from semrec_faiss.config.profile import Profile
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share, Text, check_digest
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.evaluate.evaluator import AS_GIVEN, BESIDE, CHANCE, METRICS, POPULAR, RECOMMENDER, TOGETHER
from semrec_faiss.measure.trials.plan_record import PlannedTrial, PlanRecord

FORMAT: Literal["evaluation-2"] = "evaluation-2"
"""Part of every digest: another way of measuring gets another name."""

Signed = Annotated[float, Field(ge=-1, le=1)]
Metric = Literal[METRICS]  # type: ignore[valid-type]


class Span(Part):
    """A confidence interval."""

    low: float
    high: float


class Mean(Part):
    """A mean over users with its confidence interval."""

    mean: Share
    interval: Span


class Novelty(Part):
    """The mean novelty in bits; None where no list has a title."""

    mean: Amount | None
    interval: Span | None


class Lists(Part):
    """How good lists of one length are."""

    hit_rate: Mean
    recall: Mean
    ndcg: Mean
    mrr: Mean
    novelty: Novelty
    coverage: Share

    def of_users(self, name: str) -> Mean:
        """Return a metric of `PER_USER`, such as ``ndcg``."""
        found: Mean = getattr(self, name)
        return found


class Summary(Part):
    """How good lists of both lengths are."""

    at_10: Lists
    at_100: Lists

    def at(self, k: int) -> Lists:
        """Return the numbers of lists of ``k`` titles."""
        found: Lists = getattr(self, f"at_{k}")
        return found

    def metric(self, name: str) -> Mean:
        """Return one of `METRICS`, such as ``ndcg_at_10``."""
        metric, _, k = name.rpartition("_at_")
        return self.at(int(k)).of_users(metric)


class Difference(Part):
    """A mean difference over users, paired, with its confidence interval."""

    mean: Signed
    interval: Span


Differences = dict[str, dict[str, Difference]]
"""By the other method, then by the metric."""


class EvaluatedIndex(Part):
    """The index that is evaluated."""

    name: Text
    digest: Text
    settings: dict[str, JsonValue]
    exact: bool
    titles: AtLeastOne
    users: Count
    ratings: Count
    has_ratings: bool = True
    """Whether these tell how much a title was liked; else all that was seen counts. Records of before do not say."""


class EvaluatedDevice(Part):
    """Where it searches, as far as this may change what is found."""

    kind: Literal["cpu", "gpu"]
    float16: bool


class LeftOut(Part):
    """What is left out, and of whom; see `EvaluationProtocol`."""

    held_out: AtLeastOne
    liked: float
    users: AtLeastOne
    seed: Count
    strict: bool


class ProfileSettings(Part):
    """What a trial measures; its digest is that of these."""

    format: Literal["evaluation-2"] = FORMAT
    index: EvaluatedIndex
    device: EvaluatedDevice
    protocol: LeftOut
    profile: Profile
    faiss: Text

    @field_serializer("profile")
    def _with_defaults(self, profile: Profile) -> dict[str, Any]:
        return profile.model_dump(mode="json")

    @property
    def settings_digest(self) -> str:
        """SHA-256 in hex of what is measured; the index's name and place are not part of it."""
        told = self.model_dump(mode="json", include={"device", "protocol", "profile", "faiss"})
        index = {"digest": self.index.digest, "settings": self.index.settings}
        hashed = json.dumps({"format": FORMAT, "index": index, **told}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(hashed.encode()).hexdigest()


class RecordHead(Part):
    """What every record begins with."""

    digest: Text
    status: Literal["measured", "failed"]
    reason: str | None
    label: Text


class ProfileRecord(ProfileSettings, RecordHead):
    """What the records of measured and of failed profiles have in common."""

    environment: dict[str, JsonValue] | None = None
    elapsed_s: Amount

    @model_validator(mode="after")
    def _digest_is_that_of_the_settings(self) -> ProfileRecord:
        check_digest(self.digest, self.settings_digest)
        return self

    @property
    def what(self) -> str:
        """All that tells this trial from the others of its sweep."""
        return f"{self.index.name}: {self.label}"


class FailedProfile(ProfileRecord):
    """A profile that could not be measured, and why."""

    status: Literal["failed"] = "failed"
    reason: str


class MeasuredProfile(Summary, ProfileRecord):
    """A profile that was measured, on the titles liked before those left out last."""

    status: Literal["measured"] = "measured"
    users_evaluated: AtLeastOne
    not_measured: dict[str, str]


AnyProfile = MeasuredProfile | FailedProfile
PROFILE_RECORD: TypeAdapter[AnyProfile] = TypeAdapter(Annotated[AnyProfile, Field(discriminator="status")])


class JudgedProtocol(Part):
    """What was left out last, and of whom."""

    held_out: AtLeastOne
    liked: float
    users_evaluated: AtLeastOne
    users_with_too_few_liked: Count
    seed: Count
    strict: bool


class GridRow(Part):
    """What one profile came to on the titles that the winner was chosen by: it, and the mean of each of `METRICS`."""

    profile: Profile

    @field_serializer("profile")
    def _with_defaults(self, profile: Profile) -> dict[str, Any]:
        return profile.model_dump(mode="json")

    def metric(self, name: str) -> float:
        """Return the mean of one of `METRICS`."""
        return float((self.model_extra or {})[name])


class Beside(Part):
    """The same by another protocol."""

    users_evaluated: AtLeastOne
    methods: dict[str, Summary]
    differences: Differences


class Judgement(Part):
    """How good the recommendations of one index are, beside the baselines; see `document.evaluate_index`."""

    index: dict[str, JsonValue]
    protocol: JudgedProtocol
    profile: Profile
    chosen_by: str | None
    grid: list[GridRow] | None
    methods: dict[str, Summary]
    differences: Differences
    beside: dict[Literal[BESIDE], Beside | None]  # type: ignore[valid-type]
    build: Text | None
    not_measured: dict[str, str]

    @field_serializer("profile")
    def _with_defaults(self, profile: Profile) -> dict[str, Any]:
        return profile.model_dump(mode="json")

    @model_validator(mode="after")
    def _all_methods(self) -> Judgement:
        others = {POPULAR, TOGETHER, CHANCE} | ({AS_GIVEN} & set(self.methods))
        if set(self.methods) != {RECOMMENDER} | others:
            raise ValueError(f"methods are {sorted(self.methods)}, not {sorted({RECOMMENDER} | others)}")
        if set(self.differences) != others or any(set(one) != set(METRICS) for one in self.differences.values()):
            raise ValueError("differences are not those of every metric to every other method")
        return self


class Stamped(Part):
    """What begins with the stamp."""

    environment: Stamp


class EvaluationDocument(Judgement, Stamped):
    """What `semrec evaluate` writes."""


class WinnerHead(Part):
    """Whose winner it is, and what it was chosen from."""

    name: Text
    digest: Text
    command: Text
    trials: list[Text]


class Winner(Judgement, WinnerHead):
    """The profile that was chosen for one index, measured on the titles that it was not chosen by."""


class Winners(Part):
    """The content of evaluation.json."""

    name: Text
    by: Metric
    environment: Stamp
    evaluations: list[Winner]


class Evaluated(Part):
    """What the sweep file says of the evaluation, as far as it is read again."""

    by: Metric
    index: list[Text]


class SweptEvaluation(Part):
    """The sweep file, as far as it is read again."""

    evaluate: Evaluated


class PlannedProfile(PlannedTrial):
    """A profile that is to be measured on an index."""

    index: Text


class EvaluationPlanRecord(PlanRecord):
    """The plan of a sweep that evaluates recommendations."""

    kind: Literal["evaluation"]
    sweep: SweptEvaluation
    trials: list[PlannedProfile]


EVALUATION_PLAN = TypeAdapter(EvaluationPlanRecord)
WINNERS = TypeAdapter(Winners)


def best_profile(tried: Mapping[Profile, Summary], by: str) -> Profile:
    """Return the profile with the highest mean of a metric; of several the first."""
    return max(tried, key=lambda profile: tried[profile].metric(by).mean)


def named(record: AnyProfile, index: str) -> AnyProfile:
    """Return a record with the index's name of now: records are known by content, whatever it was called then."""
    return record.model_copy(update={"index": record.index.model_copy(update={"name": index})})
