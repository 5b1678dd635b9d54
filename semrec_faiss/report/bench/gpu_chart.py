"""The picture of ``semrec bench gpu``: everybody's time by batch size, a column a catalogue, the limit dashed."""

from __future__ import annotations

from typing import Any

from semrec_faiss.measure.bench.gpu.record import GpuBatch, GpuResults
from semrec_faiss.report.page.axes import decades
from semrec_faiss.report.page.charts import load_altair, titled
from semrec_faiss.report.page.palette import GREYS, looks_of

LABELS = {
    "fused": "type fused",
    "faiss_float32": "FAISS flat, float32",
    "faiss_float16": "FAISS flat, float16",
    "cuvs_float32": "cuVS brute force, float32",
    "cuvs_float16": "cuVS brute force, float16",
    "torch_float16": "torch matmul + topk, float16",
    "flashlib": "FlashLib exact, float16",
    "flashlib_cagra": "FlashLib CAGRA",
    "limit": "limit of the GPU",
}

_TYPES = looks_of(["fused", "flat", "flat float16"])
_FUSED, _FLAT, _FLAT_HALF = _TYPES.values()
COLOURS = {
    "fused": _FUSED.colour,
    "faiss_float32": _FLAT.colour,
    "faiss_float16": _FLAT_HALF.colour,
    "cuvs_float32": "#2f7d4f",
    "cuvs_float16": "#8dbd9f",
    "torch_float16": "#b5651d",
    "flashlib": "#6b4c9a",
    "flashlib_cagra": "#b3a2cc",
    "limit": GREYS[1],
}
"""Types as in all reports; the other libraries have colours that no type has."""

_SHAPES = {
    "fused": _FUSED.shape,
    "faiss_float32": _FLAT.shape,
    "faiss_float16": _FLAT_HALF.shape,
    "cuvs_float32": "triangle-right",
    "cuvs_float16": "triangle-right",
    "torch_float16": "triangle-left",
    "flashlib": "triangle-down",
    "flashlib_cagra": "triangle-down",
    "limit": "stroke",
}


def gpu_chart(results: GpuResults) -> Any:
    """Draw the results of `semrec bench gpu` as an altair chart.

    Raises:
        MissingPackageError: altair is not installed.
    """
    altair = load_altair()
    rows: list[dict[str, Any]] = [
        {"titles": row.titles, "queries": row.queries, "who": label, "ms": _ms(row, name)}
        for row in results.search
        for name, label in LABELS.items()
        if _ms(row, name) is not None
    ]
    present = {label: name for name, label in LABELS.items() if any(row["who"] == label for row in rows)}
    shared = {
        "x": altair.X(
            "queries:Q",
            title="queries at once (log scale)",
            scale=_log(altair, [row["queries"] for row in rows]),
            axis=altair.Axis(values=decades(row["queries"] for row in rows)[:-1], format="~s", labelAngle=0),
        ),
        "y": altair.Y(
            "ms:Q",
            title="median, ms (log scale)",
            scale=_log(altair, [row["ms"] for row in rows]),
            axis=altair.Axis(values=decades(row["ms"] for row in rows), format=",~g"),
        ),
    }

    def scale(values: dict[str, Any]) -> Any:
        return altair.Scale(domain=list(present), range=[values[name] for name in present.values()])

    legend = altair.Legend(title=None, columns=3, labelLimit=260, symbolStrokeWidth=2)
    base = altair.Chart().encode(**shared)
    limit = altair.datum.who == LABELS["limit"]
    colour = altair.Stroke("who:N", sort=list(present), scale=scale(COLOURS), legend=legend)
    lines = base.transform_filter(~limit).mark_line(strokeWidth=2).encode(stroke=colour)
    dashed = base.transform_filter(limit).mark_line(strokeWidth=2, strokeDash=[5, 4]).encode(stroke=colour)
    points = (
        base.transform_filter(~limit)
        .mark_point(size=45)
        .encode(
            stroke=colour,
            fill=altair.Fill("who:N", sort=list(present), scale=scale(COLOURS), legend=legend),
            shape=altair.Shape("who:N", sort=list(present), scale=scale(_SHAPES), legend=legend),
            tooltip=[
                altair.Tooltip("who:N", title="what"),
                altair.Tooltip("titles:Q", format=","),
                altair.Tooltip("queries:Q", format=","),
                altair.Tooltip("ms:Q", format=",.3~g", title="median, ms"),
            ],
        )
    )
    header = altair.Header(labelExpr="format(datum.value, ',') + ' titles'")
    column = altair.Column("titles:Q", title=None, sort=sorted({row["titles"] for row in rows}), header=header)
    chart = (
        altair.layer(dashed, lines, points, data=altair.Data(values=rows))
        .properties(width=250, height=300)
        .facet(column=column)
    )
    title = f"Exact search for the {results.data.k} nearest titles on one {results.environment.gpus[0].name}"
    subtitle = f"{results.data.dim} dimensions; queries, vectors and results stay on the GPU; further down is faster"
    return titled(chart, title, subtitle)


def _ms(row: GpuBatch, name: str) -> float | None:
    return row.limit_ms if name == "limit" else row.median_ms(name)


def _log(altair: Any, values: list[float]) -> Any:
    ends = decades(values)
    return altair.Scale(type="log", domain=[0.7 * ends[0], max(values) * 1.6], nice=False)
