"""One index and what is left out of its users' ratings: any profile's lists held against that, beside two baselines.

Each user's latest liked titles are left out, the user's vector is made anew of the rest, and the lists of the index are
held against the titles left out. Profiles compete on titles left out of that rest in turn, so that the winner is judged
on titles it was not chosen by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Values
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build import INDEX_NAME, VECTORS_NAME
from semrec_faiss.index.saved_users import SEEN_NAME
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.evaluate.baselines import Liked, liked_together, most_popular
from semrec_faiss.measure.evaluate.holdout import Ratings, Split, leave_out_latest
from semrec_faiss.measure.evaluate.lists import LENGTH, ListMaker
from semrec_faiss.measure.evaluate.taste_profile import Profile
from semrec_faiss.measure.quality.coverage import coverage
from semrec_faiss.measure.quality.held_out_metrics import PER_USER, novelty, per_user
from semrec_faiss.measure.quality.metrics import confidence_interval, mean_of
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender

KS = (10, LENGTH)
METRICS = tuple(f"{name}_at_{k}" for k in KS for name in PER_USER)
"""What profiles can be chosen by."""

RECOMMENDER, AS_GIVEN, POPULAR, TOGETHER = "recommender", "recommender_as_given", "most_popular", "liked_together"

Summary = dict[str, dict[str, Any]]
"""at_10 and at_100, each with mean and confidence interval of every metric and of novelty, and the coverage."""


@dataclass(frozen=True)
class Protocol:
    """What is left out, and of whom.

    Attributes:
        held: liked titles left out a user.
        liked: the rating from which a title is liked.
        users: how many users to evaluate at most, drawn at random; baselines learn from all of them anyway.
        seed: of the drawing and the clustering.
    """

    held: int = 5
    liked: float = 4.0
    users: int = 2000
    seed: int = 7


class Evaluator:
    """An opened index and its users' ratings; both splits are made when they are first needed."""

    def __init__(self, index: Path, settings: Sequence[str], protocol: Protocol) -> None:
        """Open an index.

        Args:
            index: the index directory; its users need timestamps.
            settings: search and device settings, as for `Recommender.open`.
            protocol: what is left out.

        Raises:
            NotFoundError: there is no index, or it has no users.
            UsageError: the index does not know what users have seen, or a setting cannot be.
        """
        self.path = index
        self.protocol = protocol
        self._recommender = Recommender.open(index, settings)
        if not self._recommender.users.has_seen:
            raise UsageError(
                f"the index {index} does not know what its users have seen",
                fix="add users/seen.parquet to the data; build it again",
            )

    @cached_property
    def _ratings(self) -> Ratings:
        return Ratings.of(self._recommender.users.history)

    @cached_property
    def maker(self) -> ListMaker:
        """What makes the lists."""
        return ListMaker(self._recommender.index, self.protocol.liked, self.protocol.seed)

    @cached_property
    def latest(self) -> Split:
        """The users' latest liked titles, left out: what the winner is judged by."""
        return leave_out_latest(self._ratings, self.protocol.held, self.protocol.liked)

    @cached_property
    def before(self) -> Split:
        """The titles liked before the latest, left out of what these leave: what the winner is chosen by."""
        return leave_out_latest(self.latest.rest, self.protocol.held, self.protocol.liked)

    @property
    def device(self) -> dict[str, Any]:
        """Where it searches, as far as this may change what is found."""
        device = self._recommender.index.device
        return {"kind": device.kind, "float16": device.float16}

    @property
    def index_settings(self) -> dict[str, Any]:
        """The settings of the index, those for searching as they were given."""
        settings: dict[str, Any] = self._recommender.saved.config.index.model_dump(mode="json")
        return settings

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what the index holds of titles' vectors and users' ratings."""
        files = self._recommender.saved.generation.manifest.files
        parts = [files[name].sha256 for name in (INDEX_NAME, VECTORS_NAME, SEEN_NAME) if name in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Describe the index."""
        return {
            "generation": self._recommender.saved.generation.name,
            "settings": self.index_settings,
            "exact": self._recommender.index.exact,
            "titles": self._recommender.index.count,
            "users": self._ratings.users,
            "ratings": len(self._ratings.rows),
        }

    def users_of(self, split: Split) -> int:
        """How many users of a split are evaluated."""
        return min(len(split.users), self.protocol.users)

    def try_profile(self, profile: Profile, progress: Progress = silent) -> Summary:
        """Measure a profile on the titles liked before the latest."""
        users, held = self._sample(self.before)
        rows = self.maker.lists(self.before, users, profile, progress)
        return self._summary(self.before, rows, _values(rows, held))

    def judge(self, chosen: Profile, given: Profile, progress: Progress = silent) -> dict[str, Any]:
        """Measure the profile that was chosen on the latest titles, beside the one given and the baselines.

        Returns:
            ``protocol``, and ``methods`` and ``differences`` as `evaluation.evaluate_index` returns them.
        """
        split, titles = self.latest, self._recommender.index.count
        users, held = self._sample(split)
        lists = {RECOMMENDER: self.maker.lists(split, users, chosen, progress)}
        if chosen != given:
            lists[AS_GIVEN] = self.maker.lists(split, users, given, progress)
        liked = Liked(split.rest, self.protocol.liked, titles)
        lists[POPULAR] = most_popular(liked, split.rest, users, LENGTH)
        lists[TOGETHER] = liked_together(liked, split.rest, users, LENGTH, progress)
        values = {name: _values(rows, held) for name, rows in lists.items()}
        return {
            "protocol": {
                "held_out": self.protocol.held,
                "liked": self.protocol.liked,
                "users_evaluated": len(users),
                "users_with_too_few_liked": self._ratings.users - len(split.users),
                "seed": self.protocol.seed,
            },
            "methods": {name: self._summary(split, lists[name], values[name]) for name in lists},
            "differences": {
                name: self._differences(values[RECOMMENDER], values[name]) for name in values if name != RECOMMENDER
            },
        }

    def _sample(self, split: Split) -> tuple[Rows, Rows]:
        """Return the users to evaluate, ascending, and the titles left out of each."""
        if len(split.users) <= self.protocol.users:
            return split.users, split.held
        random = np.random.default_rng(self.protocol.seed)
        chosen = np.sort(random.choice(len(split.users), self.protocol.users, replace=False))
        return split.users[chosen], split.held[chosen]

    def _summary(self, split: Split, rows: Rows, values: dict[str, Values]) -> Summary:
        titles = self._recommender.index.count
        seen_by = np.bincount(split.rest.rows, minlength=titles)
        summary: Summary = {}
        for k in KS:
            known = {name: values[f"{name}_at_{k}"] for name in PER_USER}
            known["novelty"] = novelty(rows[:, :k], seen_by, self._ratings.users)
            summary[f"at_{k}"] = {name: _mean_and_interval(value, self.protocol.seed) for name, value in known.items()}
            summary[f"at_{k}"]["coverage"] = round(coverage(rows[:, :k], titles), 6)
        return summary

    def _differences(self, ours: dict[str, Values], theirs: dict[str, Values]) -> dict[str, Any]:
        return {name: _mean_and_interval(ours[name] - theirs[name], self.protocol.seed) for name in METRICS}


def metric_of(summary: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return mean and interval of a metric, such as ``ndcg_at_10``, of a summary."""
    name, _, k = metric.rpartition("_at_")
    found: dict[str, Any] = summary[f"at_{k}"][name]
    return found


def best_profile(tried: Mapping[Profile, Mapping[str, Any]], by: str) -> Profile:
    """Return the profile with the highest mean of a metric; of several the first."""
    return max(tried, key=lambda profile: float(metric_of(tried[profile], by)["mean"]))


def check_metric(by: str) -> None:
    """Refuse a metric that there is not.

    Raises:
        UsageError: none of `METRICS`.
    """
    if by not in METRICS:
        raise UsageError(f"there is no metric {by!r} to choose by; there are {', '.join(METRICS)}")


def _values(rows: Rows, held: Rows) -> dict[str, Values]:
    return {f"{name}_at_{k}": value for k in KS for name, value in per_user(rows[:, :k], held).items()}


def _mean_and_interval(values: Values, seed: int) -> dict[str, Any]:
    mean, interval = mean_of(values), confidence_interval(values, seed=seed)
    return {
        "mean": NotMeasured("no list has a title") if mean is None else round(mean, 6),
        "interval": NotMeasured("no list has a title") if interval is None else interval.as_dict(),
    }
