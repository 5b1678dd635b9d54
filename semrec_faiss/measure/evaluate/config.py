"""The sweep file that evaluates recommendations: which profiles are tried on which indexes, as frozen models."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.config.profile import MOST_INTERESTS, MOST_POPULARITY, Profile
from semrec_faiss.measure.evaluate.document import MOST_PROFILES
from semrec_faiss.measure.evaluate.evaluator import METRICS, EvaluationProtocol
from semrec_faiss.measure.trials.settings import (
    DEFAULT_RESULTS,
    MOST_COUNT,
    Name,
    Seconds,
    Seed,
    as_list,
    distinct,
    told_apart,
)

ASSIGNMENT = re.compile(r"[^=\s]+=.*")


def _none_as_null(value: Any) -> Any:
    """Read ``none``, as the tables of results spell it, as YAML's null."""
    return None if value == "none" else value


AsList = BeforeValidator(as_list)
Some = Field(min_length=1)
HalfLife = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None, BeforeValidator(_none_as_null)
]
Interests = Annotated[int, Field(ge=1, le=MOST_INTERESTS, strict=True)]
Popularity = Annotated[float, Field(ge=0, le=MOST_POPULARITY, allow_inf_nan=False, strict=True)]
Pool = Annotated[int, Field(ge=1, le=MOST_COUNT, strict=True)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST_COUNT, strict=True)]


class ProfileGrid(Settings):
    """Settings of `Profile`, each with one value or a list of alternatives; what is left out has its default.

    ``liked`` of a profile is that of the evaluation.
    """

    weights: Annotated[tuple[Literal["rating", "centred", "positive", "liked"], ...], AsList, Some] = ("rating",)
    half_life: Annotated[tuple[HalfLife, ...], AsList, Some] = (None,)
    half_life_days: Annotated[tuple[HalfLife, ...], AsList, Some] = (None,)
    interests: Annotated[tuple[Interests, ...], AsList, Some] = (1,)
    merge: Annotated[tuple[Literal["score", "turns"], ...], AsList, Some] = ("score",)
    popularity: Annotated[tuple[Popularity, ...], AsList, Some] = (0.0,)
    pool: Annotated[tuple[Pool, ...], AsList, Some] = (1000,)

    @field_validator("*")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return distinct(values)

    @property
    def combinations(self) -> int:
        """How many profiles it spells."""
        product = 1
        for name in ProfileGrid.model_fields:
            product *= len(getattr(self, name))
        return product

    def profiles(self, liked: float) -> list[Profile]:
        """Return every combination, the last setting changing first.

        Args:
            liked: the rating from which a title is liked.
        """
        names = list(ProfileGrid.model_fields)
        values = itertools.product(*(getattr(self, name) for name in names))
        made = [Profile(**dict(zip(names, one, strict=True))) for one in values]
        return [one.model_copy(update={"liked": liked}) if one.weights == "liked" else one for one in made]


class EvaluateSettings(Settings):
    """What is evaluated and how.

    ``set`` holds search and device settings as the command line's ``--set`` takes them; ``by`` chooses the winner.
    """

    index: Annotated[tuple[LocalPath, ...], AsList, Some]
    grid: Annotated[tuple[ProfileGrid, ...], AsList, Some]
    by: str = "ndcg_at_10"
    hold_out: AtLeastOne = EvaluationProtocol.held_out
    liked: Annotated[float, Field(allow_inf_nan=False, strict=True)] = EvaluationProtocol.liked
    users: AtLeastOne = EvaluationProtocol.users
    seed: Seed = EvaluationProtocol.seed
    strict: Annotated[bool, Field(strict=True)] = EvaluationProtocol.strict
    set: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ()

    @field_validator("index")
    @classmethod
    def _told_apart(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        return told_apart(distinct(folders), "indexes")

    @field_validator("by")
    @classmethod
    def _known_metric(cls, by: str) -> str:
        if by not in METRICS:
            raise ValueError(f"should be one of {', '.join(METRICS)}, not {by!r}")
        return by

    @field_validator("set")
    @classmethod
    def _assignments(cls, settings: tuple[str, ...]) -> tuple[str, ...]:
        wrong = next((one for one in settings if not ASSIGNMENT.fullmatch(one)), None)
        if wrong is not None:
            raise ValueError(f"should hold KEY=VALUE, such as index.search.nprobe=32, not {wrong!r}")
        return settings

    @model_validator(mode="after")
    def _not_too_many(self) -> EvaluateSettings:
        count = sum(grid.combinations for grid in self.grid)
        if count > MOST_PROFILES:
            raise ValueError(f"grid has {count:,} combinations; at most {MOST_PROFILES:,} are tried")
        return self

    @property
    def protocol(self) -> EvaluationProtocol:
        """What is left out, and of whom."""
        return EvaluationProtocol(self.hold_out, self.liked, self.users, self.seed, self.strict)


class EvaluationSweep(Settings):
    """A whole sweep file that evaluates recommendations."""

    name: Name
    evaluate: EvaluateSettings
    results: LocalPath = DEFAULT_RESULTS
    time_budget_s: Seconds | None = None

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.results / self.name
