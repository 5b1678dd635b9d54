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
from semrec_faiss.measure.baselines import Liked, liked_together, most_popular, top
from semrec_faiss.measure.environment import environment
from semrec_faiss.measure.holdout import Ratings, Split, leave_out_latest
from semrec_faiss.measure.metrics import confidence_interval, mean_of
from semrec_faiss.measure.profiles import Profile, interest_vectors, merge_lists, rating_weights
from semrec_faiss.measure.ranking import PER_USER, coverage, novelty, per_user
from semrec_faiss.measure.results import NotMeasured, settle
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restriction import Exclusions, Restriction
from semrec_faiss.search.topk import restricted_top_k

Rows = NDArray[np.int64]
Values = NDArray[np.float64]

KS = (10, 100)
QUERY_BLOCK = 1024
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
    bench = _Bench(recommender, plan)
    test = leave_out_latest(ratings, plan.held, plan.liked)
    chosen, grid = plan.profile, None
    if len(profiles) > 1:
        grid = _try_all(bench, leave_out_latest(test.rest, plan.held, plan.liked), profiles, progress)
        chosen = max(profiles, key=lambda profile: grid[profile][plan.by])
    users, held = bench.sample(test)
    lists = {RECOMMENDER: bench.lists(test, users, chosen, progress)}
    if chosen != plan.profile:
        lists["recommender_as_given"] = bench.lists(test, users, plan.profile, progress)
    liked = Liked(test.rest, plan.liked, recommender.index.count)
    lists[POPULAR] = most_popular(liked, test.rest, users, max(KS))
    lists[TOGETHER] = liked_together(liked, test.rest, users, max(KS), progress)
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
    bench: _Bench, split: Split, profiles: list[Profile], progress: Progress
) -> dict[Profile, dict[str, float]]:
    """Return the mean of every metric for each profile; those that share candidates are tried one after the other."""
    users, held = bench.sample(split)
    found: dict[Profile, dict[str, float]] = {}
    for number, profile in enumerate(sorted(profiles, key=bench.candidates_key)):
        progress("profiles", number, len(profiles))
        values = _values(bench.lists(split, users, profile, silent), held)
        found[profile] = {name: round(float(value.mean()), 6) for name, value in values.items()}
    progress("profiles", len(profiles), len(profiles))
    return {profile: found[profile] for profile in profiles}


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


@dataclass
class _Candidates:
    """What the interests of a run of users found: rows and scores (queries, pool), and whose interest each query is."""

    rows: Rows
    scores: NDArray[np.float32]
    offsets: Rows


class _Bench:
    """Makes lists by a profile; the candidates of the latest one are kept for those that only merge them otherwise."""

    def __init__(self, recommender: Recommender, plan: Evaluation) -> None:
        self._index = recommender.index
        self._plan = plan
        self._kept: tuple[Any, _Candidates] | None = None

    def sample(self, split: Split) -> tuple[Rows, Rows]:
        """Return the users to evaluate, ascending, and the titles left out of each."""
        if len(split.users) <= self._plan.users:
            return split.users, split.held
        random = np.random.default_rng(self._plan.seed)
        chosen = np.sort(random.choice(len(split.users), self._plan.users, replace=False))
        return split.users[chosen], split.held[chosen]

    def candidates_key(self, profile: Profile) -> tuple[Any, ...]:
        """What the candidates depend on."""
        half_life = -1.0 if profile.half_life_days is None else profile.half_life_days
        return (half_life, profile.centre, profile.interests, self._fetch(profile))

    def _fetch(self, profile: Profile) -> int:
        wanted = max(profile.pool, *KS) if profile.popularity else max(KS)
        return min(wanted, self._index.count, self._index.k_limit or self._index.count)

    def lists(self, split: Split, users: Rows, profile: Profile, progress: Progress) -> Rows:
        """Return the users' lists: int64 (users, 100), -1 after the last title."""
        key = (id(split), self.candidates_key(profile))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._candidates(split, users, profile, progress))
        candidates = self._kept[1]
        scores = candidates.scores.astype(np.float64)
        if profile.popularity:
            counts = np.log1p(np.bincount(split.rest.rows[split.rest.ratings >= self._plan.liked],
                                          minlength=self._index.count))  # fmt: skip
            prior = profile.popularity * counts / max(float(counts.max()), 1e-9)
            scores += np.where(candidates.rows >= 0, prior[np.maximum(candidates.rows, 0)], 0.0)
        lists = np.full((len(users), max(KS)), -1, np.int64)
        for position in range(len(users)):
            mine = slice(int(candidates.offsets[position]), int(candidates.offsets[position + 1]))
            rows, own = candidates.rows[mine], scores[mine]
            if profile.popularity:
                rows, own = _best_of_each(rows, own, max(KS))
            lists[position] = merge_lists(rows, own, max(KS), profile.merge)
        return lists

    def _candidates(self, split: Split, users: Rows, profile: Profile, progress: Progress) -> _Candidates:
        vectors: list[Values] = []
        for position, user in enumerate(users.tolist()):
            part = split.rest.part(user)
            weights = rating_weights(split.rest.ratings[part], split.rest.times[part], profile)
            own = self._index.vectors(split.rest.rows[part])
            vectors.append(interest_vectors(own, weights, profile.interests, self._plan.seed)[0])
            if position % 100 == 0:
                progress("user vectors", position, len(users))
        progress("user vectors", len(users), len(users))
        counts = np.array([len(own) for own in vectors])
        offsets = np.concatenate(([0], np.cumsum(counts)))
        fetch = self._fetch(profile)
        rows = np.full((int(offsets[-1]), fetch), -1, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        queries = (
            self._index.prepare(np.concatenate(vectors)) if len(rows) else np.empty((0, self._index.dim), np.float32)
        )
        seen = Exclusions.of([np.unique(split.rest.rows[split.rest.part(user)]).tolist() for user in users.tolist()])
        asking = np.repeat(np.arange(len(users)), counts)
        for start in range(0, len(rows), QUERY_BLOCK):
            block = slice(start, min(start + QUERY_BLOCK, len(rows)))
            restriction = Restriction(self._index.count, None, seen.take(asking[block]))
            found = restricted_top_k(self._index, np.ascontiguousarray(queries[block]), fetch, restriction)
            rows[block], scores[block] = found.rows, found.scores
            progress("searching", block.stop, len(rows))
        return _Candidates(rows, scores, offsets)


def _best_of_each(rows: Rows, scores: Values, k: int) -> tuple[Rows, Values]:
    """Take the k best titles of each interest, best first, by scores that a prior has changed."""
    width = min(k, rows.shape[1])
    best_rows = np.full((len(rows), width), -1, np.int64)
    best_scores = np.full((len(rows), width), -np.inf)
    for interest, (own, value) in enumerate(zip(rows, scores, strict=True)):
        there = np.flatnonzero(own >= 0)
        by_row = there[np.argsort(own[there])]  # so that ties come in the order of rows
        best = by_row[top(value[by_row], width)]
        best_rows[interest, : len(best)], best_scores[interest, : len(best)] = own[best], value[best]
    return best_rows, best_scores
