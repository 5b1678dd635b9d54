"""The picture of ``semrec bench gpu``: everybody's time by batch size, a column a catalogue, the limit dashed."""

from __future__ import annotations

from typing import Any

from semrec_faiss.report.charts import COLOURS, decades, load_altair

LABELS = {
    "fused": "type fused",
    "faiss_float32": "FAISS flat, float32",
    "faiss_float16": "FAISS flat, float16",
    "cuvs_float32": "cuVS brute force, float32",
    "cuvs_float16": "cuVS brute force, float16",
    "torch_float16": "torch matmul + topk, float16",
    "limit": "limit of the GPU",
}


def gpu_chart(document: dict[str, Any]) -> Any:
    """Draw a results document of `semrec_faiss.measure.gpu_bench.bench_gpu` as an altair chart.

    Raises:
        DeviceError: altair is not installed.
    """
    altair = load_altair()
    rows = [
        {"titles": row["titles"], "queries": row["queries"], "who": label, "ms": _ms(row, name)}
        for row in document["search"]
        for name, label in LABELS.items()
        if _ms(row, name) is not None
    ]
    present = [label for label in LABELS.values() if any(row["who"] == label for row in rows)]
    dashes = [[5, 4] if label == LABELS["limit"] else [1, 0] for label in present]
    sizes = sorted({row["titles"] for row in rows})
    x = altair.X("queries:Q", title="queries at once", scale=_log(altair, [row["queries"] for row in rows]))
    y = altair.Y("ms:Q", title="milliseconds, median", scale=_log(altair, [row["ms"] for row in rows]))
    colour = altair.Color(
        "who:N", title=None, sort=present, scale=altair.Scale(domain=present, range=list(COLOURS[: len(present)])),
        legend=altair.Legend(columns=3, labelLimit=260),
    )  # fmt: skip
    base = altair.Chart().encode(
        x=x.axis(values=[1, 10, 100, 1000, 10_000, 100_000], format=",d", labelAngle=0),
        y=y.axis(values=decades(row["ms"] for row in rows), format="~g"),
        color=colour,
        strokeDash=altair.StrokeDash(
            "who:N", sort=present, scale=altair.Scale(domain=present, range=dashes), legend=None
        ),
    )
    lines = base.mark_line() + base.mark_point(size=35)
    data, gpus = document["data"], document["environment"]["gpus"]
    return (
        altair.layer(lines, data=altair.Data(values=rows))
        .properties(width=250, height=300)
        .facet(
            column=altair.Column(
                "titles:Q",
                title=None,
                sort=sizes,
                header=altair.Header(format=",d", labelExpr="format(datum.value, ',') + ' titles'"),
            )
        )
        .properties(
            title=f"Exact top {data['k']}, {data['dim']} dimensions, one {gpus[0]['name']}; vectors and results on it"
        )
    )


def _ms(row: dict[str, Any], name: str) -> float | None:
    if name == "limit":
        return float(row["limit_ms"])
    return float(row[name]["median_ms"]) if name in row else None


def _log(altair: Any, values: list[float]) -> Any:
    ends = decades(values)
    return altair.Scale(type="log", domain=[ends[0], ends[-1]])
