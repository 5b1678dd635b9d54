"""dataset import, export: other people's files to a data folder, and a data folder to files that others read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, profile_changes, profile_options, time_unit_option
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say, say_what_was_guessed
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from semrec_faiss.data.tables.histories import HistoryWish, ImportedHistories

_BENCHMARKS = (".hdf5", ".h5", ".fbin", ".ibin", ".u8bin", ".i8bin")


@click.command("import", epilog="Example: semrec dataset import products.parquet scratch/shop --map media_id=sku")
@click.argument("source", type=FilePath())
@click.argument("out", type=FilePath())
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="PART=COLUMN",
    help="Which column is media_id, title, year, genres or franchise; of --interactions, user, item, rating or time"
    " (- for none). [default: guessed by names]",
)
@click.option("--vector", metavar="COLUMN", help="The column of vectors. [default: guessed]")
@click.option("--vectors", type=FilePath(), help="A .npy with one vector per row, instead of a column.")
@click.option("--without-vectors", is_flag=True, help="There are none; `semrec dataset embed` or `learn` makes them.")
@click.option("--split", "splits", multiple=True, metavar="COLUMN=SEPARATOR", help="A text column that holds lists.")
@click.option("--users", type=FilePath(), help="A table of user ids and their vectors.")
@click.option("--interactions", type=FilePath(), help="A table of what people did; they become users of OUT.")
@time_unit_option
@profile_options
@click.option("--queries", type=FilePath(), help="The .fbin of queries that goes with a .fbin.")
@click.option("--neighbors", type=FilePath(), help="The .ibin of their nearest neighbours.")
@click.option("--overwrite", is_flag=True, help="Replace OUT when it exists.")
@json_option
def import_file(
    source: Path,
    out: Path,
    queries: Path | None,
    neighbors: Path | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a data folder OUT from SOURCE: a table of titles with their vectors, or a benchmark's file of vectors.

    A table is Parquet, Arrow IPC, CSV or JSON lines, one file, a folder of parts or a glob, or a folder that datasets
    has saved; its vectors are a column of lists or tensors, or a .npy beside it. All other columns are kept with their
    types. A benchmark's file is the HDF5 of ann-benchmarks or a .fbin; its questions become users, and its neighbours,
    where it has them, are held against an exact search.
    """
    if source.suffix.lower() in _BENCHMARKS:
        _refuse(source, {name: value for name, value in options.items() if value})
        _import_benchmark(source, out, queries, neighbors, overwrite, as_json)
        return
    if queries is not None or neighbors is not None:
        raise UsageError(f"--queries and --neighbors go with a .fbin, not with {source}", fix="leave them out")
    _import_table(source, out, overwrite, as_json, **options)


def _refuse(source: Path, given: dict[str, Any]) -> None:
    if given:
        name = {"maps": "map", "splits": "split"}.get(next(iter(given)), next(iter(given))).replace("_", "-")
        raise UsageError(f"{source} holds vectors alone; --{name} says something of a table", fix=f"leave --{name} out")


