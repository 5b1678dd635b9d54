"""dataset check, synth, embed, movielens, learn: looking at a data folder and making one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import Unpack

from semrec_faiss.cli.data.exchange import export_files, import_file
from semrec_faiss.cli.options import FilePath, FiniteRange, json_option, ray_option
from semrec_faiss.cli.printing import as_size, print_json, print_table, progress_bars, say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from semrec_faiss.data.check import FolderReport, VectorsReport
    from semrec_faiss.data.interactions.divided import Workers
    from semrec_faiss.data.text.embed import EmbedArguments
    from semrec_faiss.data.text.encoder import EncoderLoader


DEFAULT_MODEL = "paraphrase-multilingual-MiniLM-L12-v2"
"""The same as data.encoder's, which is not imported for a help text."""


@click.group()
def dataset() -> None:
    """Check, make, embed, import or export a data folder."""


dataset.add_command(import_file)
dataset.add_command(export_files)


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
    rows += [["user vectors", _vectors(report.users.vectors)], ["  norms", _norms(report.users.vectors)]]
    seen = report.users
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
@click.option("--titles", default=62_423, show_default=True, type=click.IntRange(min=1), help="Media vectors.")
@click.option("--users", default=119_743, show_default=True, type=click.IntRange(min=0), help="User vectors.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=1), help="Dimensions of a vector.")
@click.option(
    "--seed",
    default=7,
    show_default=True,
    type=click.IntRange(min=0),
    help="Random seed; the same one gives the same bytes.",
)
@click.option(
    "--seen",
    "seen_per_user",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
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
    say(f"{as_size(report.bytes)} in {report.seconds:.2f} s, {as_size(int(report.bytes_per_second))}/s")


_EMBED_OPTIONS = (
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME_OR_PATH",
        help="A sentence-transformers model, by name or folder, or an installed package that carries one.",
    ),
    click.option(
        "--batch-size", type=click.IntRange(min=1), help="Texts embedded at once. [default: 64 on a CPU, 512 on a GPU]"
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


@dataset.command(
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
    """Make FOLDER/media/content_vectors.npy from the titles in FOLDER/media/metadata.jsonl.

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


@dataset.command(epilog="Example: semrec dataset movielens ml-latest-small.zip data/ml --device cpu")
@click.argument("path", type=FilePath())
@click.argument("out", type=FilePath())
@_embed_options
@click.option("--overwrite", is_flag=True, help="Replace the data folder OUT when it exists.")
@json_option
def movielens(path: Path, out: Path, overwrite: bool, as_json: bool, **embedding: Unpack[EmbedArguments]) -> None:
    """Make the data folder OUT of PATH, a MovieLens download: titles, vectors of their texts, users, seen titles.

    PATH is the zip as downloaded or the folder in it: ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m, ml-1m or
    ml-10m. Film 1 becomes ml_00000001, user 1 user_00000001; films whose titles tell of a series, such as Toy Story 2
    (1999), get a field franchise. An interrupted run continues with its vectors when the same command is given again.
    Ends with exit code 3, and makes nothing, when a file is truncated or malformed.
    """
    from semrec_faiss.data.convert_movielens import convert_movielens
    from semrec_faiss.data.movielens.titles import media_id

    with progress_bars() as progress:
        report = convert_movielens(path, out, overwrite=overwrite, progress=progress, **embedding)
    if as_json:
        print_json(report.as_dict())
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
        ["vectors", f"{made.titles} × {made.dim} {made.dtype} by {made.model}"],
    ]
    print_table(["", ""], rows, header=False)
    if made.resumed or made.up_to_date:
        say(f"went on after {made.titles if made.up_to_date else made.resumed} vectors of an interrupted run")


def _learners(address: str | None) -> Workers:
    from semrec_faiss.data.interactions.divided import HERE

    if address is None:
        return HERE
    from semrec_faiss.cluster.workers.learning import ClusterWorkers

    return ClusterWorkers(address)


@dataset.command(epilog="Example: semrec dataset learn data/ml-text data/ml --interactions ratings.csv")
@click.argument("folder", type=FilePath())
@click.argument("out", type=FilePath())
@click.option(
    "--interactions",
    type=FilePath(),
    help="user_id, media_id, and rating and timestamp where known, .csv or .parquet. [default: FOLDER's seen titles]",
)
@click.option("--rank", default=256, show_default=True, type=click.IntRange(1, 4096), help="Collaborative dimensions.")
@click.option(
    "--text-dim", "directions", default=128, show_default=True, type=click.IntRange(1, 4096), help="Text dimensions."
)
@click.option(
    "--text-weight",
    default=0.8,
    show_default=True,
    type=FiniteRange(min=0),
    help="Weight of texts in a score, relative to what people did.",
)
@click.option(
    "--half-life",
    default=10.0,
    show_default=True,
    type=FiniteRange(min=0, min_open=True),
    help="Later liked titles after which a title's weight is halved.",
)
@click.option(
    "--liked", default=4.0, show_default=True, type=FiniteRange(), help="The rating from which a title is liked."
)
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Random seed of the decomposition."
)
@click.option("--overwrite", is_flag=True, help="Replace the data folder OUT when it exists.")
@ray_option
@json_option
def learn(
    folder: Path,
    out: Path,
    interactions: Path | None,
    half_life: float,
    liked: float,
    overwrite: bool,
    ray: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Make the data folder OUT of FOLDER, its titles' vectors learned from what people did and from text vectors.

    FOLDER/media/content_vectors.npy are the text vectors; without them only the ratings count. Build OUT with
    `index.normalize: false`, as configs/learned.yaml has it. With --ray the workers of a cluster share the work.
    """
    from semrec_faiss.config.profile import Profile
    from semrec_faiss.data.interactions.folder import learn_folder
    from semrec_faiss.data.interactions.hybrid import LearnSettings
    from semrec_faiss.measure.instruments.environment import stamp_of_this_run

    settings = LearnSettings(profile=Profile(weights="liked", half_life=half_life, liked=liked), **how)
    with progress_bars() as progress:
        made = partial(learn_folder, folder, out, settings, interactions=interactions, overwrite=overwrite)
        report = made(progress=progress, workers=_learners(ray))
    if as_json:
        stamp = stamp_of_this_run().as_json()
        print_json({"environment": stamp, "settings": settings.model_dump(mode="json"), **report.as_dict()})
        return
    rows = [
        ["made", str(out)],
        ["titles", f"{report.titles}, {report.unrated_titles} of them rated by nobody: their texts gave their vectors"],
        ["users", f"{report.users}, {report.users_without_likes} of them without a liked title"],
        ["interactions", str(report.interactions)],
        ["dimensions", f"{report.rank} of what people did, {report.text_dim} of text, times {report.text_scale:.3g}"],
        ["learned in", f"{report.fit_seconds:.1f} s, {report.seconds:.1f} s with reading and writing"],
    ]
    print_table(["", ""], rows, header=False)
