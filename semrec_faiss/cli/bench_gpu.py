"""bench gpu: type fused on one GPU beside its limit and its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.options import FiniteRange, json_option
from semrec_faiss.cli.printing import as_ms, as_size, print_json, print_table, progress_bars, say


@click.command(epilog="Example: semrec bench gpu --out results")
@click.option(
    "--titles", multiple=True, type=click.IntRange(min=1000), help="Catalogue; repeat it. [default: 62423, 1 M, 4 M]"
)
@click.option("--queries", multiple=True, type=click.IntRange(min=1), help="Batch; repeat it. [default: 1 to 119743]")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=32, max=2048), help="Dimensions.")
@click.option("--seconds", default=0.4, show_default=True, type=FiniteRange(min=0), help="Spent on each timing.")
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
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
    from semrec_faiss.measure.bench.gpu_peers import faiss_name
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    plan = GpuBench(titles or GpuBench.titles, queries or GpuBench.batches, dim, seconds=seconds)
    with progress_bars() as progress:
        document = bench_gpu(plan, progress)
    peer = faiss_name()
    path = out / f"bench-gpu-{document['device']}{'' if peer == 'faiss' else '-' + peer}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _print_gpu(document, peer)
    say(f"wrote {path}")


def _print_gpu(document: dict[str, Any], peer: str) -> None:
    names = ("fused", f"{peer}_float32", f"{peer}_float16", "torch_float16")
    columns = ["titles", "queries", "reads", "limit", *names, "numpy", "fused / limit", "not proven at once"]
    print_table(
        columns,
        [
            [
                f"{row['titles']:,}",
                f"{row['queries']:,}",
                row["reads"],
                as_ms(row["limit_ms"]),
                *(as_ms(row[name]["median_ms"]) for name in (*names, "numpy")),
                f"×{row['fused_to_limit']:.2f}",
                str(row["unproven"]),
            ]
            for row in document["search"]
        ],
        right=tuple(range(len(columns))),
    )
    click.echo("\nMasked to a share of the titles, to the time without a mask:")
    print_table(
        ["titles", "queries", "share", "masked", ""],
        [
            [
                f"{row['titles']:,}",
                f"{row['queries']:,}",
                f"{row['share']:.0%}",
                as_ms(row["masked_ms"]),
                f"×{row['ratio']:.3f}",
            ]
            for row in document["masked"]
        ],
        right=(0, 1, 2, 3, 4),
    )
    for row in document["memory"]:
        beyond = as_size(row["peak_beyond_vectors_bytes"])
        click.echo(f"{row['titles']:,} titles, {row['queries']:,} queries: {beyond} beside the vectors at the peak")
