"""Answers as objects, JSON, tables and pictures: whatever the form, the same titles, and no field of a user's lost."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semrec_faiss
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles import columns
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.answers.result import shown_names
from semrec_faiss.search.recommender import Recommender

pa = pytest.importorskip("pyarrow")

TITLES, DIM = 150, 16
LATE = 120
"""The first title that has a franchise: frames once guessed a column's type from its first hundred rows."""


def entry(row: int) -> dict[str, Any]:
    return {
        "media_id": f"m{row:03}",
        "title": f"Film <{row}> é",
        "year": 1900 + row if row % 3 else None,
        "genres": ["Drama"] if row % 2 else [],
        "franchise": f"saga {row % 5}" if row >= LATE else None,
        "votes": row if row % 4 else None,
        "seen_it": row % 2 == 0 if row % 7 else None,
        "weight": row / 7,
        "mixed": row if row % 2 else {"deep": [row]},
        "score": f"theirs {row}",
        "field_score": f"theirs too {row}",
        "rank": -row,
        "query_media_id": f"asked {row}",
    }


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A flat index whose titles have fields of every type, some of them with names of ours."""
    root: Path = tmp_path_factory.mktemp("answers")
    rng = np.random.default_rng(5)
    for name in ("media", "users"):
        (root / "data" / name).mkdir(parents=True)
    np.save(root / "data/media/content_vectors.npy", rng.standard_normal((TITLES, DIM)).astype(np.float32))
    lines = [json.dumps(entry(row), ensure_ascii=False) + "\n" for row in range(TITLES)]
    (root / "data/media/metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    np.save(root / "data/users/preference_vectors.npy", rng.standard_normal((7, DIM)))
    (root / "data/users/user_ids.json").write_text(json.dumps(list(range(7))))
    config = {"dataset": str(root / "data"), "output": str(root / "index"), "index": {"type": "flat"}}
    build_index(config_from_dict(config))
    return Recommender.open(root / "index")


def row_of(media_id: str) -> int:
    return int(media_id[1:])


def test_no_field_of_a_users_is_lost_or_overwrites_ours(answering: Recommender) -> None:
    answer = answering.similar("m007", TITLES)
    for result, shown in zip(answer.results, answer.as_dict()["results"], strict=True):
        told = entry(row_of(result.media_id))
        assert result.fields == {name: value for name, value in told.items() if name not in ("media_id", "title")}
        assert (shown["rank"], shown["score"]) == (result.rank, result.score)
        assert shown["field_field_score"] == told["score"], "field_score is a field of theirs already"
        assert shown["field_score"] == told["field_score"]
        assert shown["field_rank"] == told["rank"]
        assert shown["query_media_id"] == told["query_media_id"]
    for line in answer.table():
        assert line["query_media_id"] == "m007"
        assert line["field_query_media_id"] == entry(row_of(line["media_id"]))["query_media_id"]


def test_names_are_told_apart_however_often_they_clash() -> None:
    fields = dict.fromkeys(["score", "field_score", "field_field_score", "other"])
    names = shown_names(fields, ("rank", "score"))
    assert names == {
        "score": "field_field_field_score",
        "field_score": "field_score",
        "field_field_score": "field_field_score",
        "other": "other",
    }


def test_json_bytes_are_what_as_dict_says(answering: Recommender) -> None:
    answers = answering.search(np.eye(DIM)[:5], 4, where="votes > 100")
    assert json.loads(answers.as_json_bytes()) == answers.as_dict()
    assert json.loads(answers[3].as_json_bytes()) == answers[3].as_dict()
    nothing = answering.search(np.eye(DIM)[:2], where="votes > 1000")
    assert json.loads(nothing.as_json_bytes()) == nothing.as_dict()
    assert b"\n" not in answers.as_json_bytes()


EXPECTED = {
    "query_media_id": pa.string(),
    "query_title": pa.string(),
    "rank": pa.int32(),
    "media_id": pa.string(),
    "title": pa.dictionary(pa.int32(), pa.string()),
    "score": pa.float32(),
    "year": pa.int64(),
    "genres": pa.list_(pa.string()),
    "franchise": pa.string(),
    "votes": pa.int64(),
    "seen_it": pa.bool_(),
    "weight": pa.float64(),
    "mixed": pa.string(),
    "field_field_score": pa.string(),
    "field_score": pa.string(),
    "field_rank": pa.int64(),
    "field_query_media_id": pa.string(),
}


@pytest.mark.parametrize("where", [None, "votes > 1000", "franchise IS NULL"])
def test_columns_and_types_come_from_the_catalogue(answering: Recommender, where: str | None) -> None:
    answer = answering.similar("m003", TITLES, where=where)
    table = answer.to_arrow()
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == EXPECTED
    expected = answer.table()
    for line in expected:
        line["mixed"] = json.dumps(line["mixed"])
        line["score"] = pytest.approx(line["score"])
    assert table.to_pylist() == expected


def test_several_users_in_one_table(answering: Recommender) -> None:
    answers = answering.recommend([3, "5", 3], 4)
    table = answers.to_arrow()
    assert table["query_user_id"].to_pylist() == ["3"] * 4 + ["5"] * 4 + ["3"] * 4
    assert table["media_id"].to_pylist() == [result.media_id for answer in answers for result in answer]
    assert answering.recommend([], 4).to_arrow().column_names == table.column_names
    assert answering.search(np.eye(DIM)[:2], 1).to_arrow()["query_position"].to_pylist() == [0, 1]


@pytest.mark.parametrize("of", ["one batch", "many batches", "records after an update"])
def test_a_table_says_what_its_answers_say(of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the titles lie: titles given to several users, lists cut short, values that are missing."""
    monkeypatch.setattr(columns, "BATCH_TITLES", 7 if of == "many batches" else 1 << 16)
    vectors = np.random.default_rng(8).standard_normal((40, DIM)).astype(np.float32)
    records = [entry(row) | {"mixed": None} for row in range(40)]
    living = semrec_faiss.build(vectors, records, output=tmp_path / "index")
    if of.startswith("records"):
        living.update(remove_titles=["m007"])
    assert living.titles.has_columns == (not of.startswith("records"))
    for k, where in [(3, None), (30, "votes > 5"), (2, "false")]:
        answers = living.search(vectors[:9], k, where=where)
        table, told = answers.to_arrow(), answers.table()
        assert table.to_pylist() == told
        distinct = dict.fromkeys(sorted(answers.rows[answers.rows >= 0].tolist()))
        title = table["title"].combine_chunks()
        assert title.dictionary.to_pylist() == [record["title"] for record in living.titles.records(list(distinct))]


