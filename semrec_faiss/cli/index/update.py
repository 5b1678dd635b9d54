"""update, append-seen, compact: an index that changes with its catalogue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.index.id_lists import ids_in
from semrec_faiss.cli.index.order import check_order
from semrec_faiss.cli.numbers import FiniteRange
from semrec_faiss.cli.options import FilePath, index_argument, json_option, ray_option, time_unit_option
from semrec_faiss.cli.printing import as_size, print_json, progress_bars, say, say_what_was_guessed
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from semrec_faiss.index.update.plan import Change
    from semrec_faiss.index.update.updating import Counts, UpdateSummary

_PATH = FilePath()
_dry_run_option = click.option("--dry-run", is_flag=True, help="Count what would change, and change nothing.")
_strict_option = click.option(
    "--strict", is_flag=True, help="Refuse what names unknown titles or users instead of counting it."
)
_compact_option = click.option(
    "--compact-at",
    type=FiniteRange(0, 1),
    default=0.1,
    show_default=True,
    help="Rebuild once this share lies outside the base or is removed from it; 1 leaves that to `semrec compact`.",
)
_wait_option = click.option(
    "--wait",
    type=FiniteRange(0),
    default=0,
    metavar="SECONDS",
    help="How long to wait for another process that writes the index; 0 refuses at once.",
)


@click.command(epilog="Example: semrec update indexes/demo changes --dry-run")
@index_argument
@click.argument("folder", type=_PATH, required=False)
@click.option(
    "--remove-titles", type=_PATH, metavar="FILE", help="Remove the titles with these media_ids, one per line."
)
@click.option("--remove-users", type=_PATH, metavar="FILE", help="Remove the users with these ids, one per line.")
@click.option("--where", metavar="SQL", help='Remove the titles for which this holds: "year < 1950".')
@_compact_option
@_wait_option
@_strict_option
@_dry_run_option
@ray_option
@json_option
def update(
    index: Path,
    folder: Path | None,
    remove_titles: Path | None,
    remove_users: Path | None,
    where: str | None,
    compact_at: float,
    wait: float,
    strict: bool,
    dry_run: bool,
    ray: str | None,
    as_json: bool,
) -> None:
    """Change INDEX by a FOLDER of new and changed titles and users, and remove others, in the time of the change.

    FOLDER is laid out as a data folder. What it names is added, or replaces what INDEX has under the same id, all of a
    title's metadata included; titles without vectors change that alone. Answers are those of an index built anew from
    the merged data.

    An index in shards is changed with --ray by the machines that hold them; new and changed titles go to the last.
    """
    from semrec_faiss.index.update.plan import Change

    if folder is None and remove_titles is None and remove_users is None and where is None:
        raise UsageError("nothing is to be changed", fix="name a FOLDER, --remove-titles, --remove-users or --where")
    check_order(index, folder)
    titles, users = (() if file is None else ids_in(file) for file in (remove_titles, remove_users))
    change = Change(folder, titles, users, where)
    _change(index, change, compact_at, wait, ray, strict=strict, dry_run=dry_run, as_json=as_json)


@click.command("append-seen", epilog="Example: semrec append-seen indexes/demo orders.csv --map item=sku")
@index_argument
@click.argument("file", type=_PATH)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="PART=COLUMN",
    help="Which column is user, item, rating or time (- for none). [default: guessed by names]",
)
@time_unit_option
@_compact_option
@_wait_option
@_strict_option
@ray_option
@json_option
def append_seen(
    index: Path,
    file: Path,
    maps: tuple[str, ...],
    time_unit: str | None,
    compact_at: float,
    wait: float,
    strict: bool,
    ray: str | None,
    as_json: bool,
) -> None:
    """Add to INDEX what its users have seen since: user, item, and rating and time as it has them.

    FILE is a table as `semrec dataset import` takes it: Parquet, Arrow IPC, CSV or JSON lines, or a folder of parts.
    """
    from semrec_faiss.data.tables.columns import HISTORY_PARTS, parse_map
    from semrec_faiss.data.tables.histories import HistoryWish
    from semrec_faiss.data.tables.since import seen_since
    from semrec_faiss.index.update.plan import Change

    check_order(index, file)
    wish = HistoryWish(parse_map(maps, HISTORY_PARTS), time_unit)
    with ExitStack() as held:
        with progress_bars() as progress:
            since = held.enter_context(seen_since(file, wish, progress))
        say_what_was_guessed(since.notes, since.times)
        if since.incomplete_rows:
            say(f"note: rows without a user or an item, which were left out: {since.incomplete_rows}")
        _change(index, Change(seen=since.path), compact_at, wait, ray, strict=strict, dry_run=False, as_json=as_json)


@click.command(epilog="Example: semrec compact indexes/demo")
@index_argument
@_wait_option
@ray_option
@json_option
def compact(index: Path, wait: float, ray: str | None, as_json: bool) -> None:
    """Rebuild INDEX from what it holds, so that nothing lies outside its base; answers stay as they are.

    Where one shard has grown far beyond the others, as `semrec info` tells, titles are divided evenly again.
    """
    from semrec_faiss.index.generations.directory import IndexDirectory

    before = IndexDirectory(index).current_ref().name
    with progress_bars() as progress:
        if ray is None:
            from semrec_faiss.index.update.updating import compact_index

            generation = compact_index(index, progress, wait=wait)
        else:
            from semrec_faiss.cluster.publish.updating import compact_shards

            generation = compact_shards(index, address=ray, wait=wait, progress=progress)
    manifest = generation.manifest
    is_anew = generation.name != before
    if as_json:
        counts = {"titles": manifest.count, "users": manifest.users}
        print_json({"generation": generation.name, **counts, "compacted": is_anew})
        return
    piece = "in one piece" if is_anew else "in one piece as before"
    click.echo(f"{index} is at {generation.name}, {piece}: {manifest.count} titles, {manifest.users} users")


def _change(
    index: Path,
    change: Change,
    compact_at: float,
    wait: float,
    ray: str | None,
    *,
    strict: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    share = None if compact_at == 1 else compact_at
    with progress_bars() as progress:
        summary = _updater(ray)(
            index, change, dry_run=dry_run, strict=strict, compact_at=share, wait=wait, progress=progress
        )
    if as_json:
        print_json(summary.as_dict() | {"dry_run": dry_run})
    else:
        click.echo("\n".join(_told(index, summary, dry_run=dry_run)))


def _updater(ray: str | None) -> Callable[..., UpdateSummary]:
    """Return what updates an index of one piece, or one in the shards of a cluster."""
    if ray is None:
        from semrec_faiss.index.update.updating import update_index

        return update_index
    from semrec_faiss.cluster.publish.updating import update_shards

    return partial(update_shards, address=ray)


def _told(index: Path, summary: UpdateSummary, *, dry_run: bool) -> list[str]:
    lines = [f"{what}: {_counts(counts)}" for what, counts in (("titles", summary.titles), ("users", summary.users))]
    if summary.brought:
        lines.append(f"fields that no title of the index had: {', '.join(summary.brought)}")
    if summary.emptied:
        emptied = ", ".join(f"{field} of {count}" for field, count in summary.emptied.items())
        lines.append(f"values of changed titles that their lines leave out, and that are gone: {emptied}")
    if summary.seen or summary.seen_known or summary.seen_ignored:
        known = f", {summary.seen_known} there already" if summary.seen_known else ""
        ignored = f", {summary.seen_ignored} of unknown titles or users ignored" if summary.seen_ignored else ""
        lines.append(f"seen: {summary.seen} added{known}{ignored}")
    if dry_run:
        return [*lines, f"{index} would hold {summary.title_count} titles and {summary.user_count} users"]
    size = f", {as_size(summary.bytes_written)} written" if summary.bytes_written else ", unchanged"
    more = ", and was built anew" if summary.compacted else ""
    held = f"{summary.title_count} titles and {summary.user_count} users"
    return [*lines, f"{index} is at {summary.generation}: {held}{size}{more}"]


def _counts(counts: Counts) -> str:
    told = [
        f"{counts.new} new",
        f"{counts.changed} changed",
        f"{counts.unchanged} unchanged",
        f"{counts.removed} removed",
    ]
    return ", ".join(told + ([f"{counts.unknown} unknown"] if counts.unknown else []))
