"""The sections of a sweep's report about speed, batch sizes, memory, building and filters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.report.page.document import Block, Chart, Column, Facts, Table, Text, Tone, Value
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.numbers import as_ms, as_recall
from semrec_faiss.report.page.palette import Look
from semrec_faiss.report.sweep.charts import batch_chart, build_chart, memory_chart, selectivity_chart
from semrec_faiss.report.sweep.rows import (
    ENOUGH,
    best_of,
    by_series,
    crossings,
    representatives,
    series_of,
    setting_of,
    where,
)


@dataclass(frozen=True)
class About:
    """What the sections of one data folder have in common.

    Attributes:
        name: of the data folder.
        k: results per query.
        subtitle: of its charts.
        one: the smallest batch in words, in which all but the charts of batch sizes are measured.
        looks: of each index.
    """

    name: str
    k: int
    subtitle: str
    one: str
    looks: Mapping[str, Look]

    def chart_name(self, kind: str) -> str:
        """Return the name of a chart, which is that of its picture too."""
        return f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)}"

    @property
    def subtitle_of_one(self) -> str:
        """The subtitle of charts of the smallest batch."""
        return f"{self.subtitle}; {self.one}"


def of_batch(batch: int) -> str:
    """Name a batch size."""
    return "one query at a time" if batch == 1 else f"batches of {batch:,}"


def name_of(record: Measured) -> str:
    """Name an index with its search settings."""
    return f"{series_of(record)} {setting_of(record)}".strip()


def facts_of(plain: Sequence[Measured], batches: Sequence[int]) -> Facts:
    """Tell the fastest trial of each batch size that finds enough."""
    facts: list[tuple[str, str, str, Tone]] = []
    for batch in batches:
        best = best_of(where(plain, batch=batch))
        what = f"Fastest that finds {ENOUGH:.0%}, {of_batch(batch)}"
        if best is None:
            facts.append((what, "none", "no trial finds so much", "bad"))
        else:
            recall, qps = as_recall(best.quality.recall), best.latency.qps
            note = f"{name_of(best)}: recall {recall}, {qps:,.0f} queries/s"
            if best.is_disturbed:
                note += f"; disturbed: other programs kept {best.others_used_cores:.1f} cores busy"
            whole = as_ms(best.latency.p50_ms)
            tone: Tone = "bad" if best.is_disturbed else "plain"
            facts.append((what, whole if batch == 1 else f"{whole} a batch", note, tone))
    return Facts(facts)


def disturbed_text(records: Sequence[Measured], of: str = "") -> list[Text]:
    """Say how many trials other programs disturbed, and where they are marked; nothing where they left all alone."""
    disturbed = [record.others_used_cores or 0.0 for record in records if record.is_disturbed]
    if not disturbed:
        return []
    text = (
        f"Other programs kept up to {max(disturbed):.1f} cores busy during {len(disturbed):,} of {len(records):,} "
        f"trials{of}, whose times are longer for it; semrec sweep --rerun all measures again."
    )
    return [Text(text, "bad")]


def batch_blocks(about: About, plain: Sequence[Measured]) -> list[Block]:
    """Draw the time a query by batch size, and tell from which on an index overtakes the exact one."""
    shown = [
        record
        for batch in sorted({record.batch for record in plain})
        for record in representatives(where(plain, batch=batch))
        if record.recall_or_0 >= ENOUGH
    ]
    names = {series_of(record) for record in shown}
    less = [series for series in dict.fromkeys(map(series_of, plain)) if series not in names]
    blocks: list[Block] = []
    if 0 < len(shown) <= 2 and len(by_series(shown)) == 1:  # a line of two points tells no more than its numbers
        blocks.append(Text(_times_a_query(shown)))
    elif shown:
        caption = f"Each index at its fastest setting that finds {ENOUGH:.0%}; further down is faster."
        blocks.append(Chart(about.chart_name("batches"), batch_chart(shown, about.looks, about.subtitle), caption))
    if less:
        blocks.append(Text(f"Not drawn, for no setting of theirs finds {ENOUGH:.0%}: {', '.join(less)}.", "muted"))
    devices = dict.fromkeys(record.device.name for record in plain)
    rows: list[list[Value]] = []
    for device in devices:
        for row in crossings(where(shown, device=device)):
            crossing = row["from"] is not None
            rows.append(
                [
                    device_label(device),
                    row["faster"],
                    row["other"],
                    f"up to {row['until']:,}" if crossing else "all that were measured",
                    f"from {row['from']:,}" if crossing else "none",
                ]
            )
    if rows:
        caption = "Which index is faster in batches of which size, at the settings of the chart"
        columns = ["device", "index A", "index B", "A is faster in batches", "B is faster in batches"]
        blocks.append(Table(columns, rows, caption=caption))
    return blocks


def _times_a_query(records: Sequence[Measured]) -> str:
    told = [
        f"{as_ms(record.latency.p50_ms / record.batch)}, {of_batch(record.batch)} ({name_of(record)})"
        for record in records
    ]
    return f"At the fastest settings that find {ENOUGH:.0%} a query takes {'; '.join(told)}."


def memory_blocks(about: About, smallest: Sequence[Measured]) -> list[Block]:
    """Draw recall against memory, and the time to build."""
    blocks: list[Block] = []
    known = [record.memory_bytes for record in smallest]
    if any(known):
        caption = (
            "The most memory in use while searching: on a CPU what the index added to the process, on a GPU all that "
            "the process held, context and scratch included. A point is a setting."
        )
        chart = memory_chart(smallest, about.looks, about.subtitle_of_one)
        blocks.append(Chart(about.chart_name("memory"), chart, caption))
    elif 0 in known:
        blocks.append(Text(f"Searching took under 1 MB of memory, {about.one}: less than the system shows.", "muted"))
    else:
        reasons = {record.not_measured.get("memory.host_peak_bytes") for record in smallest}
        blocks.append(Text("Memory was not measured: " + "; ".join(sorted(filter(None, reasons))), "muted"))
    caption = "Training, filling and loading each index; the sum stands at the end of its bar."
    blocks.append(Chart(about.chart_name("build"), build_chart(smallest, about.subtitle), caption))
    return blocks


def filter_blocks(about: About, filtered: Sequence[Measured]) -> list[Block]:
    """Draw and list what filters do to recall and latency."""
    stands = {(name_of(one), one.device.name) for one in representatives(where(filtered, filter=None))}
    shown = [one for one in filtered if (name_of(one), one.device.name) in stands]
    caption = (
        f"Each index at its fastest setting that finds {ENOUGH:.0%} without a filter, or else at the one that finds "
        "most. A point is a filter; 100% is without one."
    )
    chart = selectivity_chart(shown or filtered, about.looks, about.subtitle_of_one)
    return [Chart(about.chart_name("filters"), chart, caption), _filters_table(filtered)]


def _filters_table(records: Sequence[Measured]) -> Table:
    rows: list[list[Value]] = []
    for wanted in dict.fromkeys(record.filter for record in records):
        here = where(records, filter=wanted)
        quality = here[0].quality
        best = best_of(here)
        least = {
            name: min((value for one in here if (value := getattr(one.quality, name)) is not None), default=None)
            for name in ("recall", "fill_rate")
        }
        rows.append(
            [
                wanted or "none",
                quality.matching,
                quality.selectivity,
                least["recall"],
                least["fill_rate"],
                None if best is None else best.latency.p50_ms,
                _why_none(least["recall"]) if best is None else name_of(best) + ", disturbed" * best.is_disturbed,
            ]
        )
    columns: list[str | Column] = [
        "filter",
        Column("titles", ","),
        Column("share", ".2%", at_most_one=True),
        Column("least recall", ".4f", at_most_one=True),
        Column("least fill rate", ".4f", at_most_one=True),
        Column("fastest, ms", ",.3f"),
        f"which finds {ENOUGH:.0%}",
    ]
    return Table(columns, rows, caption="Every filter, over all indexes and settings")


def _why_none(recall: float | None) -> str:
    return "no title matches" if recall is None else f"no trial finds {ENOUGH:.0%}"
