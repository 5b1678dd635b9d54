"""dataset check, synth, embed: looking at a data folder and making one."""

from __future__ import annotations

from pathlib import Path

import click

from semrec_faiss.cli.console import as_size, print_json, print_table, progress_bars, say
from semrec_faiss.cli.options import json_option


@click.group()
def dataset() -> None:
    """Check, make or embed a data folder."""


@dataset.command(epilog="Example: semrec dataset check data/demo")
@click.argument("folder", type=click.Path(path_type=Path))
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
    print_table(["", ""], [[name.replace("_", " "), _text(name, value)] for name, value in report.as_dict().items()
                           if name != "warnings" and value is not None], header=False)  # fmt: skip
    for warning in report.warnings:
        say(f"note: {warning}")


def _text(name: str, value: object) -> str:
    if name.endswith("bytes") and isinstance(value, int):
        return as_size(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text('', inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


@dataset.command(epilog="Example: semrec dataset synth scratch/synth --titles 62423 --users 119743 --dim 384 --seed 7")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--titles", default=62_423, show_default=True, type=click.IntRange(min=1), help="Media vectors.")
@click.option("--users", default=119_743, show_default=True, type=click.IntRange(min=0), help="User vectors.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=1), help="Dimensions.")
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(min=0), help="The same seed gives the same bytes."
)
@click.option(
    "--seen", default=0, show_default=True, type=click.IntRange(min=0), help="Titles each user has seen, on average."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT when it exists.")
def synth(out: Path, titles: int, users: int, dim: int, seed: int, seen: int, overwrite: bool) -> None:
    """Make a data folder OUT of any size: clustered unit vectors, metadata with franchises, genres and years, users."""
    from semrec_faiss.data.synthetic import write_synthetic

    with progress_bars() as progress:
        write_synthetic(
            out,
            titles=titles,
            users=users,
            dim=dim,
            seed=seed,
            seen_per_user=seen,
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(f"made {out}: {titles} titles and {users} users of {dim} dimensions")


@dataset.command(
    epilog="Example: semrec dataset embed MY_FOLDER --model sentence-transformers/all-MiniLM-L6-v2 --fields keywords"
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, metavar="NAME_OR_PATH", help="A sentence-transformers model, by name or folder."
)
@click.option("--fields", default="", metavar="A,B", help="Metadata fields to add to title, genres and tags.")
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1), help="Texts embedded at once.")
@click.option(
    "--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16"]), help="Of the file."
)
@click.option(
    "--device", default=None, metavar="NAME", help="cpu, cuda, …; chosen by sentence-transformers if left out."
)
@click.option("--overwrite", is_flag=True, help="Replace vectors that were made with other settings.")
@json_option
def embed(
    folder: Path,
    model: str,
    fields: str,
    batch_size: int,
    dtype: str,
    device: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make FOLDER/media/content_vectors.npy from the titles in FOLDER/media/metadata.jsonl.

    An interrupted run goes on where it was when the same command is given again.
    """
    from semrec_faiss.data.embed import embed_folder

    names = tuple(name.strip() for name in fields.split(",") if name.strip())
    with progress_bars() as progress:
        report = embed_folder(
            folder,
            model=model,
            fields=names,
            batch_size=batch_size,
            dtype="float16" if dtype == "float16" else "float32",
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(str(report))
