"""`check_data_folder` reports what was put into a folder, warns where it should, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from semrec_faiss.data.check import FieldReport, check_data_folder
from semrec_faiss.data.interactions.transformation_file import JSON_NAME
from semrec_faiss.errors import DataError, NotFoundError

Make = Callable[..., Any]


def rewrite_metadata(root: Path, change: Callable[[int, dict[str, Any]], None]) -> None:
    path = root / "media" / "metadata.jsonl"
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for number, entry in enumerate(entries):
        change(number, entry)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")


def test_a_folder_without_faults_is_reported_whole(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=300, dim=16, users=40)
    report = check_data_folder(str(made.root))
    assert report.warnings == []
    assert report.root == made.root
    assert report.titles == 300
    vectors = report.vectors
    assert (vectors.count, vectors.dim, vectors.dtype, vectors.normalized, vectors.duplicates) == (
        300,
        16,
        "float32",
        True,
        0,
    )
    assert vectors.bytes == vectors.path.stat().st_size == 128 + 300 * 16 * 4
    assert (vectors.norms.min, vectors.norms.mean, vectors.norms.max) == (
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
    )
    assert report.fields == [
        FieldReport("media_id", "VARCHAR", 0),
        FieldReport("title", "VARCHAR", 0),
        FieldReport("year", "BIGINT", 0),
        FieldReport("genres", "VARCHAR[]", 0),
        FieldReport("runtime", "BIGINT", 0),
        FieldReport("note", "VARCHAR", 0),
    ]
    assert (report.year_min, report.year_max) == (1950, 2019)
    assert report.genre_count == 5
    assert report.top_genres == [(genre, 60) for genre in ("Animation", "Comedy", "Crime", "Drama", "Western")]
    assert report.duplicate_titles == 0
    users = report.users
    assert users is not None
    assert (users.vectors.count, users.vectors.dim, users.vectors.dtype) == (40, 16, "float64")
    assert (users.seen_total, users.seen_min, users.seen_mean, users.seen_max) == (120, 3, 3.0, 3)


def test_the_report_is_json(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=20, users=3)
    report = check_data_folder(made.root).as_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["titles"] == 20
    assert report["vectors"]["path"] == str(made.root / "media" / "content_vectors.npy")
    assert report["vectors"]["normalized"] is True
    assert report["users"]["seen_total"] == 9
    assert report["fields"][2] == {"name": "year", "type": "BIGINT", "nulls": 0}


def test_a_folder_of_titles_and_ids_alone(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=20)

    def strip(number: int, entry: dict[str, Any]) -> None:
        for name in ("year", "genres", "runtime", "note"):
            del entry[name]

    rewrite_metadata(made.root, strip)
    report = check_data_folder(made.root)
    assert [field.name for field in report.fields] == ["media_id", "title"]
    assert (report.year_min, report.year_max, report.genre_count, report.top_genres) == (None, None, 0, [])
    assert report.users is None
    assert report.warnings == []


def test_nulls_years_and_genres_are_counted(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=30)

    def change(number: int, entry: dict[str, Any]) -> None:
        entry["year"] = None if number < 4 else 1900 + number
        entry["genres"] = None if number == 0 else ["Noir", "Noir"] if number < 3 else [f"G{number:02}", "Drama"]
        if number % 2:
            del entry["runtime"]

    rewrite_metadata(made.root, change)
    report = check_data_folder(made.root)
    assert {field.name: field.nulls for field in report.fields} == {
        "media_id": 0,
        "title": 0,
        "year": 4,
        "genres": 1,
        "runtime": 15,
        "note": 0,
    }
    assert (report.year_min, report.year_max) == (1904, 1929)
    assert report.genre_count == 29
    assert report.top_genres == [("Drama", 27), ("Noir", 2), *[(f"G{number:02}", 1) for number in range(3, 11)]]


def test_findings_are_warnings_each_with_what_to_do(tmp_path: Path, make_folder: Make) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)) * 3
    vectors[7] = vectors[3]
    vectors[9] = vectors[3]
    made = make_folder(tmp_path / "d", vectors=vectors, users=5)
    users = made.root / "users" / "preference_vectors.npy"
    np.save(users, np.load(users) * 2)

    def change(number: int, entry: dict[str, Any]) -> None:
        entry["mixed"] = number if number else "none"
        if number in (10, 11, 12):
            entry |= {"title": "Emma (1996)", "year": 1996}
        if number == 13:
            entry |= {"title": "Emma (1996)", "year": 1997}

    rewrite_metadata(made.root, change)
    report = check_data_folder(made.root)
    media = report.vectors
    assert (media.normalized, media.duplicates, report.duplicate_titles) == (False, 2, 2)
    norms = np.linalg.norm(vectors, axis=1)
    assert (media.norms.min, media.norms.max) == (pytest.approx(norms.min()), pytest.approx(norms.max()))
    assert media.norms.mean == pytest.approx(norms.mean())
    unit, same, far, mixed, emma = (
        next(text for text in report.warnings if part in text)
        for part in (
            "content_vectors.npy: not unit",
            "equal an earlier",
            "preference_vectors.npy: not",
            "'mixed'",
            "Emma",
        )
    )
    assert "`normalize: true` (the default) takes care" in unit
    assert f"norms from {norms.min():.4g} to {norms.max():.4g}" in unit
    assert "2 vectors equal an earlier one" in same
    assert "Film 3 (1953) [m00003] and Film 7 (1957) [m00007]" in same
    assert same.endswith("make their vectors from more of what is known about them")
    assert "norms from 2 to 2" in far
    assert "field 'mixed' holds text on line 1, a whole number on line 2, and is kept as JSON text" in mixed
    assert "2 titles repeat an earlier title and year: 'Emma (1996)' (3 times); look these up by media_id" in emma
    assert len(report.warnings) == 5


# Once a fault: of learned vectors, and of vectors of anything else, more text was advised.
@pytest.mark.parametrize(
    ("side_file", "advice"),
    [
        ("content_vectors.json", "make their vectors from more text"),
        (JSON_NAME, "learn from more interactions, or with text vectors that differ (`semrec dataset embed`)"),
    ],
)
def test_what_tells_equal_vectors_apart_is_what_they_are_made_of(
    tmp_path: Path, make_folder: Make, side_file: str, advice: str
) -> None:
    made = make_folder(tmp_path / "d", vectors=np.eye(8)[[0, 1, 1]])
    (made.root / "media" / side_file).write_text("{}", encoding="utf-8")
    (same,) = (text for text in check_data_folder(made.root).warnings if "equal an earlier" in text)
    assert same.endswith(f"to tell them apart, {advice}")


def test_genres_that_differ_only_in_case_or_unicode_form_are_listed(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=20)
    spellings = ["Com\u00e9die", "Come\u0301die", "COME\u0301DIE", "Comedie"]
    rewrite_metadata(made.root, lambda number, entry: entry.update(genres=[spellings[number % 4]]))
    (warning,) = check_data_folder(made.root).warnings
    assert r"the genres 'COME\u0301DIE' and 'Come\u0301die' and 'Com\xe9die' differ only in case" in warning


def test_the_dates_of_seen_titles_are_told(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=20, users=2)
    seen = made.root / "users" / "seen.parquet"
    with duckdb.connect() as connection:
        rows = f"SELECT *, 1136073600 + 86400 * row_number() OVER () AS timestamp FROM '{seen}'"
        connection.execute(f"CREATE TABLE seen AS {rows}")
        connection.execute(f"COPY seen TO '{seen}' (FORMAT parquet)")
    users = check_data_folder(made.root).users
    assert users is not None
    assert (users.seen_total, users.first_date, users.last_date) == (6, "2006-01-02", "2006-01-07")


def test_inconsistent_folders_are_refused(tmp_path: Path, make_folder: Make) -> None:
    made = make_folder(tmp_path / "d", titles=20, dim=8, users=4)
    media, users = made.root / "media" / "content_vectors.npy", made.root / "users" / "preference_vectors.npy"
    vectors, preferences = np.load(media), np.load(users)

    def refused(path: Path, array: np.ndarray, problem: str) -> None:
        kept = path.read_bytes()
        np.save(path, array)
        with pytest.raises(DataError, match=problem):
            check_data_folder(made.root)
        path.write_bytes(kept)

    refused(
        media, vectors[:19], r"metadata\.jsonl:20: .* after 20 lines, but there are 19 vectors in .*content_vectors"
    )
    refused(media, np.where(np.arange(20)[:, None] == 7, np.nan, vectors), r"content_vectors\.npy\[7, 0\] is nan")
    refused(users, preferences[:, :7], r"preference_vectors\.npy.* 7 dimensions, but 8 .*content_vectors\.npy")
    refused(users, preferences[:3], r"user_ids\.json has 4 user ids, but there are 3 vectors")
    refused(users, preferences * [[1], [0], [1], [1]], r"preference_vectors\.npy\[1\] is all zero")
    check_data_folder(made.root)
    (made.root / "users" / "user_ids.json").write_text('["a", "b", "c", "d"]')
    with pytest.raises(DataError, match=r"seen\.parquet: rows whose user_id no user has: 12 \(different ids: 4"):
        check_data_folder(made.root)
    with pytest.raises(NotFoundError):
        check_data_folder(tmp_path / "nowhere")


def test_progress_tells_every_step(tmp_path: Path, make_folder: Make) -> None:
    steps: dict[str, list[tuple[int, int]]] = {}
    made = make_folder(tmp_path / "d", titles=20, users=4)
    check_data_folder(made.root, lambda what, done, total: steps.setdefault(what, []).append((done, total)))
    assert list(steps) == [
        "checking metadata.jsonl",
        "loading titles",
        "measuring content_vectors.npy",
        "measuring preference_vectors.npy",
        "reading seen.parquet",
    ]
    assert all(told[-1][0] == told[-1][1] for told in steps.values())


def test_movielens_is_consistent(movielens: Path) -> None:
    report = check_data_folder(movielens)
    assert (report.titles, report.vectors.dim, report.vectors.normalized) == (9742, 384, True)
    assert (report.year_min, report.year_max, report.genre_count) == (1902, 2018, 19)
    assert report.top_genres[0] == ("Drama", 4361)
    assert report.duplicate_titles == 5
    assert report.users is not None
    assert (report.users.vectors.count, report.users.vectors.dtype) == (610, "float64")
