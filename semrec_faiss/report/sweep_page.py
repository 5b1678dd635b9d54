"""The report of a sweep: which index finds how much, how fast, in how much memory, and what it misses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.pick import memory_bytes
from semrec_faiss.measure.sweep import SweepResults
from semrec_faiss.report.charts import png
from semrec_faiss.report.document import Block, Cell, Chart, Column, Document, Facts, Section, Table, Text, Tone, Value
from semrec_faiss.report.page import html_page, save_bytes, save_text
from semrec_faiss.report.sweep_charts import (
    batch_chart,
    build_chart,
    decile_chart,
    frontier_chart,
    memory_chart,
    selectivity_chart,
)
from semrec_faiss.report.sweep_details import environment_section, not_measured_section, trials_table
from semrec_faiss.report.sweep_rows import (
    ENOUGH,
    Record,
    best_of,
    by_series,
    crossings,
    csv_of,
    names_of,
    representative,
    representatives,
    row_of,
    series_of,
    setting_of,
    where,
)

MOST_EXAMPLES = 3
"""Indexes whose misses are written out."""


def write_report(results: SweepResults, out: Path) -> list[Path]:
    """Write report.html, summary.csv and the pictures of the two main charts of each data folder.

    Args:
        results: of a sweep.
        out: the folder.

    Returns:
        What was written, the page first.

    Raises:
        UsageError: nothing was measured.
        DeviceError: altair or vl-convert-python is not installed.
        StorageError: the folder cannot be written.
    """
    document = sweep_document(results)
    written = [out / "report.html", out / "summary.csv"]
    save_text(html_page(document), written[0])
    save_text(csv_of(results), written[1])
    for chart in document.charts():
        if chart.name.startswith(("latency-", "throughput-")):
            path = out / f"{chart.name}.png"
            save_bytes(png(chart.spec), path)
            written.append(path)
    return written


def sweep_document(results: SweepResults) -> Document:
    """Arrange a sweep's results.

    Raises:
        UsageError: nothing was measured.
        DeviceError: altair is not installed.
    """
    measured = results.measured
    if not measured:
        reasons = "; ".join(dict.fromkeys(str(record["reason"]) for record in results.failed)) or "no trial has run"
        raise UsageError(f"nothing was measured in {results.folder}: {reasons}")
    k = results.plan["sweep"]["k"][0]
    sections: list[Section] = []
    names = names_of(measured)
    for name in names:
        sections += _sections_of(name, where(measured, data=name), k, alone=len(names) == 1)
    sections.append(Section("All trials", [trials_table(measured)], folded=len(measured) > 60))
    sections += [*not_measured_section(results), environment_section(results)]
    devices = ", ".join(dict.fromkeys(record["device"]["name"] for record in measured))
    summary = f"{len(measured)} trials measured on {devices}: {_sizes(measured)}."
    return Document(f"Sweep {results.plan['name']}", summary, sections)


def _sizes(measured: Sequence[Record]) -> str:
    sizes = {record["data"]["name"]: record["data"] for record in measured}
    return "; ".join(f"{name}, {data['titles']:,} titles × {data['dim']}" for name, data in sizes.items())


def _sections_of(name: str, records: Sequence[Record], k: int, *, alone: bool) -> Iterator[Section]:
    """Make the sections about one data folder."""
    about = "" if alone else f": {name}"
    plain = where(records, filter=None, k=k)
    if not plain:
        return
    batches = sorted({record["batch"] for record in plain})
    smallest = where(plain, batch=batches[0])
    one = f"k = {k}; {_of_batch(batches[0])}"
    yield Section(f"Recall against speed{about}", [
        _facts(plain, batches),
        Chart(_chart_name("latency", name), frontier_chart(plain, "p50_ms"),
              f"Recall against the median latency of a batch, k = {k}: further left is faster, further up finds more. "
              "The grey band joins the trials that no other beats."),
        Chart(_chart_name("throughput", name), frontier_chart(plain, "qps"),
              f"Recall against throughput, k = {k}: further right is more queries a second."),
    ])  # fmt: skip
    if len(batches) > 1:
        yield Section(f"Batch sizes{about}", _batch_blocks(name, plain))
    yield Section(f"Memory and building{about}", _memory_blocks(name, smallest, one))
    filtered = where(records, k=k, batch=batches[0])
    if any(record["filter"] for record in filtered):
        yield Section(f"Filters{about}", [
            Chart(_chart_name("filters", name), selectivity_chart(filtered),
                  f"Recall and latency against the share of titles that a filter lets through, {one}."),
            _filters_table(filtered),
        ])  # fmt: skip
    yield Section(f"What the recommender shows{about}", _recommender_blocks(name, smallest))
    examples = _examples(smallest)
    if examples:
        yield Section(f"What is missed{about}", examples)


def _chart_name(kind: str, data: str) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', data)}"


def _of_batch(batch: int) -> str:
    return "one query at a time" if batch == 1 else f"batches of {batch:,}"


def _facts(plain: Sequence[Record], batches: Sequence[int]) -> Facts:
    facts: list[tuple[str, str, str, Tone]] = []
    for batch in batches:
        best = best_of(where(plain, batch=batch))
        what = f"fastest that finds {ENOUGH:.0%}, {_of_batch(batch)}"
        if best is None:
            facts.append((what, "none", "no trial finds so much", "bad"))
        else:
            on = f"{series_of(best)} {setting_of(best)}".strip()
            note = f"{on}: recall {best['quality']['recall']:.3f}, {best['latency']['qps']:,.0f} queries/s"
            facts.append((what, _as_ms(best["latency"]["p50_ms"]), note, "plain"))
    return Facts(facts)


def _as_ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"


def _batch_blocks(name: str, plain: Sequence[Record]) -> list[Block]:
    shown = [
        record
        for batch in sorted({record["batch"] for record in plain})
        for record in representatives(where(plain, batch=batch))
        if record["quality"]["recall"] >= ENOUGH
    ]
    names = {series_of(record) for record in shown}
    less = [series for series in dict.fromkeys(map(series_of, plain)) if series not in names]
    blocks: list[Block] = []
    if shown:
        caption = f"Time a query by batch size, each index at its fastest setting that finds {ENOUGH:.0%}."
        blocks.append(Chart(_chart_name("batches", name), batch_chart(shown), caption))
    if less:
        blocks.append(Text(f"No setting of {', '.join(less)} finds so much.", "muted"))
    devices = dict.fromkeys(record["device"]["name"] for record in plain)
    rows: list[list[Value]] = []
    for device in devices:
        for row in crossings(where(shown, device=device)):
            crossing = row["from"] is not None
            rows.append([
                device, row["faster"], "at every batch size" if not crossing else f"up to {row['until']:,}",
                row["other"], f"from {row['from']:,}" if crossing else "never",
            ])  # fmt: skip
    if rows:
        caption = "Which is faster, at the same settings as in the chart"
        blocks.append(Table(["device", "faster", "in batches", "than", "which is faster"], rows, caption=caption))
    return blocks


def _memory_blocks(name: str, smallest: Sequence[Record], one: str) -> list[Block]:
    blocks: list[Block] = []
    known = [memory_bytes(record) for record in smallest]
    if any(known):
        caption = (
            f"Recall against the most memory in use while searching, {one}: on a CPU what the index added to the "
            "process, on a GPU all that the process held, context and scratch included."
        )
        blocks.append(Chart(_chart_name("memory", name), memory_chart(smallest), caption))
    elif 0 in known:
        blocks.append(Text(f"Searching took under 1 MB of memory, {one}: less than the system shows.", "muted"))
    else:
        reasons = {record["not_measured"].get("memory.host_peak_bytes") for record in smallest}
        blocks.append(Text("Memory was not measured: " + "; ".join(sorted(filter(None, reasons))), "muted"))
    blocks.append(
        Chart(_chart_name("build", name), build_chart(smallest), "Seconds to train, to fill and to load each index.")
    )
    return blocks


def _filters_table(records: Sequence[Record]) -> Table:
    rows: list[list[Value]] = []
    for wanted in dict.fromkeys(record["filter"] for record in records):
        here = where(records, filter=wanted)
        quality = here[0]["quality"]
        best = best_of(here)
        rows.append([
            wanted or "none", quality["matching"], quality["selectivity"],
            min((record["quality"]["recall"] for record in here if record["quality"]["recall"] is not None),
                default=None),
            min((record["quality"]["fill_rate"] for record in here if record["quality"]["fill_rate"] is not None),
                default=None),
            None if best is None else best["latency"]["p50_ms"],
            "–" if best is None else f"{series_of(best)} {setting_of(best)}".strip(),
        ])  # fmt: skip
    columns: list[str | Column] = [
        "filter", Column("titles", ","), Column("share", ".2%"), Column("least recall", ".4f"),
        Column("least fill rate", ".4f"), Column("fastest, ms", ",.3f"), f"which finds {ENOUGH:.0%}",
    ]  # fmt: skip
    return Table(columns, rows, caption="Every filter, over all indexes and settings")


def _recommender_blocks(name: str, smallest: Sequence[Record]) -> list[Block]:
    shown = representatives(smallest)
    rows: list[list[Value]] = []
    for record in shown:
        row = row_of(record)
        rows.append([row["series"], row["setting"], row["device"], row["recall_titles"], row["recall_users"],
                     row["ndcg"], row["coverage"], record["quality"]["coverage_exact"]])  # fmt: skip
    columns: list[str | Column] = [
        "index", "setting", "device", Column("recall, titles", ".4f"), Column("recall, users", ".4f"),
        Column("nDCG", ".4f"), Column("coverage", ".2%"), Column("exact coverage", ".2%"),
    ]  # fmt: skip
    blocks: list[Block] = [
        Text("Coverage is the share of the catalogue that at least one of the questions is answered with."),
        Table(columns, rows),
    ]
    if shown[0]["quality"]["by_popularity"] is None:
        reason = shown[0]["not_measured"]["quality.by_popularity"]
        blocks.append(Text(f"Recall by popularity was not measured: {reason}.", "muted"))
    else:
        caption = "Recall of the titles of each tenth of the catalogue, by how many users have seen them."
        blocks.append(Chart(_chart_name("popularity", name), decile_chart(shown), caption))
    sliced = [
        record for record in shown if record["quality"]["by_slice"] is not None and record["quality"]["recall"] < 1
    ]
    if sliced:
        blocks.append(_slices_table(sliced))
    return blocks


def _slices_table(records: Sequence[Record]) -> Table:
    field = records[0]["quality"]["by_slice"]["field"]
    found = [{one["value"]: one for one in record["quality"]["by_slice"]["values"]} for record in records]
    rows: list[list[Value]] = [
        [value, found[0][value]["places"], *(each.get(value, {}).get("recall") for each in found)] for value in found[0]
    ]
    columns: list[str | Column] = [field, Column("places", ",")]
    columns += [Column(series_of(record), ".4f") for record in records]
    return Table(
        columns,
        rows,
        caption=f"Recall by {field} of the indexes above that miss some; places are those of its titles in exact lists",
    )


def _examples(smallest: Sequence[Record]) -> list[Block]:
    """Write out what each index misses at the setting that stands for it, or else at the best one that misses any."""
    lossy = []
    for group in by_series(smallest).values():
        missing = [record for record in group if record["quality"]["recall"] < 1]
        stands = representative(group)
        if missing:
            lossy.append(stands if stands in missing else max(missing, key=lambda one: float(one["quality"]["recall"])))
    lossy.sort(key=lambda record: float(record["quality"]["recall"]))
    blocks: list[Block] = []
    for record in lossy[:MOST_EXAMPLES]:
        rows: list[list[Value]] = []
        for example in record["examples"]:
            asked = example["query"].get("title") or example["query"]["user"]
            exact = "\n".join(f"{'' if one['found'] else '✗ '}{one['title']}" for one in example["exact"])
            missed = sum(not one["found"] for one in example["exact"])
            rows.append([asked, exact, missed, Cell("\n".join(example["instead"]) or "–")])
        caption = f"{record['label']}: recall {record['quality']['recall']:.4f}; the questions it answers worst"
        columns: list[str | Column] = [
            "asked", "the exact index gives (✗ is missed)", Column("missed", ","), "this one gives instead"
        ]  # fmt: skip
        blocks.append(Table(columns, rows, caption=caption))
    return blocks
