"""Two sweeps side by side."""

from __future__ import annotations

from typing import Any

from semrec_faiss.measure.choose.regression import Comparison, compare
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.report.page.axes import log_axis, log_scale
from semrec_faiss.report.page.charts import load_altair, titled
from semrec_faiss.report.page.document import Cell, Chart, Column, Document, Facts, Section, Table, Text, Tone, Value
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.palette import GREYS, looks_of
from semrec_faiss.report.sweep.charts import PANEL_HEIGHT
from semrec_faiss.report.sweep.details import environment_section
from semrec_faiss.report.sweep.marks import points_of
from semrec_faiss.report.sweep.rows import row_of
from semrec_faiss.report.sweep.sections import disturbed_text

NOTABLE = 0.1
"""Relative change of a median latency that stands out."""


def compare_document(first: SweepResults, second: SweepResults) -> Document:
    """Set the second sweep against the first, trial by trial.

    Raises:
        UsageError: they have no trial in common.
        MissingPackageError: altair is not installed.
    """
    found = compare(first, second, NOTABLE, 0.005)
    names = [str(results.folder) for results in (first, second)]
    sections = [
        Section(
            "Speed",
            [
                _facts(found),
                *disturbed_text(first.measured, " of the first"),
                *disturbed_text(second.measured, " of the second"),
                Chart(
                    "ratios",
                    _chart(found),
                    "Median latency of each trial in both sweeps: below the line the second is faster.",
                ),
            ],
        ),
        Section("Trials", [_table(found)]),
    ]
    if found.other_hardware:
        one, other = found.other_hardware
        sections[0] = Section("Speed", [Text(f"The hardware differs: {one} and {other}.", "bad"), *sections[0].blocks])
    for title, listed in (("Only in the first", found.lost), ("Only in the second", found.added)):
        if listed:
            sections.append(Section(title, [Table(["trial"], [[what] for what in listed])], folded=True))
    for name, results in zip(("first", "second"), (first, second), strict=True):
        told = environment_section(results)
        sections.append(Section(f"Environment of the {name}", told.blocks, folded=True))
    summary = f"{names[1]} against {names[0]}: {len(found.pairs)} trials in common."
    return Document(f"{first.plan.name} and {second.plan.name}", summary, sections)


def _ratios(found: Comparison) -> list[float]:
    return [now.latency.p50_ms / old.latency.p50_ms for old, now in found.pairs]


def _facts(found: Comparison) -> Facts:
    ratios = sorted(_ratios(found))
    middle = ratios[len(ratios) // 2] if ratios else float("nan")
    faster = sum(ratio < 1 - NOTABLE for ratio in ratios)
    slower = sum(ratio > 1 + NOTABLE for ratio in ratios)
    less = sum(change.number == "recall" for change in found.regressions)
    tone: Tone = "bad" if less else "good"
    return Facts(
        [
            ("median of the time ratios", f"{middle:.3f} ×", "below 1 the second is faster", "plain"),
            ("faster by over 10%", f"{faster}", f"of {len(ratios)} trials", "plain"),
            ("slower by over 10%", f"{slower}", f"of {len(ratios)} trials", "bad" if slower else "plain"),
            ("less recall by over 0.005", f"{less}", f"of {len(ratios)} trials", tone),
        ]
    )


def _chart(found: Comparison) -> Any:
    alt = load_altair()
    rows = [row_of(old) | {"first_ms": old.latency.p50_ms, "second_ms": now.latency.p50_ms} for old, now in found.pairs]
    values = [row[name] for row in rows for name in ("first_ms", "second_ms")]
    ends = [{"first_ms": value, "second_ms": value} for value in (min(values) / 2, max(values) * 2)]
    shared = {
        name[0]: channel(f"{name[2:]}:Q", scale=log_scale(values), axis=log_axis(values), title=title)
        for name, channel, title in (
            ("x first_ms", alt.X, "first sweep, ms (log scale)"),
            ("y second_ms", alt.Y, "second sweep, ms (log scale)"),
        )
    }
    line = alt.Chart(alt.Data(values=ends)).mark_line(strokeWidth=1, color=GREYS[1], clip=True).encode(**shared)
    told = ["filter:N"] + [
        alt.Tooltip(f"{name}_ms:Q", format=",.3~g", title=f"{name}, ms") for name in ("first", "second")
    ]
    points = points_of(alt, rows, looks_of(row["series"] for row in rows), told).encode(**shared)
    chart = (line + points).properties(width="container", height=PANEL_HEIGHT + 60)
    return titled(chart, "Median latency of each trial in both sweeps", "below the line the second is faster")


def _table(found: Comparison) -> Table:
    rows: list[list[Value]] = []
    for (old, now), ratio in zip(found.pairs, _ratios(found), strict=True):
        row = row_of(old)
        recall, after = old.quality.recall, now.quality.recall
        change = None if recall is None or after is None else after - recall
        tone: Tone = "bad" if ratio > 1 + NOTABLE else "good" if ratio < 1 - NOTABLE else "plain"
        rows.append(
            [
                row["data"],
                f"{row['series']} {row['setting']}".strip(),
                device_label(row["device"]),
                row["filter"] or "",
                row["k"],
                row["batch"],
                old.latency.p50_ms,
                now.latency.p50_ms,
                Cell(f"{ratio:.3f} ×", ratio, tone),
                recall,
                after,
                _changed(change),
            ]
        )
    columns: list[str | Column] = [
        "data",
        "index",
        "device",
        "filter",
        Column("k", ","),
        Column("batch", ","),
        Column("first ms", ",.3f"),
        Column("second ms", ",.3f"),
        Column("ratio", right=True),
        Column("first recall", ".4f", at_most_one=True),
        Column("second recall", ".4f", at_most_one=True),
        Column("change", right=True),
    ]
    return Table(columns, rows, name="pairs")


def _changed(change: float | None) -> Value:
    return None if change is None else Cell(f"{change:+.4f}", change, "bad" if change < -0.005 else "plain")
