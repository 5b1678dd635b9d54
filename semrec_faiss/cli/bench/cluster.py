"""``semrec bench cluster``: a hop, a merge and workers, beside one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import json_option, results_option
from semrec_faiss.cli.printing import as_ms, as_size, print_table

if TYPE_CHECKING:
    from semrec_faiss.cluster.bench.record import ClusterResults


@click.command(epilog="Example: semrec bench cluster --ray local --titles 20000 --users 5000")
@click.option("--titles", default=100_000, show_default=True, type=WholeNumber(min=1000), help="Titles to make up.")
@click.option("--users", default=20_000, show_default=True, type=WholeNumber(min=1), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=1), help="Dimensions of a vector.")
@click.option("--type", "index_type", default="flat", show_default=True, help="Index type to build.")
@click.option("--shards", default=2, show_default=True, type=WholeNumber(min=1), help="How many shards.")
@click.option(
    "--gpus",
    default=0,
    show_default=True,
    type=WholeNumber(min=0),
    help="GPUs of the one process, and of all shards together.",
)
@click.option("--repeats", default=20, show_default=True, type=WholeNumber(min=2), help="Rounds of searches.")
@click.option("--ray", default="local", show_default=True, help="A cluster; local makes one of two nodes here.")
@results_option
@json_option
def cluster(ray: str, out: Path, as_json: bool, **plan: Any) -> None:
    """Measure what a call to a shard and the merge cost, and how many lists per second workers make.

    Run it on machines that do nothing else.
    """
    from semrec_faiss.cluster.bench.run import ClusterBench, bench_cluster

    run_bench(lambda progress: bench_cluster(ClusterBench(**plan), ray, progress), _print, out, as_json=as_json)


def _print(results: ClusterResults) -> None:
    hop = results.hop["1"]
    rows = [
        ["a call to one shard", f"{as_ms(hop.one.median_ms)} ms"],
        ["a call to all", f"{as_ms(hop.all.median_ms)} ms"],
    ]
    rows += [
        [f"merge of {parts} shards", f"{as_ms(merge['1'].median_ms)} ms"] for parts, merge in results.merge.items()
    ]
    for batch, row in results.searches.items():
        shards, one = as_ms(row.shards.median_ms), as_ms(row.one_process.median_ms)
        rows.append([f"{batch} queries", f"{shards} ms; one process {one} ms"])
    for name, lists in results.lists.items():
        rows.append([f"lists, {name.replace('_', ' ')}", f"{lists.lists_per_second:,.0f} a second"])
    rows.append(["memory of a worker", as_size(results.worker_rss_bytes)])
    rows.append(["memory of a shard", as_size(results.shards[0].rss_bytes)])
    print_table(["", ""], rows, header=False)
