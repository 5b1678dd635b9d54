"""Over HTTP, an index in shards: the same answers, and of a lost shard a 503, or what is left where that is wanted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss import Recommender
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.publish.updating import update_shards
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.update.plan import Change
from tests.cluster.worlds import World, give_up


class Service:
    """A service in this process, without a socket."""

    def __init__(self, index: Path, **settings: Any) -> None:
        from semrec_faiss.serve.server import Service
        from semrec_faiss.serve.settings import read_settings

        limits = {"deadline_ms": 1000 * HANG_SECONDS, "max_waiting": 100}
        told = {"index": index, "access_log": False, "ray": "auto", "limits": limits, **settings}
        self.service = Service(read_settings(None, told))
        self.loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(self.service.asgi)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.loop.run_until_complete(self.service.handlers.load())

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(self._client.request(method, path, **more))

    def ask_at_once(self, questions: list[tuple[str, Any]]) -> list[httpx.Response]:
        async def every() -> list[httpx.Response]:
            return await asyncio.gather(*(self._client.post(path, json=question) for path, question in questions))

        return self.loop.run_until_complete(every())

    def answering(self) -> tuple[int, list[int]]:
        ready = self.ask("GET", "/readyz")
        return ready.status_code, [shard["answering"] for shard in ready.json()["shards"]]

    def kill(self, shard: int) -> None:
        import ray

        served = self.service.serving.current
        assert served is not None
        ray.kill(served.recommender.shards.replicas[shard][0], no_restart=True)
        until(lambda: self.answering()[1][shard] == 0)

    def close(self) -> None:
        self.loop.run_until_complete(self._client.aclose())
        self.service.serving.current.recommender.close()
        self.service.close()
        self.loop.close()


QUESTIONS = [
    ("/v1/similar", {"title": "m00010", "k": 5}),
    ("/v1/similar", {"title": "Film 150", "k": 5, "where": "year > 1960"}),
    ("/v1/recommend", {"user": "user_003", "k": 4}),
    ("/v1/search", {"vectors": [[0.5] * 16], "k": 3}),
]


class Held:
    """Lets no search of shards begin until so many questions wait, and counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, service: Service, many: int) -> None:
        self.calls: Counter[str] = Counter()
        asked, handlers, all_wait = OpenShards.ask_each, service.service.handlers, threading.Event()

        def held(shards: OpenShards, method: str, arguments: Any) -> Any:
            self.calls[method] += 1
            until(lambda: all_wait.is_set() or handlers.in_flight >= many)
            all_wait.set()
            return asked(shards, method, arguments)

        monkeypatch.setattr(OpenShards, "ask_each", held)


def _ask_many_at_once(service: Service, whole: Recommender) -> None:
    """Ask many questions in one moment: none waits in a thread of its own, and those of a kind are asked together."""
    vectors = np.random.default_rng(3).normal(size=(30, 16)).tolist()
    titles = [f"m{row:05d}" for row in range(29)]
    questions = [
        *(("/v1/similar", {"title": title, "k": 5}) for title in titles),
        ("/v1/similar", {"titles": titles[:3], "k": 5}),
        *(("/v1/recommend", {"user": f"user_{user:03d}", "k": 5}) for user in range(30)),
        *(("/v1/search", {"vectors": [vector], "k": 5}) for vector in vectors),
        ("/v1/similar", {"title": "film of 150", "k": 5}),
    ]
    with pytest.MonkeyPatch.context() as patched:
        held = Held(patched, service, len(questions))
        before = len(service.service.handlers._threads._threads)
        replies = service.ask_at_once(questions)
    assert [reply.status_code for reply in replies] == [200] * (len(questions) - 1) + [404]
    assert "no title answers to 'film of 150'" in replies[-1].json()["detail"]
    told = [reply.json() for reply in replies[:-1]]
    found = [one["results"] for answer in told for one in answer.get("answers", [answer])]
    titles = [*titles, *titles[:3]]
    answers = [
        *(whole.similar(title, 5) for title in titles),
        *whole.recommend([f"user_{user:03d}" for user in range(30)], 5),
        *whole.search(np.array(vectors, np.float32), 5),
    ]
    assert [[one["media_id"] for one in own] for own in found] == [[one.media_id for one in own] for own in answers]
    for own, answer in zip(found, answers, strict=True):
        assert [one["score"] for one in own] == pytest.approx([one.score for one in answer], abs=1e-6)
    assert held.calls["top"] <= 2 * 3, "of each kind the first ones, and all that waited"
    assert held.calls["by_name"] <= 2
    assert len(service.service.handlers._threads._threads) <= before + 1, "for the unknown title"


