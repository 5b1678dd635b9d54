"""Titles of answers cost what is looked at: no database, nothing read before it is wanted, nothing parsed for JSON."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.stored import StoredTexts
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.answers import answer_json, result
from semrec_faiss.search.export import export_all_users
from semrec_faiss.search.recommender import Recommender


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    root = tmp_path_factory.mktemp("records")
    made = make_folder(root / "data", titles=80, dim=12, users=6, seed=1)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(root / "index"), "device": "cpu"}))
    return root / "index"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records were read, time after time."""
    counts: list[int] = []
    lines = StoredTexts.lines

    def counted(stored: StoredTexts, rows: Any) -> list[bytes]:
        found = lines(stored, rows)
        counts.append(len(found))
        return found

    monkeypatch.setattr(StoredTexts, "lines", counted)
    return counts


def test_questions_and_answers_in_any_form_ask_no_database(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Catalog:
        raise AssertionError("the database was loaded")

    monkeypatch.setattr(Catalog, "from_parquet", fail)
    recommender = Recommender.open(index)
    title = recommender.titles.records([7])[0]["title"]
    by_id, by_title = recommender.similar("m00007", 5), recommender.similar(title.upper(), 5)
    assert by_id.rows.tolist() == by_title.rows.tolist()
    for answer in (by_id, recommender.recommend("user_002", 5), recommender.search(np.ones(12), 5)):
        assert [one["media_id"] for one in answer.to_arrow().to_pylist()] == [
            f"m{row:05d}" for row in answer.rows.ravel()
        ]
        assert json.loads(answer.as_json_bytes())
        assert len(answer.table()) == answer.rows.size
    assert recommender.similar("m00007", 5, exclude=["m00008"], diversity=0.4).returned == 5
    assert len(recommender.recommend([f"user_{user:03d}" for user in range(6)], 3)) == 6
    assert export_all_users(recommender, tmp_path / "lists.parquet", 3).users == 6
    with pytest.raises(NotFoundError, match="nobody"):
        recommender.recommend("nobody")
    for asks in (lambda: recommender.similar("m00007", where="year > 1950"), lambda: recommender.similar("flim 7")):
        with pytest.raises(AssertionError, match="the database was loaded"):
            asks()


def test_records_are_read_when_one_is_looked_at(index: Path, read: list[int]) -> None:
    recommender = Recommender.open(index)
    answers = recommender.recommend(["user_001", "user_002"], 4)
    results = [answer.results for answer in answers]
    assert [one.rank for one in results[1]] == [1, 2, 3, 4]
    assert results[0][0].score == answers.scores[0, 0]
    assert read == [2], "the two users were looked up"
    read.clear()
    assert answers[0][0].media_id == f"m{answers.rows[0, 0]:05d}"
    distinct = len(set(answers.rows.ravel().tolist()))
    assert [len({one.title for one in found}) for found in results] == [4, 4]
    assert answers[1][3].title
    assert read == [distinct], "the neighbours' with it, once for all"


def test_an_open_index_holds_as_much_of_many_titles_as_of_few(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    held = []
    for titles in (200, 8000):
        made = make_folder(tmp_path / f"{titles}", titles=titles, dim=8, users=6, seed=1)
        output = tmp_path / f"index-{titles}"
        build_index(config_from_dict({"dataset": str(made.root), "output": str(output), "device": "cpu"}))
        tracemalloc.start()
        recommender = Recommender.open(output)
        for row in range(0, 200, 2):
            assert recommender.similar(f"m{row:05d}", 5)[0].title
            assert recommender.recommend(f"user_{row % 6:03d}", 5).to_arrow().num_rows == 5
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] - held[0] < 64_000, "less than 8 bytes a title, whose records are 80 and more"


def test_what_a_caller_does_to_a_record_is_seen_by_nobody_else(index: Path) -> None:
    recommender = Recommender.open(index)
    answer = recommender.similar("m00003", 3)
    expected = [dict(one.fields, genres=list(one.genres)) for one in recommender.similar("m00003", 3)]
    shown = answer.as_dict()["results"][0]
    shown["genres"].append("Changed")
    answer.table()[0]["genres"].append("Changed")
    answer[0].genres.append("Changed")
    assert answer[0].fields == expected[0]
    answer[0].fields["genres"].append("Changed")
    answer[0].fields["year"] = 1
    for again in (recommender.similar("m00003", 3), answer.to_arrow().to_pylist()):
        told = [one.fields if hasattr(one, "fields") else {name: one[name] for name in expected[0]} for one in again]
        assert told == expected


def test_json_is_joined_of_what_is_stored_and_parsed_by_nobody(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.open(index)
    answers = recommender.recommend(["user_001", "user_002"], 4)
    expected = answers.as_dict()

    def fail(_: bytes) -> Any:
        raise AssertionError("a record was parsed")

    monkeypatch.setattr(answer_json, "record_of", fail)
    monkeypatch.setattr(result, "record_of", fail)
    assert json.loads(answers.as_json_bytes()) == expected
    assert json.loads(answers[1].as_json_bytes()) == expected["answers"][1]
    with pytest.raises(AssertionError, match="was parsed"):
        _ = answers[0][0].title
