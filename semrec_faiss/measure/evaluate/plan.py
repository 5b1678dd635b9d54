"""From a sweep file to the profiles that are tried: on which index, under which digest, and which say the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from semrec_faiss.config.profile import PLAIN, Profile
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.evaluate.config import EvaluateSettings, EvaluationSweep, ProfileGrid
from semrec_faiss.measure.evaluate.evaluator import Evaluator
from semrec_faiss.measure.evaluate.lists import LENGTH
from semrec_faiss.measure.evaluate.record import (
    FORMAT,
    EvaluatedDevice,
    EvaluatedIndex,
    EvaluationPlanRecord,
    LeftOut,
    ProfileSettings,
)
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.trials.kind import EVALUATION
from semrec_faiss.measure.trials.plan_record import InvalidOne
from semrec_faiss.progress import Progress, silent


@dataclass(frozen=True)
class ProfileTrial:
    """One profile on one index.

    Attributes:
        evaluator: the index, opened.
        profile: how users become queries.
        faiss: FAISS's version.
    """

    evaluator: Evaluator
    profile: Profile
    faiss: str

    @property
    def index_name(self) -> str:
        """The index's name: its folder's."""
        return name_of(self.evaluator)

    @property
    def label(self) -> str:
        """The profile, by what differs from the defaults."""
        return self.profile.describe()

    @property
    def what(self) -> str:
        """All that tells this trial from the others of its sweep."""
        return f"{self.index_name}: {self.label}"

    @cached_property
    def settings(self) -> ProfileSettings:
        """What is measured, as the ledger holds it."""
        protocol = self.evaluator.protocol
        about = self.evaluator.about()
        named = {"name": self.index_name, "digest": self.evaluator.digest}
        told = {name: about[name] for name in ("settings", "exact", "titles", "users", "ratings", "has_ratings")}
        return ProfileSettings(
            format=FORMAT,
            index=EvaluatedIndex.model_validate(named | told),
            device=EvaluatedDevice.model_validate(self.evaluator.device),
            protocol=LeftOut(
                held_out=protocol.held_out,
                liked=protocol.liked,
                users=protocol.users,
                seed=protocol.seed,
                strict=protocol.strict,
            ),
            profile=self.profile,
            faiss=self.faiss,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of what is measured."""
        return self.settings.settings_digest


@dataclass(frozen=True)
class EvaluationPlan:
    """All profiles of a sweep, on every index, and the combinations that say the same as another.

    Attributes:
        sweep: what was asked for.
        trials: in the grid's order; the defaults first.
        invalid: combinations that are not tried, with the reason why.
        stamp: when, with what and by which command it is measured.
    """

    sweep: EvaluationSweep
    trials: tuple[ProfileTrial, ...]
    invalid: tuple[InvalidOne, ...]
    stamp: Stamp

    def record(self) -> EvaluationPlanRecord:
        """Return it as plan.json holds it."""
        trials = [{"digest": one.digest, "what": one.what, "index": one.index_name} for one in self.trials]
        return EvaluationPlanRecord.model_validate(
            {
                "kind": EVALUATION,
                "name": self.sweep.name,
                "sweep": self.sweep.model_dump(mode="json"),
                "environment": self.stamp,
                "trials": trials,
                "invalid": list(self.invalid),
            }
        )

    def by_index(self) -> Iterator[list[ProfileTrial]]:
        """Yield the trials of each index."""
        groups: dict[str, list[ProfileTrial]] = {}
        for trial in self.trials:
            groups.setdefault(trial.index_name, []).append(trial)
        yield from groups.values()


def make_evaluation_plan(
    sweep: EvaluationSweep, progress: Progress = silent, stamp: Stamp | None = None
) -> EvaluationPlan:
    """Open the indexes, see that their users can be evaluated, and spell out the profiles.

    Raises:
        NotFoundError: an index does not exist, or has no users.
        UsageError: an index does not know what users rated and when, too few liked enough, or a setting cannot be.
        MissingPackageError: FAISS is missing.
    """
    faiss = str(load_faiss().__version__)
    settings = sweep.evaluate
    trials: list[ProfileTrial] = []
    invalid: list[InvalidOne] = []
    for number, path in enumerate(settings.index):
        progress("opening indexes", number, len(settings.index))
        evaluator = Evaluator(path, settings.set, settings.protocol)
        evaluator.users_of(evaluator.before)  # too few liked titles are told now, not after the first hour
        profiles, invalid = distinct_profiles(settings.grid, evaluator.given, settings.liked)
        trials += [ProfileTrial(evaluator, profile, faiss) for profile in profiles]
    progress("opening indexes", len(settings.index), len(settings.index))
    return EvaluationPlan(sweep, tuple(trials), tuple(invalid), stamp or stamp_of_this_run())


def name_of(evaluator: Evaluator) -> str:
    """Return the name of an evaluator's index: its folder's."""
    return evaluator.path.name or str(evaluator.path)


def distinct_profiles(
    grids: Sequence[ProfileGrid], given: Profile, liked: float
) -> tuple[list[Profile], list[InvalidOne]]:
    """Spell out grids: every profile that does something of its own, and those that do not.

    Args:
        grids: what to try.
        given: the profile that the index serves; it comes first.
        liked: the rating from which a title is liked.
    """
    profiles: dict[Profile, None] = {given: None}
    invalid: dict[Profile, InvalidOne] = {}
    for profile in dict.fromkeys(one for grid in grids for one in grid.profiles(liked)):
        same, reason = plain_form(profile)
        profiles[same] = None
        if same != profile:
            invalid[profile] = InvalidOne(what=profile.describe(), reason=f"the same as {same.describe()}: {reason}")
    return list(profiles), list(invalid.values())


def plain_form(profile: Profile) -> tuple[Profile, str]:
    """Return the profile that makes the same lists with fewest settings, and why it does."""
    same, reasons = profile, []
    if profile.weights != "liked" and profile.liked != PLAIN.liked:
        same = same.model_copy(update={"liked": PLAIN.liked})
        reasons.append("its weights are those of all ratings")
    if profile.interests == 1 and profile.merge != PLAIN.merge:
        same = same.model_copy(update={"merge": PLAIN.merge})
        reasons.append("one interest has one list, which nothing is merged with")
    if not profile.popularity and profile.pool != PLAIN.pool:
        same = same.model_copy(update={"pool": PLAIN.pool})
        reasons.append("without popularity no pool is reordered")
    elif profile.popularity and profile.pool < LENGTH:
        same = same.model_copy(update={"pool": LENGTH})
        reasons.append(f"a pool holds the {LENGTH} titles of a list at least")
    return same, "; ".join(reasons)


def command_of(evaluator: Evaluator, profile: Profile, settings: EvaluateSettings) -> str:
    """Spell the `semrec evaluate` that measures a profile as the sweep does; what is as ever is left out."""
    words = ["semrec", "evaluate", str(evaluator.path)]
    own = evaluator.given.model_dump()
    for name, value in profile.model_dump(exclude={"liked"}).items():
        words += _option(name, value) if value != own[name] else []
    defaults = EvaluateSettings.model_construct()
    for name in ("by", "hold_out", "liked", "users", "seed"):
        value = getattr(settings, name)
        words += _option(name, value) if value != getattr(defaults, name) else []
    words += [] if settings.strict else ["--lenient"]
    for assignment in settings.set:
        words += ["--set", assignment]
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}", "none" if value is None else str(value).removesuffix(".0")]
