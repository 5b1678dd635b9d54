"""Over HTTP, an index in shards: the same answers, and of a lost shard a 503, or what is left where that is wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_worlds import World

from semrec_faiss import Recommender
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.publish.updating import update_shards
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.update.plan import Change


class Service:
    """A service in this process, without a socket."""

    def __init__(self, index: Path, **settings: Any) -> None:
        from semrec_faiss.serve.server import Service
        from semrec_faiss.serve.settings import read_settings

        told = {"index": index, "access_log": False, "ray": "auto", **settings}
        self.service = Service(read_settings(None, told))
        self.loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(self.service.asgi)  # type: ignore[arg-type]
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.loop.run_until_complete(self.service.handlers.load())

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(self._client.request(method, path, **more))

    def kill(self, shard: int) -> None:
        import ray

        served = self.service.serving.current
        assert served is not None
        ray.kill(served.recommender.shards.replicas[shard][0], no_restart=True)  # type: ignore[attr-defined]

    def close(self) -> None:
        self.loop.run_until_complete(self._client.aclose())
        self.service.serving.current.recommender.close()  # type: ignore[union-attr]
        self.service.close()
        self.loop.close()


QUESTIONS = [
    ("/v1/similar", {"title": "m00010", "k": 5}),
    ("/v1/similar", {"title": "Film 150", "k": 5, "where": "year > 1960"}),
    ("/v1/recommend", {"user": "user_003", "k": 4}),
    ("/v1/search", {"vectors": [[0.5] * 16], "k": 3}),
]


@pytest.fixture(scope="module")
def sharded(cluster: Any, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "index"
    build_shards(config_from_dict(world.config | {"output": str(out)}), 2)
    return out


def test_it_answers_and_knows_which_shards_do(sharded: Path, world: World) -> None:
    service = Service(sharded, limits={"deadline_ms": 3000})
    try:
        whole = Recommender.open(world.whole)
        told = [service.ask("POST", path, json=question).json() for path, question in QUESTIONS]
        assert told[0]["results"] == whole.similar("m00010", 5).as_dict()["results"]
        assert told[1]["results"] == whole.similar("Film 150", 5, where="year > 1960").as_dict()["results"]
        assert told[2]["results"] == whole.recommend("user_003", 4).as_dict()["results"]
        assert len(told[3]["answers"][0]["results"]) == 3
        for typed in ("film 15", "5", "m 1"):
            found = service.ask("GET", f"/v1/titles?q={typed}&k=20").json()["titles"]
            assert found == whole.titles.records(whole.titles.type_ahead().find(typed, 20)), typed
        ready = service.ask("GET", "/readyz")
        assert ready.status_code == 200
        assert [(one["first"], one["titles"], one["answering"]) for one in ready.json()["shards"]] == [
            (0, 150, 1),
            (150, 151, 1),
        ]
        serving, current = service.service.serving, service.service.serving.current
        assert current is not None
        kept = current.recommender.shards.replicas[0]  # type: ignore[attr-defined]
        update_shards(sharded, Change(remove_titles=["m00299"]), compact_at=None)
        assert serving.has_news()
        assert serving.load().name == "gen-000002"
        assert service.ask("POST", "/v1/similar", json={"title": "m00299", "k": 5}).status_code == 404
        assert service.ask("GET", "/readyz").json()["shards"][1]["titles"] == 150
        now = serving.current
        assert now is not None
        assert now.recommender.shards.replicas[0] == kept, "a shard that has not changed"  # type: ignore[attr-defined]
        service.kill(1)
        ready = service.ask("GET", "/readyz")
        assert ready.status_code == 503
        assert [one["answering"] for one in ready.json()["shards"]] == [1, 0]
        refused = service.ask("POST", "/v1/similar", json={"title": "m00010", "k": 5})
        assert refused.status_code == 503
        assert "shard 1 of 2 (titles 150 to 299)" in refused.json()["detail"]
    finally:
        service.close()


def test_partial_answers_are_given_where_they_are_wanted(sharded: Path) -> None:
    service = Service(sharded, partial=True)
    try:
        service.kill(1)
        answer = service.ask("POST", "/v1/similar", json={"title": "m00010", "k": 5})
        assert answer.status_code == 200
        assert answer.json()["titles_seen"] == pytest.approx(1 / 2)
        assert answer.json()["exact"] is False
        assert service.ask("GET", "/readyz").status_code == 200
        assert service.ask("POST", "/v1/similar", json={"title": "m00290", "k": 5}).status_code == 503
        service.kill(0)
        assert service.ask("GET", "/readyz").status_code == 503
    finally:
        service.close()
