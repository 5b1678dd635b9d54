"""bench answers: from a question to titles, first-time titles and users, one by one, in batches and from threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.options import count_option, index_argument, json_option, set_option
from semrec_faiss.cli.printing import as_ms, print_json, print_table, progress_bars, say


@click.command(epilog="Example: semrec bench answers indexes/demo --questions 100 --out results")
@index_argument
@click.option(
    "--questions", default=200, show_default=True, type=click.IntRange(min=1), help="Titles, and users, asked singly."
)
@count_option
@set_option
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
@json_option
def answers(index: Path, questions: int, count: int, settings: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Measure what a caller of INDEX waits for: random titles and users, asked once each, beside the bare search."""
    from semrec_faiss.measure.bench.answers import AnswersBench, bench_answers
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.search.recommender import Recommender
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    recommender = Recommender.open(index, settings)
    with progress_bars() as progress:
        document = bench_answers(recommender, AnswersBench(questions, count), progress)
    path = out / f"bench-answers-{document['device']}-{document['index']['type']}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _print(document)
    say(f"wrote {path}")


def _print(document: dict[str, Any]) -> None:
    parts = ("whole", "search", "results", "beside", "bare_search")
    rows = [
        [
            "✓" if row["met"] else "✗",
            name.replace("_", " "),
            *(as_ms(row[part]["p50_ms"]) for part in parts),
            as_ms(row["whole"]["p99_ms"]),
        ]
        for name, row in document["questions"].items()
    ]
    click.echo("One by one, median ms; beside is all that is not search:")
    print_table(["", "", *(part.replace("_", " ") for part in parts), "p99"], rows, right=(2, 3, 4, 5, 6, 7))
    batches = document["batches"]
    click.echo(f"\n{batches['users']:,} users at once, median ms:")
    forms = [name for name in batches if name not in ("users", "us_a_title")]
    print_table(
        ["", "", "µs a title"],
        [
            [name.replace("_", " "), as_ms(batches[name]["p50_ms"]), str(batches["us_a_title"].get(name, ""))]
            for name in forms
        ],
        right=(1, 2),
    )
    threads = document["threads"]
    click.echo(
        f"\n{threads['threads']} threads, a user each: {threads['users_per_second']:,.0f} a second,"
        f" median {as_ms(threads['p50_ms'])} ms, p99 {as_ms(threads['p99_ms'])} ms"
    )
