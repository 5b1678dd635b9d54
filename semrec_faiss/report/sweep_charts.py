"""The charts of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from semrec_faiss.measure.frontier import frontier
from semrec_faiss.report.charts import COLOURS, load_altair
from semrec_faiss.report.sweep_rows import Record, Row, row_of

WIDE = 900
"""Pixels that the panels of a row share."""

PANEL_HEIGHT = 260
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")

TOOLTIP = ["series", "setting", "device", "batch", "recall", "recall_low", "recall_high", "p50_ms", "p95_ms", "qps"]


def frontier_chart(records: Sequence[Record], cost: str) -> Any:
    """Draw recall against a cost, a panel a batch size: every trial, one line an index, the frontier in grey.

    Args:
        records: measured, without a filter, of one data folder and k.
        cost: ``p50_ms`` or ``qps``.
    """
    alt = load_altair()
    # A line joins trials that differ in their first search setting alone: those of one refine, say.
    rows = [row | {"line": (row["series"], row["device"], *row["setting"].split()[1:])} for row in map(row_of, records)]
    rows = [row | {"line": " ".join(row["line"])} for row in rows]
    batches = sorted({row["batch"] for row in rows})
    title = "median latency of a batch, ms" if cost == "p50_ms" else "queries a second"
    y = alt.Y("recall:Q", scale=alt.Scale(domain=_recall_domain(rows), clamp=True), title=f"recall@{rows[0]['k']}")
    colour = colour_of(alt, rows)
    panels = []
    for batch in batches:
        here = [row for row in rows if row["batch"] == batch]
        values = [row[cost] for row in here]
        x = alt.X(f"{cost}:Q", scale=log_scale(values), axis=log_axis(values), title=title)
        best = _frontier_rows([record for record in records if record["batch"] == batch], cost)
        edge = alt.Chart(alt.Data(values=best)).mark_line(interpolate="step-after", strokeWidth=7, opacity=0.16)
        edge = edge.encode(x=x, y=y, order="place:O", color=alt.value("#7a8494"))
        lines = alt.Chart(alt.Data(values=here)).mark_line(strokeWidth=1.6)
        lines = lines.encode(x=x, y=y, color=colour, detail="line:N", order="recall:Q")
        points = alt.Chart(alt.Data(values=here)).mark_point(filled=True, size=70, opacity=1)
        points = points.encode(x=x, y=y, color=colour, shape=shape_of(alt, rows), tooltip=_tooltip(alt))
        panels.append(_panel(alt, edge + lines + points, f"batch of {batch:,}" if batch > 1 else "one query at a time",
                             len(batches)))  # fmt: skip
    return _in_rows(alt, panels)


def memory_chart(records: Sequence[Record]) -> Any:
    """Draw recall against the memory that the search takes where it runs; trials without a reading are left out."""
    alt = load_altair()
    rows = [row | {"memory_mb": row["memory_bytes"] / 1e6} for row in map(row_of, records) if row["memory_bytes"]]
    values = [row["memory_mb"] for row in rows]
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=80)
    return points.encode(
        x=alt.X("memory_mb:Q", scale=log_scale(values), axis=log_axis(values), title="peak memory while searching, MB"),
        y=alt.Y("recall:Q", scale=alt.Scale(domain=_recall_domain(rows), clamp=True), title="recall"),
        color=colour_of(alt, rows),
        shape=shape_of(alt, rows),
        tooltip=[*_tooltip(alt), alt.Tooltip("memory_mb:Q", format=",.1f")],
    ).properties(width="container", height=PANEL_HEIGHT)  # fmt: skip


def build_chart(records: Sequence[Record]) -> Any:
    """Draw how long each index took to train, to fill and to load."""
    alt = load_altair()
    steps = {"train_s": "train", "add_s": "add", "load_s": "load"}
    bars = [
        {"index": f"{row['series']} · {row['device']}", "step": name, "seconds": row[key], "order": place}
        for row in {(row["series"], row["device"]): row for row in map(row_of, records)}.values()
        for place, (key, name) in enumerate(steps.items())
    ]
    count = len({bar["index"] for bar in bars})
    return (
        alt.Chart(alt.Data(values=bars))
        .mark_bar()
        .encode(
            y=alt.Y("index:N", sort=None, title=None, axis=alt.Axis(labelLimit=320)),
            x=alt.X("sum(seconds):Q", title="seconds", axis=alt.Axis(tickCount=8)),
            color=alt.Color("step:N", sort=list(steps.values()), title=None),
            order="order:O",
            tooltip=["index:N", "step:N", alt.Tooltip("seconds:Q", format=",.3f")],
        )
        .properties(width="container", height=40 + 26 * count)
    )


def selectivity_chart(records: Sequence[Record]) -> Any:
    """Draw recall and latency against the share of titles that a filter lets through, a point a filter and setting."""
    alt = load_altair()
    rows = [row | {"line": f"{row['series']} {row['setting']} {row['device']}", "filter": row["filter"] or "none"}
            for row in map(row_of, records) if row["recall"] is not None]  # fmt: skip
    shares = [row["selectivity"] for row in rows]
    times = [row["p50_ms"] for row in rows]
    x = alt.X("selectivity:Q", scale=log_scale(shares), axis=log_axis(shares, percent=True),
              title="titles that the filter lets through")  # fmt: skip
    charts = []
    for y in (
        alt.Y("recall:Q", scale=alt.Scale(domain=_recall_domain(rows), clamp=True), title="recall"),
        alt.Y("p50_ms:Q", scale=log_scale(times), axis=log_axis(times), title="median latency, ms"),
    ):
        shared = {"x": x, "y": y, "color": colour_of(alt, rows)}
        line = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=1.2, opacity=0.7)
        points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=55)
        told = [*_tooltip(alt), "filter:N", "strategy:N", alt.Tooltip("selectivity:Q", format=".2%")]
        both = line.encode(**shared, detail="line:N") + points.encode(**shared, tooltip=told)
        charts.append(both.properties(width=WIDE // 2 - 75, height=PANEL_HEIGHT))
    return alt.hconcat(*charts)


def batch_chart(records: Sequence[Record]) -> Any:
    """Draw the time a query against the batch size, a line an index at the setting that stands for it."""
    alt = load_altair()
    rows = [row | {"ms_a_query": row["p50_ms"] / row["batch"]} for row in map(row_of, records)]
    batches, times = [row["batch"] for row in rows], [row["ms_a_query"] for row in rows]
    line = alt.Chart(alt.Data(values=rows)).mark_line(point=alt.OverlayMarkDef(size=70, filled=True))
    return line.encode(
        x=alt.X("batch:Q", scale=log_scale(batches), axis=alt.Axis(values=sorted(set(batches)), format=","),
                title="queries searched at once"),
        y=alt.Y("ms_a_query:Q", scale=log_scale(times), axis=log_axis(times), title="median time a query, ms"),
        color=colour_of(alt, rows),
        strokeDash=alt.StrokeDash("device:N", legend=None),
        tooltip=_tooltip(alt),
    ).properties(width="container", height=PANEL_HEIGHT + 40)  # fmt: skip


def decile_chart(records: Sequence[Record]) -> Any:
    """Draw recall by popularity decile, a line an index at the setting that stands for it."""
    alt = load_altair()
    points = [
        {"series": row_of(record)["series"], "device": record["device"]["name"], "setting": row_of(record)["setting"],
         **one}
        for record in records
        for one in record["quality"]["by_popularity"] or ()
        if one["recall"] is not None
    ]  # fmt: skip
    line = alt.Chart(alt.Data(values=points)).mark_line(point=alt.OverlayMarkDef(size=60, filled=True))
    return line.encode(
        x=alt.X("decile:O", title="tenth of the catalogue by popularity, 1 the most popular",
                axis=alt.Axis(labelAngle=0)),
        y=alt.Y("recall:Q", scale=alt.Scale(domain=_recall_domain(points), clamp=True), title="recall"),
        color=colour_of(alt, points),
        strokeDash=alt.StrokeDash("device:N", legend=None),
        tooltip=["series:N", "setting:N", "decile:O", alt.Tooltip("recall:Q", format=".4f"), "places:Q"],
    ).properties(width="container", height=PANEL_HEIGHT)  # fmt: skip


def log_scale(values: Iterable[float]) -> Any:
    """Return a logarithmic scale with some room on both sides of the values."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = min(known), max(known)
    # At least a factor of 2.6 in all, so that one of the ticks at 1, 2 and 5 is among it.
    room = max(1.12, (high / low) ** 0.05, math.sqrt(2.6 * low / high))
    return load_altair().Scale(type="log", domain=[low / room, high * room], nice=False)


