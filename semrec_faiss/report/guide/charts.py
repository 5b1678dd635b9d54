"""The charts of a comparison: throughput, times, filters, memory and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semrec_faiss.measure.guide.details import Kind
from semrec_faiss.report.page.axes import bar_axis, bar_ends, log_ticks
from semrec_faiss.report.page.charts import Row, load_altair, titled
from semrec_faiss.report.page.document import Chart
from semrec_faiss.report.page.palette import DEVICE_COLOURS, GREYS, PAPER

BAR_STEP = 40
ROW_STEP = 58
PRICES = "at the prices of the costs file"


def throughput_chart(rows: Sequence[Row], devices: Mapping[Kind, str]) -> Chart:
    """Draw queries a second by batch size.

    Args:
        rows: ``device``, ``batch`` and ``qps``.
        devices: their names by kind, ``gpu`` or ``cpu``.
    """
    alt = load_altair()
    sizes = sorted({row["batch"] for row in rows})
    x = alt.X(
        "batch:Q",
        title="queries at once (log scale)",
        scale=alt.Scale(type="log", padding=34, nice=False),
        axis=alt.Axis(values=sizes, format=",d"),
    )
    tip = [
        alt.Tooltip("device:N"),
        alt.Tooltip("batch:Q", format=",d", title="queries at once"),
        alt.Tooltip("qps:Q", format=",.0f", title="queries a second"),
    ]
    y = _log_y(alt, "qps", "queries a second", [row["qps"] for row in rows], ",d")
    chart = _lines(alt, rows, devices, x, y, "qps", ".3~s", tip).properties(width="container", height=300)
    title = titled(chart, "Queries answered a second by batch size", "higher is better")
    return Chart("throughput", title, "Queries answered a second by batch size; higher is better.")


def times_chart(rows: Sequence[Row], devices: Mapping[Kind, str]) -> Chart:
    """Draw how long each kind of question takes: ``question``, ``device``, ``ms``, and ``target_ms`` or None."""
    alt = load_altair()
    questions = list(dict.fromkeys(row["question"] for row in rows))
    targets = [row["target_ms"] for row in rows if row["target_ms"]]
    ticks = log_ticks([*(row["ms"] for row in rows), *targets])
    y = alt.Y("question:N", sort=questions, title=None, axis=alt.Axis(labelLimit=260, ticks=False, domain=False))
    x = alt.X(
        "ms:Q",
        title="milliseconds (log scale)",
        axis=alt.Axis(values=ticks, format=",~f", grid=True),
        scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, clamp=True),
    )
    colour = _colour(alt, devices)
    chart = alt.Chart(alt.Data(values=list(rows))).encode(y=y)
    tip = [alt.Tooltip("question:N"), alt.Tooltip("device:N"), alt.Tooltip("ms:Q", format=",.3f", title="ms")]
    layers = [chart.mark_point(size=120).encode(x=x, color=colour, tooltip=tip)]
    if targets:
        marks = chart.transform_filter("isValid(datum.target_ms)").mark_tick(thickness=3, size=18, color=GREYS[1])
        told = alt.Tooltip("target_ms:Q", title="target on a GPU, ms")
        layers.insert(0, marks.encode(x=alt.X("target_ms:Q"), tooltip=[told]))
    for kind, name in devices.items():  # one device's above its points, the other's below: they may be near each other
        here = [row for row in rows if row["device"] == name]
        if not here:
            continue
        labels = alt.Chart(alt.Data(values=here)).encode(y=y)
        text = alt.Text("ms:Q", format=",.3~g")
        layers += _texts(labels.encode(x=x, text=text), colour, dy=-14 if kind == "gpu" else 15)
    drawn = alt.layer(*layers).properties(width="container", height=len(questions) * ROW_STEP)
    note = "further left is faster; grey marks are the guide's targets for a GPU" if targets else "left is faster"
    return Chart("times", titled(drawn, "Time of single questions", note), f"Time of single questions: {note}.")


def filters_chart(rows: Sequence[Row], devices: Mapping[Kind, str]) -> Chart:
    """Draw the time of one question by the share of titles that a filter lets pass: ``share``, ``device``, ``ms``."""
    alt = load_altair()
    shares = sorted({row["share"] for row in rows}, reverse=True)
    x = alt.X(
        "label:O",
        title="titles that pass the filter",
        sort=[_percent(share) for share in shares],
        axis=alt.Axis(labelAngle=0),
        scale=alt.Scale(padding=0.4),
    )
    named = [{**row, "label": _percent(row["share"])} for row in rows]
    tip = [
        alt.Tooltip("device:N"),
        alt.Tooltip("label:N", title="titles that pass"),
        alt.Tooltip("ms:Q", format=",.3f", title="ms"),
        alt.Tooltip("strategy:N"),
    ]
    y = _log_y(alt, "ms", "milliseconds", [row["ms"] for row in rows], ",~f")
    chart = _lines(alt, named, devices, x, y, "ms", ",.3~g", tip).properties(width="container", height=300)
    note = "random filters; 100% is without one; the planner chooses the strategy"
    title = titled(chart, "Time of one question by what its filter lets pass", note)
    return Chart("filters", title, f"Time of one question: {note}.")


def memory_chart(rows: Sequence[Row]) -> Chart:
    """Draw predicted beside measured memory: ``what``, ``kind`` (predicted or measured), ``mb``."""
    alt = load_altair()
    what = list(dict.fromkeys(row["what"] for row in rows))
    kinds = ["predicted", "measured"]
    chart = alt.Chart(alt.Data(values=list(rows)), width="container", height=len(what) * 42)
    y = alt.Y(
        "what:N",
        sort=what,
        title=None,
        scale=alt.Scale(paddingInner=0.35),
        axis=alt.Axis(labelLimit=260, ticks=False, domain=False),
    )
    offset = alt.YOffset("kind:N", sort=kinds)
    ends = alt.Scale(domain=bar_ends(row["mb"] for row in rows), nice=False)
    x = alt.X("mb:Q", title="megabytes", scale=ends, axis=bar_axis())
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[GREYS[2], GREYS[0]]))
    tip = [alt.Tooltip("what:N"), alt.Tooltip("kind:N"), alt.Tooltip("mb:Q", format=",.1f", title="MB")]
    bars = chart.mark_bar().encode(x=x, y=y, yOffset=offset, color=colour, tooltip=tip)
    labels = chart.mark_text(align="left", dx=5).encode(x=x, y=y, yOffset=offset, text=alt.Text("mb:Q", format=",.1f"))
    drawn = titled(bars + labels, "Memory, predicted and measured", "predicted before anything was loaded")
    return Chart("memory", drawn, "Memory predicted before anything was loaded, and measured.")


def cost_chart(rows: Sequence[Row], currency: str) -> Chart:
    """Draw the cost of a million queries by machine.

    Args:
        rows: ``name``, ``kind`` (cpu or gpu) and ``cost``.
        currency: of the costs.
    """
    alt = load_altair()
    names = [row["name"] for row in rows]
    chart = alt.Chart(alt.Data(values=list(rows)), width="container", height=len(names) * BAR_STEP)
    axis = alt.Axis(labelLimit=320, ticks=False, domain=False, labelExpr="split(datum.label, ', ')")
    y = alt.Y("name:N", sort=names, title=None, scale=alt.Scale(paddingInner=0.25), axis=axis)
    ends = alt.Scale(domain=bar_ends(row["cost"] for row in rows), nice=False)
    x = alt.X("cost:Q", title=f"{currency} a million queries", scale=ends, axis=bar_axis())
    scale = alt.Scale(domain=list(DEVICE_COLOURS), range=list(DEVICE_COLOURS.values()))
    tip = [alt.Tooltip("name:N", title="machine"), alt.Tooltip("cost:Q", format=",.3~g", title=f"{currency} a million")]
    bars = chart.mark_bar().encode(x=x, y=y, color=alt.Color("kind:N", legend=None, scale=scale), tooltip=tip)
    labels = chart.mark_text(align="left", dx=5).encode(x=x, y=y, text=alt.Text("cost:Q", format=",.2~g"))
    drawn = titled(bars + labels, "Cost of a million queries on a machine that is always busy", PRICES)
    return Chart("cost", drawn, f"Cost of a million queries on a machine that is always busy, in {currency}; {PRICES}.")


def _lines(
    alt: Any, rows: Sequence[Row], devices: Mapping[Kind, str], x: Any, y: Any, value: str, spec: str, tip: list[Any]
) -> Any:
    """Draw a line a device, with labels above the higher of two points and below the lower one."""
    highest: dict[Any, float] = {}
    for row in rows:
        place = row.get("label", row.get("batch"))
        highest[place] = max(highest.get(place, 0.0), row[value])
    marked = [{**row, "above": row[value] >= highest[row.get("label", row.get("batch"))]} for row in rows]
    base = alt.Chart(alt.Data(values=marked)).encode(x=x, y=y, color=_colour(alt, devices))
    layers = [base.mark_line(), base.mark_point(size=60).encode(tooltip=tip)]
    for above, dy in ((True, -13), (False, 15)):
        here = [row for row in marked if row["above"] == above]
        if here:  # a layer without rows has no ends of its axes, which Vega complains about
            labels = alt.Chart(alt.Data(values=here))
            text = alt.Text(f"{value}:Q", format=spec)
            layers += _texts(labels.encode(x=x, y=y, text=text), _colour(alt, devices), dy)
    return alt.layer(*layers)


def _texts(labels: Any, colour: Any, dy: int) -> list[Any]:
    """Write labels, paper around their letters first."""
    around = labels.mark_text(dy=dy, stroke=PAPER, strokeWidth=4, strokeOpacity=0.85)
    return [around, labels.mark_text(dy=dy).encode(color=colour)]


def _log_y(alt: Any, name: str, title: str, values: Sequence[float], spec: str) -> Any:
    ticks = log_ticks(values)
    # Labels stand below the lowest points: there is room for them down to the axis.
    low = ticks[0] if min(values) > 1.25 * ticks[0] else ticks[0] / 1.5
    high = ticks[-1] if max(values) < 0.8 * ticks[-1] else ticks[-1] * 1.5
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return alt.Y(f"{name}:Q", title=f"{title} (log scale)", scale=scale, axis=alt.Axis(values=ticks, format=spec))


def _colour(alt: Any, devices: Mapping[Kind, str]) -> Any:
    """Give the GPU and the CPU each its colour, which is the same where there is no other."""
    scale = alt.Scale(domain=list(devices.values()), range=[DEVICE_COLOURS[kind] for kind in devices])
    return alt.Color("device:N", title=None, scale=scale, legend=None if len(devices) == 1 else alt.Legend())


def _percent(share: float) -> str:
    return f"{100 * share:g}%"
