"""The sections of a comparison's report about its first four tests, and what all sections share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semrec_faiss.report.guide.charts import (
    filters_chart,
    throughput_chart,
    times_chart,
)
from semrec_faiss.report.page.document import Block, Cell, Column, Columns, Section, Table, Text, Value
from semrec_faiss.report.page.names import one_percent_sign
from semrec_faiss.report.page.numbers import as_ms, as_share, as_unit, status

Results = dict[str, Any]

TOP = 3


def device_names(results: Results) -> dict[str, str]:
    """Return the compared devices by kind, the GPU first: ``{"gpu": "H200", "cpu": "CPU"}``."""
    gpu = results["index"]["gpu"]
    return ({"gpu": gpu.upper()} if gpu else {}) | {"cpu": "CPU"}


def criteria_table(criteria: Sequence[Results], name: str = "") -> list[Block]:
    """Return a table of criteria with their status; nothing when there is none."""
    rows: list[list[Value]] = []
    for one in criteria:
        target = ("at least " if one["at_least"] else "at most ") + as_unit(one["target"], one["unit"])
        judged = status(one["met"]) if one["met"] is not None else Cell(f"not measured: {one['reason']}", "~", "muted")
        rows.append([one_percent_sign(one["what"]), target, as_unit(one["measured"], one["unit"]), judged])
    columns: Columns = ["criterion", Column("target", right=True), Column("achieved", right=True), "status"]
    return [Table(columns, rows, name=name)] if rows else []


def criteria_of(results: Results, test: int) -> list[Block]:
    """Return the table of one test's criteria."""
    return criteria_table([one for one in results["criteria"] if one["test"] == test])


def failure(results: Results, name: str) -> list[Block] | None:
    """Return what is to be said of a test that did not run, None where it did."""
    detail = results["details"].get(name)
    if detail is None:
        return [Text(results["not_measured"][f"details.{name}"] + ".", "muted")]
    return [Text(f"The test failed: {detail['failed']}", "bad")] if "failed" in detail else None


def _ms_columns(results: Results) -> list[Column]:
    return [Column(f"{name}, ms", ",.3f") for name in device_names(results).values()]


def _ms_cells(results: Results, row: Results) -> list[Value]:
    return [row.get(f"{kind}_time_ms") for kind in device_names(results)]


def timed(value: float | None) -> Value:
    """Return a cell that shows milliseconds with about three figures, None for None."""
    return None if value is None else Cell(as_ms(value), value)


def similarity_section(results: Results) -> Section:
    """Test 1: the query titles with their first results, all results of the first, and the chart of times."""
    title = "1 · Similar titles"
    failed = failure(results, "similarity")
    if failed:
        return Section(title, failed)
    queries = results["details"]["similarity"]["queries"]
    rows: list[list[Value]] = [
        [
            one["title"],
            _franchise(one),
            "\n".join(f"{result['similarity']:.2f} {result['title']}" for result in one["results"][:TOP]),
            _same(one),
            *_ms_cells(results, one),
        ]
        for one in queries
    ]
    columns: Columns = [
        "title",
        "franchise",
        Column("first three", wide=True),
        "same",
        *_ms_columns(results),
    ]
    first = queries[0]
    listed: list[list[Value]] = [[one["rank"], one["title"], one["similarity"]] for one in first["results"]]
    blocks: list[Block] = [*criteria_of(results, 1), Table(columns, rows, "Query titles")]
    chart = _times_chart(results)
    blocks += [chart] if chart else []
    columns_of_one: Columns = [Column("rank", "d"), "title", Column("similarity", ".4f")]
    return Section(title, [*blocks, Table(columns_of_one, listed, f"Similar to {first['title']}")])


def _franchise(query: Results) -> str | None:
    return None if query["franchise"] is None else f"{query['franchise']}, {query['franchise_titles']}"


def _same(query: Results) -> Value:
    same = query["same_franchise_in_top_3"]
    if same is None:
        return None
    judged = (query["franchise_titles"] or 0) > TOP
    return Cell(f"{same} of {TOP}", same, ("good" if same == TOP else "bad") if judged else "plain")


def _times_chart(results: Results) -> Block | None:
    targets = {one["test"]: one["target"] for one in results["criteria"] if one["name"] == "gpu_time"}
    similarity, users = results["test_1_similarity"], results["test_2_personalization"]
    filtering = results["test_4_filtering"]
    numbers = (
        ("one title", "gpu", similarity["gpu_time_ms"], targets.get(1)),
        ("one title", "cpu", similarity["cpu_time_ms"], targets.get(1)),
        ("one user", "gpu", users["avg_gpu_time_ms"], targets.get(2)),
        ("one user", "cpu", users["cpu_avg_time_ms"], targets.get(2)),
        ("one title, one genre only", "gpu", filtering["gpu_time_ms"], None),
        ("one title, one genre only", "cpu", filtering["cpu_time_ms"], None),
    )
    names = device_names(results)
    rows = [
        {"question": question, "device": names[kind], "ms": value, "target_ms": target}
        for question, kind, value, target in numbers
        if value is not None
    ]
    return times_chart(rows, names) if rows else None


