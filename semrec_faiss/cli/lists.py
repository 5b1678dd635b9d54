"""Everybody's lists: what `recommend --all-users` writes, and what it says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say

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

    with progress_bars() as progress:
        summary = export_all_users(
            recommender, out, count, include_seen=include_seen, profile=profile, progress=progress, **wish
        )
    tell_summary(summary, as_json)


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
