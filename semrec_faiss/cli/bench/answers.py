"""bench answers: from a question to titles, first-time titles and users, one by one, in batches and from threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import count_option, index_argument, json_option, results_option, set_option
from semrec_faiss.cli.printing import as_ms, as_size, print_table

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.answers_record import AnswersResults


@click.command(epilog="Example: semrec bench answers indexes/demo --questions 100 --out results")
@index_argument
@click.option(
    "--questions",
    default=200,
    show_default=True,
    type=WholeNumber(min=1),
    help="Titles, and users, asked one by one.",
)
@count_option
@set_option
@results_option
@json_option
def answers(index: Path, questions: int, count: int, settings: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Measure what a caller of INDEX waits for: random titles and users, asked once each, beside the bare search."""
    from semrec_faiss.measure.bench.answers import AnswersBench, bench_answers
    from semrec_faiss.search.recommender import Recommender

    recommender, asked = Recommender.open(index, settings), AnswersBench(questions, count)
    run_bench(lambda progress: bench_answers(recommender, asked, progress), _print, out, as_json=as_json)


def _print(results: AnswersResults) -> None:
    rows = []
    for name, row in results.questions.items():
        parts = (row.whole, row.search, row.results, row.beside, row.bare_search)
        told = [*(as_ms(part.p50_ms) for part in parts), as_ms(row.whole.p99_ms)]
        rows.append(["✓" if row.met else "✗", name.replace("_", " "), *told])
    click.echo("One by one, median ms; beside is all that is not search:")
    heads = ["", "", "whole", "search", "results", "beside", "bare search", "p99"]
    print_table(heads, rows, right=(2, 3, 4, 5, 6, 7))
    if results.memory is not None:
        told = [f"{as_size(one.own_bytes)} {name}" for name, one in results.memory.items()]
        click.echo(f"Memory of the process without pages of mapped files: {', '.join(told)}")
    batches = results.batches
    click.echo(f"\n{batches.users:,} users at once, median ms:")
    costs = batches.us_a_title.model_dump()
    names = (
        "bare_search",
        "rows_and_scores",
        "one_genre",
        "to_arrow",
        "as_table",
        "as_json_bytes",
        "results",
        "titles",
    )
    spreads = [(name, spread) for name in names if (spread := getattr(batches, name)) is not None]
    forms = [
        [name.replace("_", " "), as_ms(spread.p50_ms), as_ms(spread.p99_ms), str(costs.get(name, ""))]
        for name, spread in spreads
    ]
    print_table(["", "", "p99", "µs a title"], forms, right=(1, 2, 3))
    click.echo()
    if (many := results.vectors) is not None:
        click.echo(f"{many.queries:,} vectors at once: median {as_ms(many.p50_ms)} ms, p99 {as_ms(many.p99_ms)} ms")
    several = {"together": results.threads, "together on two cores": results.threads_on_two_cores}
    for what, threads in (several | {"each alone": results.threads_alone}).items():
        if threads is None:
            continue
        click.echo(
            f"{threads.threads} threads, a user each, {what}: {threads.users_per_second:,.0f} a second,"
            f" median {as_ms(threads.p50_ms)} ms, p99 {as_ms(threads.p99_ms)} ms"
        )
    every = results.every_user
    click.echo(f"Every user's list: {min(every.export_s):.2f} s; the bare search of all: {every.bare_search_s:.2f} s")
    if every.command is not None:
        run = min(every.command, key=lambda one: one.whole_s)
        click.echo(
            f"The whole command: {run.whole_s:.2f} s, of which {run.starting_s:.2f} to start,"
            f" {run.opening_s:.2f} to open the index, {run.lists_s:.2f} for the lists, {run.ending_s:.2f} to end"
        )
