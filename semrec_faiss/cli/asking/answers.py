"""How answers are printed: a table of titles each, or JSON, and when asked for how they were found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.printing import as_liked, as_similarity, print_json, print_table, say

if TYPE_CHECKING:
    from semrec_faiss.search.answers.answer import Answer
    from semrec_faiss.search.recommender import Recommender


def tell_answers(
    recommender: Recommender,
    answers: Sequence[Answer],
    head: Callable[[Answer], str],
    options: dict[str, Any],
    *,
    popularity: bool = False,
) -> None:
    """Print answers as `question_options` ask for: as JSON, or each below its ``head``.

    Args:
        recommender: who answered.
        answers: what to print.
        head: names an answer.
        options: what was given on the command line.
        popularity: whether it was added to the scores, which are no similarities then.
    """
    for note in dict.fromkeys(note for answer in answers for note in answer.notes):
        say(f"note: {note}")
    if options["as_json"]:
        documents = [answer.as_dict() for answer in answers]
        print_json(documents[0] if len(documents) == 1 else {"answers": documents})
        return
    normalized = recommender.index.config.normalize and not popularity
    show = None if options["show"] is None else _by_part(recommender, options["show"])
    for answer in answers:
        print_answer(answer, head(answer), normalized=normalized, account=options["account"], show=show)


def _by_part(recommender: Recommender, show: str) -> str:
    """Return the fields to show with the name of the part for each that the data calls otherwise."""
    parts = recommender.saved.config.dataset.fields.parts
    part_of = {field: part for part, field in parts.items()}
    return ",".join(part_of.get(name.strip(), name) for name in show.split(","))


def print_answer(
    answer: Answer, head: str, *, normalized: bool, account: bool = False, show: str | None = None
) -> None:
    """Print the titles of one answer below its head, best first, and when asked for how they were found.

    Raises:
        UsageError: there is no such field to show; nothing is printed then.
    """
    from semrec_faiss.search.answers.shown import shown_columns

    popular = answer.query.get("popular")
    as_score = as_liked if popular else partial(as_similarity, normalized=normalized)
    columns = shown_columns(answer, None if show is None else show.split(","))
    rows = [
        [f"{result.rank}.", result.title, as_score(result.score), *cells]
        for result, cells in zip(answer.results, columns, strict=True)
    ]
    click.echo(head)
    if rows:
        print_table([""] * len(rows[0]), rows, right=(0, 2), header=False)
    if answer.returned < answer.requested:
        matching = "1 title matches" if answer.matching == 1 else f"{answer.matching} titles match"
        click.echo(f"{answer.returned} of {answer.requested} requested: {matching}")
    if account:
        _print_account(answer)


def _exactness(exact: bool | str) -> str:
    return "proven exact" if exact == "proven" else "exact" if exact else "approximate"


def _print_account(answer: Answer) -> None:
    facts = (
        f"requested {answer.requested} · matching {answer.matching} · returned {answer.returned} · "
        f"strategy {answer.strategy} · {_exactness(answer.exact)} · {answer.elapsed_ms:.2f} ms"
    )
    click.echo(facts)
    rows = [[stage.name, str(stage.queries), str(stage.fetched), f"{stage.elapsed_ms:.2f}"] for stage in answer.stages]
    print_table(["stage", "queries", "titles a query", "ms"], rows, right=(1, 2, 3))
