"""similar and recommend: asking an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.console import as_similarity, print_json, print_table
from semrec_faiss.cli.options import count_option, index_argument, json_option, set_option

if TYPE_CHECKING:
    from semrec_faiss.search.answer import Answer


@click.command(epilog='Example: semrec similar indexes/demo "Toy Story (1995)" -k 5')
@index_argument
@click.argument("title")
@count_option
@set_option
@json_option
def similar(index: Path, title: str, count: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Find the titles of INDEX most similar to TITLE, a title or a media_id.

    Case, accents, punctuation and the place of the article do not matter, nor does the year while only one title has
    that name.
    """
    from semrec_faiss.search.recommender import Recommender

    recommender = Recommender.open(index, settings)
    answer = recommender.similar(title, count)
    if as_json:
        print_json(answer.as_dict())
        return
    click.echo(f"Similar to {answer.query['title']}:")
    print_answer(answer, normalized=recommender.index.config.normalize)


@click.command(epilog="Example: semrec recommend indexes/demo --user user_001 --user user_002 -k 5")
@index_argument
@click.option("--user", "users", multiple=True, required=True, metavar="ID", help="A user id; repeat it for several.")
@count_option
@set_option
@json_option
def recommend(index: Path, users: tuple[str, ...], count: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Recommend titles of INDEX to one or more users, all in one batch."""
    from semrec_faiss.search.recommender import Recommender

    recommender = Recommender.open(index, settings)
    answers = recommender.recommend(users, count)
    if as_json:
        print_json(answers[0].as_dict() if len(users) == 1 else answers.as_dict())
        return
    for answer in answers:
        click.echo(f"For {answer.query['user_id']}:")
        print_answer(answer, normalized=recommender.index.config.normalize)


def print_answer(answer: Answer, *, normalized: bool) -> None:
    """Print the titles of one answer, best first."""
    rows = [
        [f"{result.rank}.", result.title, as_similarity(result.score, normalized=normalized), ", ".join(result.genres)]
        for result in answer.results
    ]
    print_table(["", "", "", ""], rows, right=(0, 2), header=False)
    if answer.returned < answer.requested:
        click.echo(f"{answer.returned} of {answer.requested} requested: the index has {answer.matching} that match")
