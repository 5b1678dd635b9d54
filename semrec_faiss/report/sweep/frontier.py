"""Recall against a cost, every trial a point, with the settings written beside those that no other beats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from semrec_faiss.measure.trials.frontier import frontier
from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.report.page.axes import log_axis, log_domain, log_scale, recall_axis, recall_domain
from semrec_faiss.report.page.charts import Row, load_altair, panels_of, titled
from semrec_faiss.report.page.label_places import FONT_SIZE, Point, place_labels
from semrec_faiss.report.page.palette import GREYS, PAPER, TYPE_COLOURS, Look, type_of
from semrec_faiss.report.sweep.marks import lines_of, points_of
from semrec_faiss.report.sweep.rows import row_of

PANEL_HEIGHT = 270
TITLES = {"p50_ms": "median latency of a batch, ms (log scale)", "qps": "queries a second, mean (log scale)"}


def frontier_chart(records: Sequence[Measured], cost: str, looks: Mapping[str, Look], title: str, subtitle: str) -> Any:
    """Draw recall against a cost, a panel a batch size: every trial, one line an index, the frontier in grey.

    Args:
        records: measured, without a filter, of one data folder and k.
        cost: ``p50_ms`` or ``qps``.
        looks: of each index.
        title: what is seen.
        subtitle: of what data, and how much of it was measured.
    """
    alt = load_altair()
    rows = [row | {"line": _line(row)} for row in map(row_of, records)]
    recalls = [row["recall"] for row in rows]
    y = recall_axis(alt, recalls, f"recall@{rows[0]['k']}")
    batches = sorted({row["batch"] for row in rows})
    width = panels_of(len(batches)).width
    panels = []
    for batch in batches:
        here = [row for row in rows if row["batch"] == batch]
        values = [row[cost] for row in here]
        x = alt.X(f"{cost}:Q", scale=log_scale(values), axis=log_axis(values), title=TITLES[cost])
        best = frontier_rows([record for record in records if record.batch == batch], cost)
        edge = alt.Chart(alt.Data(values=best)).mark_line(interpolate="step-after", strokeWidth=7, opacity=0.3)
        edge = edge.encode(x=x, y=y, order="place:O", color=alt.value(GREYS[1]))
        shared = {"x": x, "y": y}
        layers = [edge, lines_of(alt, here, looks).encode(**shared), points_of(alt, here, looks).encode(**shared)]
        layers += _labels(alt, labelled(best, here, cost, width, recall_domain(recalls)), shared)
        name = f"batches of {batch:,}" if batch > 1 else "one query at a time"
        panels.append(alt.layer(*layers).properties(width=width, height=PANEL_HEIGHT, title=name))
    joined = alt.concat(*panels, columns=panels_of(len(panels)).columns).resolve_scale(
        color="shared", shape="shared", fill="shared", stroke="shared"
    )
    return titled(joined, title, f"{subtitle}; the broad grey line joins the best")


def _line(row: Row) -> str:
    """Name the line that a trial is on: it joins those that differ in their first search setting alone."""
    return " ".join((row["series"], row["device"], *row["setting"].split()[1:]))


def frontier_rows(records: Sequence[Measured], cost: str) -> list[Row]:
    """Return the trials that no other beats, the cheapest first, each with its ``place`` and the ``label`` it gets."""
    rising = cost == "qps"
    best = frontier(records, lambda one: -one.latency.qps if rising else one.latency.p50_ms)
    rows = [row_of(record) | {"place": place} for place, record in enumerate(best)]
    return [row | {"label": row["setting"] or row["series"]} for row in rows]


def labelled(
    best: Sequence[Row], here: Sequence[Row], cost: str, width: float, recalls: tuple[float, float]
) -> list[Row]:
    """Return the frontier's rows that get a label, with its offset from the point.

    Args:
        best: the rows of the frontier.
        here: all rows of the panel.
        cost: what is drawn to the right.
        width: of the panel in pixels.
        recalls: the ends of the recall axis.
    """
    low, high = map(math.log, log_domain(row[cost] for row in here))

    def pixels(row: Row) -> tuple[float, float]:
        right = (math.log(row[cost]) - low) / (high - low) * width
        down = (recalls[1] - row["recall"]) / (recalls[1] - recalls[0]) * PANEL_HEIGHT
        return right, down

    others = [pixels(row) for row in here if row["recall"] is not None]
    size = (width, float(PANEL_HEIGHT))
    lines = [(pixels(one), pixels(next_one)) for one, next_one in _neighbours(here)]
    lines += _steps([pixels(row) for row in best])
    labels = place_labels([pixels(row) for row in best], [row["label"] for row in best], others, size, lines)
    return [best[label.place] | {"dx": label.dx, "dy": label.dy, "far": label.is_far} for label in labels]


def _steps(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Return the lines of the broad band from point to point: across, then up or down."""
    corners = [((x, y), (next_x, y), (next_x, next_y)) for (x, y), (next_x, next_y) in itertools.pairwise(points)]
    return [line for one, corner, other in corners for line in ((one, corner), (corner, other))]


def _neighbours(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return the pairs of rows that a line joins."""
    known = sorted((row for row in rows if row["recall"] is not None), key=lambda row: (_line(row), row["recall"]))
    return [(one, other) for one, other in itertools.pairwise(known) if _line(one) == _line(other)]


def _labels(alt: Any, rows: Sequence[Row], shared: Mapping[str, Any]) -> list[Any]:
    """Draw each label by a layer of its own, since Vega-Lite takes offsets from the mark alone."""
    layers = []
    for row in rows:
        chart = alt.Chart(alt.Data(values=[row])).encode(**shared)
        placed = {
            "dx": row["dx"],
            "dy": row["dy"],
            "align": "left" if row["dx"] > 0 else "right",
            "baseline": "middle",
            "fontSize": FONT_SIZE,
            "text": row["label"],
        }
        if row["far"]:
            end = {"x2Offset": row["dx"] * 0.8, "y2Offset": row["dy"] - math.copysign(4, row["dy"])}
            layers.append(
                chart.mark_rule(strokeWidth=0.8, color=GREYS[1], **end).encode(
                    x2=shared["x"].shorthand.split(":")[0], y2="recall"
                )
            )
        layers.append(chart.mark_text(stroke=PAPER, strokeWidth=3, strokeOpacity=0.85, **placed))
        layers.append(chart.mark_text(color=TYPE_COLOURS[type_of(row["series"])], **placed))
    return layers
