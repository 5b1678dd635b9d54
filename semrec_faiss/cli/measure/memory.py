"""memory: what an index will take before it is built, and how many titles fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import tell
from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, set_option
from semrec_faiss.cli.printing import as_size, print_table, progress_bars, say

if TYPE_CHECKING:
    from semrec_faiss.measure.memory.record import DevicePrediction, MemoryReport

PARTS = {
    "vectors_bytes": "vectors or codes",
    "structure_bytes": "lists, links, norms, bounds",
    "context_bytes": "CUDA context",
    "reserved_bytes": "taken in any case",
    "base_bytes": "between searches",
    "scratch_bytes": "scratch of a search",
    "batch_bytes": "queries and results",
    "peak_bytes": "at most",
    "originals_bytes": "mapped from disk besides",
}
LOCKED = "originals page-locked in the host's memory"
KEPT = {
    "halves": "without bounds",
    "bounded": "beside bounds and the codes of these",
    "uncoded": "beside bounds without codes, which have no room",
}
"""What lies on a GPU with titles that came as float16, by how they are kept."""

SUMS = ("base_bytes", "peak_bytes")


@click.command(epilog="Example: semrec memory configs/flat.yaml --titles 1000000 --dim 384 --measure")
@click.argument("config", type=FilePath(), required=False)
@click.option("--dataset", type=FilePath(), help="The data folder, instead of the config's.")
@click.option("--titles", type=WholeNumber(min=1), help="How many titles. [default: the dataset's]")
@click.option("--dim", type=WholeNumber(min=1), help="Dimensions of a vector. [default: the dataset's]")
@click.option("--batch", default=10_000, show_default=True, type=WholeNumber(min=1), help="Queries searched at once.")
@click.option("-k", "--count", default=10, show_default=True, type=WholeNumber(min=1), help="Titles per query.")
@click.option(
    "--limit-gb",
    type=FiniteRange(min=0, min_open=True),
    help="Memory that the largest catalogue must fit. [default: the machine's memory, and the GPU's]",
)
@click.option("--float16", is_flag=True, help="Titles that come as float16. [default: as the dataset's do]")
@click.option("--measure", is_flag=True, help="Build such an index in a temporary folder and check the prediction.")
@click.option("--check", is_flag=True, help="With --measure: end with exit code 1 when a prediction does not hold.")
@set_option
@json_option
def memory(
    config: Path | None,
    dataset: Path | None,
    titles: int | None,
    dim: int | None,
    batch: int,
    count: int,
    limit_gb: float | None,
    float16: bool,
    measure: bool,
    check: bool,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Predict the memory that the index of CONFIG takes, part by part, and the largest catalogue that fits.

    CONFIG may be an index directory, too; without one every key has its default. Nothing is built, unless --measure
    checks the prediction: in a process of its own, by the resident set on a CPU and by the driver's count on a GPU. The
    dataset's users, whom type fused takes to a GPU too, are told only where the titles are the dataset's: without
    --titles and --dim.
    """
    from semrec_faiss.index.saved.saved_index import config_at
    from semrec_faiss.measure.memory.plan import MemoryPlan
    from semrec_faiss.measure.memory.run import memory_report

    loaded = config_at(config, settings)
    if dataset is not None:
        loaded = loaded.of(dataset)
    limit = None if limit_gb is None else round(limit_gb * 1e9)
    with progress_bars() as progress:
        document = memory_report(
            MemoryPlan(loaded, titles, dim, batch, count, limit, float16), measure=measure, progress=progress
        )
    tell(document, _print, as_json=as_json)
    if (titles is None) != (dim is None):
        option = "--titles" if titles is None else "--dim"
        came = "" if float16 else ", and so is whether they come as float16"
        say(f"note: {option} is that of {loaded.dataset.folder}{came}")
    measured = [one for one in document.measured.values() if one is not None]
    return 1 if check and not all(one.holds for one in measured) else 0


def _print(report: MemoryReport) -> None:
    kind = report.index.get("type", "factory")
    queries = "1 query" if report.batch == 1 else f"{report.batch:,} queries at once"
    came = " that come as float16" if report.float16 else ""
    click.echo(f"{kind} index of {report.titles:,} titles × {report.dim}{came}, {queries}, k = {report.k}:")
    devices = report.prediction
    sizes = {part: [getattr(one, part) for one in devices.values()] for part in PARTS}
    rows = [
        [("" if part in SUMS else "  ") + name, *map(as_size, sizes[part])]
        for part, name in PARTS.items()
        if any(sizes[part])
    ]
    print_table(["", *(_heading(name, one) for name, one in devices.items())], rows, right=tuple(range(1, 3)))
    for name, one in devices.items():
        if locked := one.host["locked_bytes"]:
            click.echo(f"{name.upper()}: {as_size(locked)} of {LOCKED} besides")
        fit = one.limit_bytes is None or one.peak_bytes <= one.limit_bytes
        if fit and one.kept in KEPT:
            click.echo(f"{name.upper()}: titles are kept as they came, {KEPT[one.kept]}")
        if one.largest_catalogue is not None and one.limit_bytes is not None:
            fits = f"{one.largest_catalogue:,} titles fit {as_size(one.limit_bytes)} ({one.limit_of})"
            locked = one.largest_locked_bytes
            click.echo(f"{name.upper()}: {fits}" + (f", with {as_size(locked)} of {LOCKED}" if locked else ""))
    if report.gpu_users_bytes is not None:
        size = as_size(report.gpu_users_bytes)
        click.echo(f"GPU: {size} more for the users, where they fit; else page-locked in the host's memory")
    _print_measured(report)


def _heading(name: str, one: DevicePrediction) -> str:
    return f"each of {one.gpus} GPUs" if one.gpus > 1 else name.upper()


def _print_measured(report: MemoryReport) -> None:
    for name, measured in report.measured.items():
        if measured is None:
            say(f"note: {name.upper()} is not measured: {report.not_measured[f'measured.{name}']}")
            continue
        click.echo(f"\nMeasured on {measured.device}, beyond what the process held before:")
        rows = [
            [
                "✓" if row.holds else "✗",
                row.what,
                as_size(row.predicted_bytes),
                as_size(row.measured_bytes),
                f"{row.error:+.1%}",
            ]
            for row in measured.judged
        ]
        print_table(["", "", "predicted", "measured", "off by"], rows, right=(2, 3, 4))
