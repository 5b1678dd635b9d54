"""How good the recommendations of an index are: would they have brought back what users liked last?

`Evaluator` leaves titles out and measures; here profiles are tried, the best is chosen, and one document says it all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.documents.results import settle
from semrec_faiss.measure.evaluate.evaluator import (
    METRICS,
    Evaluator,
    Protocol,
    Summary,
    best_profile,
    check_metric,
    metric_of,
)
from semrec_faiss.measure.evaluate.taste_profile import Profile
from semrec_faiss.measure.instruments.environment import environment
from semrec_faiss.progress import Progress, silent

MOST_PROFILES = 1000

DEFAULT_PROFILE = Profile()


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate.

    Attributes:
        index: an index directory; its users need timestamps.
        settings: search and device settings, as for `Recommender.open`.
        profile: how users become queries.
        grid: profile settings to try, each with its values as text; empty for none.
        by: the metric that chooses among the grid's profiles, one of `METRICS`.
        held: liked titles left out a user.
        liked: the rating from which a title is liked.
        users: how many users to evaluate at most, drawn at random; baselines learn from all of them anyway.
        seed: of the drawing and the clustering.
    """

    index: Path
    settings: tuple[str, ...] = ()
    profile: Profile = DEFAULT_PROFILE
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    by: str = "ndcg_at_10"
    held: int = Protocol.held
    liked: float = Protocol.liked
    users: int = Protocol.users
    seed: int = Protocol.seed

    @property
    def protocol(self) -> Protocol:
        """What is left out, and of whom."""
        return Protocol(self.held, self.liked, self.users, self.seed)

    def profiles(self) -> list[Profile]:
        """Return the profile, and every other one that the grid spells.

        Raises:
            UsageError: an unknown setting or metric, a value that cannot be, or too many combinations.
        """
        check_metric(self.by)
        combinations = int(np.prod([len(values) for values in self.grid.values()], dtype=np.int64))
        if combinations > MOST_PROFILES:
            raise UsageError(f"the grid has {combinations:,} combinations; at most {MOST_PROFILES:,} are tried")
        given = {name: "none" if value is None else str(value) for name, value in asdict(self.profile).items()}
        spelled = [
            Profile.from_text(given | dict(zip(self.grid, values, strict=True)))
            for values in itertools.product(*self.grid.values())
        ]
        return list(dict.fromkeys([self.profile, *spelled]))


def evaluate_index(plan: Evaluation, progress: Progress = silent) -> dict[str, Any]:
    """Evaluate an index; return a results document.

    ``methods`` holds recommender, most_popular and liked_together; each has at_10 and at_100 with the mean and the
    confidence interval (bootstrap over users) of hit_rate, recall, ndcg, mrr and novelty, and the coverage.
    ``differences`` holds the recommender's mean less each baseline's, paired by user. ``grid`` holds what each profile
    came to on the titles that it was chosen by; None without a grid.

    Raises:
        NotFoundError: there is no index, or it has no users.
        UsageError: the index does not know what users rated and when, or a setting cannot be.
    """
    profiles = plan.profiles()
    evaluator = Evaluator(plan.index, plan.settings, plan.protocol)
    tried = _try_all(evaluator, profiles, progress) if len(profiles) > 1 else None
    chosen = plan.profile if tried is None else best_profile(tried, plan.by)
    judged = evaluator.judge(chosen, plan.profile, progress)
    return {"environment": environment(), **evaluation_document(evaluator.about(), chosen, plan.by, tried, judged)}


def evaluation_document(
    index: dict[str, Any],
    chosen: Profile,
    by: str,
    tried: Mapping[Profile, Mapping[str, Any]] | None,
    judged: dict[str, Any],
) -> dict[str, Any]:
    """Put together what was measured of one index, less the environment.

    Args:
        index: from `Evaluator.about`.
        chosen: the profile that was chosen.
        by: the metric that chose it.
        tried: what each profile came to on the titles that it was chosen by; None where there was no choice.
        judged: from `Evaluator.judge`.
    """
    return settle(
        {
            "index": index,
            "protocol": judged["protocol"],
            "profile": asdict(chosen),
            "chosen_by": None if tried is None else f"{by} on the titles liked before those left out",
            "grid": None if tried is None else [
                {"profile": asdict(one), **{name: metric_of(summary, name)["mean"] for name in METRICS}}
                for one, summary in tried.items()
            ],
            "methods": judged["methods"],
            "differences": judged["differences"],
        }
    )  # fmt: skip


def _try_all(evaluator: Evaluator, profiles: list[Profile], progress: Progress) -> dict[Profile, Summary]:
    """Try each profile; those that share queries one after the other."""
    found: dict[Profile, Summary] = {}
    for number, profile in enumerate(sorted(profiles, key=evaluator.maker.queries_key)):
        progress("profiles", number, len(profiles))
        found[profile] = evaluator.try_profile(profile)
    progress("profiles", len(profiles), len(profiles))
    return {profile: found[profile] for profile in profiles}
