"""How indexes are marked in a sweep's charts: colour and shape tell the index, dashes and filling the device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from semrec_faiss.report.page.charts import WIDE, Row, legend_columns
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.numbers import as_recall
from semrec_faiss.report.page.palette import Look

_DASHES = ([1, 0], [5, 3], [2, 2])


def lines_of(alt: Any, rows: Sequence[Row], looks: Mapping[str, Look], *, width: float = 1.6) -> Any:
    """Return a chart of lines, one for each of the rows' ``line``; its axes are left to be encoded."""
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_line(strokeWidth=width)
        .encode(
            stroke=alt.Stroke("series:N", scale=colours(alt, rows, looks), legend=_legend(alt, rows)),
            strokeDash=_dashes(alt, rows),
            detail="line:N",
            order="recall:Q",
        )
    )


def points_of(alt: Any, rows: Sequence[Row], looks: Mapping[str, Look], told: Sequence[Any] = ()) -> Any:
    """Return a chart of points with tooltips; its axes are left to be encoded.

    Args:
        alt: altair.
        rows: of `rows.row_of`.
        looks: of each index.
        told: further tooltips.
    """
    names = _names(rows)
    legend = _legend(alt, rows)
    shapes = alt.Scale(domain=names, range=[looks[name].shape for name in names])
    scale = colours(alt, rows, looks)
    first = rows[0]["device"]
    shown = [
        row
        | {
            "recall_told": as_recall(row["recall"]),
            "device_told": device_label(row["device"]),
            "filled": row["device"] == first,
        }
        for row in rows
    ]
    return (
        alt.Chart(alt.Data(values=shown))
        .mark_point(size=62, strokeWidth=1.5, opacity=1)
        .encode(
            stroke=alt.Stroke("series:N", scale=scale, legend=legend),
            fill=alt.Fill("series:N", scale=scale, legend=legend),
            shape=alt.Shape("series:N", scale=shapes, legend=legend),
            fillOpacity=alt.condition("datum.filled", alt.value(1), alt.value(0)),
            tooltip=[*tooltip(alt, rows), *told],
        )
    )


def colours(alt: Any, rows: Sequence[Row], looks: Mapping[str, Look]) -> Any:
    """Return the scale from the rows' indexes to their colours."""
    names = _names(rows)
    return alt.Scale(domain=names, range=[looks[name].colour for name in names])


def tooltip(alt: Any, rows: Sequence[Row]) -> list[Any]:
    """Return what a point tells: the index, its settings, and what was measured."""
    k = f"@{rows[0]['k']}" if rows and "k" in rows[0] else ""
    return [
        alt.Tooltip("series:N", title="index"),
        alt.Tooltip("setting:N", title="setting"),
        alt.Tooltip("device_told:N", title="device"),
        alt.Tooltip("batch:Q", title="batch", format=","),
        alt.Tooltip("recall_told:N", title=f"recall{k}"),
        alt.Tooltip("p50_ms:Q", title="median, ms", format=",.3~g"),
        alt.Tooltip("p95_ms:Q", title="95th percentile, ms", format=",.3~g"),
        alt.Tooltip("qps:Q", title="queries a second, mean", format=",.0f"),
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["series"] for row in rows))


def _legend(alt: Any, rows: Sequence[Row]) -> Any:
    columns = legend_columns(_names(rows), WIDE - 80)
    return alt.Legend(title=None, columns=columns, labelLimit=320, symbolOpacity=1, symbolStrokeWidth=1.5)


def _dashes(alt: Any, rows: Sequence[Row]) -> Any:
    """Return how the lines of each device are dashed; no legend where there is one only."""
    names = list(dict.fromkeys(row["device"] for row in rows))
    scale = alt.Scale(domain=names, range=[_DASHES[place % len(_DASHES)] for place in range(len(names))])
    named = json.dumps({name: device_label(name) for name in names})
    legend = alt.Legend(title=None, labelExpr=f"({named})[datum.value]") if len(names) > 1 else None
    return alt.StrokeDash("device:N", scale=scale, legend=legend)
