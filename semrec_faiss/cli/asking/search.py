"""similar, search, recommend, similar-users, explain: asking an index."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.asking.answers import tell_answers
from semrec_faiss.cli.asking.lists import export, replaced_lists_told, tell_summary
from semrec_faiss.cli.index.order import check_order
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import (
    FilePath,
    asked_argument,
    json_option,
    parse_ratings,
    profile_changes,
    profile_options,
    question_options,
    ray_option,
    wish_arguments,
)
from semrec_faiss.cli.printing import (
    as_similarity,
    on_one_line,
    print_json,
    print_table,
    progress_bars,
    say,
    waiting_for,
)
from semrec_faiss.errors import UsageError
from semrec_faiss.paths import as_typed
from semrec_faiss.search.living.in_a_cluster import IN_A_CLUSTER

if TYPE_CHECKING:
    from semrec_faiss.search.answers.answer import Answer
    from semrec_faiss.search.explanation import Explanation
    from semrec_faiss.search.likeness import VectorPart


@click.command(epilog='Example: semrec similar indexes/demo "Toy Story (1995)" -k 5 --year 2000..')
@asked_argument
@click.argument("title", required=False)
@click.option("--id", "media_id", metavar="ID", help="Instead of TITLE: a media_id, and nothing else.")
@click.option(
    "--title", "named", metavar="TITLE", help="Instead of TITLE: a title, even where it is another's media_id."
)
@click.option(
    "--by",
    default="whole",
    show_default=True,
    type=click.Choice(["whole", "people", "text"]),
    help="Compare whole vectors or, where they were learned, what people did or what texts say.",
)
@question_options
def similar(
    index: Path,
    title: str | None,
    media_id: str | None,
    named: str | None,
    by: VectorPart,
    count: int,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Find the titles of INDEX most similar to TITLE, a title or a media_id.

    Case, accents, punctuation and the place of the article do not matter, nor does the year while only one title has
    that name.
    """
    from semrec_faiss.search.recommender import Recommender

    given = [
        (text, kind) for text, kind in ((title, None), (media_id, "media_id"), (named, "title")) if text is not None
    ]
    if len(given) != 1:
        raise UsageError(
            "say to what: TITLE, or --id ID, or --title TITLE", fix=f'semrec similar {as_typed(index)} "a title"'
        )
    check_order(index, title)
    recommender = Recommender.open(index, settings)
    text, kind = given[0]
    wanted = text if kind is None else recommender.titles.media_id_of(text, kind)
    answer = recommender.similar(wanted, count, by=by, **wish_arguments(options))
    if kind is None and answer.query["media_id"] == text and recommender.titles.is_title_of_another(text):
        say(f"note: {text!r} is this title's media_id, and another's title: --title {text!r} means that one")
    tell_answers(recommender, [answer], lambda answer: f"Similar to {on_one_line(answer.query['title'])}:", options)