@pytest.fixture(scope="module")
def sharded(cluster: Any, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "index"
    build_shards(config_from_dict(world.config | {"output": str(out)}), 2)
    return out


def test_it_answers_and_knows_which_shards_do(sharded: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(sharded)
    try:
        whole = Recommender.open(world.whole)
        told = [service.ask("POST", path, json=question).json() for path, question in QUESTIONS]
        assert told[0]["results"] == whole.similar("m00010", 5).as_dict()["results"]
        assert told[1]["results"] == whole.similar("Film 150", 5, where="year > 1960").as_dict()["results"]
        assert told[2]["results"] == whole.recommend("user_003", 4).as_dict()["results"]
        assert len(told[3]["answers"][0]["results"]) == 3
        _ask_many_at_once(service, whole)
        for typed in ("film 15", "5", "m 1"):
            found = service.ask("GET", f"/v1/titles?q={typed}&k=20").json()["titles"]
            assert found == whole.titles.records(whole.titles.type_ahead().find(typed, 20)), typed
        near = service.ask("GET", "/v1/titles?q=filn 15&near=true&k=4").json()
        assert near == {"titles": whole.titles.records(whole.titles.nearest("filn 15", 4)), "near": True}
        until(lambda: service.answering() == (200, [1, 1]))
        shards = service.ask("GET", "/readyz").json()["shards"]
        assert [(one["first"], one["titles"]) for one in shards] == [(0, 150), (150, 151)]
        serving, current = service.service.serving, service.service.serving.current
        assert current is not None
        kept = current.recommender.shards.replicas[0]
        update_shards(sharded, Change(remove_titles=["m00299"]), compact_at=None)
        assert serving.has_news()
        assert serving.load().name == "gen-000002"
        assert service.ask("POST", "/v1/similar", json={"title": "m00299", "k": 5}).status_code == 404
        assert service.ask("GET", "/readyz").json()["shards"][1]["titles"] == 150
        now = serving.current
        assert now is not None
        assert now.recommender.shards.replicas[0] == kept, "a shard that has not changed"
        service.kill(1)
        until(lambda: service.answering() == (503, [1, 0]))
        give_up(monkeypatch, 1)
        refused = service.ask("POST", "/v1/similar", json={"title": "m00010", "k": 5})
        assert refused.status_code == 503
        assert "shard 1 of 2 (titles 150 to 299)" in refused.json()["detail"]
    finally:
        service.close()


def test_partial_answers_are_given_where_they_are_wanted(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(sharded, partial=True)
    try:
        service.kill(1)
        give_up(monkeypatch, 1)
        answer = service.ask("POST", "/v1/similar", json={"title": "m00010", "k": 5})
        assert answer.status_code == 200
        assert answer.json()["titles_seen"] == pytest.approx(1 / 2, abs=2e-3)
        assert answer.json()["exact"] is False
        arrow = {"accept": "application/vnd.apache.arrow.stream"}
        table = service.ask("POST", "/v1/similar", json={"title": "m00010", "k": 5}, headers=arrow)
        account = json.loads(pa.ipc.open_stream(table.content).schema.metadata[b"semrec"])
        assert (account["titles_seen"], account["exact"]) == (answer.json()["titles_seen"], False)
        typed = service.ask("GET", "/v1/titles?q=film&k=50").json()
        assert {title["media_id"] < "m00150" for title in typed["titles"]} == {True}
        assert typed["titles_seen"] == answer.json()["titles_seen"]
        until(lambda: service.answering() == (200, [1, 0]))
        assert service.ask("POST", "/v1/similar", json={"title": "m00290", "k": 5}).status_code == 503
        service.kill(0)
        until(lambda: service.answering() == (503, [0, 0]))
    finally:
        service.close()
