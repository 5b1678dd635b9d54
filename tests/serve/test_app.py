"""Every route answers what the command line prints, and every mistake is a problem document."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import HANG_SECONDS, Semrec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.data.text.encoder import ModelSource
from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import (
    DamagedIndexError,
    DeviceError,
    MissingModelError,
    MissingPackageError,
    SemrecError,
    StorageError,
)
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.answers.answer_json import numbers_json
from semrec_faiss.search.filters.filter import Selections
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.serve.asking.answering import ask
from semrec_faiss.serve.wire.messages import ARROW, Request, scores_json
from semrec_faiss.serve.wire.problems import Refused, reply_to
from semrec_faiss.serve.wire.questions import Recommend, Similar, question_in
from tests.serve.conftest import build


def timeless(document: Any) -> Any:
    """Leave out times, and how a search was made: callers that are searched together share that."""
    if isinstance(document, dict):
        return {name: timeless(value) for name, value in document.items() if name not in ("elapsed_ms", "strategy")}
    return [timeless(one) for one in document] if isinstance(document, list) else document


def words_of(text: str) -> str:
    """Write a JSON text in one line, as `timeless`: its keys in their order, its numbers digit by digit."""
    return json.dumps(timeless(json.loads(text, parse_float=str)))


SAME: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("similar", {"title": "m00003", "k": 4}, ("similar", "m00003", "-k", "4")),
    ("similar", {"title": "film 7 1957", "k": 3}, ("similar", "film 7 1957", "-k", "3")),
    (
        "similar",
        {"title": "Film 3 (1953)", "k": 5, "genres": ["drama"], "years": [1960, None], "exclude": ["m00010"]},
        ("similar", "Film 3 (1953)", "-k", "5", "--genre", "drama", "--year", "1960..", "--exclude", "m00010"),
    ),
    (
        "similar",
        {"title": "m00003", "k": 5, "where": "runtime < 90", "diversity": 0.5, "max_per": {"year": 1}},
        ("similar", "m00003", "-k", "5", "--where", "runtime < 90", "--diversity", "0.5", "--max-per", "year=1"),
    ),
    (
        "similar",
        {"title": "m00003", "k": 5, "any_of": {"genres": ["Drama", "Crime"]}, "ranges": {"runtime": [80, 100.5]}},
        (
            *("similar", "m00003", "-k", "5", "--any-of", "genres=Drama", "--any-of", "genres=Crime"),
            *("--range", "runtime=80..100.5"),
        ),
    ),
    (
        "similar",
        {"title": "m00003", "k": 5, "any_of": {"genres": ["Drmaa"]}},
        ("similar", "m00003", "-k", "5", "--any-of", "genres=Drmaa"),
    ),
    ("recommend", {"user": "user_003"}, ("recommend", "--user", "user_003")),
    ("recommend", {"user": "user_003", "include_seen": True}, ("recommend", "--user", "user_003", "--include-seen")),
    (
        "recommend",
        {"users": ["user_003", "user_001"], "k": 3},
        ("recommend", "--user", "user_003", "--user", "user_001", "-k", "3"),
    ),
    (
        "recommend",
        {"likes": ["m00001"], "dislikes": ["m00002"], "ratings": {"m00003": 4.5}, "k": 3},
        ("recommend", "--like", "m00001", "--dislike", "m00002", "--rate", "m00003=4.5", "-k", "3"),
    ),
    ("explain", {"user": "user_003", "title": "m00001", "k": 2}, ("explain", "user_003", "m00001", "-k", "2")),
]


@pytest.mark.parametrize(("route", "question", "command"), SAME)
def test_the_json_is_that_of_the_command_line_word_for_word(
    route: str, question: dict[str, Any], command: tuple[str, ...], asker: Any, index: Path, semrec: Semrec
) -> None:
    reply = asker.post(f"/v1/{route}", question)
    assert reply.status_code == 200, reply.text
    assert reply.headers["semrec-generation"] == "gen-000001"
    assert words_of(reply.text) == words_of(semrec(command[0], str(index), *command[1:], "--json").out)


@pytest.mark.parametrize(
    ("route", "question", "command", "code"),
    [
        ("similar", {"title": "Filn 12"}, ("similar", "Filn 12"), 4),
        ("similar", {"title": "n00012"}, ("similar", "n00012"), 4),
        ("similar", {"title": "zzzzqqqxw"}, ("similar", "zzzzqqqxw"), 4),
        ("recommend", {"user": "user_0031"}, ("recommend", "--user", "user_0031"), 4),
        ("similar", {"title": "m00001", "genres": ["Drmaa"]}, ("similar", "m00001", "--genre", "Drmaa"), 2),
    ],
)
def test_an_errors_json_is_that_of_the_command_line(
    route: str, question: Any, command: tuple[str, ...], code: int, asker: Any, index: Path, semrec: Semrec
) -> None:
    """On stdout, beside the message on stderr, which is as it is without --json."""
    problem = asker.post(f"/v1/{route}", question).json()
    ended = semrec(command[0], index, *command[1:], "--json")
    document = json.loads(ended.out)
    assert document.pop("exit_code") == ended.code == code
    shared = {name: problem[name] for name in ("detail", "fix", "candidates", "media_ids") if name in problem}
    assert document == shared and list(document) == list(shared)
    plainly = semrec(command[0], index, *command[1:])
    assert (plainly.out, plainly.err, plainly.code) == ("", ended.err, code)


@pytest.mark.parametrize(
    ("route", "asked"),
    [
        ("similar", {"title": "m00003"}),
        ("similar", {"titles": ["m00003", "m00004"]}),
        ("recommend", {"users": ["user_003", "user_001"]}),
        ("recommend", {"likes": ["m00001"]}),
        ("search", {"vectors": [[1.0] * 16] * 2}),
    ],
)
def test_an_answer_says_why_nothing_matches(route: str, asked: dict[str, Any], asker: Any) -> None:
    """In JSON and in Arrow's metadata; what matches something, or is left out for other reasons, has no notes."""
    wrong = {"any_of": {"genres": ["Drmaa"]}, "ranges": {"year": [3000, None]}, "where": "title = 'Film 7 '"}
    notes = [
        "no title satisfies title = 'Film 7 '; did you mean 'Film 7 (1957)'?",
        "no title has the genres 'Drmaa'; did you mean 'Drama'?",
        "no title's year is from 3000 on; year goes from 1950 to 2019",
    ]
    found = asker.post(f"/v1/{route}", asked | wrong).json()
    answers = found.get("answers", [found])
    assert [(one["matching"], one["notes"]) for one in answers] == [(0, notes)] * len(answers)
    table = asker.post(f"/v1/{route}", asked | wrong, headers={"accept": ARROW})
    account = json.loads(pa.ipc.open_stream(table.content).read_all().schema.metadata[b"semrec"])
    assert account["notes"] == notes
    for fine in ({}, {"any_of": {"genres": ["Drmaa", "Drama"]}}, {"any_of": {"genres": ["Drama"]}, "where": "false"}):
        assert "notes" not in asker.post(f"/v1/{route}", asked | fine).text


