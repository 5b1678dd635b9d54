"""How good the recommendations of an index are: would they have brought back what users liked last?

Each user's latest liked titles are left out, the user's vector is made anew of the rest, and the lists of the index are
held against the titles left out, beside those of two baselines that see the same rest. Where several profiles compete,
the choice is made on titles left out of that rest in turn, so that the winner is judged on titles it was not chosen by.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.baselines import Liked, liked_together, most_popular
from semrec_faiss.measure.environment import environment
from semrec_faiss.measure.holdout import Ratings, Split, leave_out_latest
from semrec_faiss.measure.list_maker import LENGTH, ListMaker
from semrec_faiss.measure.metrics import confidence_interval, mean_of
from semrec_faiss.measure.profiles import Profile
from semrec_faiss.measure.ranking import PER_USER, novelty, per_user
from semrec_faiss.measure.recommender_numbers import coverage
from semrec_faiss.measure.results import NotMeasured, settle
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender

Rows = NDArray[np.int64]
Values = NDArray[np.float64]

KS = (10, LENGTH)
MOST_PROFILES = 1000
METRICS = tuple(f"{name}_at_{k}" for k in KS for name in PER_USER)
"""What profiles can be chosen by."""

DEFAULT_PROFILE = Profile()

RECOMMENDER, POPULAR, TOGETHER = "recommender", "most_popular", "liked_together"


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
    held: int = 5
    liked: float = 4.0
    users: int = 2000
    seed: int = 7

    def profiles(self) -> list[Profile]:
        """Return the profile, and every other one that the grid spells.

        Raises:
            UsageError: an unknown setting or metric, a value that cannot be, or too many combinations.
        """
        if self.by not in METRICS:
            raise UsageError(f"there is no metric {self.by!r} to choose by; there are {', '.join(METRICS)}")
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
    recommender = Recommender.open(plan.index, plan.settings)
    if not recommender.users.has_seen:
        raise UsageError(
            "the index does not know what its users have seen", fix="add users/seen.parquet to the data; build it again"
        )
    ratings = Ratings.of(recommender.users.history)
    maker = ListMaker(recommender.index, plan.liked, plan.seed)
    test = leave_out_latest(ratings, plan.held, plan.liked)
    chosen, grid = plan.profile, None
    if len(profiles) > 1:
        grid = _try_all(maker, plan, leave_out_latest(test.rest, plan.held, plan.liked), profiles, progress)
        chosen = max(profiles, key=lambda profile: grid[profile][plan.by])
    users, held = _sample(test, plan)
    lists = {RECOMMENDER: maker.lists(test, users, chosen, progress)}
    if chosen != plan.profile:
        lists["recommender_as_given"] = maker.lists(test, users, plan.profile, progress)
    liked = Liked(test.rest, plan.liked, recommender.index.count)
    lists[POPULAR] = most_popular(liked, test.rest, users, LENGTH)
    lists[TOGETHER] = liked_together(liked, test.rest, users, LENGTH, progress)
    values = {name: _values(rows, held) for name, rows in lists.items()}
    seen_by = np.bincount(test.rest.rows, minlength=recommender.index.count)
    document = {
        "environment": environment(),
        "index": {
            "generation": recommender.saved.generation.name,
            "settings": recommender.saved.config.index.model_dump(mode="json"),
            "exact": recommender.index.exact,
            "titles": recommender.index.count,
            "users": ratings.users,
            "ratings": len(ratings.rows),
        },
        "protocol": {
            "held_out": plan.held,
            "liked": plan.liked,
            "users_evaluated": len(users),
            "users_with_too_few_liked": ratings.users - len(test.users),
            "seed": plan.seed,
        },
        "profile": asdict(chosen),
        "chosen_by": None if grid is None else f"{plan.by} on the titles liked before those left out",
        "grid": None if grid is None else [{"profile": asdict(one), **means} for one, means in grid.items()],
        "methods": {
            name: _summary(lists[name], values[name], seen_by, ratings.users, recommender.index.count, plan.seed)
            for name in lists
        },
        "differences": {
            name: _differences(values[RECOMMENDER], values[name], plan.seed) for name in values if name != RECOMMENDER
        },
    }
    return settle(document)


def _try_all(
    maker: ListMaker, plan: Evaluation, split: Split, profiles: list[Profile], progress: Progress
) -> dict[Profile, dict[str, float]]:
    """Return the mean of every metric for each profile; those that share queries are tried one after the other."""
    users, held = _sample(split, plan)
    found: dict[Profile, dict[str, float]] = {}
    for number, profile in enumerate(sorted(profiles, key=maker.queries_key)):
        progress("profiles", number, len(profiles))
        values = _values(maker.lists(split, users, profile, silent), held)
        found[profile] = {name: round(float(value.mean()), 6) for name, value in values.items()}
    progress("profiles", len(profiles), len(profiles))
    return {profile: found[profile] for profile in profiles}


def _sample(split: Split, plan: Evaluation) -> tuple[Rows, Rows]:
    """Return the users to evaluate, ascending, and the titles left out of each."""
    if len(split.users) <= plan.users:
        return split.users, split.held
    random = np.random.default_rng(plan.seed)
    chosen = np.sort(random.choice(len(split.users), plan.users, replace=False))
    return split.users[chosen], split.held[chosen]


def _values(rows: Rows, held: Rows) -> dict[str, Values]:
    return {f"{name}_at_{k}": value for k in KS for name, value in per_user(rows[:, :k], held).items()}


def _summary(
    rows: Rows, values: dict[str, Values], seen_by: Rows, users: int, titles: int, seed: int
) -> dict[str, dict[str, Any]]:
    summary: dict[str, dict[str, Any]] = {}
    for k in KS:
        known = {name: values[f"{name}_at_{k}"] for name in PER_USER} | {
            "novelty": novelty(rows[:, :k], seen_by, users)
        }
        summary[f"at_{k}"] = {name: _mean_and_interval(value, seed) for name, value in known.items()}
        summary[f"at_{k}"]["coverage"] = round(coverage(rows[:, :k], titles), 6)
    return summary


def _mean_and_interval(values: Values, seed: int) -> dict[str, Any]:
    mean, interval = mean_of(values), confidence_interval(values, seed=seed)
    return {
        "mean": NotMeasured("no list has a title") if mean is None else round(mean, 6),
        "interval": NotMeasured("no list has a title") if interval is None else interval.as_dict(),
    }


def _differences(ours: dict[str, Values], theirs: dict[str, Values], seed: int) -> dict[str, Any]:
    return {name: _mean_and_interval(ours[name] - theirs[name], seed) for name in METRICS}
