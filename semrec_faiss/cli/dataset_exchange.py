"""dataset import, export: vectors from benchmarks' files and to them."""

from __future__ import annotations

from pathlib import Path

import click

from semrec_faiss.cli.options import json_option
from semrec_faiss.cli.printing import print_json, progress_bars, say


@click.command("import", epilog="Example: semrec dataset import glove-100-angular.hdf5 data/glove")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--queries", type=click.Path(path_type=Path), help="The .fbin of questions beside a .fbin.")
@click.option("--neighbors", type=click.Path(path_type=Path), help="The .ibin of their neighbours.")
@click.option("--overwrite", is_flag=True, help="Replace OUT when it exists.")
@json_option
def import_file(
    file: Path, out: Path, queries: Path | None, neighbors: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Make a data folder OUT from an HDF5 FILE of ann-benchmarks, or from a .fbin: questions become users.

    The file's neighbours, where it has them, are held against an exact search.
    """
    from semrec_faiss.data.exchange.formats import open_ann_file
    from semrec_faiss.data.exchange.importing import write_data_folder
    from semrec_faiss.measure.quality.export_with_truth import agreement_with

    with open_ann_file(file, queries=queries, neighbors=neighbors) as found, progress_bars() as progress:
        imported = write_data_folder(found, out, name=str(file), overwrite=overwrite, progress=progress)
        agreement = None
        if found.neighbors is not None:
            agreement = agreement_with(out, found.neighbors, normalize=imported.normalize, progress=progress)
    if as_json:
        print_json({"folder": str(out), **imported.as_dict(), "agreement": agreement})
    else:
        click.echo(f"made {out}: {imported.titles} titles and {imported.users} users of {imported.dim} dimensions")
        if agreement is not None:
            click.echo(f"the file's neighbours are {agreement:.2%} of the exact ones")
    if not imported.normalize:
        say("note: the file ranks by inner products: build with --set index.normalize=false")


@click.command("export", epilog="Example: semrec dataset export data/demo scratch/demo.hdf5")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--queries",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Users to ask; titles, left out of the rest, where there are no users.",
)
@click.option("-k", "--count", default=100, show_default=True, type=click.IntRange(min=1), help="Neighbours of each.")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(min=0), help="Of drawing them.")
@json_option
def export_files(folder: Path, out: Path, queries: int, count: int, seed: int, as_json: bool) -> None:
    """Write the data folder FOLDER for other benchmarks, exact neighbours included.

    OUT that ends in .hdf5 is one file as ann-benchmarks reads it; any other OUT is a folder for base.fbin, query.fbin,
    neighbors.ibin and distances.fbin.
    """
    from semrec_faiss.measure.quality.export_with_truth import export_folder

    with progress_bars() as progress:
        exported = export_folder(folder, out, queries=queries, k=count, seed=seed, progress=progress)
    if as_json:
        print_json(exported.as_dict())
        return
    asked = "users" if exported.are_users else "titles"
    click.echo(
        f"wrote {', '.join(exported.files)}: {exported.titles} titles of {exported.dim} dimensions,"
        f" {exported.queries} {asked} to ask, {exported.k} neighbours each"
    )
