"""bench serve: what a server of an index answers over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from semrec_faiss.cli.options import FiniteRange, index_argument, json_option, set_option
from semrec_faiss.cli.printing import as_ms, print_json, print_table, progress_bars, say


@click.command(epilog="Example: semrec bench serve indexes/demo --out results")
@index_argument
@click.option("--connections", default=64, show_default=True, type=click.IntRange(1, 1024), help="Kept open.")
@click.option("--seconds", default=5.0, show_default=True, type=FiniteRange(0.1, 600), help="Of each measurement.")
@click.option("-k", "--count", default=10, show_default=True, type=click.IntRange(min=1), help="Titles an answer.")
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
@set_option
@json_option
def serve(
    index: Path, connections: int, seconds: float, count: int, out: Path, settings: tuple[str, ...], as_json: bool
) -> None:
    """Start a server of INDEX, warm it, and measure what it answers over HTTP, a fixed body beside it."""
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.serve.bench.run import ServeBench, bench_serve
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    with progress_bars() as progress:
        document = bench_serve(index, settings, ServeBench(connections, seconds, count), progress)
    path = out / f"bench-serve-{document['device']}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        columns = ["", "requests/s", "p50 ms", "p99 ms", "failed"]
        rows = [
            [
                name.replace("_", " "),
                f"{document[name]['requests_per_second']:,.0f}",
                as_ms(document[name]["p50_ms"]),
                as_ms(document[name]["p99_ms"]),
                str(document[name]["failed"]),
            ]
            for name in ("fixed_body", "similar")
        ]
        print_table(columns, rows, right=(1, 2, 3, 4))
    say(f"wrote {path}")
