"""Test 2 of the guide: recommendations for single users, how they fit, and what the first one costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from semrec_faiss.arrays import Values
from semrec_faiss.data.movielens.users import rating_weights
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.details import PersonalizationDetails, ShownYear, UserDetails
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Side, Sides, asked_once, drawn, steady
from semrec_faiss.measure.guide.record import PersonalizationTest, UserResult
from semrec_faiss.measure.guide.similarity import shown_results
from semrec_faiss.measure.instruments.timing import Timing
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

COMMONEST = 3
"""Of the genres that a user has seen, so many are taken for the user's own."""


def personalization_test(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Recommend to each user, on both sides.

    Raises:
        NotFoundError: the index has no users, or not those of the config.
    """
    users = chosen_users(sides.cpu.recommender, settings.personalization.users)
    found, details = [], []
    for done, user in enumerate(users):
        progress("2 personalisation", done, len(users))
        result, detail = _one(sides, user, settings)
        found.append(result)
        details.append(detail)
    progress("2 personalisation", len(users), len(users))
    averages = {side.kind: float(np.mean([user.of_side(side.kind, "time_ms") for user in details])) for side in sides}
    guide = PersonalizationTest.of(
        avg_gpu_time_ms=round(averages["gpu"], 4) if sides.gpu else sides.no_gpu,
        cpu_avg_time_ms=round(averages["cpu"], 4),
        user_results=found,
    )
    cold = {f"{side.kind}_first_search_ms": round(side.first_search_ms, 4) for side in sides}
    first = {side.kind: _first_times(side, settings) for side in sides}
    times = {f"{kind}_first_times": timing.told() for kind, timing in first.items()}
    told = PersonalizationDetails.model_validate({**cold, **times, "users": details})
    gpu_ms = first["gpu"].mean_ms if "gpu" in first else None
    return Outcome(guide, told, _criteria(details, gpu_ms, sides, settings))


def _first_times(side: Side, settings: CompareSettings) -> Timing:
    """Ask for random users once each, the titles' names included."""
    recommender, k = side.recommender, settings.personalization.k
    ids = [recommender.users.ids[row] for row in drawn(recommender.users.count, settings.seed)]
    return asked_once(lambda one: [result.title for result in recommender.recommend(one, k)], ids)


def chosen_users(recommender: Recommender, wanted: int | tuple[str, ...]) -> list[str]:
    """Return user ids: those named, or so many evenly spread over the index's.

    Raises:
        NotFoundError: the index has no users.
    """
    if not isinstance(wanted, int):
        recommender.users.rows_of(wanted)
        return list(wanted)
    ids = recommender.users.ids
    return [ids[row] for row in np.unique(np.linspace(0, len(ids) - 1, wanted).astype(np.int64))]


def commonest_genres(genres: Sequence[Sequence[str] | None], weights: Values | None = None) -> list[str]:
    """Return the `COMMONEST` genres in a list of titles' genres; by name among equals.

    Args:
        genres: a list a title.
        weights: (titles,), what a title counts, 1 where not given; genres of no weight are left out.
    """
    weighed: defaultdict[str, float] = defaultdict(float)
    for of_title, weight in zip(genres, np.ones(len(genres)) if weights is None else weights, strict=True):
        for genre in set(of_title or ()):
            weighed[genre] += float(weight)
    ranked = sorted(weighed.items(), key=lambda item: (-item[1], item[0]))
    return [genre for genre, weight in ranked[:COMMONEST] if weight > 0]


def genre_alignment(own: Sequence[str], recommended: Sequence[Sequence[str] | None]) -> float | None:
    """Return the share of titles that have one of ``own`` genres; None without titles or genres."""
    if not own or not recommended:
        return None
    return float(np.mean([bool(set(own) & set(genres or ())) for genres in recommended]))


def decades(years: Sequence[int | None]) -> list[int]:
    """Return the decades that years fall in, each once, ascending."""
    return sorted({year // 10 * 10 for year in years if year is not None})


def _one(sides: Sides, user: str, settings: CompareSettings) -> tuple[UserResult, UserDetails]:
    recommender, k = sides.main.recommender, settings.personalization.k
    answer = recommender.recommend(user, k)
    own = _own_genres(recommender, user)
    alignment = None if own is None else genre_alignment(own, [result.genres for result in answer.results])
    detail: dict[str, object] = {
        "user_id": user,
        "own_genres": own,
        "genre_alignment": alignment,
        "decades": decades([result.year for result in answer.results]),
        "results": [
            ShownYear(**dict(shown), genres=one.genres, year=one.year)
            for shown, one in zip(shown_results(answer), answer.results, strict=True)
        ],
    }
    for side in sides:
        detail |= _times(side, user, k, settings.repeats)
    guide = UserResult.of(
        user_id=user,
        gpu_time_ms=detail.get("gpu_time_ms", sides.no_gpu),
        cpu_time_ms=detail["cpu_time_ms"],
        recommendations=shown_results(answer),
    )
    return guide, UserDetails.model_validate(detail)


def _times(side: Side, user: str, k: int, repeats: int) -> dict[str, object]:
    timing = steady(lambda: side.recommender.recommend(user, k), repeats)
    return {f"{side.kind}_time_ms": round(timing.median_ms, 4), f"{side.kind}_times": timing.told()}


def _own_genres(recommender: Recommender, user: str) -> list[str] | None:
    """Return the three commonest genres of what a user has seen, a rated title by (rating - 1) / 4, one without as 1.

    None where seen titles or genres are not known.
    """
    if not recommender.users.has_seen or "genres" not in recommender.catalog.fields:
        return None
    row = int(recommender.users.rows_of([user])[0])
    history = recommender.users.history
    mine = slice(history.offsets[row], history.offsets[row + 1])
    genres = [record.get("genres") for record in recommender.catalog.records(history.rows[mine])]
    weights = None if history.ratings is None else rating_weights(np.nan_to_num(history.ratings[mine], nan=5.0))
    return commonest_genres(genres, weights) if genres else None


def _why_not_aligned(recommender: Recommender) -> str:
    if not recommender.users.has_seen:
        return "the index does not know what its users have seen"
    named = "genres" in recommender.catalog.fields
    return "no title that these users have seen has a genre" if named else "the titles have no genres"


def _criteria(
    users: list[UserDetails], gpu_ms: float | None, sides: Sides, settings: CompareSettings
) -> list[Criterion]:
    aligned = [user.genre_alignment for user in users if user.genre_alignment is not None]
    wanted, on_gpu = settings.personalization, "one user on the GPU, on average"
    return [
        Criterion.judge(
            2,
            "genre_alignment",
            "results with one of the user's three commonest genres",
            float(np.mean(aligned)) if aligned else None,
            wanted.target_genre_alignment,
            "share",
            at_least=True,
            reason=None if aligned else _why_not_aligned(sides.main.recommender),
        ),
        Criterion.judge(2, "gpu_time", on_gpu, gpu_ms, wanted.target_gpu_ms, "ms", reason=sides.why_no_gpu),
    ]
