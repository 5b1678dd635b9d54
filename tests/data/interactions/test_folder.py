"""A data folder learned of another: what it holds, what it refuses, and the transformation read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from conftest import Semrec

from semrec_faiss.data.check import check_data_folder
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, SEEN, USER_IDS, USER_VECTORS
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from semrec_faiss.data.interactions.transformation_file import ARRAYS_NAME, JSON_NAME, read_transformation
from semrec_faiss.errors import DataError, NotFoundError, UsageError

SMALL = LearnSettings(rank=8, directions=5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    """Text vectors and no users; ``ratings.csv`` and ``seen.parquet`` beside it."""
    root = tmp_path_factory.mktemp("learn")
    made = make_folder(root / "texts", titles=60, dim=12)
    random = np.random.default_rng(1)
    rows = [
        (
            f"u{user:02d}",
            made.media_ids[row],
            (10 - place * int(random.integers(0, 2))) / 2,
            int(random.integers(1, 999)),
        )
        for user in range(30)
        for place, row in enumerate(random.choice(58, 9, replace=False))
    ] + [("u99", made.media_ids[0], 1.0, 5)]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE seen (user_id VARCHAR, media_id VARCHAR, rating DOUBLE, timestamp BIGINT)")
        connection.executemany("INSERT INTO seen VALUES (?, ?, ?, ?)", rows)
        connection.execute(f"COPY seen TO '{root / 'seen.parquet'}' (FORMAT parquet)")
        connection.execute(f"COPY seen TO '{root / 'ratings.csv'}' (FORMAT csv)")
    return root


def test_it_is_a_whole_data_folder(source: Path, tmp_path: Path) -> None:
    report = learn_folder(source / "texts", tmp_path / "out", SMALL, interactions=source / "ratings.csv")
    assert (report.titles, report.users, report.users_without_likes) == (60, 31, 1)
    assert (report.interactions, report.rank, report.text_dim) == (271, 8, 5)
    assert report.unrated_titles >= 2
    checked = check_data_folder(tmp_path / "out")
    assert checked.users is not None
    assert (checked.vectors.dim, checked.users.seen_total) == (13, 271)
    [count] = [text for text in checked.warnings if "length" in text]
    assert count.endswith("learned vectors, whose lengths count: build with configs/learned.yaml"), "it said normalize"
    metadata = "media/metadata.jsonl"
    assert (tmp_path / "out" / metadata).read_bytes() == (source / "texts" / metadata).read_bytes()
    ids = json.loads((tmp_path / "out" / USER_IDS).read_text())
    users = np.load(tmp_path / "out" / USER_VECTORS)
    np.testing.assert_allclose(users[ids.index("u99")], users[:-1].mean(axis=0), rtol=1e-5, atol=1e-7)
    media = tmp_path / "out" / "media"
    made = read_transformation(media / JSON_NAME, media / ARRAYS_NAME, vectors=tmp_path / "out" / MEDIA_VECTORS)
    texts = np.load(source / "texts" / MEDIA_VECTORS)
    vectors = np.load(tmp_path / "out" / MEDIA_VECTORS)
    np.testing.assert_allclose(made.title_vectors(texts[58:]), vectors[58:], atol=1e-6)
    assert made.settings == SMALL


def test_parquet_csv_and_a_folders_own_are_read_alike(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "texts", tmp_path / "own")
    (tmp_path / "own" / "users").mkdir()
    shutil.copy(source / "seen.parquet", tmp_path / "own" / SEEN)
    learn_folder(source / "texts", tmp_path / "a", SMALL, interactions=source / "ratings.csv")
    learn_folder(source / "texts", tmp_path / "b", SMALL, interactions=source / "seen.parquet")
    for name in (MEDIA_VECTORS, USER_VECTORS, USER_IDS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    with pytest.raises(DataError, match=r"seen\.parquet but no users/user_ids\.json"):
        learn_folder(tmp_path / "own", tmp_path / "c", SMALL)
    ids = ["nobody", *json.loads((tmp_path / "a" / USER_IDS).read_text())]
    (tmp_path / "own" / USER_IDS).write_text(json.dumps(ids))
    np.save(tmp_path / "own" / USER_VECTORS, np.ones((len(ids), 12)))
    report = learn_folder(tmp_path / "own", tmp_path / "c", SMALL)
    assert (report.users, report.users_without_likes, report.interactions) == (32, 2, 271)


def test_rows_of_unknown_titles_are_counted_and_told(source: Path, tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: nobody said that most of a file was left out."""
    rows = (source / "ratings.csv").read_text()
    (tmp_path / "ratings.csv").write_text(rows + rows.splitlines()[1].replace("m0", "gone", 1) + "\n")
    learn = ("dataset", "learn", source / "texts", tmp_path / "out", "--rank", 8, "--text-dim", 5, "--interactions")
    told = semrec(*learn, tmp_path / "ratings.csv")
    assert told.err == "note: rows of unknown titles or users, which were left out: 1\n"
    assert semrec(*learn, source / "ratings.csv", "--overwrite").err == ""
    assert semrec(*learn, tmp_path / "ratings.csv", "--overwrite", "--json").document["ignored"] == 1


