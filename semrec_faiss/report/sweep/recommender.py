"""The sections of a sweep's report about what a recommender on each index shows, and what it misses."""

from __future__ import annotations

from collections.abc import Sequence

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.record_parts import Slices
from semrec_faiss.report.page.document import Block, Cell, Chart, Column, Table, Text, Value
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.numbers import as_recall
from semrec_faiss.report.sweep.charts import decile_chart
from semrec_faiss.report.sweep.rows import (
    ENOUGH,
    by_series,
    representative,
    representatives,
    row_of,
    series_of,
)
from semrec_faiss.report.sweep.sections import About, name_of

MOST_EXAMPLES = 3
"""Indexes whose misses are written out."""


def recommender_blocks(about: About, smallest: Sequence[Measured]) -> list[Block]:
    """Tell what titles and users find, how much of the catalogue is shown, and what popularity does to recall."""
    shown = representatives(smallest)
    rows: list[list[Value]] = []
    for record in shown:
        row = row_of(record)
        rows.append(
            [
                row["series"],
                row["setting"],
                device_label(row["device"]),
                row["recall_titles"],
                row["recall_users"],
                row["ndcg"],
                row["coverage"],
                record.quality.coverage_exact,
            ]
        )
    columns: list[str | Column] = [
        "index",
        "setting",
        "device",
        _share("recall, titles"),
        _share("recall, users"),
        _share("nDCG"),
        _share("coverage", ".2%"),
        _share("exact coverage", ".2%"),
    ]
    blocks: list[Block] = [
        Text(
            f"Each index at its fastest setting that finds {ENOUGH:.0%}, or else at the one that finds most. "
            "Coverage is the share of the catalogue that at least one of the questions is answered with."
        ),
        Table(columns, rows),
    ]
    if shown[0].quality.by_popularity is None:
        reason = shown[0].not_measured["quality.by_popularity"]
        blocks.append(Text(f"Recall by popularity was not measured: {reason}.", "muted"))
    else:
        caption = "Recall of the titles of each tenth of the catalogue, by how many users have seen them."
        chart = decile_chart(shown, about.looks, about.subtitle_of_one)
        blocks.append(Chart(about.chart_name("popularity"), chart, caption))
    sliced = [
        (record, record.quality.by_slice)
        for record in shown
        if record.quality.by_slice is not None and record.recall_or_0 < 1
    ]
    if sliced:
        blocks.append(_slices_table(sliced))
    return blocks


def _slices_table(sliced: Sequence[tuple[Measured, Slices]]) -> Table:
    field = sliced[0][1].field
    found = [{one.value: one for one in slices.values} for _, slices in sliced]
    rows: list[list[Value]] = [
        [value, places.places, *(each[value].recall if value in each else None for each in found)]
        for value, places in found[0].items()
    ]
    columns: list[str | Column] = [field, Column("places", ",")]
    columns += [_share(series_of(record)) for record, _ in sliced]
    caption = f"Recall by {field} of the indexes above that miss some; places are those of its titles in exact lists"
    return Table(columns, rows, caption=caption)


def examples(smallest: Sequence[Measured]) -> list[Block]:
    """Write out what each index misses at the setting that stands for it, or else at the best one that misses any."""
    lossy = []
    for group in by_series(smallest).values():
        missing = [record for record in group if record.recall_or_0 < 1]
        stands = representative(group)
        if missing:
            lossy.append(stands if stands in missing else max(missing, key=lambda one: one.recall_or_0))
    lossy.sort(key=lambda record: record.recall_or_0)
    blocks: list[Block] = []
    for record in lossy[:MOST_EXAMPLES]:
        device = device_label(record.device.name)
        rows: list[list[Value]] = []
        for example in record.examples:
            asked = example.query.title or example.query.user
            exact = "\n".join(f"{'' if one.found else '✗ '}{one.title}" for one in example.exact)
            missed = sum(not one.found for one in example.exact)
            if not missed:  # others miss so little that this is among the worst
                continue
            rows.append([asked, exact, missed, Cell("\n".join(example.instead) or "–")])
        caption = f"{name_of(record)} on {device}: recall {as_recall(record.quality.recall)}; its worst answers"
        columns: list[str | Column] = [
            "asked",
            Column("the exact index gives (✗ is missed)", wide=True),
            Column("missed", ","),
            Column("this one gives instead", wide=True),
        ]
        blocks.append(Table(columns, rows, caption=caption))
    return blocks


def _share(name: str, spec: str = ".4f") -> Column:
    return Column(name, spec, at_most_one=True)
