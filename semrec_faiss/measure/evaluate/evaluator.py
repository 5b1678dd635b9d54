"""One index and what is left out of its users' ratings: any profile's lists held against that, beside baselines.

Each user's latest liked titles are left out, the user's vector is made anew of the rest, and the lists of the index are
held against the titles left out. Vectors that were learned are learned anew of the rest, too. Profiles compete on
titles left out of that rest in turn, so that the winner is judged on titles it was not chosen by.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Values
from semrec_faiss.config.profile import Profile
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.generations.file_names import SEEN_NAME, VECTORS_NAME
from semrec_faiss.index.saved.saved_index import INDEX_NAME
from semrec_faiss.measure.documents.results import NotMeasured, Unsettled
from semrec_faiss.measure.evaluate.baselines import Liked, by_chance, liked_together, most_popular
from semrec_faiss.measure.evaluate.holdout import Ratings, Split, hold_out_latest
from semrec_faiss.measure.evaluate.lists import LENGTH, ListMaker
from semrec_faiss.measure.evaluate.protocols import (
    COLD_DRAWS,
    TIME_BLOCKS,
    USER_FOLDS,
    cold_titles,
    global_time,
    new_users,
    shared_out,
)
from semrec_faiss.measure.evaluate.relearned import relearned
from semrec_faiss.measure.quality.coverage import coverage
from semrec_faiss.measure.quality.held_out_metrics import PER_USER, novelty, per_user
from semrec_faiss.measure.quality.metrics import Interval, confidence_interval, difference_interval, mean_of
from semrec_faiss.progress import Progress, silent, within
from semrec_faiss.search.recommender import Recommender

KS = (10, LENGTH)
METRICS = tuple(f"{name}_at_{k}" for k in KS for name in PER_USER)
"""What profiles can be chosen by."""

RECOMMENDER, AS_GIVEN, POPULAR, TOGETHER = "recommender", "recommender_as_given", "most_popular", "liked_together"
CHANCE = "by_chance"
GLOBAL_TIME, NEW_USERS, COLD_TITLES = BESIDE = ("global_time", "new_users", "cold_titles")
"""The protocols that are measured beside the latest."""

PARTS_BEFORE = {GLOBAL_TIME: 1, NEW_USERS: TIME_BLOCKS, COLD_TITLES: TIME_BLOCKS + USER_FOLDS}
"""Splits that were judged before those of a protocol; of the clock's blocks the first is none."""