def _import_table(
    source: Path,
    out: Path,
    overwrite: bool,
    as_json: bool,
    *,
    maps: tuple[str, ...],
    vector: str | None,
    vectors: Path | None,
    without_vectors: bool,
    splits: tuple[str, ...],
    users: Path | None,
    interactions: Path | None,
    time_unit: str | None,
    **options: Any,
) -> None:
    from semrec_faiss.data.folder.recipe import PARTS
    from semrec_faiss.data.tables.columns import HISTORY_PARTS, parse_map
    from semrec_faiss.data.tables.folder import import_folder
    from semrec_faiss.data.tables.importing import TableWish, parse_split

    if sum((vector is not None, vectors is not None, without_vectors)) > 1:
        raise UsageError("--vector, --vectors and --without-vectors exclude one another", fix="give one of them")
    named = parse_map(maps, (*PARTS, *HISTORY_PARTS))
    wish = TableWish(_of(named, PARTS), vector, vectors, without_vectors, parse_split(splits))
    history = _history_wish(_of(named, HISTORY_PARTS), users, interactions, time_unit, profile_changes(options))
    with progress_bars() as progress:
        made = import_folder(
            source,
            out,
            wish,
            users=users,
            interactions=interactions,
            history=history,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        told = asdict(made)
        print_json({"folder": str(out), **told.pop("table"), **told})
        return
    table = made.table
    for note in table.notes:
        say(f"note: {note}")
    click.echo(f"made {out}: {table.titles} titles" + (f" of {table.dim} dimensions, {table.dtype}" * bool(table.dim)))
    print_table(["", ""], [[f"  {name}", kind] for name, kind in table.fields.items()], header=False)
    if made.users is not None:
        click.echo(f"{made.users} users with vectors of their own")
    if made.histories is not None:
        _print_histories(made.histories, with_vectors=made.users is not None)


def _of(named: dict[str, str], parts: tuple[str, ...]) -> dict[str, str]:
    return {part: column for part, column in named.items() if part in parts}


def _history_wish(
    columns: dict[str, str],
    users: Path | None,
    interactions: Path | None,
    time_unit: str | None,
    profile: dict[str, Any],
) -> HistoryWish:
    from semrec_faiss.config.profile import Profile
    from semrec_faiss.data.tables.histories import HistoryWish

    if users is not None and profile:
        raise UsageError(
            f"--{next(iter(profile)).replace('_', '-')} makes users' vectors of what they did; --users brings them",
            fix="give one of the two",
        )
    if interactions is None and (columns.keys() - ({"user"} if users else set()) or time_unit or profile):
        raise UsageError(
            "user, item, rating, time, --time-unit and the settings of a profile say something of interactions",
            fix="give their table with --interactions",
        )
    return HistoryWish(columns, time_unit, Profile(**profile) if profile else None)


def _print_histories(made: ImportedHistories, *, with_vectors: bool) -> None:
    say_what_was_guessed(made.notes, made.times)
    click.echo(f"{made.users} users of {made.interactions} interactions")
    if made.users_without_history:
        say(f"note: users without a title that counts: {made.users_without_history}; they will get popular titles")
    if made.unknown_rows:
        named = f"{made.unknown_items}, in {made.unknown_rows} rows"
        say(f"note: items that are none of these titles: {named}, which count as soon as an index has them")
    if made.incomplete_rows:
        others = ", or of users without a vector" * with_vectors
        say(f"note: rows without a user or an item{others}, which were left out: {made.incomplete_rows}")


def _import_benchmark(
    file: Path, out: Path, queries: Path | None, neighbors: Path | None, overwrite: bool, as_json: bool
) -> None:
    from semrec_faiss.data.exchange.importing import write_data_folder
    from semrec_faiss.data.exchange.opening import open_ann_file
    from semrec_faiss.measure.quality.export_with_truth import agreement_with

    with open_ann_file(file, queries=queries, neighbors=neighbors) as found, progress_bars() as progress:
        imported = write_data_folder(found, out, name=str(file), overwrite=overwrite, progress=progress)
        agreement = None
        if found.neighbors is not None:
            agreement = agreement_with(out, found.neighbors, normalize=imported.normalize, progress=progress)
    if as_json:
        print_json({"folder": str(out), **asdict(imported), "agreement": agreement})
    else:
        click.echo(f"made {out}: {imported.titles} titles and {imported.users} users of {imported.dim} dimensions")
        if agreement is not None:
            click.echo(f"the file's neighbours are {agreement:.2%} of the exact ones")
    if not imported.normalize:
        say("note: the file ranks by inner products: build with --set index.normalize=false")


@click.command("export", epilog="Example: semrec dataset export data/demo scratch/demo.parquet")
@click.argument("folder", type=FilePath())
@click.argument("out", type=FilePath())
@click.option(
    "--queries",
    default=1000,
    show_default=True,
    type=WholeNumber(min=1),
    help="Users to ask as queries; without users, titles, then left out of the base.",
)
@click.option(
    "-k",
    "--count",
    default=100,
    show_default=True,
    type=WholeNumber(min=1),
    help="Nearest neighbours of each query.",
)
@click.option("--seed", default=7, show_default=True, type=WholeNumber(min=0), help="Random seed of the draw.")
@json_option
def export_files(folder: Path, out: Path, queries: int, count: int, seed: int, as_json: bool) -> None:
    """Write the data folder FOLDER as a table, or for other benchmarks, exact neighbours included.

    OUT that ends in .parquet or .arrow is a table of titles and their vectors; what came from a table is that table
    again. OUT that ends in .hdf5 is one file as ann-benchmarks reads it; any other OUT is a folder for base.fbin,
    query.fbin, neighbors.ibin and distances.fbin.
    """
    if out.suffix.lower() in (".parquet", ".arrow"):
        _export_table(folder, out, as_json)
        return
    from semrec_faiss.measure.quality.export_with_truth import export_folder

    with progress_bars() as progress:
        exported = export_folder(folder, out, queries=queries, k=count, seed=seed, progress=progress)
    if as_json:
        print_json(asdict(exported))
        return
    asked = "users" if exported.are_users else "titles"
    click.echo(
        f"wrote {', '.join(exported.files)}: {exported.titles} titles of {exported.dim} dimensions,"
        f" {exported.queries} {asked} to ask, {exported.k} neighbours each"
    )


def _export_table(folder: Path, out: Path, as_json: bool) -> None:
    from semrec_faiss.data.tables.exporting import export_table

    with progress_bars() as progress:
        exported = export_table(folder, out, progress)
    if as_json:
        print_json(asdict(exported))
        return
    click.echo(f"wrote {exported.file}: {exported.titles} titles with {', '.join(exported.columns)}")