def user_section(results: Results) -> Section:
    """Test 2: the users with what they like and get, and what the first query of all cost."""
    title = "2 · Recommendations for users"
    failed = failure(results, "personalization")
    if failed:
        return Section(title, failed)
    detail, names = results["details"]["personalization"], device_names(results)
    rows: list[list[Value]] = [
        [
            one["user_id"],
            ", ".join(one["own_genres"] or ()) or None,
            "\n".join(f"{result['similarity']:.2f} {result['title']}" for result in one["results"]),
            None if one["genre_alignment"] is None else Cell(as_share(one["genre_alignment"]), one["genre_alignment"]),
            ", ".join(f"{decade}s" for decade in one["decades"]) or None,
            *_ms_cells(results, one),
        ]
        for one in detail["users"]
    ]
    columns: Columns = [
        "user",
        "likes",
        Column("recommended", wide=True),
        "aligned",
        "decades",
        *_ms_columns(results),
    ]
    averages = {"gpu": "avg_gpu_time_ms", "cpu": "cpu_avg_time_ms"}
    cold = [
        f"{name}: {as_ms(detail[f'{kind}_first_search_ms'])} cold,"
        f" {as_ms(results['test_2_personalization'][averages[kind]])} a user warm"
        for kind, name in names.items()
    ]
    likes = "Likes: the three commonest genres among the titles seen. Aligned: results that have one of these."
    said = Text(f"The very first search of the process, and a user afterwards. {'; '.join(cold)}.")
    return Section(title, [*criteria_of(results, 2), said, Table(columns, rows, "Users"), Text(likes, "muted")])


def batch_section(results: Results) -> Section:
    """Test 3: the chart of throughput and its numbers."""
    title = "3 · Batches"
    failed = failure(results, "batch")
    if failed:
        return Section(title, failed)
    names = device_names(results)
    points, rows = [], []
    for batch, row in results["test_3_batch"].items():
        size = int(batch.removeprefix("batch_"))
        for kind, name in names.items():
            prefix = "" if kind == "gpu" else "cpu_"
            total, each, qps = (
                row[f"{prefix}{key}"] for key in ("total_time_ms", "time_per_query_ms", "throughput_qps")
            )
            rows.append([size, name, timed(total), timed(each), qps])
            points += [] if qps is None else [{"device": name, "batch": size, "qps": qps}]
    columns: Columns = [
        Column("queries", ",d"),
        "device",
        Column("in all", right=True),
        Column("a query", right=True),
        Column("queries a second", ",.0f"),
    ]
    detail = results["details"]["batch"]
    heard = [f"{names[kind]}: {line}" for kind, lines in detail["memory_ran_out"].items() for line in lines]
    said: list[Block] = [Text(line, "bad") for line in heard]
    said += (
        [Text(f"Queries are {detail['queries']}; k = {results['parity']['k']}.", "muted")] if results["parity"] else []
    )
    charts: list[Block] = [throughput_chart(points, names)] if len(points) > len(names) else []
    return Section(title, [*criteria_of(results, 3), *charts, Table(columns, rows), *said])


def filter_section(results: Results) -> Section:
    """Test 4: one genre only, its time taken apart, and filters of other selectivity."""
    title = "4 · Filters"
    failed = failure(results, "filtering")
    if failed:
        return Section(title, failed)
    detail, names = results["details"]["filtering"], device_names(results)
    listed: list[list[Value]] = [
        [one["rank"], one["title"], ", ".join(one["genres"]), one["similarity"]]
        for one in results["test_4_filtering"]["results"]
    ]
    parts = []
    for kind, name in names.items():
        text = f"{name}: {as_ms(detail[f'{kind}_time_ms'])} (unfiltered {as_ms(detail[f'{kind}_unfiltered_ms'])})"
        if f"{kind}_search_ms" in detail:
            on_gpu, on_host = (as_ms(detail[f"{kind}_{part}_ms"]) for part in ("search", "host"))
            text += f", of which {on_gpu} on the GPU and {on_host} on the host"
        parts.append(f"{text}, strategy {detail[f'{kind}_strategy']}")
    parsed = f" Turning the filter into a mask took {as_ms(detail['filter_first_ms'])}, once."
    said = Text(f"{detail['matching']:,} titles are {detail['genre']}. {'; '.join(parts)}.{parsed}")
    points = _share_points(detail, names)
    returned = f"{next(iter(names))}_returned"
    rows: list[list[Value]] = []
    for one in detail["shares"]:
        timed_as = [one[f"{kind}_{part}"] for kind in names for part in ("time_ms", "strategy")]
        rows.append([Cell(f"{100 * one['share']:g}%", one["share"]), one["matching"], *timed_as, one[returned]])
    columns: Columns = ["titles that pass", Column("how many", ",d")]
    for name in names.values():
        columns += [Column(f"{name}, ms", ",.3f"), f"{name} strategy"]
    charts: list[Block] = [filters_chart(points, names)] if rows else []
    blocks: list[Block] = [*criteria_of(results, 4), said, *charts]
    blocks += [Table([*columns, Column("returned", "d")], rows, "Random filters")] if rows else []
    result_columns: Columns = [Column("rank", "d"), "title", "genres", Column("similarity", ".4f")]
    caption = f"Similar to {detail['query']['title']}, {detail['genre']} only"
    return Section(title, [*blocks, Table(result_columns, listed, caption)])


def _share_points(detail: Results, names: dict[str, str]) -> list[Results]:
    points = []
    for kind, name in names.items():
        points.append({"share": 1.0, "device": name, "ms": detail[f"{kind}_unfiltered_ms"], "strategy": "none"})
        points += [
            {"share": one["share"], "device": name, "ms": one[f"{kind}_time_ms"], "strategy": one[f"{kind}_strategy"]}
            for one in detail["shares"]
        ]
    return points