def test_polars_takes_a_field_that_begins_with_a_hundred_nulls(answering: Recommender) -> None:
    # Once a fault: polars guessed the type from the first hundred rows, and failed at the first that was another.
    polars = pytest.importorskip("polars")
    answer = answering.similar("m003", TITLES, exclude=[f"m{row:03}" for row in range(LATE + 1, TITLES)])
    frame = answer.to_polars()
    assert frame["franchise"].to_list() == [result.fields["franchise"] for result in answer]
    assert frame.schema["franchise"] == polars.String
    assert frame.schema["votes"] == polars.Int64
    empty = answering.similar("m003", where="false").to_polars()
    assert (empty.height, empty.columns) == (0, frame.columns)


def test_pandas_keeps_whole_numbers_where_some_are_missing(answering: Recommender) -> None:
    pandas = pytest.importorskip("pandas")
    answer = answering.similar("m003", TITLES)
    frame = answer.to_pandas()
    assert [None if pandas.isna(votes) else votes for votes in frame["votes"]] == [r.fields["votes"] for r in answer]
    assert str(frame["votes"].dtype) == "Int64"
    assert list(frame["title"]) == [result.title for result in answer]
    empty = answering.similar("m003", where="false").to_pandas()
    assert (len(empty), list(empty.columns)) == (0, list(frame.columns))


def test_answers_are_sequences_and_say_what_they_are(answering: Recommender) -> None:
    answers = answering.recommend([0, 1], 12)
    answer = answers[-1]
    assert answer[0] == answer.results[0]
    assert answer[-1].rank == 12
    assert [result.rank for result in answer[2:4]] == [3, 4]
    assert repr(answers) == "<Answers to 2 queries: 12 requested, index, exact=True>"
    assert repr(answer).splitlines()[0] == "<Answer to {'user_id': '1'}: 12 of 12, 150 match, index, exact=True>"
    assert f"  1. {answer[0].title} {answer[0].score:.4f}" in repr(answer).splitlines()
    assert repr(answer).splitlines()[-1] == "  … and 2 more"
    shown = answer._repr_html_()
    number = row_of(answer[0].media_id)
    assert f"<td>Film &lt;{number}&gt; é</td>" in shown
    assert answers._repr_html_().count("<tr>") == 1 + 2 * 12
    assert bool(answering.similar("m003", where="false"))


def test_answers_are_pickled_with_the_titles_they_hold(answering: Recommender) -> None:
    answers = answering.recommend(range(7), 3, where="votes > 10")
    again = pickle.loads(pickle.dumps(answers))
    assert again.as_dict() == answers.as_dict()
    assert again.to_arrow().equals(answers.to_arrow())
    np.testing.assert_array_equal(again.rows, answers.rows)
    one = pickle.loads(pickle.dumps(answers[4]))
    assert (one.as_dict(), one[0]) == (answers[4].as_dict(), answers[4][0])
    assert len(pickle.dumps(answers[4])) < 6000, "one answer takes nothing of the others or the index along"


def test_what_a_user_needs_is_at_the_top() -> None:
    for name in ("Answer", "Answers", "Filter", "Recommender", "Taste"):
        assert getattr(semrec_faiss, name).__name__ == name
        assert name in semrec_faiss.__all__