PARTS = PARTS_BEFORE[COLD_TITLES] + COLD_DRAWS


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is left out, and of whom.

    Attributes:
        held_out: liked titles left out per user.
        liked: the rating from which a title is liked.
        users: how many users to evaluate at most, drawn at random; baselines learn from all of them anyway.
        seed: of the drawing, the clustering, and the order of what was rated at the same time.
        strict: whether everything since the first title left out goes; see `hold_out_latest`.
    """

    held_out: int = 5
    liked: float = 4.0
    users: int = 2000
    seed: int = 7
    strict: bool = True


class Evaluator:
    """An opened index and its users' ratings; both splits are made when they are first needed."""

    def __init__(self, index: Path, settings: Sequence[str], protocol: EvaluationProtocol) -> None:
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
        self._maker_before: ListMaker | None = None
        if not self._recommender.users.has_seen:
            raise UsageError(
                f"the index {index} does not know what its users have seen",
                fix="add users/seen.parquet to the data; build it again",
            )

    @cached_property
    def _ratings(self) -> Ratings:
        return Ratings.of(self._recommender.users.history, self.protocol.seed)

    @cached_property
    def latest(self) -> Split:
        """The users' latest liked titles, left out: what the winner is judged by."""
        return self._leave_out(self._ratings)

    @cached_property
    def before(self) -> Split:
        """The titles liked before the latest, left out of what these leave: what the winner is chosen by."""
        return self._leave_out(self.latest.rest)

    def _leave_out(self, ratings: Ratings) -> Split:
        split = hold_out_latest(ratings, self.protocol.held_out, self.protocol.liked, strict=self.protocol.strict)
        return shared_out([split], self.protocol.users, self.protocol.seed)[0]

    def maker(self, split: Split, progress: Progress = silent) -> ListMaker:
        """Make lists with the index, or with one of vectors that were learned of the split's rest alone."""
        transformation = self._recommender.saved.transformation
        index = self._recommender.index
        if transformation is not None:
            index = relearned(index, transformation, split.rest.history, progress)
        return ListMaker(index, self.protocol.liked, self.protocol.seed)

    @property
    def given(self) -> Profile:
        """The profile that the index serves."""
        return self._recommender.saved.config.profile or Profile()

    @property
    def device(self) -> Unsettled:
        """Where it searches, as far as this may change what is found."""
        device = self._recommender.index.device
        return {"kind": device.kind, "float16": device.float16}

    @property
    def index_settings(self) -> Unsettled:
        """The settings of the index, those for searching as they were given."""
        settings: dict[str, Any] = self._recommender.saved.config.index.model_dump(mode="json")
        return settings

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what the index holds of titles' vectors and users' ratings."""
        manifest = self._recommender.saved.generation.manifest
        segments = () if manifest.segments is None else tuple(f"{part.name}." for part in manifest.segments.parts)
        brought = sorted(name for name in manifest.files if name.startswith(segments))
        files, names = manifest.files, (INDEX_NAME, VECTORS_NAME, SEEN_NAME, *brought)
        parts = [files[name].sha256 for name in names if name in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def about(self) -> Unsettled:
        """Describe the index; where it has no ratings, all that users have seen counts as liked."""
        return {
            "generation": self._recommender.saved.generation.name,
            "settings": self.index_settings,
            "exact": self._recommender.index.exact,
            "titles": self._recommender.index.count,
            "users": self._ratings.users,
            "ratings": len(self._ratings.rows),
            "has_ratings": self._recommender.users.history.ratings is not None,
        }

    def users_of(self, split: Split) -> int:
        """How many users of a split are evaluated."""
        return len(split.users)

    def try_profile(self, profile: Profile, progress: Progress = silent) -> Unsettled:
        """Measure a profile on the titles liked before the latest; see `record.Summary`."""
        split = self.before
        if self._maker_before is None:
            self._maker_before = self.maker(split, progress)
        rows = self._maker_before.lists(split, profile, progress)
        return self._summary([split], [rows], _values(rows, split.held_out))

    def judge(self, chosen: Profile, given: Profile, progress: Progress = silent) -> Unsettled:
        """Measure the profile that was chosen on the latest titles, beside the one given and the baselines.

        Returns:
            ``protocol``, ``methods``, ``differences`` and ``beside`` as `document.evaluate_index` returns them.
        """
        profiles = {RECOMMENDER: chosen} | ({AS_GIVEN: given} if chosen != given else {})
        progress("reading what users did", 0, 1)
        latest = [self.latest]
        progress("reading what users did", 1, 1)
        judged = self._judge(latest, profiles, 0, progress)
        beside = {name: self._judge_beside(name, chosen, progress) for name in BESIDE}
        counts = np.diff(self._ratings.offsets)
        evaluable = hold_out_latest(self._ratings, self.protocol.held_out, self.protocol.liked).users
        return {
            "protocol": {
                "held_out": self.protocol.held_out,
                "liked": self.protocol.liked,
                "users_evaluated": judged.pop("users_evaluated"),
                "users_with_too_few_liked": len(counts) - len(evaluable),
                "seed": self.protocol.seed,
                "strict": self.protocol.strict,
            },
            **judged,
            "beside": beside,
        }

    def _judge_beside(self, name: str, chosen: Profile, progress: Progress) -> Unsettled | NotMeasured:
        """Measure by another protocol; where nobody can be evaluated by it, say so."""
        try:
            splits = shared_out(self._splits(name), self.protocol.users, self.protocol.seed)
        except UsageError as error:
            return NotMeasured(error.message)
        if not splits:
            return NotMeasured("too little was rated")
        return self._judge(splits, {RECOMMENDER: chosen}, PARTS_BEFORE[name], progress)

    def _splits(self, name: str) -> list[Split]:
        protocol, ratings = self.protocol, self._ratings
        if name == COLD_TITLES:
            return cold_titles(ratings, self._recommender.index.count, protocol.liked, protocol.seed)
        strict = hold_out_latest(ratings, protocol.held_out, protocol.liked)
        return global_time(ratings, strict) if name == GLOBAL_TIME else new_users(strict, protocol.seed)

    def _judge(
        self, splits: list[Split], profiles: Mapping[str, Profile], parts_before: int, progress: Progress
    ) -> Unsettled:
        """Hold the lists of profiles and baselines against what the splits left out, all users together."""
        lists: dict[str, list[Rows]] = {}
        for part, split in enumerate(splits, start=parts_before + 1):
            told = within(f"part {part} of {PARTS}", progress)
            for name, rows in self._all_lists(split, profiles, told):
                lists.setdefault(name, []).append(rows)
        values = {name: _joined_values(rows, splits) for name, rows in lists.items()}
        methods, differences = {}, {}
        for done, name in enumerate(lists):
            told("confidence intervals", done, len(lists))
            methods[name] = self._summary(splits, lists[name], values[name])
            if name != RECOMMENDER:
                differences[name] = self._differences(values[RECOMMENDER], values[name])
        told("confidence intervals", len(lists), len(lists))
        users = sum(len(split.users) for split in splits)
        return {"users_evaluated": users, "methods": methods, "differences": differences}

    def _all_lists(
        self, split: Split, profiles: Mapping[str, Profile], progress: Progress
    ) -> Iterator[tuple[str, Rows]]:
        maker, titles, protocol = self.maker(split, progress), self._recommender.index.count, self.protocol
        for name, profile in profiles.items():
            yield name, maker.lists(split, profile, progress)
        liked = Liked(split.rest, protocol.liked, titles)
        yield POPULAR, most_popular(liked, split, LENGTH, progress)
        yield TOGETHER, liked_together(liked, split, protocol.liked, LENGTH, progress)
        yield CHANCE, by_chance(split, titles, LENGTH, protocol.seed, progress)

    def _summary(self, splits: list[Split], lists: list[Rows], values: dict[str, Values]) -> Unsettled:
        """Return means over all users; novelty goes by what is known where the latest are left out."""
        titles = self._recommender.index.count
        rows = np.concatenate(lists)
        seen_by = np.bincount(self.latest.rest.rows, minlength=titles)
        recommendable = titles
        masks = [split.candidates for split in splits if split.candidates is not None]
        if masks:
            recommendable = int(np.logical_or.reduce(masks).sum())
        summary: Unsettled = {}
        for k in KS:
            known = {name: values[f"{name}_at_{k}"] for name in PER_USER}
            known["novelty"] = novelty(rows[:, :k], seen_by, self._ratings.users)
            means = {name: _mean_and_interval(value, self.protocol.seed) for name, value in known.items()}
            summary[f"at_{k}"] = {**means, "coverage": round(coverage(rows[:, :k], recommendable), 6)}
        return summary

    def _differences(self, ours: dict[str, Values], theirs: dict[str, Values]) -> Unsettled:
        return {name: _difference(ours[name] - theirs[name], self.protocol.seed) for name in METRICS}


def check_metric(by: str) -> None:
    """Refuse an unknown metric.

    Raises:
        UsageError: none of `METRICS`.
    """
    if by not in METRICS:
        near = difflib.get_close_matches(by, METRICS, n=1, cutoff=0.5)
        raise UsageError(
            f"there is no metric {quoted(by)} to choose by; there are {', '.join(METRICS)}",
            fix=f"did you mean {near[0]}?" if near else f"for example {METRICS[0]}",
        )


def _values(rows: Rows, held_out: Rows) -> dict[str, Values]:
    return {f"{name}_at_{k}": value for k in KS for name, value in per_user(rows[:, :k], held_out).items()}


def _joined_values(lists: list[Rows], splits: list[Split]) -> dict[str, Values]:
    parts = [_values(rows, split.held_out) for rows, split in zip(lists, splits, strict=True)]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _mean_and_interval(values: Values, seed: int) -> Unsettled:
    return _told(mean_of(values), confidence_interval(values, seed=seed))


def _difference(values: Values, seed: int) -> Unsettled:
    return _told(float(values.mean()), difference_interval(values, seed=seed))


def _told(mean: float | None, interval: Interval | None) -> Unsettled:
    return {
        "mean": NotMeasured("no list has a title") if mean is None else round(mean, 6),
        "interval": NotMeasured("no list has a title") if interval is None else interval.as_dict(),
    }
