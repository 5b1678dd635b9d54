"""dataset learn: what people did to vectors of titles and users."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, ray_option
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say
from semrec_faiss.data.interactions.limits import MOST_DIMENSIONS, MOST_SEED, MOST_TEXT_WEIGHT

if TYPE_CHECKING:
    from semrec_faiss.data.interactions.divided import Workers


def _of_texts(dimensions: int) -> str:
    return "their texts gave their vectors" if dimensions else "without texts these share one vector"


def _learners(address: str | None) -> Workers:
    from semrec_faiss.data.interactions.divided import HERE

    if address is None:
        return HERE
    from semrec_faiss.cluster.workers.learning import ClusterWorkers

    return ClusterWorkers(address)


@click.command(epilog="Example: semrec dataset learn data/ml-text data/ml --interactions ratings.csv")
@click.argument("folder", type=FilePath())
@click.argument("out", type=FilePath())
@click.option(
    "--interactions",
    type=FilePath(),
    help="user_id, media_id, and rating and timestamp where known, .csv or .parquet. [default: FOLDER's seen titles]",
)
@click.option(
    "--rank", default=256, show_default=True, type=WholeNumber(1, MOST_DIMENSIONS), help="Collaborative dimensions."
)
@click.option(
    "--text-dim",
    "directions",
    default=128,
    show_default=True,
    type=WholeNumber(1, MOST_DIMENSIONS),
    help="Text dimensions.",
)
@click.option(
    "--text-weight",
    default=0.8,
    show_default=True,
    type=FiniteRange(0, MOST_TEXT_WEIGHT),
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
    "--seed", default=7, show_default=True, type=WholeNumber(0, MOST_SEED), help="Random seed of the decomposition."
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
        ["titles", f"{report.titles}, {report.unrated_titles} of them seen by nobody: {_of_texts(report.text_dim)}"],
        ["users", f"{report.users}, {report.users_without_likes} of them without a liked title"],
        ["interactions", str(report.interactions)],
        ["dimensions", f"{report.rank} of what people did, {report.text_dim} of text, times {report.text_scale:.3g}"],
        ["learned in", f"{report.fit_seconds:.1f} s, {report.seconds:.1f} s with reading and writing"],
    ]
    print_table(["", ""], rows, header=False)
    if report.ignored:
        say(f"note: rows of unknown titles or users, which were left out: {report.ignored}")
