"""The charts of a sweep beside those of recall against speed: memory, building, filters, batch sizes, popularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.report.page.axes import bar_axis, bar_ends, log_axis, log_scale, recall_axis
from semrec_faiss.report.page.charts import load_altair, panels_of, titled
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.palette import GREYS, Look
from semrec_faiss.report.sweep.marks import lines_of, points_of
from semrec_faiss.report.sweep.rows import row_of, series_of

PANEL_HEIGHT = 260
Looks = Mapping[str, Look]


def memory_chart(records: Sequence[Measured], looks: Looks, subtitle: str) -> Any:
    """Draw recall against the memory that the search takes where it runs; trials without a reading are left out."""
    alt = load_altair()
    rows = [row | {"memory_mb": row["memory_bytes"] / 1e6} for row in map(row_of, records) if row["memory_bytes"]]
    values = [row["memory_mb"] for row in rows]
    told = [alt.Tooltip("memory_mb:Q", format=",.1f", title="peak memory, MB")]
    chart = points_of(alt, rows, looks, told).encode(
        x=alt.X(
            "memory_mb:Q",
            scale=log_scale(values),
            axis=log_axis(values),
            title="peak memory while searching, MB (log scale)",
        ),
        y=recall_axis(alt, [row["recall"] for row in rows], f"recall@{rows[0]['k']}"),
    )
    return titled(chart.properties(width="container", height=PANEL_HEIGHT), "Recall against memory", subtitle)


def build_chart(records: Sequence[Measured], subtitle: str) -> Any:
    """Draw how long each index took to train, to fill and to load, with the sum at the end of its bar."""
    alt = load_altair()
    steps = {"train_s": "train", "add_s": "add", "load_s": "load"}
    found = list({(row["series"], row["device"]): row for row in map(row_of, records)}.values())
    several = len({row["device"] for row in found}) > 1
    bars, sums = [], []
    for row in found:
        # On two lines: the type, then what it is built with.
        kind, _, built = row["series"].partition(" ")
        name = "\n".join(filter(None, (kind, built))) + (f" · {device_label(row['device'])}" if several else "")
        sums.append({"index": name, "seconds": sum(row[key] for key in steps)})
        bars += [
            {"index": name, "step": step, "seconds": row[key], "order": place}
            for place, (key, step) in enumerate(steps.items())
        ]
    order = [one["index"] for one in sums]
    axis = alt.Axis(labelLimit=320, labelExpr="split(datum.label, '\\n')", ticks=False, domain=False)
    y = alt.Y("index:N", sort=order, title=None, axis=axis, scale=alt.Scale(paddingInner=0.3))
    ends = alt.Scale(domain=bar_ends(one["seconds"] for one in sums), nice=False)
    x = alt.X("sum(seconds):Q", title="seconds", scale=ends, axis=bar_axis())
    colour = alt.Color("step:N", title=None, scale=alt.Scale(domain=list(steps.values()), range=list(GREYS)))
    drawn = (
        alt.Chart(alt.Data(values=bars))
        .mark_bar(cornerRadiusEnd=0)
        .encode(
            x=x,
            y=y,
            color=colour,
            order="order:O",
            tooltip=[alt.Tooltip("index:N"), alt.Tooltip("step:N"), alt.Tooltip("seconds:Q", format=",.3~g")],
        )
    )
    told = (
        alt.Chart(alt.Data(values=sums))
        .mark_text(align="left", dx=5)
        .encode(x=alt.X("seconds:Q", scale=ends), y=y, text=alt.Text("seconds:Q", format=",.3~g"))
    )
    chart = (drawn + told).properties(width="container", height=38 * len(order))
    return titled(chart, "Seconds to build and to load", subtitle)


def selectivity_chart(records: Sequence[Measured], looks: Looks, subtitle: str) -> Any:
    """Draw recall and latency against the share of titles that a filter lets through, a line an index."""
    alt = load_altair()
    rows = [
        row | {"line": f"{row['series']} {row['setting']} {row['device']}", "filter": row["filter"] or "none"}
        for row in map(row_of, records)
        if row["recall"] is not None
    ]
    shares, times = [row["selectivity"] for row in rows], [row["p50_ms"] for row in rows]
    x = alt.X(
        "selectivity:Q",
        scale=log_scale(shares, shares=True),
        axis=log_axis(shares, shares=True),
        title="titles that the filter lets through (log scale)",
    )
    told = ["filter:N", "strategy:N", alt.Tooltip("selectivity:Q", format=".2%", title="titles let through")]
    panels = []
    for name, y in (
        ("recall", recall_axis(alt, [row["recall"] for row in rows], f"recall@{rows[0]['k']}")),
        (
            "latency",
            alt.Y("p50_ms:Q", scale=log_scale(times), axis=log_axis(times), title="median latency, ms (log scale)"),
        ),
    ):
        both = lines_of(alt, rows, looks).encode(x=x, y=y, order="selectivity:Q")
        both += points_of(alt, rows, looks, told).encode(x=x, y=y)
        panels.append(both.properties(width=panels_of(2).width, height=PANEL_HEIGHT, title=name))
    shared = alt.concat(*panels, columns=2).resolve_scale(stroke="shared", fill="shared", shape="shared")
    return titled(shared, "Recall and latency under filters", subtitle)


def batch_chart(records: Sequence[Measured], looks: Looks, subtitle: str) -> Any:
    """Draw the time a query against the batch size, a line an index at the setting that stands for it."""
    alt = load_altair()
    rows = [
        row | {"ms_a_query": row["p50_ms"] / row["batch"], "line": f"{row['series']} {row['device']}"}
        for row in map(row_of, records)
    ]
    batches, times = [row["batch"] for row in rows], [row["ms_a_query"] for row in rows]
    shared = {
        "x": alt.X(
            "batch:Q",
            scale=log_scale(batches),
            axis=alt.Axis(values=sorted(set(batches)), format=","),
            title="queries searched at once (log scale)",
        ),
        "y": alt.Y(
            "ms_a_query:Q", scale=log_scale(times), axis=log_axis(times), title="median time a query, ms (log scale)"
        ),
    }
    told = [alt.Tooltip("ms_a_query:Q", format=",.3~g", title="a query, ms")]
    both = lines_of(alt, rows, looks, width=2).encode(**shared, order="batch:Q")
    both += points_of(alt, rows, looks, told).encode(**shared)
    chart = both.properties(width="container", height=PANEL_HEIGHT + 40)
    return titled(chart, "Time a query by batch size", subtitle)


def decile_chart(records: Sequence[Measured], looks: Looks, subtitle: str) -> Any:
    """Draw recall by popularity decile, a line an index at the setting that stands for it."""
    alt = load_altair()
    rows = [
        row_of(record) | one.as_json() | {"line": f"{series_of(record)} {record.device.name}"}
        for record in records
        for one in record.quality.by_popularity or ()
        if one.recall is not None
    ]
    shared = {
        "x": alt.X(
            "decile:O", title="tenth of the catalogue by popularity, 1 the most popular", axis=alt.Axis(labelAngle=0)
        ),
        "y": recall_axis(alt, [row["recall"] for row in rows], f"recall@{rows[0]['k']}"),
    }
    told = ["decile:O", alt.Tooltip("places:Q", format=",", title="places in exact lists")]
    both = lines_of(alt, rows, looks, width=2).encode(**shared, order="decile:O")
    both += points_of(alt, rows, looks, told).encode(**shared)
    return titled(both.properties(width="container", height=PANEL_HEIGHT), "Recall by popularity", subtitle)
