"""Test 4 of the guide: titles of one genre only, and what filters of other selectivity cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from semrec_faiss.arrays import Mask, Vectors
from semrec_faiss.errors import UsageError
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.details import FilteringDetails, Kind, ShareDetails, ShownGenres
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Side, Sides, steady
from semrec_faiss.measure.guide.record import FilteringTest
from semrec_faiss.measure.guide.similarity import query_titles, shown_results
from semrec_faiss.measure.instruments.cuda_time import time_in_faiss
from semrec_faiss.progress import Progress
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.filters.filter import Filter, Selections
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.topk import restricted_top_k

MOST_FRANCHISES = 200
"""Looked through for a well-known title of the genre."""

NOT_APART = NotMeasured("what is searched by other kernels than FAISS's on a GPU is not timed apart from the host")


def filtering_test(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Ask for titles of one genre similar to a title of that genre, then through random masks of each share.

    Raises:
        UsageError: the titles have no genres, or none of that name.
        NotFoundError: the config's title does not exist.
    """
    wanted = settings.filtering
    steps = 1 + len(wanted.shares)
    progress("4 filters", 0, steps)
    recommender = sides.main.recommender
    title = wanted.title or genre_title(recommender, wanted.genre)
    only = Filter(genres=(wanted.genre,))
    answer = recommender.similar(title, wanted.k, where=only)
    detail: dict[str, object] = {
        "query": answer.query,
        "genre": wanted.genre,
        "matching": answer.matching,
        "requested": answer.requested,
        "strategy": answer.strategy,
        "exact": answer.exact,
        "filter_first_ms": round(_first_filter_ms(recommender, only), 4),
    }
    for side in sides:
        detail |= filter_times(side, title, only, settings)
    shares = []
    for done, share in enumerate(wanted.shares, start=1):
        progress("4 filters", done, steps)
        shares.append(_share(sides, title, share, settings))
    progress("4 filters", steps, steps)
    right = [wanted.genre.casefold() in {genre.casefold() for genre in result.genres} for result in answer.results]
    not_apart = NOT_APART if sides.gpu else sides.no_gpu
    found = zip(shown_results(answer), answer.results, strict=True)
    guide = FilteringTest.of(
        gpu_time_ms=detail.get("gpu_time_ms", sides.no_gpu),
        gpu_search_time_ms=detail.get("gpu_search_ms", not_apart),
        gpu_host_time_ms=detail.get("gpu_host_ms", not_apart),
        cpu_time_ms=detail["cpu_time_ms"],
        results=[ShownGenres(**dict(shown), genres=one.genres) for shown, one in found],
    )
    details = FilteringDetails.model_validate({**detail, "shares": shares})
    return Outcome(guide, details, _criteria(answer, right, shares, [side.kind for side in sides]))


def _first_filter_ms(recommender: Recommender, only: Filter) -> float:
    """Time a filter from its expression to a mask on a cache that does not know it; asked again it costs nothing."""
    fresh = Selections(recommender.catalog, recommender.index)
    started = time.perf_counter()
    fresh.get(only)
    return (time.perf_counter() - started) * 1e3


def genre_title(recommender: Recommender, genre: str) -> str:
    """Return the media_id of a title of a genre: of a large franchise, or else the first.

    Raises:
        UsageError: the titles have no genres, or none of that name.
    """
    selection = recommender.searcher.selections.get(Filter(genres=(genre,)))
    if selection is None or not len(selection.rows):
        raise UsageError(f"no title has the genre {genre!r}")
    for media_id in query_titles(recommender.catalog, MOST_FRANCHISES):
        if selection.mask[recommender.catalog.row_of(media_id)]:
            return media_id
    return recommender.catalog.media_ids(selection.rows[:1])[0]


def filter_times(side: Side, title: str, only: Filter, settings: CompareSettings) -> dict[str, object]:
    """Time the question on one side: in all, and where FAISS searches on a GPU apart what it does and what is left."""
    recommender, k = side.recommender, settings.filtering.k

    def ask(where: Filter | None) -> Answer:
        return recommender.similar(title, k, where=where)

    timing = steady(lambda: ask(only), settings.repeats)
    plain = steady(lambda: ask(None), settings.repeats)
    times: dict[str, object] = {
        f"{side.kind}_time_ms": round(timing.median_ms, 4),
        f"{side.kind}_unfiltered_ms": round(plain.median_ms, 4),
        f"{side.kind}_strategy": ask(only).strategy,
        f"{side.kind}_times": timing.told(),
    }
    if recommender.index.device.gpus and recommender.index.fused is None:
        in_faiss = []
        for _ in range(len(timing.times_ms)):
            with time_in_faiss(recommender.index) as clock:
                ask(only)
            in_faiss.append(clock.elapsed_ms)
        on_gpu = float(np.median(in_faiss))
        times[f"{side.kind}_search_ms"] = round(on_gpu, 4)
        times[f"{side.kind}_host_ms"] = round(max(0.0, timing.median_ms - on_gpu), 4)
    return times


def _share(sides: Sides, title: str, share: float, settings: CompareSettings) -> ShareDetails:
    """Time one title's question through a random mask that lets ``share`` of the titles pass."""
    recommender = sides.main.recommender
    row = recommender.catalog.find(title)
    mask = np.random.default_rng(settings.seed).random(recommender.index.count) < share
    mask[row] = False
    found: dict[str, object] = {"share": share, "matching": int(mask.sum())}
    query = recommender.index.vectors([row])
    for side in sides:
        found |= _share_times(side, query, mask, settings)
    return ShareDetails.model_validate(found)


def _share_times(side: Side, query: Vectors, mask: Mask, settings: CompareSettings) -> dict[str, object]:
    index, k = side.recommender.index, settings.filtering.k
    restriction = Restriction(index.count, mask, None, np.flatnonzero(mask))
    found = restricted_top_k(index, query, k, restriction)
    timing = steady(lambda: restricted_top_k(index, query, k, restriction), settings.repeats)
    rows = found.rows[0][found.rows[0] >= 0]
    scores = found.scores[0][: len(rows)]
    return {
        f"{side.kind}_time_ms": round(timing.median_ms, 4),
        f"{side.kind}_strategy": found.strategy,
        f"{side.kind}_returned": len(rows),
        f"{side.kind}_all_match": bool(mask[rows].all()),
        f"{side.kind}_ordered": bool((np.diff(scores) <= 0).all()),
        f"{side.kind}_times": timing.told(),
    }


def _criteria(
    answer: Answer, right: Sequence[bool], shares: Sequence[ShareDetails], kinds: Sequence[Kind]
) -> list[Criterion]:
    in_order = bool((np.diff(answer.scores) <= 0).all())
    full = [
        row.of_side(kind, "returned") == min(answer.requested, row.matching)
        and row.of_side(kind, "all_match")
        and row.of_side(kind, "ordered")
        for row in shares
        for kind in kinds
    ]
    return [
        Criterion.judge(
            4,
            "all_match",
            "results that pass the filter",
            float(np.mean(right)) if right else None,
            1.0,
            "share",
            at_least=True,
            reason=None if right else "no title was found",
        ),
        Criterion.judge(4, "ordered", "results in order of similarity", float(in_order), 1.0, "share", at_least=True),
        Criterion.judge(
            4,
            "complete",
            "filters that gave as many as match, all right and in order",
            float(np.mean(full)) if full else None,
            1.0,
            "share",
            at_least=True,
            reason=None if full else "no other filter was asked for",
        ),
    ]