def test_ratings_of_movielens_are_spelled_as_its_titles_are(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    shutil.copytree(source / "texts", folder)
    lines = [json.loads(line) for line in (folder / "media/metadata.jsonl").read_text("utf-8").splitlines()]
    told = "".join(json.dumps(line | {"media_id": f"ml_{n:08d}"}) + "\n" for n, line in enumerate(lines))
    (folder / "media/metadata.jsonl").write_text(told)
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{7 * u % 60},{4.5},{u}\n" for u in range(1, 9))
    )
    learn_folder(folder, tmp_path / "out", SMALL, interactions=tmp_path / "ratings.csv")
    assert json.loads((tmp_path / "out" / USER_IDS).read_text())[0] == "user_00000001"
    # `semrec dataset import movies.csv` leaves the ids as they are.
    told = "".join(json.dumps(line | {"media_id": str(n)}) + "\n" for n, line in enumerate(lines))
    (folder / "media/metadata.jsonl").write_text(told)
    learn_folder(folder, tmp_path / "as-they-are", SMALL, interactions=tmp_path / "ratings.csv")
    assert json.loads((tmp_path / "as-they-are" / USER_IDS).read_text()) == [str(user) for user in range(1, 9)]
    vectors = [np.load(tmp_path / out / MEDIA_VECTORS) for out in ("out", "as-they-are")]
    np.testing.assert_array_equal(*vectors)


# Once a fault: with a weight that no float32 holds, vectors were infinite, and a build refused them.
def test_weights_of_texts_go_as_far_as_their_vectors_are_finite(source: Path, tmp_path: Path, semrec: Semrec) -> None:
    out = tmp_path / "out"
    learn = ("dataset", "learn", source / "texts", out, "--interactions", source / "ratings.csv", "--text-weight")
    refused = semrec(*learn, "1e300")
    assert (refused.code, out.exists()) == (2, False)
    assert semrec(*learn, "1000000").code == 0
    assert np.isfinite(np.load(out / MEDIA_VECTORS)).all()
    assert semrec("build", "learned", "--dataset", out, "--output", tmp_path / "index").code == 0


