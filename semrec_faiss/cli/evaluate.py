"""evaluate: how good the recommendations of an index are, beside two baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.options import FiniteRange, index_argument, json_option, set_option
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say
from semrec_faiss.errors import UsageError

SHOWN_PROFILES = 10

_PROFILE = (
    click.option(
        "--half-life-days",
        type=FiniteRange(min=0, min_open=True),
        help="A rating counts half as much for every so many days before the user's latest. [default: never less]",
    ),
    click.option(
        "--centre",
        default="none",
        show_default=True,
        type=click.Choice(["none", "user", "positive"]),
        help="Weigh by (rating - 1) / 4, by the rating less the user's mean, or by what of that is above 0.",
    ),
    click.option(
        "--interests",
        default=1,
        show_default=True,
        type=click.IntRange(1, 64),
        help="Vectors a user, at most, by k-means.",
    ),
    click.option(
        "--merge",
        default="score",
        show_default=True,
        type=click.Choice(["score", "turns"]),
        help="How the lists of several interests become one: by score, or taking turns.",
    ),
    click.option(
        "--popularity",
        default=0.0,
        show_default=True,
        type=FiniteRange(0, 1000),
        help="Added to the score of the most popular title; less to others.",
    ),
    click.option(
        "--pool",
        default=1000,
        show_default=True,
        type=click.IntRange(min=1),
        help="Titles that --popularity reorders.",
    ),
)


def _profile_options(command: Any) -> Any:
    for option in reversed(_PROFILE):
        command = option(command)
    return command


@click.command(epilog="Example: semrec evaluate indexes/ml --grid popularity=0,0.3,0.6 --grid interests=1,4")
@index_argument
@_profile_options
@click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V1,V2",
    help="Try values of a setting above, in all combinations: --grid interests=1,2,4 --grid half_life_days=none,365.",
)
@click.option("--by", default="ndcg_at_10", show_default=True, help="The metric that chooses among the grid.")
@click.option(
    "--hold-out", "held", default=5, show_default=True, type=click.IntRange(min=1), help="Titles left out a user."
)
@click.option("--liked", default=4.0, show_default=True, type=float, help="The rating from which a title is liked.")
@click.option(
    "--users", default=2000, show_default=True, type=click.IntRange(min=1), help="Users to evaluate, at most."
)
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of drawing and clustering."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the whole document to this JSON file.")
@set_option
@json_option
def evaluate(
    index: Path,
    grid: tuple[str, ...],
    by: str,
    held: int,
    liked: float,
    users: int,
    seed: int,
    out: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    **profile: Any,
) -> None:
    """Measure how good the recommendations of INDEX are, beside the most popular titles and those liked together.

    Each user's latest liked titles are left out, the user's vector is made anew of the rest, and the lists are searched
    for the titles left out. With --grid every combination is tried on titles left out of that rest in turn; the best
    is then measured on the latest ones, which it was not chosen by.
    """
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.measure.evaluate.document import Evaluation, evaluate_index
    from semrec_faiss.measure.evaluate.taste_profile import Profile
    from semrec_faiss.storage import check_new_file

    if out is not None:
        check_new_file(out, "--out")
    tried = dict(map(_values_of, grid))
    if len(tried) < len(grid):
        raise UsageError("a setting stands in --grid twice", fix="give all its values at once: --grid interests=1,2,4")
    plan = Evaluation(index, settings, Profile(**profile), tried, by, held, liked, users, seed)
    with progress_bars() as progress:
        document = evaluate_index(plan, progress)
    if out is not None:
        save_results(document, out)
        say(f"wrote {out}")
    if as_json:
        print_json(document)
    else:
        print_evaluation(document, by)


def _values_of(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split(",")]
    if not equals or not all(listed):
        raise UsageError(f"--grid {text!r} is not of the form KEY=V1,V2", fix="--grid interests=1,2,4")
    return name.strip().replace("-", "_"), listed


def print_evaluation(document: dict[str, Any], by: str) -> None:
    """Print what one index came to: the profiles that were tried, and all methods on the titles left out last."""
    from semrec_faiss.measure.evaluate.taste_profile import Profile

    if document["grid"] is not None:
        _print_grid(document["grid"], by)
    protocol, profile = document["protocol"], Profile(**document["profile"])
    click.echo(
        f"{protocol['users_evaluated']} users, the {protocol['held_out']} titles each liked last left out"
        f" ({protocol['liked']:g} stars or more); profile: {profile.describe()}"
    )
    columns = ["", "at", "hit rate", "recall", "ndcg", "mrr", "coverage", "novelty"]
    rows = [
        [name.replace("_", " "), k.removeprefix("at_"), *_cells(values)]
        for k in ("at_10", "at_100")
        for name, values in ((name, method[k]) for name, method in document["methods"].items())
    ]
    print_table(columns, rows, right=tuple(range(1, len(columns))))
    click.echo("in brackets: 95 % confidence intervals over users; novelty in bits")
    for name, values in document["differences"].items():
        mean, interval = values[by]["mean"], values[by]["interval"]
        click.echo(
            f"{by.replace('_', ' ')} less that of {name.replace('_', ' ')}, paired by user:"
            f" {mean:+.3f} [{interval['low']:+.3f} {interval['high']:+.3f}]"
        )


def _print_grid(grid: list[dict[str, Any]], by: str) -> None:
    from semrec_faiss.measure.evaluate.taste_profile import Profile

    best = sorted(grid, key=lambda one: -float(one[by]))
    click.echo(f"{len(grid)} profiles, on the titles liked before those left out, best by {by.replace('_', ' ')}:")
    rows = [[Profile(**one["profile"]).describe(), f"{one[by]:.4f}"] for one in best[:SHOWN_PROFILES]]
    print_table(["", ""], rows, right=(1,), header=False)
    if len(best) > SHOWN_PROFILES:
        click.echo(f"… and {len(best) - SHOWN_PROFILES} more")
    click.echo("")


def _cells(values: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("hit_rate", "recall", "ndcg", "mrr"):
        interval = values[name]["interval"]
        span = "" if interval is None else f" [{interval['low']:.3f} {interval['high']:.3f}]"
        cells.append(("–" if values[name]["mean"] is None else f"{values[name]['mean']:.3f}") + span)
    novelty = values["novelty"]["mean"]
    return [*cells, f"{values['coverage']:.1%}", "–" if novelty is None else f"{novelty:.1f}"]
