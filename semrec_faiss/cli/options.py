"""Options that several commands take, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.paths import path_from
from semrec_faiss.search.living.in_a_cluster import IN_A_CLUSTER

if TYPE_CHECKING:
    from semrec_faiss.search.filters.filter import Filter
    from semrec_faiss.search.wish import WishArguments


class FilePath(click.Path):
    """A file or folder, read as `path_from` does: an empty text, as variables that are not set leave, is refused."""

    def __init__(self, *, readable: bool = True) -> None:
        super().__init__(path_type=Path, readable=readable)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the path."""
        if isinstance(value, str) and value.startswith(IN_A_CLUSTER):
            self.fail(f"{value} is at a cluster; a path is expected, and --ray ADDRESS where there is one.", param, ctx)
        try:
            value = path_from(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return super().convert(value, param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
count_option = click.option(
    "-k", "--count", default=10, show_default=True, type=WholeNumber(min=1), help="Titles to return."
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as index.search.nprobe=32."
)
show_option = click.option(
    "--show",
    metavar="A,B",
    help="Fields to show instead of genres, such as artist,price. [default: genres, and what tells equal titles apart]",
)
explain_option = click.option("--explain", "account", is_flag=True, help="Show how the titles were found.")


class IndexPath(FilePath):
    """An index directory, or ``ray://HOST:PORT/INDEX`` as it stands."""

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take an address of a cluster for no path: that would lose a slash."""
        if isinstance(value, str) and value.startswith(IN_A_CLUSTER):
            return value
        return super().convert(value, param, ctx)


index_argument = click.argument("index", type=FilePath(readable=False))
asked_argument = click.argument("index", type=IndexPath())
ray_option = click.option(
    "--ray", metavar="ADDRESS", help="A Ray cluster: auto for this machine's, or its head's HOST:PORT."
)


class HalfLife(FiniteRange):
    """A number above 0, or ``none``, which becomes infinite: never less."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        return math.inf if value == "none" else super().convert(value, param, ctx)


_PROFILE = (
    click.option(
        "--weights",
        type=click.Choice(["rating", "centred", "positive", "liked"]),
        help="Weigh by (rating - 1) / 4, rating minus the user's mean, the positive part of that, or 1 if liked.",
    ),
    click.option("--half-life", type=HalfLife(), help="Later titles after which a title's weight is halved, or none."),
    click.option("--half-life-days", type=HalfLife(), help="The same in days before the latest."),
    click.option("--interests", type=WholeNumber(1, 64), help="Vectors per user, at most, by k-means."),
    click.option("--merge", type=click.Choice(["score", "turns"]), help="How lists of several interests become one."),
    click.option(
        "--popularity", type=FiniteRange(0, 1000), help="Added to the score of the most popular title; less to others."
    ),
    click.option("--pool", type=WholeNumber(min=1), help="Titles that --popularity reorders."),
)


def profile_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that change how users become queries; what is not given is as the index serves it."""
    for option in reversed(_PROFILE):
        command = option(command)
    return command


def profile_changes(options: dict[str, Any]) -> dict[str, Any]:
    """Take what `profile_options` collected out of ``options``: the settings that were given."""
    names = ("weights", "half_life", "half_life_days", "interests", "merge", "popularity", "pool")
    given = {name: options.pop(name) for name in names}
    return {name: None if value == math.inf else value for name, value in given.items() if value is not None}


_STRATEGIES = click.Choice(["auto", "overfetch", "subset", "selector", "masked"])
_WISHES = (
    click.option(
        "--where", metavar="SQL", help="Only titles for which this holds: \"year < 1980 AND 'War' IN genres\"."
    ),
    click.option("--genre", "genres", multiple=True, metavar="NAME", help="Only titles of this genre; all must hold."),
    click.option("--any-genre", "any_genres", multiple=True, metavar="NAME", help="Only titles of one of these."),
    click.option("--not-genre", "not_genres", multiple=True, metavar="NAME", help="No titles of this genre."),
    click.option("--year", "years", metavar="SPAN", help="Only titles of 1990..1999, 1990.., ..1999 or 1994."),
    click.option("--exclude", multiple=True, metavar="TITLE", help="Never this title or media_id."),
    click.option(
        "--diversity", default=0.0, type=FiniteRange(0, 1), help="From 0, by score alone, to 1, most different."
    ),
    click.option("--max-per-franchise", type=WholeNumber(min=1), metavar="N", help="At most N titles of a franchise."),
    click.option("--max-per", multiple=True, metavar="FIELD=N", help="At most N titles that share a value of FIELD."),
    click.option(
        "--any-of",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Only titles with this value; repeatable, for any of several.",
    ),
    click.option(
        "--range",
        "ranges",
        multiple=True,
        metavar="FIELD=A..B",
        help="Only titles whose FIELD lies in A..B, A.. or ..B.",
    ),
    click.option("--strategy", default="auto", type=_STRATEGIES, help="How a restricted search runs; auto chooses."),
)


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which titles may be returned and how varied the list is."""
    for option in reversed(_WISHES):
        command = option(command)
    return command


def question_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every question for titles takes: how many, which, how they are shown, and settings."""
    for option in (json_option, set_option, show_option, explain_option, wish_options, count_option):
        command = option(command)
    return command


def wish_arguments(options: dict[str, Any]) -> WishArguments:
    """Turn what `wish_options` collected into the keyword arguments of a Recommender's questions."""
    from semrec_faiss.search.filters.field_filters import parse_max_per

    franchise = options["max_per_franchise"]
    max_per = parse_max_per((*options["max_per"], *([] if franchise is None else [f"franchise={franchise}"])))
    return {
        "where": _filter(options),
        "exclude": options["exclude"],
        "diversity": options["diversity"],
        "max_per": max_per,
        "strategy": options["strategy"],
    }


def _filter(options: dict[str, Any]) -> Filter | None:
    asked = ("where", "genres", "any_genres", "not_genres", "years", "any_of", "ranges")
    if all(options[name] in (None, ()) for name in asked):
        return None
    from semrec_faiss.search.filters.field_filters import any_of_from, parse_any_of, parse_ranges, ranges_from
    from semrec_faiss.search.filters.filter import Filter, parse_years

    years = None if options["years"] is None else parse_years(options["years"])
    return Filter(
        options["where"],
        options["genres"],
        options["any_genres"],
        options["not_genres"],
        years,
        any_of_from(parse_any_of(options["any_of"])),
        ranges_from(parse_ranges(options["ranges"])),
    )


def parse_ratings(texts: Sequence[str]) -> dict[str, float]:
    """Read each ``TITLE=STARS``; a title may hold equals signs.

    Raises:
        UsageError: one is not of that form, or a title is rated twice.
    """
    ratings: dict[str, float] = {}
    for title, stars in map(_rating, texts):
        if title in ratings:
            raise UsageError(
                f"{quoted(title)} is rated {ratings[title]} and {stars}", fix="give one --rate for each title"
            )
        ratings[title] = stars
    return ratings


def _rating(text: str) -> tuple[str, float]:
    title, equals, stars = text.rpartition("=")
    try:
        return title.strip(), float(stars) if equals and title.strip() else float("")
    except ValueError as error:
        raise UsageError(
            f"--rate {quoted(text)} is not of the form TITLE=STARS", fix='--rate "Alien (1979)=4.5"'
        ) from error


results_option = click.option(
    "--out", default="results", show_default=True, type=FilePath(), help="Where the JSON goes."
)

time_unit_option = click.option(
    "--time-unit",
    type=click.Choice(["s", "ms", "us", "ns"]),
    help="Unit of its times. [default: guessed from the values]",
)
