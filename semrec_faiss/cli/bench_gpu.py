"""bench gpu: type fused on one GPU beside its limit and its peers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.options import FiniteRange, json_option, results_option
from semrec_faiss.cli.printing import as_ms, as_size, print_table

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.gpu_record import GpuResults


@click.command(epilog="Example: semrec bench gpu --out results")
@click.option(
    "--titles", multiple=True, type=click.IntRange(min=1000), help="Catalogue; repeat it. [default: 62423, 1 M, 4 M]"
)
@click.option("--queries", multiple=True, type=click.IntRange(min=1), help="Batch; repeat it. [default: 1 to 119743]")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=32, max=2048), help="Dimensions.")
@click.option("--seconds", default=0.4, show_default=True, type=FiniteRange(min=0), help="Spent on each timing.")
@results_option
@json_option
def gpu(
    titles: tuple[int, ...],
    queries: tuple[int, ...],
    dim: int,
    seconds: float,
    out: Path,
    as_json: bool,
) -> None:
    """Measure type fused beside its limit, FAISS's flat index and a matrix product, vectors and results on the GPU."""
    from semrec_faiss.measure.bench.gpu import GpuBench, bench_gpu

    asked = GpuBench(titles or GpuBench.titles, queries or GpuBench.batches, dim, seconds=seconds)
    run_bench(lambda progress: bench_gpu(asked, progress), _print_gpu, out, as_json=as_json)


def _print_gpu(results: GpuResults) -> None:
    names = [*results.peers, "numpy"]
    columns = ["titles", "queries", "reads", "limit", *names, "fused / limit", "not proven at once"]
    rows = []
    for row in results.search:
        times = [as_ms(row.limit_ms), *(as_ms(row.median_ms(name) or 0.0) for name in names)]
        proven = [f"×{row.fused_to_limit:.2f}", str(row.unproven)]
        rows.append([f"{row.titles:,}", f"{row.queries:,}", row.reads, *times, *proven])
    print_table(columns, rows, right=tuple(range(len(columns))))
    click.echo("\nMasked to a share of the titles, to the time without a mask:")
    masked = [
        [f"{row.titles:,}", f"{row.queries:,}", f"{row.share:.0%}", as_ms(row.masked_ms), f"×{row.ratio:.3f}"]
        for row in results.masked
    ]
    print_table(["titles", "queries", "share", "masked", ""], masked, right=(0, 1, 2, 3, 4))
    for peak in results.memory:
        beyond = as_size(peak.peak_beyond_vectors_bytes)
        click.echo(f"{peak.titles:,} titles, {peak.queries:,} queries: {beyond} beside the vectors at the peak")