@click.command(epilog='Example: semrec search indexes/demo "a heist that goes wrong" -k 5 --year 1970..')
@asked_argument
@click.argument("text")
@click.option(
    "--model", metavar="NAME_OR_PATH", help="Where to find the index's text model. [default: as INDEX records it]"
)
@question_options
def search(
    index: Path,
    text: str,
    model: str | None,
    count: int,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Find the titles of INDEX nearest to TEXT, by the text model that made the index's vectors.

    Refused where the index's vectors were made by another model, or by one that is not known.
    """
    from semrec_faiss.search.recommender import Recommender

    check_order(index, text)
    recommender = Recommender.open(index, settings)
    with waiting_for("loading the text model …"):
        answer = recommender.search_text(text, count, model=model, **wish_arguments(options))
    if answer.text is not None and not options["as_json"]:
        say(
            f"{answer.text.model} on {answer.text.device}: loaded in {answer.text.load_ms:.1f} ms,"
            f" text encoded in {answer.text.encode_ms:.1f} ms"
        )
    tell_answers(recommender, [answer], lambda _: f"For {text!r}:", options)


@click.command(epilog="Example: semrec recommend indexes/demo --user user_001 --user user_002 -k 5")
@asked_argument
@click.option("--user", "users", multiple=True, metavar="ID", help="A user id; repeatable.")
@click.option("--like", "likes", multiple=True, metavar="TITLE", help="Instead of a user: a title that is liked.")
@click.option("--dislike", "dislikes", multiple=True, metavar="TITLE", help="Instead of a user: one that is disliked.")
@click.option("--rate", "ratings", multiple=True, metavar="TITLE=STARS", help="Instead of a user: a rating, 0.5 to 5.")
@click.option("--all-users", is_flag=True, help="Every user's list, to the Parquet file given with --out.")
@click.option("--out", type=FilePath(), help="With --all-users: the file to write; resumable.")
@ray_option
@click.option("--workers", type=WholeNumber(min=1), help="With --ray: how many. [default: one per machine]")
@click.option("--include-seen", is_flag=True, help="Keep titles that the user has seen.")
@profile_options
@question_options
def recommend(
    index: Path,
    users: tuple[str, ...],
    likes: tuple[str, ...],
    dislikes: tuple[str, ...],
    ratings: tuple[str, ...],
    all_users: bool,
    out: Path | None,
    ray: str | None,
    workers: int | None,
    include_seen: bool,
    count: int,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Recommend titles of INDEX to users, all in one batch, or to somebody who says what they like.

    What a user has seen is left out where the index knows it. With --ray, workers of a cluster make all users' lists,
    and --out is a folder of Parquet parts.
    """
    from semrec_faiss.search.profile.taste import Taste
    from semrec_faiss.search.recommender import Recommender

    said = bool(likes or dislikes or ratings)
    if bool(users) + said + all_users > 1:
        ways = {"--user": users, "--like (--dislike, --rate)": said, "--all-users": all_users}
        given = " and ".join(way for way, is_given in ways.items() if is_given)
        raise UsageError(f"{given} say for whom in different ways", fix="give one of these")
    if not (users or said or all_users):
        raise UsageError(
            "say for whom: --user ID, or --like TITLE (--dislike, --rate), or --all-users --out FILE",
            fix=f"semrec recommend {as_typed(index)} --user ID",
        )
    if all_users != (out is not None):
        raise UsageError(
            "--all-users and --out FILE go together",
            fix=f"semrec recommend {as_typed(index)} --all-users --out recs.parquet",
        )
    if all_users and (options["account"] or options["show"] is not None):
        raise UsageError("--explain and --show are of answers that are shown, not of --all-users", fix="leave them out")
    if workers is not None and ray is None:
        raise UsageError("--workers goes with --ray", fix="--ray auto")
    wish, profile = wish_arguments(options), profile_changes(options)
    if ray is not None and str(index).startswith(IN_A_CLUSTER):
        raise UsageError(
            f"{index} names a cluster already", fix="leave --ray out for one file, or give INDEX as a path"
        )
    if ray is not None:
        if out is None:
            raise UsageError(
                "--ray goes with --all-users --out DIR", fix=f"or ask a cluster by its name: ray://{ray}/… as INDEX"
            )
        from semrec_faiss.cluster.workers.lists import recommend_all

        with replaced_lists_told(out), progress_bars() as progress:
            summary = recommend_all(
                index,
                out,
                count,
                address=ray,
                workers=workers,
                settings=settings,
                include_seen=include_seen,
                profile=profile,
                progress=progress,
                **wish,
            )
        tell_summary(summary, options["as_json"])
        return
    recommender = Recommender.open(index, settings, with_users=all_users)
    if out is not None:
        export(recommender, out, count, include_seen, wish, profile, options["as_json"])
        return
    if said and profile:
        raise UsageError(
            "the profile of a taste is that of the index", fix=f"leave --{next(iter(profile)).replace('_', '-')} out"
        )
    if said:
        taste = Taste(likes, dislikes, parse_ratings(ratings))
        answers = [recommender.recommend_for(taste, count, **wish)]
    else:
        answers = list(recommender.recommend(users, count, include_seen=include_seen, profile=profile, **wish))
    served = recommender.saved.config.profile
    popularity = bool(profile.get("popularity", 0 if served is None else served.popularity))
    tell_answers(recommender, answers, _for_whom, options, popularity=popularity)


def _for_whom(answer: Answer) -> str:
    popular = "\nnothing that this user likes is known; these are the titles that most users like:"
    return f"For {on_one_line(answer.query.get('user_id', 'you'))}:" + (popular if answer.query.get("popular") else "")


@click.command("similar-users", epilog="Example: semrec similar-users indexes/demo user_001 -k 5")
@asked_argument
@click.argument("user")
@click.option("-k", "--count", default=10, show_default=True, type=WholeNumber(min=1), help="Users to return.")
@json_option
def similar_users(index: Path, user: str, count: int, as_json: bool) -> None:
    """Find the users of INDEX whose taste is nearest to that of USER, by cosine whatever the index does."""
    from semrec_faiss.search.recommender import Recommender

    check_order(index, user)
    recommender = Recommender.open(index)
    found = recommender.similar_users(user, count)
    if as_json:
        print_json({"query": {"user_id": user}, "results": [one.as_dict() for one in found]})
        return
    rows = [[f"{one.rank}.", one.user_id, as_similarity(one.score, normalized=True)] for one in found]
    click.echo(f"Similar to {on_one_line(user)}:")
    print_table(["", "", ""], rows, right=(0, 2), header=False)


@click.command(epilog='Example: semrec explain indexes/demo user_001 "Heat (1995)"')
@asked_argument
@click.argument("user")
@click.argument("title")
@click.option("-k", "--count", default=5, show_default=True, type=WholeNumber(min=1), help="Seen titles to name.")
@json_option
def explain(index: Path, user: str, title: str, count: int, as_json: bool) -> None:
    """Say why INDEX recommends TITLE to USER: its rank, and the seen titles that contribute most to its score."""
    from semrec_faiss.search.recommender import Recommender

    check_order(index, user, title)
    recommender = Recommender.open(index)
    found = recommender.explain(user, title, count)
    if as_json:
        print_json(found.as_dict())
        return
    normalized = recommender.index.config.normalize
    place = "has seen it; it would be" if found.seen else "it is"
    among = "titles" if found.seen_titles is None else "titles not seen"
    click.echo(
        f"{on_one_line(f'{found.title} for {found.user_id}')}: {as_similarity(found.score, normalized=normalized)},"
        f" {place} number {found.rank} of {found.of} {among}"
    )
    if found.served_rank is not None:
        place = "it would be" if found.seen else "it is"
        click.echo(f"{place} number {found.served_rank} of this user's list, with a score of {found.served_score:.4g}")
    if found.note is not None:
        say(f"note: {found.note}")
    if not found.contributions:
        nothing = "this user has seen nothing" + (" else" if found.seen else "")
        click.echo("the index does not know what its users have seen" if found.seen_titles is None else nothing)
        return
    if found.other_points is not None:
        _print_points(found)
        return
    similar = any(one.share for one in found.contributions)
    shares = ", with their share of all similarity" if similar else ", none of which is similar"
    click.echo(f"nearest of the {found.seen_titles} titles seen{shares}:")
    rows = [
        [one.title, as_similarity(one.similarity, normalized=normalized), f"{one.share:.1%}" if similar else ""]
        for one in found.contributions
    ]
    print_table(["", "", ""], rows, right=(1, 2), header=False)


def _print_points(found: Explanation) -> None:
    """Print what each title brings to a score, so that the numbers add up to it, and of it their texts if learned."""
    parts, texts = found.score > 0, bool(found.text_points)  # nothing is a part of a score that is not above 0
    told = ", and of it their texts" * texts + " (it is not above 0, so that no shares of it are told)" * (not parts)
    click.echo(f"what the {found.seen_titles} titles seen bring to that score{told}:")
    rows = [
        [one.title, f"{one.points:+.4g}", f"{one.share or 0:.1%}", _signed(one.text_points)]
        for one in found.contributions
    ]
    rows.append(["all others", f"{found.other_points:+.4g}", "", ""])
    rows.append(["together", f"{found.score:+.4g}", "", _signed(found.text_points)])
    columns = list(compress(["", "points", "share", "texts"], shown := (True, True, parts, texts)))
    print_table(columns, [list(compress(row, shown)) for row in rows], right=tuple(range(1, len(columns))))


def _signed(points: float | None) -> str:
    return "" if points is None else f"{points:+.4g}"
