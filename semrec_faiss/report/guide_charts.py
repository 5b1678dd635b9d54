"""The charts of a comparison: throughput, times, filters, memory and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semrec_faiss.report.charts import COLOURS, load_altair, log_ticks
from semrec_faiss.report.document import Chart

Row = dict[str, Any]

BAR_STEP = 34


def throughput_chart(rows: Sequence[Row], devices: Sequence[str]) -> Chart:
    """Draw queries a second by batch size.

    Args:
        rows: ``device``, ``batch`` and ``qps``.
        devices: in the order of their colours.
    """
    alt = load_altair()
    sizes = sorted({row["batch"] for row in rows})
    x = alt.X("batch:Q", title="queries at once", scale=alt.Scale(type="log", padding=28, nice=False),
              axis=alt.Axis(values=sizes, format=",d"))  # fmt: skip
    base = alt.Chart(alt.Data(values=list(rows)), width="container", height=300).encode(
        x=x, y=_log_y(alt, "qps", "queries a second", [row["qps"] for row in rows], ",d"),
        color=_colour(alt, devices),
        tooltip=[alt.Tooltip("device:N"), alt.Tooltip("batch:Q", format=",d", title="queries at once"),
                 alt.Tooltip("qps:Q", format=",.0f", title="queries a second")],
    )  # fmt: skip
    labels = base.mark_text(dy=-12).encode(text=alt.Text("qps:Q", format=",.0f"))
    return Chart(
        "throughput", base.mark_line(point=True) + labels, "Queries answered a second by batch size; higher is better."
    )


def times_chart(rows: Sequence[Row], devices: Sequence[str]) -> Chart:
    """Draw how long each kind of question takes: ``question``, ``device``, ``ms``, and ``target_ms`` or None."""
    alt = load_altair()
    questions = list(dict.fromkeys(row["question"] for row in rows))
    values = [row["ms"] for row in rows] + [row["target_ms"] for row in rows if row["target_ms"]]
    ticks = log_ticks(values)
    y = alt.Y("question:N", sort=questions, title=None, axis=alt.Axis(labelLimit=260, ticks=False, domain=False))
    data = alt.Data(values=list(rows))
    x = alt.X("ms:Q", title="milliseconds", scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False),
              axis=alt.Axis(values=ticks, format=",~f", grid=True))  # fmt: skip
    chart = alt.Chart(data, width="container", height=len(questions) * 44)
    dots = chart.mark_point(size=130).encode(
        x=x, y=y, color=_colour(alt, devices),
        tooltip=[alt.Tooltip("question:N"), alt.Tooltip("device:N"), alt.Tooltip("ms:Q", format=",.3f")],
    )  # fmt: skip
    labels = chart.mark_text(dy=-13).encode(
        x=x, y=y, text=alt.Text("ms:Q", format=",.3~g"), color=_colour(alt, devices)
    )
    target = chart.transform_filter("isValid(datum.target_ms)").mark_tick(thickness=2, size=26, color="#8a93a1")
    marked = target.encode(x=alt.X("target_ms:Q"), y=y, tooltip=[alt.Tooltip("target_ms:Q", title="GPU target, ms")])
    caption = "Time of single questions; further left is faster. Grey marks: the guide's targets for a GPU."
    return Chart("times", marked + dots + labels, caption)


def filters_chart(rows: Sequence[Row], devices: Sequence[str]) -> Chart:
    """Draw the time of one question by the share of titles that a filter lets pass: ``share``, ``device``, ``ms``."""
    alt = load_altair()
    shares = sorted({row["share"] for row in rows}, reverse=True)
    x = alt.X("label:O", title="titles that pass the filter", sort=[_percent(share) for share in shares],
              axis=alt.Axis(labelAngle=0), scale=alt.Scale(padding=0.4))  # fmt: skip
    labelled = [{**row, "label": _percent(row["share"])} for row in rows]
    chart = alt.Chart(alt.Data(values=labelled), width="container", height=280).encode(
        x=x, y=_log_y(alt, "ms", "milliseconds", [row["ms"] for row in rows], ",~f"), color=_colour(alt, devices),
        tooltip=[alt.Tooltip("device:N"), alt.Tooltip("label:N", title="titles that pass"),
                 alt.Tooltip("ms:Q", format=",.3f"), alt.Tooltip("strategy:N")],
    )  # fmt: skip
    labels = chart.mark_text(dy=-12).encode(text=alt.Text("ms:Q", format=",.3~g"))
    return Chart(
        "filters",
        chart.mark_line(point=True) + labels,
        "Time of one question through random filters; 100 % is without one. The planner chooses the strategy.",
    )


def memory_chart(rows: Sequence[Row]) -> Chart:
    """Draw predicted beside measured memory: ``what``, ``kind`` (predicted or measured), ``mb``."""
    alt = load_altair()
    what = list(dict.fromkeys(row["what"] for row in rows))
    kinds = ["predicted", "measured"]
    chart = alt.Chart(alt.Data(values=list(rows)), width="container", height=len(what) * 42)
    y = alt.Y("what:N", sort=what, title=None, scale=alt.Scale(paddingInner=0.35),
              axis=alt.Axis(labelLimit=260, ticks=False, domain=False))  # fmt: skip
    offset = alt.YOffset("kind:N", sort=kinds)
    x = alt.X("mb:Q", title="megabytes", axis=alt.Axis(grid=True, format=",~f", tickCount=6))
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["#a9b6c8", COLOURS[0]]))
    tip = [alt.Tooltip("what:N"), alt.Tooltip("kind:N"), alt.Tooltip("mb:Q", format=",.1f", title="MB")]
    bars = chart.mark_bar().encode(x=x, y=y, yOffset=offset, color=colour, tooltip=tip)
    labels = chart.mark_text(align="left", dx=5).encode(
        x=alt.X("mb:Q"), y=y, yOffset=offset, text=alt.Text("mb:Q", format=",.1f")
    )
    return Chart("memory", bars + labels, "Memory predicted before anything was loaded, and measured.")


def cost_chart(rows: Sequence[Row], currency: str) -> Chart:
    """Draw the cost of a million queries by machine: ``name``, ``kind`` (cpu or gpu), ``cost``."""
    alt = load_altair()
    names = [row["name"] for row in rows]
    chart = alt.Chart(alt.Data(values=list(rows)), width="container", height=len(names) * BAR_STEP)
    y = alt.Y(
        "name:N",
        sort=names,
        title=None,
        scale=alt.Scale(paddingInner=0.25),
        axis=alt.Axis(labelLimit=260, ticks=False, domain=False),
    )
    x = alt.X("cost:Q", title=f"{currency} a million queries", axis=alt.Axis(grid=True, tickCount=6))
    kinds = [kind for kind in ("GPU", "CPU") if any(row["kind"] == kind for row in rows)]  # as in the other charts
    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=kinds))
    bars = chart.mark_bar().encode(x=x, y=y, color=colour, tooltip=["name:N", alt.Tooltip("cost:Q", format=",.5f")])
    labels = chart.mark_text(align="left", dx=5).encode(x=x, y=y, text=alt.Text("cost:Q", format=",.2~g"))
    return Chart("cost", bars + labels, f"Cost of a million queries on a machine that is always busy, in {currency}.")


def _log_y(alt: Any, name: str, title: str, values: Sequence[float], spec: str) -> Any:
    ticks = log_ticks(values)
    scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
    return alt.Y(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(values=ticks, format=spec))


def _colour(alt: Any, devices: Sequence[str]) -> Any:
    scale = alt.Scale(domain=list(devices))
    return alt.Color("device:N", title=None, scale=scale, legend=None if len(devices) == 1 else alt.Legend())


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