def test_several_titles_and_several_users_are_answered_in_their_order(asker: Any) -> None:
    names = [f"m{row:05d}" for row in range(20)]
    together = asker.post("/v1/similar", {"titles": names, "k": 3}).json()["answers"]
    few = asker.post("/v1/similar", {"titles": names[:3], "k": 3}).json()["answers"]
    alone = [asker.post("/v1/similar", {"title": name, "k": 3}).json() for name in names]
    assert [timeless(one) for one in together] == [timeless(one) for one in alone]
    assert [timeless(one) for one in few] == [timeless(one) for one in alone[:3]]
    filtered = asker.post("/v1/similar", {"titles": names[:2], "k": 3, "genres": ["Crime"]}).json()["answers"]
    assert {tuple(result["genres"]) for one in filtered for result in one["results"]} == {("Crime",)}


def test_several_titles_are_compared_by_cosine_where_lengths_mean_something(
    new_asker: Any, data: Path, tmp_path: Path
) -> None:
    """Once refused, with the fix to ask title by title."""
    settings = {"index": {"type": "flat", "normalize": False}, "dataset": str(data), "device": "cpu"}
    build_index(config_from_dict(settings | {"output": str(tmp_path / "index")}))
    asker = new_asker(tmp_path / "index")
    asker.load()
    names = ["m00005", "Film 2", "m00011"]
    for more in ({"k": 4}, {"k": 300}, {"k": 300, "where": "media_id IN ('m00001', 'm00002', 'm00005')"}):
        together = asker.post("/v1/similar", {"titles": names, **more})
        alone = [asker.post("/v1/similar", {"title": name, **more}).json() for name in names]
        assert [timeless(one) for one in together.json()["answers"]] == [timeless(one) for one in alone]
        assert {one["strategy"] for one in alone} == {"cosine"}
    table = asker.post("/v1/similar", {"titles": names, "k": 4}, headers={"accept": ARROW})
    assert pa.ipc.open_stream(table.content).read_all().num_rows == 12
    none = asker.post("/v1/similar", {"titles": names, "k": 4, "where": "media_id = 'nobody'"}).json()["answers"]
    assert [one["returned"] for one in none] == [0, 0, 0]
    none = asker.post("/v1/similar", {"titles": names, "any_of": {"genres": ["Drmaa"]}}).json()["answers"]
    assert [one["notes"] for one in none] == [["no title has the genres 'Drmaa'; did you mean 'Drama'?"]] * 3
    assert asker.post("/v1/similar", {"titles": names, "by": "people"}).status_code == 400
    assert asker.post("/v1/similar", {"titles": [*names, "no such title"]}).status_code == 404
    with due_at(time.monotonic()), pytest.raises(TooLateError, match="were not asked about"):
        ask(asker.service.serving.current, Similar(titles=names), None)


