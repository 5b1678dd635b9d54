"""Test 1 of the guide: titles similar to single titles, and whether they are of the same franchise."""

from __future__ import annotations

import numpy as np

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.table import TABLE
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.details import ShownTitle, SimilarityDetails, SimilarQuery
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Side, Sides, asked_once, drawn, median, steady
from semrec_faiss.measure.guide.record import SimilarityTest
from semrec_faiss.measure.instruments.timing import Timing
from semrec_faiss.progress import Progress
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.recommender import Recommender

TOP = 3
"""The first results that must be of the query's own franchise …"""

LEAST_MEMBERS = 4
"""… where it has so many members, itself included."""


def similarity_test(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Ask for titles similar to each query title, on both sides.

    Raises:
        NotFoundError: a query title of the config does not exist.
    """
    wanted = settings.similarity
    titles = list(wanted.titles or query_titles(sides.cpu.recommender.catalog, wanted.franchises))
    queries = []
    for done, title in enumerate(titles):
        progress("1 similarity", done, len(titles))
        queries.append(_one(sides, title, settings))
    progress("1 similarity", len(titles), len(titles))
    times = {side.kind: median([query.of_side(side.kind, "time_ms") for query in queries]) for side in sides}
    guide = SimilarityTest.of(
        gpu_time_ms=times.get("gpu", sides.no_gpu), cpu_time_ms=times["cpu"], results=queries[0].results
    )
    first = {side.kind: _first_times(side, settings) for side in sides}
    told = {f"{kind}_first_times": timing.told() for kind, timing in first.items()}
    details = SimilarityDetails.model_validate({**told, "queries": queries})
    gpu_ms = first["gpu"].median_ms if "gpu" in first else None
    return Outcome(guide, details, _criteria(queries, gpu_ms, sides, settings))


def _first_times(side: Side, settings: CompareSettings) -> Timing:
    """Ask for random titles once each, what they are called included."""
    recommender, k = side.recommender, settings.similarity.k
    ids = [record["media_id"] for record in recommender.titles.records(drawn(recommender.titles.count, settings.seed))]
    return asked_once(lambda one: [result.title for result in recommender.similar(one, k)], ids)


def query_titles(catalog: Catalog, franchises: int) -> list[str]:
    """Return the media_id of the earliest title of each of the largest franchises, evenly spaced titles without any."""
    if "franchise" in catalog.fields:
        earliest = f"arg_min(media_id, (coalesce(year, 9999), {ROW}))" if "year" in catalog.fields else "min(media_id)"
        found = catalog.cursor().execute(
            f"SELECT {earliest} FROM {TABLE} WHERE franchise IS NOT NULL GROUP BY franchise::VARCHAR"
            f" ORDER BY count(*) DESC, franchise::VARCHAR LIMIT {franchises}"
        )
        ids = [str(row[0]) for row in found.fetchall()]
        if ids:
            return ids
    rows = np.unique(np.linspace(0, catalog.count - 1, franchises).astype(np.int64))
    return catalog.media_ids(rows)


def franchise_size(catalog: Catalog, franchise: object) -> int:
    """Return how many titles are of a franchise."""
    sql = f"SELECT count(*) FROM {TABLE} WHERE franchise::VARCHAR = $1::VARCHAR"
    return int(catalog.cursor().execute(sql, [str(franchise)]).fetchall()[0][0])


def shown_results(answer: Answer) -> list[ShownTitle]:
    """Return an answer's titles as the guide's results file has them."""
    return [ShownTitle(rank=one.rank, title=one.title, similarity=round(one.score, 6)) for one in answer.results]


def _one(sides: Sides, title: str, settings: CompareSettings) -> SimilarQuery:
    recommender, k = sides.main.recommender, settings.similarity.k
    answer = recommender.similar(title, k)
    query = {**answer.query, "results": shown_results(answer), **_franchise(recommender, answer)}
    for side in sides:
        query |= _times(side, title, k, settings.repeats)
    return SimilarQuery.model_validate(query)


def _times(side: Side, title: str, k: int, repeats: int) -> dict[str, object]:
    """Time a question from the title to ranked rows, and with the metadata of the titles found."""
    asked = steady(lambda: side.recommender.similar(title, k), repeats)
    with_titles = steady(lambda: side.recommender.similar(title, k).results, repeats)
    return {
        f"{side.kind}_time_ms": round(asked.median_ms, 4),
        f"{side.kind}_with_titles_ms": round(with_titles.median_ms, 4),
        f"{side.kind}_times": asked.told(),
    }


def _franchise(recommender: Recommender, answer: Answer) -> dict[str, object]:
    """Say which franchise the query is of, how large it is, and how many of the first results are of it."""
    catalog = recommender.catalog
    if "franchise" not in catalog.fields:
        return {"franchise": None, "franchise_titles": None, "same_franchise_in_top_3": None}
    row = catalog.row_of(answer.query["media_id"])
    franchise = catalog.records([row])[0]["franchise"]
    if franchise is None:
        return {"franchise": None, "franchise_titles": None, "same_franchise_in_top_3": None}
    same = sum(result.fields.get("franchise") == franchise for result in answer.results[:TOP])
    size = franchise_size(catalog, franchise)
    return {"franchise": franchise, "franchise_titles": size, "same_franchise_in_top_3": same}


def _criteria(
    queries: list[SimilarQuery], gpu_ms: float | None, sides: Sides, settings: CompareSettings
) -> list[Criterion]:
    wanted = settings.similarity
    judged = [query for query in queries if (query.franchise_titles or 0) >= LEAST_MEMBERS]
    all_same = [query.same_franchise_in_top_3 == TOP for query in judged]
    on_gpu = "one title on the GPU"
    best = [query.results[0].similarity for query in queries if query.results]
    return [
        Criterion.judge(
            1,
            "franchise",
            "the first three are of the query's franchise, where it has four titles",
            float(np.mean(all_same)) if judged else None,
            wanted.target_franchise_share,
            "share",
            at_least=True,
            reason=None if judged else "no query title is of a franchise of four",
        ),
        Criterion.judge(
            1,
            "similarity",
            "similarity of the best result, on average",
            float(np.mean(best)) if best else None,
            wanted.target_similarity,
            "score",
            at_least=True,
            reason=None if best else "no title was found",
        ),
        Criterion.judge(1, "gpu_time", on_gpu, gpu_ms, wanted.target_gpu_ms, "ms", reason=sides.why_no_gpu),
    ]
