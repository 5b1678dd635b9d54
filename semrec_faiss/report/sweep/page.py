"""The report of a sweep: which index finds how much, how fast, in how much memory, and what it misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.report.page.document import Block, Chart, Document, Section, Text
from semrec_faiss.report.page.files import save_report
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.palette import looks_of
from semrec_faiss.report.sweep.details import environment_section, gaps_text, not_measured_section, trials_table
from semrec_faiss.report.sweep.frontier import frontier_chart
from semrec_faiss.report.sweep.recommender import examples, recommender_blocks
from semrec_faiss.report.sweep.rows import measured_of, names_of, row_of, series_of, where
from semrec_faiss.report.sweep.sections import (
    About,
    batch_blocks,
    disturbed_text,
    facts_of,
    filter_blocks,
    memory_blocks,
    of_batch,
)


def write_report(results: SweepResults, out: Path) -> list[Path]:
    """Write report.html, summary.csv and the pictures of the two main charts of each data folder.

    Args:
        results: of a sweep.
        out: the folder.

    Returns:
        What was written, the page first.

    Raises:
        UsageError: nothing was measured.
        MissingPackageError: altair or vl-convert-python is not installed.
        StorageError: the folder cannot be written.
    """
    document = sweep_document(results)
    pictures = {one.name: one.spec for one in document.charts() if one.name.startswith(("latency-", "throughput-"))}
    return save_report(document, [row_of(record) for record in results.measured], pictures, out)


def sweep_document(results: SweepResults) -> Document:
    """Arrange a sweep's results.

    Raises:
        UsageError: nothing was measured.
        MissingPackageError: altair is not installed.
    """
    results.check_measured("no trial has run")
    measured = results.measured
    k = results.plan.sweep.k[0]
    sections: list[Section] = []
    names = names_of(measured)
    for name in names:
        sections += _sections_of(results, name, k, alone=len(names) == 1)
    listed: list[Block] = [trials_table(measured), *gaps_text(measured)]
    sections.append(Section("All trials", listed, folded=len(measured) > 60 or "narrow"))
    sections += [*not_measured_section(results), environment_section(results)]
    devices = ", ".join(dict.fromkeys(device_label(record.device.name) for record in measured))
    planned = len(results.plan.trials)
    count = f"{planned:,}" if len(measured) == planned else f"{len(measured):,} of {planned:,}"
    summary = f"{count} trials measured on {devices}: {_sizes(measured)}."
    return Document(f"Sweep {results.plan.name.removeprefix('sweep-')}", summary, sections)


def _sizes(measured: Sequence[Measured]) -> str:
    sizes = {record.data.name: record.data for record in measured}
    return "; ".join(f"{name}, {data.titles:,} titles × {data.dim}" for name, data in sizes.items())


def _sections_of(results: SweepResults, name: str, k: int, *, alone: bool) -> Iterator[Section]:
    """Make the sections about one data folder."""
    suffix = "" if alone else f": {name}"
    records = where(results.measured, data=name)
    plain = where(records, filter=None, k=k)
    if not plain:
        return
    batches = sorted({record.batch for record in plain})
    smallest = where(plain, batch=batches[0])
    about = About(
        name, k, _subtitle(results, name, k), of_batch(batches[0]), looks_of(map(series_of, results.measured))
    )
    yield Section(
        f"Recall against speed{suffix}",
        [
            *_how_much(results, name),
            facts_of(plain, batches),
            *disturbed_text(records),
            Chart(
                about.chart_name("latency"),
                frontier_chart(plain, "p50_ms", about.looks, "Recall against latency", about.subtitle),
                "Further left is faster, further up finds more. The grey band joins the trials that no other beats; "
                "their settings stand beside them.",
            ),
            Chart(
                about.chart_name("throughput"),
                frontier_chart(plain, "qps", about.looks, "Recall against throughput", about.subtitle),
                "Further right is more queries a second. They are those of the mean time, in which slow searches weigh;"
                " the latencies above are medians.",
            ),
        ],
    )
    if len(batches) > 1:
        yield Section(f"Batch sizes{suffix}", batch_blocks(about, plain))
    yield Section(f"Memory and building{suffix}", memory_blocks(about, smallest))
    filtered = where(records, k=k, batch=batches[0])
    if any(record.filter for record in filtered):
        yield Section(f"Filters{suffix}", filter_blocks(about, filtered))
    yield Section(f"What the recommender shows{suffix}", recommender_blocks(about, smallest))
    missed = examples(smallest)
    if missed:
        yield Section(f"What is missed{suffix}", missed)


def _subtitle(results: SweepResults, name: str, k: int) -> str:
    """Say of what a data folder's charts are, for pictures that stand alone."""
    records = where(results.measured, data=name)
    data = records[0].data
    devices = ", ".join(dict.fromkeys(device_label(record.device.name) for record in records))
    count, planned = measured_of(results, name)
    part = "" if count == planned else f"; {count:,} of {planned:,} trials measured"
    return f"{name}: {data.titles:,} titles × {data.dim}, k = {k}, on {devices}{part}"


def _how_much(results: SweepResults, name: str) -> list[Text]:
    """Say how many of a data folder's trials were measured, where some were not."""
    count, planned = measured_of(results, name)
    if count == planned:
        return []
    text = (
        f"{count:,} of {planned:,} trials measured: what follows is of these alone. The others are under Not measured."
    )
    return [Text(text, "bad")]