def test_vectors_come_as_json_base64_and_arrow(asker: Any, index: Path) -> None:
    recommender = Recommender.open(index)
    vectors = recommender.index.vectors([5, 9])
    expected = recommender.search(vectors, 3)
    as_lists = asker.post("/v1/search", {"vectors": vectors.tolist(), "k": 3})
    coded = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
    in_base64 = asker.post("/v1/search", {"vectors_base64": coded, "k": 3})
    assert timeless(as_lists.json()) == timeless(in_base64.json()) == timeless(expected.as_dict())
    table = pa.table({"vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    headers = {"content-type": ARROW, "accept": ARROW}
    reply = asker.ask("POST", "/v1/search?k=3", content=sink.getvalue().to_pybytes(), headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == ARROW
    found = pa.ipc.open_stream(reply.content).read_all()
    assert found.drop_columns([]).to_pylist() == expected.to_arrow().to_pylist()
    account = json.loads(found.schema.metadata[b"semrec"])
    assert account == {"requested": 3, "strategy": "index", "exact": True, "elapsed_ms": account["elapsed_ms"]}


def test_titles_as_one_types_and_what_info_says(asker: Any, index: Path, semrec: Semrec) -> None:
    found = asker.get("/v1/titles", params={"q": "FILM 29", "k": 3}).json()["titles"]
    assert [title["media_id"] for title in found] == ["m00029", "m00290", "m00291"]
    assert found[0]["year"] == 1979
    assert asker.get("/v1/index").json() == semrec("info", str(index), "--json").document | {"index": index.name}
    assert asker.get("/v1/titles", params={"q": "x", "k": "0"}).status_code == 422


MISTAKES: list[tuple[str, Any, int, str]] = [
    ("similar", {"title": "Film 9999"}, 404, "no title answers"),
    ("similar", {"title": "m00001", "where": "year >"}, 400, "not one SQL"),
    ("similar", {"title": "m00001", "where": "(SELECT 1) = 1"}, 400, "subquery"),
    ("similar", {"title": "m00001", "k": 51}, 422, "at most 50"),
    ("similar", {"title": "m00001", "k": 0}, 422, ">= 1"),
    ("similar", {"title": "m00001", "kk": 1}, 422, "kk"),
    ("similar", {"k": 1}, 422, "one of title, titles"),
    ("similar", {"title": "m00001", "titles": ["m00002"]}, 422, "both"),
    ("similar", {"titles": ["m00001"] * 31}, 422, "at most 30"),
    ("similar", {"titles": ["nobody looks this up"] * 25, "k": 49}, 422, "25 queries of k 49 are 1225 results"),
    ("recommend", {"users": ["user_001"] * 30, "k": 41}, 422, "gives at most 1200 a request"),
    ("search", {"vectors": [[1.0] * 16] * 30, "k": 41}, 422, "1230 results"),
    ("similar", {"title": "m00001", "genres": ["Noir"]}, 400, "no title has the genre"),
    ("similar", {"title": "m00001", "years": [2000, 1990]}, 400, "empty span"),
    ("similar", {"title": "m00001", "any_of": {"brand": ["Sony"]}}, 400, "no field 'brand'"),
    ("similar", {"title": "m00001", "ranges": {"year": [None, None]}}, 400, "a first and a last value"),
    ("similar", {"title": "m00001", "any_of": {"year": []}}, 422, "length >= 1"),
    ("similar", {"title": "m00001", "genres": ["Crime"], "strategy": "masked"}, 400, "only type fused on a GPU"),
    ("recommend", {"user": "nobody"}, 404, "no user"),
    ("recommend", {"user": "user_001", "likes": ["m00001"]}, 422, "both"),
    ("recommend", {"ratings": {"m00001": 9}}, 422, "<= 5"),
    ("recommend", {"user": "user_001", "profile": {"colour": 1}}, 400, "colour"),
    ("search", {"vectors": [[1.0, 2.0]]}, 422, "the index has 16"),
    ("search", {"vectors": [[0.0] * 16]}, 422, "zero"),
    ("search", {"vectors_base64": "####"}, 422, "no base64"),
    ("search", {"vectors_base64": "AAAA"}, 422, "takes 64"),
    ("search", {"text": "a heist"}, 400, "does not know which text model"),
    ("explain", {"user": "user_001", "title": "Film 9999"}, 404, "no title answers"),
    ("nothing", {}, 404, "nothing at"),
]


@pytest.mark.parametrize(("route", "question", "status", "detail"), MISTAKES)
def test_a_mistake_is_a_problem_document(route: str, question: Any, status: int, detail: str, asker: Any) -> None:
    reply = asker.post(f"/v1/{route}", question, headers={"x-request-id": "mine-1"})
    problem = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert detail in problem["detail"]
    assert (problem["status"], problem["request_id"], reply.headers["x-request-id"]) == (status, "mine-1", "mine-1")
    assert "Traceback" not in reply.text
    assert problem["fix"] and not re.search(r"--|semrec ", problem["fix"].partition("build the index")[0])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DamagedIndexError("items.parquet is not as it was written", fix="run `semrec rollback INDEX`"), 503),
        (DeviceError("memory does not suffice", fix="set device.kind=cpu"), 503),
        (StorageError("too many open files", fix="let it have more files open"), 503),
        (MissingPackageError("sentence-transformers is not installed", fix="pip install it"), 501),
        (MissingModelError("the model is not here", fix="pip install it"), 400),
    ],
)
def test_a_fix_for_the_servers_machine_says_whose_it_is(error: SemrecError, status: int) -> None:
    """Once a fault: whoever asked over HTTP was told to run `semrec rollback`, or to set the device."""
    reply = reply_to(error, None, Path("index"))
    assert reply.status == status
    assert json.loads(reply.body)["fix"] == f"for whoever runs the service: {error.fix}"
    assert b"fix" not in reply_to(DeviceError("FAISS failed"), None, Path("index")).body