def log_axis(values: Iterable[float], *, percent: bool = False) -> Any:
    """Return an axis with ticks at 1, 2 and 5 times powers of ten, or at powers of ten where there are many."""
    known = [value for value in values if value > 0] or [1.0]
    first, last = math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + 1
    steps = (1, 2, 5) if max(known) / min(known) < 300 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return load_altair().Axis(values=ticks, format="~%" if percent else "~s" if max(known) >= 1e4 else "~g", grid=True)


def colour_of(alt: Any, rows: Sequence[Row]) -> Any:
    """Give every index a colour of its own, the same in all charts of the same indexes."""
    names = list(dict.fromkeys(row["series"] for row in rows))
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    legend = alt.Legend(columns=4, labelLimit=260, title=None)
    return alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=legend)


def shape_of(alt: Any, rows: Sequence[Row]) -> Any:
    """Give every device a shape; no legend where there is one only."""
    names = list(dict.fromkeys(row["device"] for row in rows))
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(names))]
    legend = None if len(names) < 2 else alt.Legend(title=None)
    return alt.Shape("device:N", scale=alt.Scale(domain=names, range=shapes), legend=legend)


def _frontier_rows(records: Sequence[Record], cost: str) -> list[Row]:
    rising = cost == "qps"
    best = frontier(records, lambda one: -one["latency"]["qps"] if rising else one["latency"][cost])
    return [row_of(record) | {"place": place} for place, record in enumerate(best)]


def _recall_domain(rows: Sequence[Row]) -> list[float]:
    known = [row["recall"] for row in rows if row["recall"] is not None] or [0.0]
    low = min(known)
    return [max(0.0, math.floor((low - 0.02) * 20) / 20), 1.005]


def _tooltip(alt: Any) -> list[Any]:
    formats = {"recall": ".4f", "recall_low": ".4f", "recall_high": ".4f", "p50_ms": ",.3f", "p95_ms": ",.3f",
               "qps": ",.0f"}  # fmt: skip
    return [alt.Tooltip(f"{name}:Q", format=formats[name]) if name in formats else f"{name}:N" for name in TOOLTIP]


def _panel(alt: Any, chart: Any, title: str, count: int) -> Any:
    return chart.properties(width=WIDE // _columns(count) - 75, height=PANEL_HEIGHT, title=title)


def _columns(panels: int) -> int:
    """Return how many panels stand side by side: as many as fill the rows."""
    return 3 if panels == 3 else min(2, panels)


def _in_rows(alt: Any, panels: list[Any]) -> Any:
    columns = _columns(len(panels))
    rows = [alt.hconcat(*panels[place : place + columns]) for place in range(0, len(panels), columns)]
    return alt.vconcat(*rows).resolve_scale(color="shared", shape="shared")
