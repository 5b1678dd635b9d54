"""An index with users, a service of it in this process, and how to ask it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import HANG_SECONDS

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.serve.server import Service
from semrec_faiss.serve.settings import read_settings


def build(data: Path, index: Path) -> None:
    build_index(config_from_dict({"dataset": str(data), "output": str(index), "device": "cpu"}))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    """300 titles and 20 users on disk."""
    root = tmp_path_factory.mktemp("serve") / "data"
    make_folder(root, users=20)
    return root


@pytest.fixture(scope="session")
def index(data: Path) -> Path:
    """Their index; nobody may change it."""
    build(data, data.parent / "index")
    return data.parent / "index"


@pytest.fixture(scope="module", autouse=True)
def _thawed() -> Iterator[None]:
    """Let what services froze be collected: each kept twenty files open, and a process may open a thousand."""
    yield
    gc.unfreeze()


class Asker:
    """Asks a service in this process, without a socket."""

    def __init__(self, index: Path, **settings: Any) -> None:
        settings["limits"] = {"deadline_ms": 1000 * HANG_SECONDS} | settings.get("limits", {})
        self.service = Service(read_settings(None, {"index": index, "access_log": False} | settings))
        self.loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(self.service.asgi)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(self._client.request(method, path, **more))

    def post(self, path: str, question: Any, **more: Any) -> httpx.Response:
        return self.ask("POST", path, json=question, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def load(self) -> Any:
        return self.loop.run_until_complete(self.service.handlers.load())

    def close(self) -> None:
        self.loop.run_until_complete(self._client.aclose())
        self.service.close()
        self.loop.close()


@pytest.fixture(scope="module")
def asker(index: Path) -> Iterator[Asker]:
    """A service that is ready."""
    asker = Asker(index, limits={"max_k": 50, "max_queries": 30, "max_results": 1200, "max_body_mb": 1})
    asker.load()
    yield asker
    asker.close()


@pytest.fixture
def new_asker() -> Iterator[Callable[..., Asker]]:
    """Make services with other settings; not ready until `load`."""
    made: list[Asker] = []

    def make(index: Path, **settings: Any) -> Asker:
        made.append(Asker(index, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