def test_a_genre_that_there_is_not_names_those_that_may_be_meant(asker: Any) -> None:
    problem = asker.post("/v1/similar", {"title": "m00001", "not_genres": ["Drmaa"]}).json()
    assert (problem["status"], problem["candidates"]) == (400, ["Drama"])
    assert "media_ids" not in problem
    assert "candidates" not in asker.post("/v1/similar", {"title": "m00001", "genres": ["§§"]}).json()


class FakeEncoder:
    """Makes a vector of a text's length."""

    device, batch_size = "cpu", 64

    def encode(self, texts: Sequence[str]) -> Any:
        return np.array([[1.0, len(text)] for text in texts], np.float32)


def test_a_text_model_that_is_not_here_is_told_with_the_fix(
    tmp_path: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a 404, as if the one who asks had named something that there is not."""
    (tmp_path / "data/media").mkdir(parents=True)
    lines = "".join(json.dumps({"media_id": row, "title": "Film" + row * "!"}) + "\n" for row in range(5))
    (tmp_path / "data/media/metadata.jsonl").write_text(lines)
    embed_folder(tmp_path / "data", model="a-model", encoder=FakeEncoder())
    side = tmp_path / "data/media/content_vectors.json"
    side.write_text(json.dumps(json.loads(side.read_text()) | {"model_sha256": "0" * 64}))
    build(tmp_path / "data", tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    for source, told in (
        (ModelSource("a-model", "a-model", None), "the text model 'a-model' that made the index's vectors is not on"),
        (ModelSource("a-model", "a-model", "1" * 64), "it is another, or other files of it"),
    ):
        monkeypatch.setattr("semrec_faiss.search.text.find_model", lambda _, source=source: source)
        reply = asker.post("/v1/search", {"text": "a heist"})
        assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
        assert told in reply.json()["detail"] and "candidates" not in reply.json()
        assert reply.json()["fix"].startswith("for whoever runs the service: p") and "--" not in reply.json()["fix"]
    assert asker.post("/v1/search", {"text": "a heist", "exclude": ["nothing such"]}).status_code == 404
    assert asker.post("/v1/search", {"vectors": [[1.0, 2.0]]}).status_code == 200
    described = asker.get("/openapi.json").json()["paths"]["/v1/search"]["post"]["responses"]["400"]["description"]
    assert "the index's model is not on the server" in described


def test_candidates_are_named_for_what_is_not_found(asker: Any) -> None:
    problem = asker.post("/v1/similar", {"title": "Filn 12"}).json()
    assert problem["media_ids"][problem["candidates"].index("Film 12 (1962)")] == "m00012"
    assert len(problem["media_ids"]) == len(problem["candidates"]) == 5
    assert problem["fix"]
    assert "media_ids" not in asker.post("/v1/recommend", {"user": "nobody"}).json()


def test_titles_that_look_like_what_is_typed_are_found_where_none_holds_it_and_they_are_asked_for(asker: Any) -> None:
    def typed(**parameters: Any) -> Any:
        return asker.get("/v1/titles", params=parameters)

    assert typed(q="filn 12").json() == typed(q="filn 12", near="false").json() == {"titles": []}
    near = typed(q="filn 12", near="true", k=5).json()
    problem = asker.post("/v1/similar", {"title": "filn 12"}).json()
    assert near["near"] is True
    assert [title["media_id"] for title in near["titles"]] == problem["media_ids"]
    assert typed(q="film 12", near="true").json() == typed(q="film 12").json()
    assert typed(q="", near="true").json() == {"titles": [], "near": True}
    assert (typed(q="x", near="yes").status_code, typed(q="x", near="").status_code) == (422, 422)


def test_a_parameter_that_is_mistyped_or_given_twice_is_refused(asker: Any) -> None:
    told = {}
    for query in ("q=film&naer=true", "q=film&limit=3", "q=film&near=true&near=false"):  # once no word was said
        problem = asker.get(f"/v1/titles?{query}").json()
        told[problem["detail"]] = (problem["status"], problem["fix"])
    assert told == {
        "/v1/titles has no parameter 'naer'": (422, "did you mean 'near'? parameters: q, k, near"),
        "/v1/titles has no parameter 'limit'": (422, "parameters: q, k, near"),
        "the parameter 'near' occurs twice": (400, "send it once"),
    }


@pytest.mark.parametrize(
    ("path", "question", "detail", "fix"),
    [
        ("similar", {"titel": "a"}, "/v1/similar has no field 'titel'", "did you mean 'title'? fields: k, where, "),
        ("recommend", {"zzz": 1}, "/v1/recommend has no field 'zzz'", "fields: k, where, genres"),
        ("explain", {"use": 1}, "/v1/explain has no field 'use'", "did you mean 'user'? fields: user, title, k"),
        (
            "similar",
            {"title": "a", "by": "texts"},
            "by is none of its values: 'texts'",
            "did you mean 'text'? values: whole, people, text",
        ),
        (
            "similar",
            {"title": "m00001", "any_of": {"genrs": ["Crime"]}},
            "the titles have no field 'genrs'",
            "did you mean 'genres'? fields: media_id",
        ),
        (
            "similar",
            {"title": "m00001", "max_per": {"yaer": 1}},
            "the titles have no field 'yaer'",
            "did you mean 'year'",
        ),
        (
            "recommend",
            {"user": "user_001", "profile": {"wieghts": 1}},
            "the profile has no setting 'wieghts'",
            "did you mean 'weights'? settings: weights",
        ),
        ("simlar", {}, "there is nothing at /v1/simlar", "did you mean '/v1/similar'? see /openapi.json"),
        (
            "similar?k=3",
            {"title": "m00001"},
            "/v1/similar takes no parameters behind a question mark: 'k=3'",
            "send what",
        ),
    ],
)
def test_a_name_that_there_is_not_is_told_with_the_nearest(
    path: str, question: Any, detail: str, fix: str, asker: Any
) -> None:
    problem = asker.post(f"/v1/{path}", question).json()
    assert (problem["detail"], problem["fix"][: len(fix)]) == (detail, fix)


def test_a_parameter_beside_arrow_is_told_with_the_nearest(asker: Any) -> None:
    sent = {"content": b"", "headers": {"content-type": ARROW}}
    told = [asker.ask("POST", f"/v1/search?{query}", **sent).json() for query in ("genrs=Crime", "strategy=mask")]
    assert [one["fix"][:23] for one in told] == ["did you mean 'genres'? ", "did you mean 'masked'? "]
    assert told[0]["detail"] == "/v1/search has no field 'genrs'"


def test_as_many_results_as_may_be_are_given_at_once(asker: Any) -> None:
    answers = asker.post("/v1/similar", {"titles": ["m00001"] * 24, "k": 50}).json()["answers"]
    assert [answer["returned"] for answer in answers] == [50] * 24
    vectors = pa.table({"vector": pa.array([[1.0] * 16] * 25, pa.list_(pa.float32(), 16))})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, vectors.schema) as writer:
        writer.write_table(vectors)
    asked = {"content": stream.getvalue().to_pybytes(), "headers": {"content-type": ARROW, "accept": ARROW}}
    assert asker.ask("POST", "/v1/search?k=48", **asked).status_code == 200
    assert asker.ask("POST", "/v1/search?k=49", **asked).status_code == 422


def test_bodies_that_are_no_json_or_too_large_and_other_methods(asker: Any) -> None:
    assert asker.ask("POST", "/v1/similar", content=b'{"title":').status_code == 400
    assert asker.ask("POST", "/v1/similar", content=b'{"title":"\xff"}').status_code == 400
    assert asker.ask("POST", "/v1/similar", content=b"[" * 100_000).status_code in (400, 422)
    large = asker.ask("POST", "/v1/similar", content=b" " * (1 << 20) + b"{}")
    assert (large.status_code, large.headers["connection"]) == (413, "close")
    other = asker.get("/v1/similar")
    assert (other.status_code, other.headers["allow"]) == (405, "POST")
    assert asker.ask("HEAD", "/livez").status_code == 200
    bad = asker.ask("POST", "/v1/search", content=b"no arrow", headers={"content-type": ARROW})
    assert (bad.status_code, "no Arrow" in bad.json()["detail"]) == (400, True)


HALF = "is half of a surrogate pair, and no character"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"title": "m00001", "title": "m00002"}', "the key 'title' occurs twice"),
        (b'{"ti\\u0074le": "m00001", "k" : 3, "title" : "m00002"}', "the key 'title' occurs twice"),
        (b'{"title": "m00001", "any_of": {"genres": ["a"], "genres": ["b"]}}', "the key 'genres' occurs twice"),
        (b'{"title": "\\ud800"}', r"the body is not JSON: \ud800 is half of a surrogate pair, and no character"),
        (
            b'{"title": "\\ud83d\\ude00 \\udc00"}',
            r"the body is not JSON: \udc00 is half of a surrogate pair, and no character",
        ),
        (b"", "the body is not JSON: it is empty"),
        (b'{"title": "\\\\ud800", ', "the body is not JSON: Input data was truncated"),
    ],
)
def test_json_that_says_something_twice_or_in_halves_is_refused(asker: Any, body: bytes, said: str) -> None:
    reply = asker.ask("POST", "/v1/similar", content=body)
    assert (reply.status_code, reply.json()["detail"]) == (400, said)
    assert reply.json()["fix"]


@pytest.mark.parametrize(
    ("route", "question"),
    [
        ("/v1/similar", {"title": "x" * 900_000}),
        ("/v1/recommend", {"users": ["x" * 900_000]}),
        ("/v1/similar", {"title": "m00001", "where": f"'{'x' * 9_000}'"}),
        ("/v1/similar", {"title": "m00001", "any_of": {"x" * 900_000: ["a"]}}),
        ("/v1/similar", {"title": "m00001", "x" * 900_000: 1}),
        ("/v1/similar", {"title": "m00001", "any_genres": ["x" * 900_000]}),
    ],
)
def test_a_reply_repeats_no_long_text(asker: Any, route: str, question: dict[str, Any]) -> None:
    reply = asker.post(route, question)
    assert 400 <= reply.status_code < 500
    assert len(reply.content) < 3_000


def test_a_key_twice_among_very_many_is_found_in_one_pass() -> None:
    """Once a fault: a body with 60,000 keys held up all callers for 90 seconds, one of 16 MB for hours."""
    keys = ",".join(f'"{number}":1' for number in (*range(100_000), 99_999))
    request = Request("POST", "/v1/recommend", b"", {}, b"1", 0.0, f'{{"ratings":{{{keys}}}}}'.encode())
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(Refused) as refused:
            question_in(request, Recommend)
        told.append(refused.value.detail)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HANG_SECONDS)
    assert told == ["the key '99999' occurs twice"]


def test_colons_in_values_are_no_keys(asker: Any) -> None:
    question = {"title": "m00001", "where": "title <> 'a:b::c'", "k": 3}
    assert asker.post("/v1/similar", question).json()["returned"] == 3


def test_before_it_is_ready_it_says_so(index: Path, new_asker: Any) -> None:
    asker = new_asker(index)
    assert asker.get("/livez").status_code == 200
    assert asker.get("/readyz").status_code == 503
    early = asker.post("/v1/similar", {"title": "m00001"})
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    asker.load()
    assert asker.get("/readyz").json() == {
        "ready": True,
        "draining": False,
        "generation": "gen-000001",
        "refused": None,
    }
    asker.service.handlers.is_draining = True
    assert asker.get("/readyz").status_code == 503
    assert asker.post("/v1/similar", {"title": "m00001"}).headers["connection"] == "close"


@pytest.mark.parametrize("inline_queries", [64, 0])
def test_too_late_and_too_many(
    index: Path, new_asker: Any, inline_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = new_asker(index, limits={"max_waiting": 2})
    asker.load().inline_queries = inline_queries
    searched: list[int] = []
    run, all_told = Searcher.run, threading.Event()

    def slow(searcher: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        searched.append(wish.k)
        assert inline_queries or all_told.wait(HANG_SECONDS)  # in the event loop nobody else is told meanwhile
        time.sleep(0.1)  # and now the second one's time is up
        return run(searcher, queries, wish, exclusions)

    monkeypatch.setattr(Searcher, "run", slow)
    import asyncio

    async def together() -> list[int]:
        async def told(k: int, headers: dict[str, str]) -> int:
            reply = await asker._client.post("/v1/similar", json={"title": "m00001", "k": k}, headers=headers)
            if reply.status_code == 429:
                all_told.set()
            return int(reply.status_code)

        return await asyncio.gather(told(3, {}), told(4, {"deadline-ms": "50"}), told(5, {}))

    assert asker.loop.run_until_complete(together()) == [200, 504, 429]
    asker.service.serving.batcher.close()
    assert searched == [3], "what came too late is not searched for"


@pytest.mark.parametrize(("inline_queries", "loop_queries"), [(64, 64), (64, 0), (0, 0)])
def test_what_comes_in_one_moment_is_one_batch_and_each_gets_its_own(
    index: Path, new_asker: Any, inline_queries: int, loop_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    asker = new_asker(index)
    served = asker.load()
    served.inline_queries, served.loop_queries = inline_queries, loop_queries
    alone = Recommender.open(index)
    batches: list[int] = []
    run = Searcher.run

    def counted(searcher: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        batches.append(len(queries))
        if len(queries) > 1 and inline_queries:
            raise ValueError("a batch that fails is asked one by one")
        return run(searcher, queries, wish, exclusions)

    async def together() -> list[Any]:
        questions = [asker._client.post("/v1/similar", json={"title": f"m{row:05d}", "k": 4}) for row in range(12)]
        questions += [asker._client.post("/v1/similar", json={"title": "m00001", "k": 2}, headers={"accept": ARROW})]
        return list(await asyncio.gather(*questions))

    monkeypatch.setattr(Searcher, "run", counted)
    *replies, arrow = asker.loop.run_until_complete(together())
    monkeypatch.undo()
    assert max(batches) > 1
    for row, reply in enumerate(replies):
        assert timeless(reply.json()) == timeless(alone.similar(f"m{row:05d}", 4).as_dict())
    expected = alone.similar("m00001", 2).to_arrow().to_pylist()
    assert pa.ipc.open_stream(arrow.content).read_all().to_pylist() == expected


@pytest.mark.parametrize(("joined_from", "batches"), [(4, [12]), (13, [1] * 12), (0, [1] * 12)])
def test_where_batches_pay_those_that_wait_are_searched_together(
    joined_from: int, batches: list[int], index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is searched between two requests; as many as are searched sooner together go to the batcher."""
    import asyncio

    asker, alone = new_asker(index), Recommender.open(index)
    served = asker.load()
    served.inline_queries, served.loop_queries, served.joined_from = 1, 1, joined_from
    searched: list[tuple[int, bool]] = []
    run = Searcher.run

    def told(searcher: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        searched.append((len(queries), threading.current_thread() is threading.main_thread()))
        return run(searcher, queries, wish, exclusions)

    async def together() -> list[Any]:
        questions = [asker._client.post("/v1/similar", json={"title": f"m{row:05d}", "k": 4}) for row in range(12)]
        return list(await asyncio.gather(*questions))

    monkeypatch.setattr(Searcher, "run", told)
    replies = asker.loop.run_until_complete(together())
    monkeypatch.undo()
    assert searched == [(size, size == 1) for size in batches]
    for row, reply in enumerate(replies):
        assert timeless(reply.json()) == timeless(alone.similar(f"m{row:05d}", 4).as_dict())


@pytest.mark.parametrize(
    ("path", "question", "loop_queries", "is_here"),
    [
        ("similar", {"title": "m00001", "k": 4}, 64, True),
        ("similar", {"title": "m00001", "k": 4}, 11, False),
        ("similar", {"title": "m00001", "k": 33}, 64, False),
        ("recommend", {"user": "user_001", "k": 4}, 64, False),
    ],
)
def test_only_what_takes_little_time_holds_up_the_event_loop(
    path: str,
    question: Any,
    loop_queries: int,
    is_here: bool,
    index: Path,
    new_asker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a fault: lists of a thousand titles were searched for between two requests, for a third of a second."""
    import asyncio

    asker = new_asker(index)
    served = asker.load()
    served.inline_queries, served.loop_queries = 64, loop_queries
    here: list[bool] = []
    run = Searcher.run

    def told(searcher: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        here.append(threading.current_thread() is threading.main_thread())
        return run(searcher, queries, wish, exclusions)

    async def together() -> list[Any]:
        return list(await asyncio.gather(*(asker._client.post(f"/v1/{path}", json=question) for _ in range(12))))

    monkeypatch.setattr(Searcher, "run", told)
    assert {reply.status_code for reply in asker.loop.run_until_complete(together())} == {200}
    assert here == [is_here]


@pytest.mark.parametrize("inline_queries", [64, 0])
def test_users_of_one_moment_keep_what_they_ask_for(
    index: Path, new_asker: Any, inline_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    asker = new_asker(index)
    asker.load().inline_queries = inline_queries
    alone = Recommender.open(index)
    asked: list[Any] = []
    run = Searcher.run

    def told(searcher: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        asked.append(queries)
        return run(searcher, queries, wish, exclusions)

    async def together() -> list[Any]:
        questions = [
            asker._client.post("/v1/recommend", json={"user": user, "k": 6, "include_seen": include_seen})
            for user in alone.users.ids[:10]
            for include_seen in (False, True)
        ]
        return list(await asyncio.gather(*questions))

    monkeypatch.setattr(Searcher, "run", told)
    replies = asker.loop.run_until_complete(together())
    monkeypatch.undo()
    assert all(isinstance(one, UserRows) for one in asked), "users on a GPU need no vectors"
    assert max(map(len, asked)) > 1
    for number, reply in enumerate(replies):
        expected = alone.recommend(alone.users.ids[number // 2], 6, include_seen=bool(number % 2))
        assert timeless(reply.json()) == timeless(expected.as_dict())


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_scores_are_written_as_json_does(scores: list[float]) -> None:
    assert scores_json(scores) == numbers_json(scores) == [json.dumps(score).encode() for score in scores]


def test_prometheus_reads_the_metrics(asker: Any) -> None:
    asker.post("/v1/similar", {"title": "m00001"})
    asker.post("/v1/recommend", {"user": "nobody"})
    asker.post("/v1/similar", {"title": "m00001", "genres": ["Crime"]})
    families = {one.name: one for one in text_string_to_metric_families(asker.get("/metrics").text)}
    requests = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["semrec_requests"].samples
        if sample.name.endswith("_total")
    }
    assert requests["/v1/similar", "200"] >= 1
    assert requests["/v1/recommend", "404"] >= 1
    assert families["semrec_generation"].samples[0].labels == {"name": "gen-000001"}
    parts = {sample.labels.get("part") for sample in families["semrec_part_seconds"].samples}
    assert {"look_up", "filter", "search", "render", "thread"} <= parts
    assert {"semrec_batch_queries", "semrec_wait_seconds", "semrec_queue_length", "semrec_generation_refused"} <= set(
        families
    )
    assert np.isfinite([sample.value for one in families.values() for sample in one.samples]).all()


def test_the_metrics_tell_filter_and_search_of_a_question_apart(asker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts() -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(asker.get("/metrics").text)
        samples = next(one for one in families if one.name == "semrec_part_seconds").samples
        names = {"semrec_part_seconds_sum": "seconds", "semrec_part_seconds_count": "times"}
        return {(one.labels["part"], names[one.name]): one.value for one in samples if one.name in names}

    def took(question: dict[str, Any], path: str = "/v1/similar") -> dict[tuple[str, str], float]:
        before = parts()
        assert asker.post(path, question).status_code == 200
        found = {name: value - before.get(name, 0.0) for name, value in parts().items()}
        return {name: value for name, value in found.items() if value}

    select, run = Selections.get, Searcher.run

    def selected(*arguments: Any) -> Any:
        time.sleep(0.2)
        return select(*arguments)

    def searched(*arguments: Any, **more: Any) -> Any:
        found = run(*arguments, **more)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(Selections, "get", selected)
    monkeypatch.setattr(Searcher, "run", searched)
    asker.post("/v1/similar", {"title": "m00001", "genres": ["Crime"]})
    found = took({"title": "m00001", "genres": ["Crime"]})
    assert {part for part, _ in found} == {"look_up", "filter", "search", "render", "thread"}
    assert {value for (_, kind), value in found.items() if kind == "times"} == {1}
    assert found["filter", "seconds"] >= 0.2
    assert found["search", "seconds"] >= 0.05
    whole = sum(found[part, "seconds"] for part in ("look_up", "filter", "search", "render"))
    assert found["thread", "seconds"] >= whole - 1e-3
    several = took({"titles": ["m00001", "m00002"], "genres": ["Crime"], "diversity": 0.5})
    assert several["filter", "times"] == several["search", "times"] == 1
    assert {part for part, _ in took({"title": "m00001", "diversity": 0.5})} == {
        "look_up",
        "search",
        "render",
        "thread",
    }
    told = {part for part, _ in took({"user": "user_001", "title": "m00001"}, "/v1/explain")}
    assert told == {"look_up", "render", "thread"}


def test_the_metrics_tell_of_short_answers_errors_loads_and_gpu_memory(
    asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(name: str) -> dict[str, float]:
        families = {one.name: one for one in text_string_to_metric_families(asker.get("/metrics").text)}
        return {"/".join(sample.labels.values()): sample.value for sample in families[name].samples}

    gpu = SimpleNamespace(gpu=1, name="A GPU", used_bytes=3 << 30)
    monkeypatch.setattr("semrec_faiss.serve.metrics.gpu_states", lambda: [gpu])
    assert values("semrec_gpu_memory_bytes") == {"1/A GPU": 3 << 30}
    assert values("semrec_generation_loads")["taken"] == 1
    short = values("semrec_short_answers")[""]
    assert asker.post("/v1/similar", {"title": "m00001", "k": 5, "years": [1951, 1951]}).json()["returned"] < 5
    assert asker.post("/v1/similar", {"title": "m00001", "k": 5}).json()["returned"] == 5
    assert values("semrec_short_answers")[""] == short + 1
    before = values("semrec_requests").get("/v1/similar/422", 0)
    asker.post("/v1/similar", {"title": "m00001", "k": 0})
    assert values("semrec_requests")["/v1/similar/422"] == before + 1


def test_the_page_may_load_nothing_and_stand_in_no_frame(asker: Any) -> None:
    headers = asker.get("/").headers
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    for tag in ("script", "style"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy[f"{tag}-src"]), "and no 'unsafe-inline'"
    wanted = {"x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    assert {name: headers[name] for name in wanted} == wanted


def test_the_first_table_has_nothing_to_load(index: Path) -> None:
    """Once a fault: the first caller who asked for Arrow held up all others by a tenth of a second and more."""
    text = f"""
import sys
from semrec_faiss.search.filters.filter import Selections
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.serve.server import Service
from semrec_faiss.serve.wire.arrow import arrow_stream
before = {{name for name in sys.modules if name.startswith("pyarrow")}}
arrow_stream(Recommender.open({str(index)!r}).similar("m00001", 3))
print(sorted({{name for name in sys.modules if name.startswith("pyarrow")}} - before))
"""
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr
