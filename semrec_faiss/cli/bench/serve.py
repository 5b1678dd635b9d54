"""bench serve: what a server of an index answers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.extras import needs_extra
from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, count_option, index_argument, json_option, results_option, set_option
from semrec_faiss.cli.printing import as_ms, print_table

if TYPE_CHECKING:
    from semrec_faiss.serve.bench.record import ServeResults


@click.command(epilog="Example: semrec bench serve indexes/demo --out results")
@index_argument
@click.option("--connections", default=64, show_default=True, type=WholeNumber(1, 1024), help="Connections kept open.")
@click.option("--workers", default=1, show_default=True, type=WholeNumber(1, 256), help="Processes that answer.")
@click.option(
    "--seconds", default=5.0, show_default=True, type=FiniteRange(0.1, 600), help="Seconds of each measurement."
)
@click.option("--costs", type=FilePath(), help="Prices of machines; see configs/costs.yaml.")
@count_option
@set_option
@results_option
@json_option
def serve(
    index: Path,
    connections: int,
    workers: int,
    seconds: float,
    costs: Path | None,
    count: int,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Start a server of INDEX, warm it, and measure what it answers over HTTP, a fixed body beside it.

    Ten generations are swapped in and the server is told to end, under full load; failed and mixed answers are counted.
    """
    from semrec_faiss.measure.guide.config import Prices, load_settings

    with needs_extra("serve"):
        from semrec_faiss.serve.bench.run import ServeBench, bench_serve

    bench, prices = ServeBench(connections, workers, seconds, count), load_settings(Prices, costs)
    run_bench(lambda progress: bench_serve(index, settings, bench, prices, progress), _print, out, as_json=as_json)


def _print(results: ServeResults) -> None:
    loads = {
        "fixed body": results.fixed_body,
        "similar": results.similar,
        "similar, half of that": results.at_half_the_most,
        "similar, nine tenths of it": results.at_nine_tenths_of_the_most,
        "similar, one connection": results.alone,
        "titles as one types": results.as_one_types,
    }
    if results.users_as_arrow is not None:
        loads["1,000 users as Arrow"] = results.users_as_arrow
    rows = [
        [name, f"{load.requests_per_second:,.0f}", as_ms(load.p50_ms), as_ms(load.p99_ms), str(load.failed)]
        for name, load in loads.items()
    ]
    print_table(["", "requests/s", "p50 ms", "p99 ms", "failed"], rows, right=(1, 2, 3, 4))
    swapped = results.swapped
    click.echo(
        f"\n{swapped.swaps} generations taken and SIGTERM under load: {swapped.requests:,} answers,"
        f" {swapped.failed} failed, {swapped.mixed} of them mixed; exit code {swapped.exit_code}"
    )
    costs = results.costs
    for machine in costs.machines:
        click.echo(
            f"{costs.monthly_queries:,.0f} questions a month: {machine.machines_for_the_month} × {machine.name},"
            f" {machine.cost_of_the_month:,.0f} {costs.currency}; busy {machine.busy_hours_a_month:,.1f} hours"
        )
