"""``semrec bench learn``: what learning from few and many interactions takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import json_option, results_option
from semrec_faiss.cli.printing import print_table

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.learn import LearnResults

DEFAULT = (250_000, 1_000_000, 4_000_000)


@click.command(epilog="Example: semrec bench learn --interactions 1000000 --interactions 4000000")
@click.option(
    "--interactions",
    multiple=True,
    default=DEFAULT,
    show_default=True,
    type=WholeNumber(min=1000),
    help="How many interactions to learn from; repeatable.",
)
@click.option("--titles", default=62_423, show_default=True, type=WholeNumber(min=64), help="Titles to make up.")
@click.option(
    "--dim", default=384, show_default=True, type=WholeNumber(min=0), help="Dimensions of text vectors; 0 for none."
)
@results_option
@json_option
def learn(interactions: tuple[int, ...], titles: int, dim: int, out: Path, as_json: bool) -> None:
    """Measure what `semrec dataset learn` takes for made-up interactions, and predict the largest from smaller ones.

    A user has 154 interactions on average, as in ml-25m. Every size has a process of its own.
    """
    from semrec_faiss.measure.bench.learn import LearnBench, bench_learn

    bench = LearnBench(interactions, titles, dim)
    run_bench(lambda progress: bench_learn(bench, progress), _print, out, as_json=as_json)


def _print(results: LearnResults) -> None:
    heads = ["interactions", "users", "seconds", "CPU seconds", "users' vectors, s", "peak, MB"]
    rows = [
        [
            f"{run.interactions:,}",
            f"{run.users:,}",
            f"{run.seconds:.1f}",
            f"{run.cpu_seconds:.1f}",
            f"{run.user_seconds:.1f}",
            "–" if run.peak_bytes is None else f"{run.peak_bytes / 1e6:,.0f}",
        ]
        for run in results.runs
    ]
    print_table(heads, rows, right=tuple(range(6)))
    told = results.prediction
    if told is not None:
        peak = "" if told.peak_bytes is None else f" and {told.peak_bytes / 1e6:,.0f} MB"
        click.echo(f"the fewer predict {told.cpu_seconds:.1f} CPU seconds{peak} for {told.interactions:,}")
