"""Ten generations taken and a SIGTERM, under full load: what fails, and what is of two generations at once."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.building import build
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.serve.bench.load import Clients, Plan
from semrec_faiss.serve.bench.process import Server, post, server
from semrec_faiss.serve.bench.record import Swaps

SWAPS = 10
MOST_TITLES = 20_000
"""Of the index, so that building it twice takes seconds."""

WORLDS = (b"First ", b"Second ")
"""How titles begin in generations of odd and of even number."""

LOAD_SECONDS = 0.3
"""Of load from each generation."""

LONG_SECONDS = 600.0


@dataclass(frozen=True)
class Worlds:
    """An index of two generations, and how many titles each has."""

    index: Path
    titles: int


@contextlib.contextmanager
def two_worlds(recommender: Recommender) -> Iterator[Worlds]:
    """Build copies of an index whose titles tell their generation; they go with the context."""
    count = min(MOST_TITLES, recommender.titles.count)
    with tempfile.TemporaryDirectory(prefix="semrec-") as scratch:
        index = Path(scratch) / "index"
        for world in WORLDS:
            _publish(recommender, count, world.decode(), index)
        del recommender  # servers need its room
        yield Worlds(index, count)


def _publish(recommender: Recommender, count: int, world: str, output: Path) -> None:
    rows = np.arange(count)
    records = recommender.titles.records(rows)
    metadata: list[dict[str, Any]] = [
        {"media_id": f"m{row}", "title": f"{world}{record['title']}"} for row, record in enumerate(records)
    ]
    saved = recommender.saved.config
    config = {"index": {"type": saved.index.type, "normalize": saved.index.normalize}, "device": {"kind": "auto"}}
    if recommender.saved.device.gpus == ():
        config["device"] = {"kind": "cpu"}
    build(recommender.index.vectors(rows), metadata, config=config, output=output)


def swapped(worlds: Worlds, clients: Clients, connections: int, k: int, flags: Sequence[str]) -> Swaps:
    """Serve one after the other, and count what callers are told meanwhile."""
    index, count = worlds.index, worlds.titles
    questions = [post("/v1/similar", {"titles": [f"m{row}", f"m{(row + 1) % count}"], "k": k}) for row in range(count)]
    with server(index, [*flags, "--watch-seconds", "0.05"]) as started:
        publisher = _Publisher(index, started)
        publisher.start()
        plan = Plan(started.port, connections, LONG_SECONDS, worlds=WORLDS)  # until the server closes its connections
        load, kinds = clients.load(plan, questions)
        publisher.join()
    return Swaps(
        swaps=SWAPS,
        titles=count,
        taken_ms=round(float(np.median(publisher.taken_ms)), 1) if publisher.taken_ms else 0.0,
        requests=load.requests,
        failed=load.failed,
        mixed=kinds["mixed"],
        exit_code=publisher.exit_code,
        kinds=dict(kinds),
    )


class _Publisher(threading.Thread):
    """Publishes one generation after the other, waits until each is in use, and tells the server to end."""

    def __init__(self, index: Path, started: Server) -> None:
        super().__init__()
        self.taken_ms: list[float] = []
        self.exit_code = -1
        self._published, self._server = index, started

    def run(self) -> None:
        try:
            for number in range(SWAPS):
                time.sleep(LOAD_SECONDS)
                wanted = f"gen-{1 + number % 2:06d}"
                published = time.perf_counter()
                IndexDirectory(self._published).rollback(wanted)
                self._server.wait_for(wanted)
                self.taken_ms.append((time.perf_counter() - published) * 1e3)
            time.sleep(LOAD_SECONDS)
        finally:
            self.exit_code = self._server.end()
