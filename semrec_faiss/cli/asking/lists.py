"""Everybody's lists: what `recommend --all-users` writes, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say
from semrec_faiss.errors import quoted

if TYPE_CHECKING:
    from semrec_faiss.search.export import ExportSummary
    from semrec_faiss.search.recommender import Recommender
    from semrec_faiss.search.wish import WishArguments


def export(
    recommender: Recommender,
    out: Path,
    count: int,
    include_seen: bool,
    wish: WishArguments,
    profile: dict[str, Any],
    as_json: bool,
) -> None:
    """Write everybody's lists to the file ``out``, and tell what is in it."""
    from semrec_faiss.search.export import export_all_users

    with replaced_lists_told(out), progress_bars() as progress:
        summary = export_all_users(
            recommender, out, count, include_seen=include_seen, profile=profile, progress=progress, **wish
        )
    if not summary.titles_recommended:  # one user's answer says why, where the filter tells that
        for note in recommender.recommend(recommender.users.ids[0], 1, include_seen=include_seen, **wish).notes:
            say(f"note: {note}")
    tell_summary(summary, as_json)


@contextmanager
def replaced_lists_told(out: Path) -> Iterator[None]:
    """Once the block has written lists to ``out``, say how those that it held were made, where that was otherwise."""
    from semrec_faiss.search.lists_file import how_made

    before = how_made(out)
    yield
    if before is None:
        return
    then, now = dict(_leaves(before)), dict(_leaves(how_made(out) or {}))
    changed = [_told_setting(name, then.get(name)) for name in {**then, **now} if then.get(name) != now.get(name)]
    made = f"made with {', '.join(changed)}" if then else "of which nothing more is known"
    if changed:
        say(f"note: {out} held other lists, {made}; they are replaced")


def _told_setting(name: str, value: Any) -> str:
    return f"no {name}" if value is None or value == [] else f"{name} {quoted(value)}"


def _leaves(made: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their names, those of a section behind the section's: filter.where."""
    for name, value in made.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, "" if name in ("wish", "search") else f"{within}{name}.")
        else:
            yield within + name, value


def tell_summary(summary: ExportSummary, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        print_json(summary.as_dict())
        return
    if summary.resumed_users:
        say(f"went on after {summary.resumed_users} users of an interrupted run")
    print_table(
        ["", ""],
        [[name.replace("_", " "), _told_count(value)] for name, value in summary.as_dict().items()],
        header=False,
    )


def _told_count(count: int | None) -> str:
    """Print a count, or that nobody counted: what users have seen is not known, or was asked for."""
    return "not counted" if count is None else str(count)
