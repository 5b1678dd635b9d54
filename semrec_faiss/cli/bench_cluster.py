"""``semrec bench cluster``: a hop, a merge and workers, beside one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.options import json_option, results_option
from semrec_faiss.cli.printing import as_ms, as_size, print_json, print_table, progress_bars, say


@click.command(epilog="Example: semrec bench cluster --ray local --titles 20000 --users 5000")
@click.option("--titles", default=100_000, show_default=True, type=click.IntRange(min=1000), help="Titles to make up.")
@click.option("--users", default=20_000, show_default=True, type=click.IntRange(min=1), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=1), help="Dimensions of a vector.")
@click.option("--type", "index_type", default="flat", show_default=True, help="Index type to build.")
@click.option("--shards", default=2, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--gpus", default=0, show_default=True, type=click.IntRange(min=0), help="For one process, and in all.")
@click.option("--repeats", default=20, show_default=True, type=click.IntRange(min=2), help="Rounds of searches.")
@click.option("--ray", default="local", show_default=True, help="A cluster; local makes one of two nodes here.")
@results_option
@json_option
def cluster(ray: str, out: Path, as_json: bool, **plan: Any) -> None:
    """Measure what a call to a shard and the merge cost, and lists a second of workers beside one process.

    Run it on machines that do nothing else.
    """
    from semrec_faiss.cluster.bench import ClusterBench, bench_cluster
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    with progress_bars() as progress:
        document = bench_cluster(ClusterBench(**plan), ray, progress)
    path = out / f"bench-cluster-{'gpu' if plan['gpus'] else 'cpu'}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _tell(document)
    say(f"wrote {path}")


def _tell(document: dict[str, Any]) -> None:
    hop, lists = document["hop"]["1"], document["lists"]
    rows = [
        ["a call to one shard", _ms(hop["one"]) + " ms"],
        ["a call to all shards", _ms(hop["all"]) + " ms"],
    ]
    rows += [[f"merge of {parts} shards", _ms(merge["1"]) + " ms"] for parts, merge in document["merge"].items()]
    for batch, row in document["searches"].items():
        rows.append([f"{batch} queries", f"{_ms(row['shards'])} ms; one process {_ms(row['one_process'])} ms"])
    for name, row in lists.items():
        if isinstance(row, dict):
            rows.append([f"lists, {name.replace('_', ' ')}", f"{row['lists_per_second']:,.0f} a second"])
    rows.append(["memory of a worker", as_size(lists["worker_rss_bytes"])])
    rows.append(["memory of a shard", as_size(document["shards"][0]["rss_bytes"])])
    print_table(["", ""], rows, header=False)


def _ms(times: dict[str, Any]) -> str:
    return as_ms(times["median_ms"])
