"""The charts of evaluated recommendations: means over users with their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semrec_faiss.report.page.charts import Row, load_altair

ROW_HEIGHT = 19
"""Pixels of one mean and its interval."""

WINNER, OTHERS = KINDS = ("the winner", "the others")


def interval_chart(rows: Sequence[Row], title: str) -> Any:
    """Draw means with their intervals, one below the other.

    Args:
        rows: ``what``, ``mean``, ``low`` and ``high``, ``kind`` (one of `KINDS`), in the order from the top.
        title: of the axis.
    """
    alt = load_altair()
    data = alt.Data(values=list(rows))
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    colour = alt.Color("kind:N", sort=kinds, title=None, legend=alt.Legend() if len(kinds) > 1 else None)
    y = alt.Y("what:N", sort=None, title=None, axis=alt.Axis(labelLimit=420, grid=False, labelOverlap=False))
    told = [
        "what:N",
        alt.Tooltip("mean:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
    ]
    x = alt.X("low:Q", title=title, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(grid=True, tickCount=6))
    spans = (
        alt.Chart(data).mark_rule(strokeWidth=3, opacity=0.45).encode(y=y, x=x, x2="high:Q", color=colour, tooltip=told)
    )
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(y=y, x=alt.X("mean:Q", title=title), color=colour, tooltip=told)
    )
    return (spans + points).properties(width="container", height=max(60, ROW_HEIGHT * len(rows)))
