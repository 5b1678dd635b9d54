"""``semrec bench update``: what an update costs, and a search of an index that was updated much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import json_option, results_option
from semrec_faiss.cli.printing import as_ms

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.update import UpdateResults


@click.command(epilog="Example: semrec bench update --titles 100000")
@click.option("--titles", default=1_000_000, show_default=True, type=WholeNumber(min=1000), help="Titles to make up.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=1), help="Dimensions of a vector.")
@click.option("--type", "index_type", default="flat", show_default=True, help="Index type to build.")
@click.option(
    "--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where to search."
)
@click.option("--repeats", default=20, show_default=True, type=WholeNumber(min=2), help="Rounds of searches.")
@results_option
@json_option
def update(titles: int, dim: int, index_type: str, device: str, repeats: int, out: Path, as_json: bool) -> None:
    """Measure updates of 200 new, 300 changed and 50 removed titles, and searches with a tenth new and a tenth removed.

    Updates are timed from the change's arrays to the published generation. Searches of the base and of the changed
    index take turns. Run it on a machine that does nothing else.
    """
    from semrec_faiss.measure.bench.update import UpdateBench, bench_update

    bench = UpdateBench(titles, dim, index_type, device, repeats=repeats)
    run_bench(lambda progress: bench_update(bench, progress), _print, out, as_json=as_json)


def _print(results: UpdateResults) -> None:
    told = results.update
    click.echo(
        f"{'✓' if told.met else '✗'} an update of {results.titles:,} titles: {told.median_seconds:.2f} s,"
        f" {told.largest_share_of_bytes:.3%} of the index's bytes written"
    )
    for batch, row in results.searches.items():
        with_ms, without_ms = as_ms(row.with_changes.median_ms), as_ms(row.without.median_ms)
        click.echo(
            f"{'✓' if row.met else '✗'} {batch} queries with a tenth new and a tenth removed:"
            f" {with_ms} ms, {row.ratio:.2f} times the {without_ms} ms without"
        )
