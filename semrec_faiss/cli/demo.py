"""demo: from nothing to similar titles and recommendations, in one command."""

from __future__ import annotations

from pathlib import Path

import click

from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import print_json, progress_bars, say
from semrec_faiss.paths import as_typed

TITLE = "Toy Story (1995)"
USER = "user_033"


@click.command(epilog="Example: semrec demo")
@click.option(
    "--output",
    default="indexes/demo",
    show_default=True,
    type=FilePath(),
    help="Where to save the demo index.",
)
@json_option
def demo(output: Path, as_json: bool) -> None:
    """Build an exact index of the demo's films, then find what is similar to Toy Story and recommend to a user."""
    from semrec_faiss.cli.asking.answers import print_answer
    from semrec_faiss.config.schema import Config
    from semrec_faiss.data.demo import demo_folder
    from semrec_faiss.index.build.run import build_index
    from semrec_faiss.search.recommender import Recommender

    folder = demo_folder()
    with progress_bars() as progress:
        generation = build_index(Config(output=output).of(folder), progress)
    recommender = Recommender.open(output)
    similar = recommender.similar(TITLE, k=5)
    recommended = recommender.recommend(USER, k=5)
    if as_json:
        print_json({"index": str(output), "similar": similar.as_dict(), "recommended": recommended.as_dict()})
        return
    manifest = generation.manifest
    say(f"built {output}: {manifest.count} films, {manifest.users} users, on {recommender.saved.device}\n")
    print_answer(similar, f"Similar to {similar.query['title']}:", normalized=True)
    print_answer(recommended, f"\nFor {USER}, who likes {_taste(folder, USER)}:", normalized=True)
    say(f'\nNow try:  semrec similar {as_typed(output)} "the godfather"')


def _taste(folder: Path, user_id: str) -> str:
    import json

    lines = (folder / "users" / "tastes.jsonl").read_text(encoding="utf-8").splitlines()
    tastes = {record["user_id"]: record["taste"] for record in map(json.loads, lines)}
    return str(tastes[user_id])
