"""dataset embed, movielens: titles' texts to vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import Unpack

from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, ray_option
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from semrec_faiss.data.text.embed import EmbedArguments
    from semrec_faiss.data.text.encoder import EncoderLoader

DEFAULT_MODEL = "paraphrase-multilingual-MiniLM-L12-v2"
"""The same as data.encoder's, which is not imported for a help text."""

_NO_VECTORS = "none; semrec dataset learn makes them of what people did, semrec dataset embed of texts"

_EMBED_OPTIONS = (
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME_OR_PATH",
        help="A sentence-transformers model, by name or folder, or an installed package that carries one.",
    ),
    click.option(
        "--batch-size", type=WholeNumber(min=1), help="Texts embedded at once. [default: 64 on a CPU, 512 on a GPU]"
    ),
    click.option(
        "--dtype",
        default="float32",
        show_default=True,
        type=click.Choice(["float32", "float16"]),
        help="Data type of the vectors.",
    ),
    click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, …  [default: a GPU when there is one]"),
)


def _embed_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_EMBED_OPTIONS):
        command = option(command)
    return command


def _embedders(address: str | None) -> tuple[AbstractContextManager[EncoderLoader], int | None]:
    """Return what loads the model, and how many titles it makes at a time."""
    if address is None:
        from contextlib import nullcontext

        from semrec_faiss.data.text.encoder import load_encoder

        return nullcontext(load_encoder), None
    from semrec_faiss.cluster.workers.embedding import BLOCK_ROWS, encoders_of

    return encoders_of(address), BLOCK_ROWS


@click.command(
    epilog="Example: semrec dataset embed MY_FOLDER --model sentence-transformers/all-MiniLM-L6-v2 --fields keywords"
)
@click.argument("folder", type=FilePath())
@_embed_options
@click.option("--fields", default="", metavar="A,B", help="Metadata fields to add to title, genres and tags.")
@click.option("--overwrite", is_flag=True, help="Replace vectors that were made with other settings.")
@ray_option
@json_option
def embed(
    folder: Path,
    fields: str,
    overwrite: bool,
    ray: str | None,
    as_json: bool,
    **embedding: Unpack[EmbedArguments],
) -> None:
    """Make FOLDER/media/content_vectors.npy of the texts of the titles in FOLDER.

    An interrupted run continues where it stopped when the same command is given again. With --ray the workers of a
    cluster make the vectors, one per GPU; they must be able to load the model.
    """
    from dataclasses import asdict

    from semrec_faiss.data.text.embed import embed_folder

    names = tuple(name.strip() for name in fields.split(",") if name.strip())
    everywhere, rows = _embedders(ray)
    with everywhere as load, progress_bars() as progress:
        how = partial(embed_folder, folder, fields=names, overwrite=overwrite, block_rows=rows)
        report = how(progress=progress, load=load, **embedding)
    if as_json:
        print_json(asdict(report))
        return
    done = "is up to date" if report.up_to_date else "written"
    click.echo(f"{report.path} {done}: {report.titles} × {report.dim} {report.dtype} by {report.model}")
    if report.resumed:
        say(f"went on after {report.resumed} titles of an interrupted run")


@click.command(epilog="Example: semrec dataset movielens ml-latest-small.zip data/ml --device cpu")
@click.argument("path", type=FilePath())
@click.argument("out", type=FilePath())
@_embed_options
@click.option("--without-vectors", is_flag=True, help="Make none, without a model; `semrec dataset learn` does.")
@click.option("--overwrite", is_flag=True, help="Replace the data folder OUT when it exists.")
@json_option
def movielens(
    path: Path, out: Path, without_vectors: bool, overwrite: bool, as_json: bool, **embedding: Unpack[EmbedArguments]
) -> None:
    """Make the data folder OUT of PATH, a MovieLens download: titles, vectors of their texts, users, seen titles.

    PATH is the zip as downloaded or the folder in it: ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m, ml-1m or
    ml-10m. Film 1 becomes ml_00000001, user 1 user_00000001; films whose titles tell of a series, such as Toy Story 2
    (1999), get a field franchise. An interrupted run continues with its vectors when the same command is given again.
    Ends with exit code 3, and makes nothing, when a file is truncated or malformed.
    """
    from semrec_faiss.data.convert_movielens import convert_movielens
    from semrec_faiss.data.movielens.titles import media_id

    with progress_bars() as progress:
        report = convert_movielens(
            path, out, overwrite=overwrite, without_vectors=without_vectors, progress=progress, **embedding
        )
    if as_json:
        print_json(asdict(report))
        return
    made = report.embedding
    genome = "" if report.genome_titles is None else f", {report.genome_titles} with genome tags"
    left_out = f"; {report.users_left_out} users left out: they rated nothing above 1" if report.users_left_out else ""
    blank = f", {report.blank_tags} of them blank and left out" if report.blank_tags else ""
    rows = [
        ["made", str(out)],
        ["titles", f"{report.titles}{genome}"],
        ["media_id", f"MovieLens' movieId with ml_ and zeros in front: 1 is {media_id(1)}; 1 finds it too"],
        ["tags read", f"{report.tags}{blank}"],
        ["ratings read", str(report.ratings)],
        ["users", f"{report.users}{left_out}"],
        ["vectors", f"{made.titles} × {made.dim} {made.dtype} by {made.model}" if made else _NO_VECTORS],
    ]
    print_table(["", ""], rows, header=False)
    if made and (made.resumed or made.up_to_date):
        say(f"went on after {made.titles if made.up_to_date else made.resumed} vectors of an interrupted run")
