"""bench answers on a small made-up index: every part is there, adds up, and is judged by the limit it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.measure.bench.answers import AnswersBench, _vectors, bench_answers, held_memory
from semrec_faiss.measure.bench.answers_record import CommandRun
from semrec_faiss.measure.bench.every_user import every_user
from semrec_faiss.progress import silent
from semrec_faiss.search.recommender import Recommender

SHARES = {"p50_ms", "p95_ms", "p99_ms"}


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    root: Path = tmp_path_factory.mktemp("answers")
    write_synthetic(root / "data", titles=300, users=60, dim=32, seed=3, seen_per_user=5)
    config = {"dataset": str(root / "data"), "output": str(root / "index"), "device": {"kind": "cpu"}}
    build_index(config_from_dict(config))
    return Recommender.open(root / "index")


@pytest.mark.slow
def test_every_part_is_measured_and_judged_by_its_limit(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.EACH_THREAD", 20)
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.VECTORS", 30)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # or the command's libraries are all compiled anew
    allowed: set[frozenset[int]] = set()
    ask = Recommender.recommend

    def noted(*given: Any, **wish: Any) -> Any:
        allowed.add(frozenset(os.sched_getaffinity(0)))
        return ask(*given, **wish)

    monkeypatch.setattr(Recommender, "recommend", noted)
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.FEW_CORES", 1)
    usable = os.sched_getaffinity(0)
    document = bench_answers(recommender, AnswersBench(questions=20, k=4)).as_json()
    assert os.sched_getaffinity(0) == usable
    if len(usable) > 1:
        assert allowed == {frozenset(usable), frozenset([min(usable)])}
        assert document["threads_on_two_cores"]["users_per_second"] > 0
    assert set(document["questions"]) == {"recommend_user", "similar_media_id", "similar_title"}
    for row in document["questions"].values():
        parts = ("whole", "bare_search", "search", "results", "beside")
        assert all(set(row[part]) == SHARES for part in parts)
        assert all(row[part]["p50_ms"] <= row[part]["p95_ms"] <= row[part]["p99_ms"] for part in parts)
        assert row["beside_limit_ms"] == pytest.approx(0.25 + 4 * 0.010)
        assert row["met"] == (row["beside"]["p50_ms"] <= row["beside_limit_ms"])
        assert 0 < row["asked"] <= 20
        assert row["whole"]["p50_ms"] >= row["results"]["p50_ms"] > 0
    assert document["batches"]["users"] == 60
    assert set(document["batches"]["us_a_title"]) == {"to_arrow", "as_json_bytes", "results", "titles"}
    assert {len(rounds) for rounds in document["batches"]["first_ms"].values()} == {3}
    assert document["batches"]["genre"]
    table = document["batches"]["as_table"]["p50_ms"]
    assert table >= max(document["batches"][part]["p50_ms"] for part in ("rows_and_scores", "to_arrow"))
    vectors = document["vectors"]
    assert (vectors["queries"], vectors["rounds"], len(vectors["first_ms"])) == (30, 15, 3)
    assert 0 < vectors["p50_ms"] <= vectors["p95_ms"] <= vectors["p99_ms"]
    assert all(document[threads]["users_per_second"] > 0 for threads in ("threads", "threads_alone"))
    assert len(document["every_user"]["export_s"]) == 1
    [run] = document["every_user"]["command"]
    seconds = [run.pop(name) for name in ("starting_s", "opening_s", "lists_s", "ending_s")]
    assert all(one > 0 for one in seconds)
    assert run == {"whole_s": pytest.approx(sum(seconds), abs=1e-3)}
    assert document["memory"]["asked"]["own_bytes"] >= document["memory"]["opened"]["own_bytes"] - (1 << 20) > 0
    assert document["memory"]["opened"]["mapped_bytes"] > 0
    assert (document["device"], document["index"]) == ("cpu", {"type": "flat", "titles": 300, "users": 60})


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 1), (60.0, 15)])
def test_a_slow_machine_searches_many_vectors_fewer_times(
    seconds: float, rounds: int, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.VECTORS", 7)
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.VECTORS_SECONDS", seconds)
    monkeypatch.setattr(recommender.users, "vectors", recommender.users.vectors[:5])
    asked: list[np.ndarray] = []
    monkeypatch.setattr(recommender, "search", lambda queries, k: asked.append(queries))
    told = _vectors(recommender, np.random.default_rng(1), AnswersBench())
    assert (told.queries, told.rounds) == (7, rounds)
    assert len({queries.tobytes() for queries in asked}) == rounds + 3, "others each time"


def test_memory_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.measure.bench.answers.status_bytes", lambda _: None)
    assert held_memory() is None


def test_more_questions_than_users_are_refused(recommender: Recommender) -> None:
    with pytest.raises(UsageError, match="60 users and 300 titles are too few for 100 questions"):
        bench_answers(recommender, AnswersBench(questions=100))


def test_the_moments_of_a_command_become_its_parts() -> None:
    run = CommandRun.of((0.5, 2.0, 2.25, 6.25, 7.0))
    assert run.as_json() == {"whole_s": 7.0, "starting_s": 0.5, "opening_s": 1.5, "lists_s": 4.0, "ending_s": 1.0}


def test_an_index_in_memory_has_no_command() -> None:
    vectors = np.eye(32, dtype=np.float32)
    users = {"user_id": ["a", "b"], "vector": list(vectors[:2])}
    told = every_user(Recommender.from_arrays(vectors, users=users), 2, silent)
    assert told.command is None
    assert told.why("command") == "the index is in memory, where no other process finds it"
