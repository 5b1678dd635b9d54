"""The sections of a comparison's report about its first four tests, and what all sections share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.guide.batches import KEYS as BATCH_KEYS
from semrec_faiss.measure.guide.details import (
    BatchDetails,
    Certificate,
    FailedTest,
    FilteringDetails,
    Kind,
    PersonalizationDetails,
    SideDetails,
    SimilarityDetails,
    SimilarQuery,
)
from semrec_faiss.measure.guide.record import GuideResults
from semrec_faiss.report.guide.charts import (
    filters_chart,
    throughput_chart,
    times_chart,
)
from semrec_faiss.report.page.charts import Row
from semrec_faiss.report.page.document import Block, Cell, Column, Columns, Section, Table, Text, Value
from semrec_faiss.report.page.names import one_percent_sign
from semrec_faiss.report.page.numbers import as_ms, as_share, as_unit, status

TOP = 3


def device_names(results: GuideResults) -> dict[Kind, str]:
    """Return the compared devices by kind, the GPU first: ``{"gpu": "H200", "cpu": "CPU"}``."""
    gpu = results.index.gpu
    return {kind: gpu.upper() if gpu and kind == "gpu" else "CPU" for kind in results.kinds}


def criteria_table(criteria: Sequence[Criterion], name: str = "") -> list[Block]:
    """Return a table of criteria with their status; nothing when there is none."""
    rows: list[list[Value]] = []
    for one in criteria:
        target = ("at least " if one.at_least else "at most ") + as_unit(one.target, one.unit)
        judged = status(one.met) if one.met is not None else Cell(f"not measured: {one.reason}", "~", "muted")
        rows.append([one_percent_sign(one.what), target, as_unit(one.measured, one.unit), judged])
    columns: Columns = ["criterion", Column("target", right=True), Column("achieved", right=True), "status"]
    return [Table(columns, rows, name=name)] if rows else []


def criteria_of(results: GuideResults, test: int) -> list[Block]:
    """Return the table of one test's criteria."""
    return criteria_table([one for one in results.criteria if one.test == test])


def failure(results: GuideResults, name: str, details: FailedTest | None) -> list[Block]:
    """Return what is to be said of a test that was not run, or that failed.

    Args:
        results: of all tests.
        name: of the test in ``details``.
        details: what it said, None where it was not run.
    """
    if details is None:
        return [Text(f"{results.not_measured.get(f'details.{name}', 'not measured')}.", "muted")]
    return [Text(f"The test failed: {details.failed}", "bad")]


def _ms_columns(results: GuideResults) -> list[Column]:
    return [Column(f"{name}, ms", ",.3f") for name in device_names(results).values()]


def _ms_cells(results: GuideResults, row: SideDetails) -> list[Value]:
    return [row.of_side(kind, "time_ms") for kind in results.kinds]


def timed(value: float | None) -> Value:
    """Return a cell that shows milliseconds with about three figures, None for None."""
    return None if value is None else Cell(as_ms(value), value)


def similarity_section(results: GuideResults) -> Section:
    """Test 1: the query titles with their first results, all results of the first, and the chart of times."""
    title = "1 · Similar titles"
    details = results.details.similarity
    if not isinstance(details, SimilarityDetails):
        return Section(title, failure(results, "similarity", details))
    rows: list[list[Value]] = [
        [
            one.title,
            _franchise(one),
            "\n".join(f"{found.similarity:.2f} {found.title}" for found in one.results[:TOP]),
            _same(one),
            *_ms_cells(results, one),
        ]
        for one in details.queries
    ]
    columns: Columns = [
        "title",
        "franchise",
        Column("first three", wide=True),
        "same",
        *_ms_columns(results),
    ]
    first = details.queries[0]
    listed: list[list[Value]] = [[one.rank, one.title, one.similarity] for one in first.results]
    blocks: list[Block] = [*criteria_of(results, 1), Table(columns, rows, "Query titles")]
    chart = _times_chart(results)
    blocks += [chart] if chart else []
    columns_of_one: Columns = [Column("rank", "d"), "title", Column("similarity", ".4f")]
    return Section(title, [*blocks, Table(columns_of_one, listed, f"Similar to {first.title}")])


def _franchise(query: SimilarQuery) -> str | None:
    return None if query.franchise is None else f"{query.franchise}, {query.franchise_titles}"


def _same(query: SimilarQuery) -> Value:
    same = query.same_franchise_in_top_3
    if same is None:
        return None
    judged = (query.franchise_titles or 0) > TOP
    return Cell(f"{same} of {TOP}", same, ("good" if same == TOP else "bad") if judged else "plain")


def _times_chart(results: GuideResults) -> Block | None:
    similarity, users = results.test_1_similarity, results.test_2_personalization
    filtering = results.test_4_filtering
    numbers: tuple[tuple[str, Kind, float | None, float | None], ...] = (
        ("one title", "gpu", similarity.gpu_time_ms, results.target(1, "gpu_time")),
        ("one title", "cpu", similarity.cpu_time_ms, results.target(1, "gpu_time")),
        ("one user", "gpu", users.avg_gpu_time_ms, results.target(2, "gpu_time")),
        ("one user", "cpu", users.cpu_avg_time_ms, results.target(2, "gpu_time")),
        ("one title, one genre only", "gpu", filtering.gpu_time_ms, None),
        ("one title, one genre only", "cpu", filtering.cpu_time_ms, None),
    )
    names = device_names(results)
    rows = [
        {"question": question, "device": names[kind], "ms": value, "target_ms": target}
        for question, kind, value, target in numbers
        if value is not None
    ]
    return times_chart(rows, names) if rows else None


def user_section(results: GuideResults) -> Section:
    """Test 2: the users with what they like and get, and what the first query of all cost."""
    title = "2 · Recommendations for users"
    details = results.details.personalization
    if not isinstance(details, PersonalizationDetails):
        return Section(title, failure(results, "personalization", details))
    names = device_names(results)
    rows: list[list[Value]] = [
        [
            one.user_id,
            ", ".join(one.own_genres or ()) or None,
            "\n".join(f"{result.similarity:.2f} {result.title}" for result in one.results),
            None if one.genre_alignment is None else Cell(as_share(one.genre_alignment), one.genre_alignment),
            ", ".join(f"{decade}s" for decade in one.decades) or None,
            *_ms_cells(results, one),
        ]
        for one in details.users
    ]
    columns: Columns = [
        "user",
        "likes",
        Column("recommended", wide=True),
        "aligned",
        "decades",
        *_ms_columns(results),
    ]
    numbers = results.test_2_personalization
    averages = {"gpu": numbers.avg_gpu_time_ms, "cpu": numbers.cpu_avg_time_ms}
    cold = [
        f"{name}: {as_ms(details.of_side(kind, 'first_search_ms'))} cold, {as_ms(averages[kind])} a user warm"
        for kind, name in names.items()
    ]
    likes = "Likes: the three commonest genres among the titles seen. Aligned: results that have one of these."
    said = Text(f"The very first search of the process, and a user afterwards. {'; '.join(cold)}.")
    return Section(title, [*criteria_of(results, 2), said, Table(columns, rows, "Users"), Text(likes, "muted")])


def batch_section(results: GuideResults) -> Section:
    """Test 3: the chart of throughput and its numbers."""
    title = "3 · Batches"
    details = results.details.batch
    if not isinstance(details, BatchDetails):
        return Section(title, failure(results, "batch", details))
    names = device_names(results)
    points: list[Row] = []
    rows: list[list[Value]] = []
    for size, row in results.batches().items():
        for kind, name in names.items():
            total, each, qps = (row.of_side(kind, key) for key in BATCH_KEYS)
            rows.append([size, name, timed(total), timed(each), qps])
            points += [] if qps is None else [{"device": name, "batch": size, "qps": qps}]
    columns: Columns = [
        Column("queries", ",d"),
        "device",
        Column("in all", right=True),
        Column("a query", right=True),
        Column("queries a second", ",.0f"),
    ]
    heard = [f"{names[kind]}: {line}" for kind, lines in details.memory_ran_out.items() for line in lines]
    said: list[Block] = [Text(line, "bad") for line in heard]
    if isinstance(results.parity, Certificate):
        said.append(Text(f"Queries are {details.queries}; k = {results.parity.k}.", "muted"))
    charts: list[Block] = [throughput_chart(points, names)] if len(points) > len(names) else []
    return Section(title, [*criteria_of(results, 3), *charts, Table(columns, rows), *said])


def filter_section(results: GuideResults) -> Section:
    """Test 4: one genre only, its time taken apart, and filters of other selectivity."""
    title = "4 · Filters"
    details = results.details.filtering
    if not isinstance(details, FilteringDetails):
        return Section(title, failure(results, "filtering", details))
    names = device_names(results)
    listed: list[list[Value]] = [
        [one.rank, one.title, ", ".join(one.genres), one.similarity] for one in results.test_4_filtering.results or ()
    ]
    parsed = f" Turning the filter into a mask took {as_ms(details.filter_first_ms)}, once."
    times = "; ".join(_filter_times(details, kind, name) for kind, name in names.items())
    said = Text(f"{details.matching:,} titles are {details.genre}. {times}.{parsed}")
    rows: list[list[Value]] = []
    for one in details.shares:
        timed_as = [one.of_side(kind, part) for kind in names for part in ("time_ms", "strategy")]
        returned = one.of_side(results.kinds[0], "returned")
        rows.append([Cell(f"{100 * one.share:g}%", one.share), one.matching, *timed_as, returned])
    columns: Columns = ["titles that pass", Column("how many", ",d")]
    for name in names.values():
        columns += [Column(f"{name}, ms", ",.3f"), f"{name} strategy"]
    charts: list[Block] = [filters_chart(_share_points(details, names), names)] if rows else []
    blocks: list[Block] = [*criteria_of(results, 4), said, *charts]
    blocks += [Table([*columns, Column("returned", "d")], rows, "Random filters")] if rows else []
    result_columns: Columns = [Column("rank", "d"), "title", "genres", Column("similarity", ".4f")]
    caption = f"Similar to {details.query.title}, {details.genre} only"
    return Section(title, [*blocks, Table(result_columns, listed, caption)])


def _filter_times(details: FilteringDetails, kind: Kind, name: str) -> str:
    whole, unfiltered = (as_ms(details.of_side(kind, part)) for part in ("time_ms", "unfiltered_ms"))
    on_gpu, on_host = (details.of_side(kind, part) for part in ("search_ms", "host_ms"))
    apart = "" if on_gpu is None else f", of which {as_ms(on_gpu)} on the GPU and {as_ms(on_host)} on the host"
    return f"{name}: {whole} (unfiltered {unfiltered}){apart}, strategy {details.of_side(kind, 'strategy')}"


def _share_points(details: FilteringDetails, names: Mapping[Kind, str]) -> list[Row]:
    points: list[Row] = []
    for kind, name in names.items():
        unfiltered = details.of_side(kind, "unfiltered_ms")
        points.append({"share": 1.0, "device": name, "ms": unfiltered, "strategy": "none"})
        for one in details.shares:
            ms, strategy = one.of_side(kind, "time_ms"), one.of_side(kind, "strategy")
            points.append({"share": one.share, "device": name, "ms": ms, "strategy": strategy})
    return points
