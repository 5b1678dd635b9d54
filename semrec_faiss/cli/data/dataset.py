"""dataset check, synth: looking at a data folder, and making one of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.data.exchange import export_files, import_file
from semrec_faiss.cli.data.learning import learn
from semrec_faiss.cli.data.texts import embed, movielens
from semrec_faiss.cli.groups import Group
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import as_size, print_json, print_table, progress_bars, say

if TYPE_CHECKING:
    from semrec_faiss.data.check import FolderReport, VectorsReport


@click.group(cls=Group)
def dataset() -> None:
    """Check, make, embed, learn, import or export a data folder."""


for _command in (import_file, export_files, embed, movielens, learn):
    dataset.add_command(_command)


@dataset.command(epilog="Example: semrec dataset check data/demo")
@click.argument("folder", type=FilePath(readable=False))
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Read all of FOLDER, refuse what is inconsistent, and print what was found, norms included.

    Ends with exit code 3 when the data is inconsistent.
    """
    from semrec_faiss.data.check import check_data_folder

    with progress_bars() as progress:
        report = check_data_folder(folder, progress)
    if as_json:
        print_json(report.as_dict())
        return
    print_table(["", ""], _rows(report), header=False)
    for warning in report.warnings:
        say(f"note: {warning}")


def _rows(report: FolderReport) -> list[list[str]]:
    years = "none given" if report.year_min is None else f"{report.year_min} to {report.year_max}"
    genres = ", ".join(f"{name} {count}" for name, count in report.top_genres)
    rows = [["title vectors", _vectors(report.vectors)], ["  norms", _norms(report.vectors)]]
    rows += [
        [f"  {field.name}", field.type + (f", {field.nulls} without" if field.nulls else "")] for field in report.fields
    ]
    rows += [["years", years], ["genres", f"{report.genre_count}: {genres}" if genres else "none given"]]
    if report.users is None:
        return [*rows, ["user vectors", "none"]]
    seen = report.users
    if seen.vectors is None:
        rows.append(["users", f"{seen.count}; a build makes their vectors of what they have seen"])
    else:
        rows += [["user vectors", _vectors(seen.vectors)], ["  norms", _norms(seen.vectors)]]
    if seen.seen_total is not None:
        text = f"{seen.seen_total} in all; {seen.seen_min} to {seen.seen_max} a user, {seen.seen_mean:.1f} on average"
        rows.append(["  titles seen", text])
    if seen.first_date is not None:
        rows.append(["  dates", f"{seen.first_date} to {seen.last_date}"])
    return rows


def _vectors(vectors: VectorsReport) -> str:
    return f"{vectors.count} × {vectors.dim} {vectors.dtype}, {as_size(vectors.bytes)}, {vectors.path}"


def _norms(vectors: VectorsReport) -> str:
    norms = vectors.norms
    unit = "unit length" if vectors.normalized else f"{norms.unit_share:.1%} of unit length"
    return f"{norms.min:.4g} to {norms.max:.4g}, {norms.mean:.4g} on average: {unit}"


@dataset.command(epilog="Example: semrec dataset synth scratch/synth --titles 62423 --users 119743 --dim 384 --seed 7")
@click.argument("out", type=FilePath())
@click.option("--titles", default=62_423, show_default=True, type=WholeNumber(min=1), help="Media vectors.")
@click.option("--users", default=119_743, show_default=True, type=WholeNumber(min=0), help="User vectors.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=1), help="Dimensions of a vector.")
@click.option(
    "--seed",
    default=7,
    show_default=True,
    type=WholeNumber(min=0),
    help="Random seed; the same one gives the same bytes.",
)
@click.option(
    "--seen",
    "seen_per_user",
    default=0,
    show_default=True,
    type=WholeNumber(min=0),
    help="Titles each user has seen, on average.",
)
@click.option(
    "--dtype",
    "media_dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "float64"]),
    help="Data type of the media vectors.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT when it exists.")
@json_option
def synth(out: Path, overwrite: bool, as_json: bool, **world: Any) -> None:
    """Make a data folder OUT of any size: clustered unit vectors, metadata with franchises, genres and years, users."""
    from dataclasses import asdict

    from semrec_faiss.data.synthetic.write import write_synthetic
    from semrec_faiss.measure.documents.results import NotMeasured, settle
    from semrec_faiss.measure.instruments.environment import stamp_of_this_run
    from semrec_faiss.measure.instruments.host_memory import held_at_most

    with progress_bars() as progress:
        report = write_synthetic(out, overwrite=overwrite, progress=progress, **world)
    if as_json:
        made = {"out": out.name, **{name: world[name] for name in ("titles", "users", "dim", "seed")}}
        made["dtype"] = world["media_dtype"]
        peak = NotMeasured("it was made by several processes") if report.processes else held_at_most()
        print_json(
            settle({"environment": stamp_of_this_run().as_json(), **made, **asdict(report), "peak_memory_bytes": peak})
        )
        return
    click.echo(f"made {out}: {world['titles']} titles and {world['users']} users of {world['dim']} dimensions")
    asked, seen = world["seen_per_user"], report.seen / max(1, world["users"])
    if seen < 0.75 * asked and world["users"]:
        more = "with more --titles, more are to their taste"
        say(f"note: users have seen {seen:.1f} titles on average, not {asked}: {more}")
    say(f"{as_size(report.bytes)} in {report.seconds:.2f} s, {as_size(int(report.bytes_per_second))}/s")