def test_what_cannot_be_learned_from_is_told(source: Path, tmp_path: Path) -> None:
    texts, out = source / "texts", tmp_path / "out"

    def refused(error: type[Exception], message: str, **more: Any) -> None:
        with pytest.raises(error, match=message):
            learn_folder(more.pop("folder", texts), more.pop("out", out), more.pop("settings", SMALL), **more)
        assert not out.exists(), "nothing half-made stays"

    refused(DataError, r"does not say what people did: it lacks users/seen\.parquet")
    refused(NotFoundError, "there is no file", interactions=tmp_path / "none.csv")
    (tmp_path / "notes.txt").write_text("a,b\n")
    refused(UsageError, r"neither \.parquet nor \.csv", interactions=tmp_path / "notes.txt")
    (tmp_path / "odd.csv").write_text("user_id,film\nu,m\n")
    refused(DataError, "lacks the column media_id; it has user_id, film", interactions=tmp_path / "odd.csv")
    (tmp_path / "unknown.csv").write_text("user_id,media_id\nu,gone\n")
    refused(DataError, "rows whose media_id no title has: 1", interactions=tmp_path / "unknown.csv")
    (tmp_path / "empty.csv").write_text("user_id,media_id\n")
    refused(DataError, "holds no interactions", interactions=tmp_path / "empty.csv")
    (tmp_path / "low.csv").write_text("user_id,media_id,rating\nu,m00001,2\n")
    refused(DataError, "nobody has rated anything 4 or better", interactions=tmp_path / "low.csv")
    refused(UsageError, "holds the folder that is read", out=texts, interactions=source / "ratings.csv")
    learned = tmp_path / "learned"
    learn_folder(texts, learned, SMALL, interactions=source / "ratings.csv")
    refused(UsageError, "holds learned vectors already", folder=learned)
    refused(UsageError, "is not empty", out=learned, interactions=source / "ratings.csv")


@pytest.mark.parametrize(
    "odd, told", [(",{}", "rows without user_id: 1"), ("u1,nix", "rows whose media_id no title has")]
)
def test_mistakes_of_interactions_name_their_file(odd: str, told: str, source: Path, tmp_path: Path) -> None:
    """They named users/seen.parquet of the folder that was being made, which is gone."""
    table = tmp_path / "plays.csv"
    table.write_text(f"user_id,media_id\n{odd.format('m00001')}\n")
    with pytest.raises(DataError) as caught:
        learn_folder(source / "texts", tmp_path / "out", SMALL, interactions=table)
    assert caught.value.message.startswith(f"{table}: {told}") and not (tmp_path / "out").exists()


def test_a_damaged_transformation_is_told(source: Path, tmp_path: Path) -> None:
    learn_folder(source / "texts", tmp_path / "out", SMALL, interactions=source / "ratings.csv")
    media, vectors = tmp_path / "out" / "media", tmp_path / "out" / MEDIA_VECTORS
    changed = np.load(vectors)
    changed[0, 0] += 1
    kept = vectors.read_bytes()
    np.save(vectors, changed)
    with pytest.raises(DataError, match="holds other vectors than"):
        read_transformation(media / JSON_NAME, media / ARRAYS_NAME, vectors=vectors)
    vectors.write_bytes(kept)
    arrays = (media / ARRAYS_NAME).read_bytes()
    for at in range(0, len(arrays), 97):
        (media / ARRAYS_NAME).write_bytes(arrays[:at] + bytes([arrays[at] ^ 255]) + arrays[at + 1 :])
        with pytest.raises(DataError, match="SHA-256"):
            read_transformation(media / JSON_NAME, media / ARRAYS_NAME)
    (media / ARRAYS_NAME).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_transformation(media / JSON_NAME, media / ARRAYS_NAME)
    (media / JSON_NAME).write_text("{}")
    with pytest.raises(DataError, match="none that this version reads"):
        read_transformation(media / JSON_NAME, media / ARRAYS_NAME)


def test_the_command(source: Path, tmp_path: Path, semrec: Semrec) -> None:
    arguments = ["dataset", "learn", str(source / "texts"), str(tmp_path / "out"), "--rank", "8", "--text-dim", "5"]
    told = semrec(*arguments, "--interactions", source / "ratings.csv", "--json").document
    assert (told["titles"], told["settings"]["rank"]) == (60, 8)
    odd = semrec(*arguments, "--overwrite", "--liked", "nan")
    assert (odd.code, "'nan' is not a finite number" in odd.err) == (2, True)
    again = semrec(*arguments)
    assert (again.code, "is not empty" in again.err) == (2, True)
