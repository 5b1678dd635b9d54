"""evaluate: how good the recommendations of an index are, beside three baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.ending import tell
from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, index_argument, json_option, profile_changes, profile_options, set_option
from semrec_faiss.cli.printing import print_table, progress_bars

if TYPE_CHECKING:
    from semrec_faiss.measure.evaluate.record import Differences, GridRow, Judgement, Lists, Summary

SHOWN_PROFILES = 10

BESIDE = {
    "global_time": "by the clock: nobody's future is known",
    "new_users": "users that nothing was learned from",
    "cold_titles": "titles that nobody has rated",
}
OFTEN = {"cold_titles": ", counted once for each draw of such titles"}


@click.command(epilog="Example: semrec evaluate indexes/ml --interests 16 --popularity 0.45")
@index_argument
@profile_options
@click.option("--by", default="ndcg_at_10", show_default=True, help="The metric whose differences are printed.")
@click.option(
    "--hold-out", "held_out", default=5, show_default=True, type=WholeNumber(min=1), help="Titles held out per user."
)
@click.option(
    "--liked", default=4.0, show_default=True, type=FiniteRange(), help="The rating from which a title is liked."
)
@click.option("--users", default=2000, show_default=True, type=WholeNumber(min=1), help="Users to evaluate, at most.")
@click.option(
    "--seed",
    default=7,
    show_default=True,
    type=WholeNumber(0, 2**31 - 1),
    help="Random seed of drawing and clustering.",
)
@click.option(
    "--strict/--lenient",
    default=True,
    show_default=True,
    help="Also leave out what a user liked less since the first title held out, or keep it.",
)
@click.option("--out", type=FilePath(), help="Write the whole document to this JSON file.")
@set_option
@json_option
def evaluate(
    index: Path,
    by: str,
    held_out: int,
    liked: float,
    users: int,
    seed: int,
    strict: bool,
    out: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    **profile: Any,
) -> None:
    """Measure how good the recommendations of INDEX are, beside most popular titles, those liked together and chance.

    Each user's latest liked titles are left out, with everything that the user has rated since; vectors are made anew
    of the rest, those of titles included where they were learned; and the lists are searched for the titles left out.
    Vectors of users that INDEX was given are not judged. Beside that: by the clock, with users that nothing was learned
    from, and with titles that nobody has rated. Profile settings that are not given are those of INDEX. `semrec sweep`
    chooses among profiles.
    """
    from semrec_faiss.measure.evaluate.document import Evaluation, evaluate_index
    from semrec_faiss.measure.evaluate.evaluator import check_metric
    from semrec_faiss.places import JSON, check_new_file
    from semrec_faiss.storage import one_run_into

    check_metric(by)
    if out is not None:
        check_new_file(out, "--out", JSON)
    plan = Evaluation(index, settings, profile_changes(profile), held_out, liked, users, seed, strict)
    with nullcontext() if out is None else one_run_into(out):
        with progress_bars() as progress:
            document = evaluate_index(plan, progress)
        tell(document, lambda found: print_evaluation(found, by), as_json=as_json, path=out)


def print_evaluation(document: Judgement, by: str) -> None:
    """Print what one index came to: the profiles that were tried, and all methods on the titles left out last."""
    if document.grid is not None:
        _print_grid(document.grid, by)
    protocol = document.protocol
    rated, liked = "rated", f"{protocol.liked:g} stars or more"
    if not document.index.get("has_ratings", True):  # documents of before do not tell
        rated, liked = "seen", "nothing is rated: all that was seen counts as liked"
    click.echo(
        f"{protocol.users_evaluated} users, the {protocol.held_out} titles each liked last left out"
        f" ({liked}); profile: {document.profile.describe()}"
    )
    click.echo(
        f"users' vectors were made by it of the rest of what each has {rated}; those in the index were not judged"
    )
    _print_methods(document.methods, (10, 100))
    click.echo("in brackets: 95 % confidence intervals over users; novelty in bits")
    _print_differences(document.differences, by)
    for name, one in document.beside.items():
        click.echo("")
        if one is None:
            click.echo(f"{BESIDE[name]}: not measured: {document.not_measured.get(f'beside.{name}', '')}")
            continue
        click.echo(f"{BESIDE[name]} ({one.users_evaluated} users{OFTEN.get(name, '')}):")
        _print_methods(one.methods, (10,))
        _print_differences(one.differences, by)
    if _learning_may_help(document, by):
        click.echo(
            "\ntitles liked together do better; to learn vectors of what people did: semrec dataset learn --help"
        )
    if document.build is not None:
        click.echo(f"\nthe index serves another profile; to serve this one: {document.build}")


def _learning_may_help(document: Judgement, by: str) -> bool:
    """Tell whether an index of vectors that were not learned, as those are never normalised, is behind for certain."""
    settings = document.index["settings"]
    normalized = isinstance(settings, dict) and settings["normalize"] is True
    return normalized and document.differences["liked_together"][by].interval.high < 0


def _print_methods(methods: Mapping[str, Summary], lengths: tuple[int, ...]) -> None:
    columns = ["", "at", "hit rate", "recall", "ndcg", "mrr", "coverage", "novelty"]
    rows = [
        [name.replace("_", " "), str(k), *_cells(method.at(k))] for k in lengths for name, method in methods.items()
    ]
    print_table(columns, rows, right=tuple(range(1, len(columns))))


def _print_differences(differences: Differences, by: str) -> None:
    for name, values in differences.items():
        mean, interval = values[by].mean, values[by].interval
        click.echo(
            f"{by.replace('_', ' ')} less that of {name.replace('_', ' ')}, paired by user:"
            f" {mean:+.3f} [{interval.low:+.3f} {interval.high:+.3f}]"
        )


def _print_grid(grid: Sequence[GridRow], by: str) -> None:
    best = sorted(grid, key=lambda one: -one.metric(by))
    click.echo(f"{len(grid)} profiles, on the titles liked before those left out, best by {by.replace('_', ' ')}:")
    rows = [[one.profile.describe(), f"{one.metric(by):.4f}"] for one in best[:SHOWN_PROFILES]]
    print_table(["", ""], rows, right=(1,), header=False)
    if len(best) > SHOWN_PROFILES:
        click.echo(f"… and {len(best) - SHOWN_PROFILES} more")
    click.echo("")


def _cells(lists: Lists) -> list[str]:
    means = [lists.hit_rate, lists.recall, lists.ndcg, lists.mrr]
    cells = [f"{one.mean:.3f} [{one.interval.low:.3f} {one.interval.high:.3f}]" for one in means]
    novelty = lists.novelty.mean
    return [*cells, f"{lists.coverage:.1%}", "–" if novelty is None else f"{novelty:.1f}"]
