"""Ten generations taken and a SIGTERM, under full load: what fails, and what is of two generations at once."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.building import build
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.serve.bench.load import Plan, loaded
from semrec_faiss.serve.bench.process import Server, post, server
from semrec_faiss.serve.bench.record import Swaps

SWAPS = 10
MOST_TITLES = 20_000
"""Of the index, so that building it twice takes seconds."""

WORLDS = (b"First ", b"Second ")
"""How titles begin in generations of odd and of even number."""

LONG_SECONDS = 600.0


def swapped(recommender: Recommender, connections: int, k: int, flags: Sequence[str]) -> Swaps:
    """Serve copies of an index whose titles tell their generation, and count what callers are told meanwhile."""
    count = min(MOST_TITLES, recommender.titles.count)
    with tempfile.TemporaryDirectory(prefix="semrec-") as scratch:
        index = Path(scratch) / "index"
        for world in WORLDS:
            _publish(recommender, count, world.decode(), index)
        found = [_ask_all(index, count, connections, k, flags)]
    return found[0]


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


def _ask_all(index: Path, count: int, connections: int, k: int, flags: Sequence[str]) -> Swaps:
    questions = [post("/v1/similar", {"titles": [f"m{row}", f"m{(row + 1) % count}"], "k": k}) for row in range(count)]
    with server(index, [*flags, "--watch-seconds", "0.05"]) as started:
        codes: list[int] = []
        publisher = threading.Thread(target=lambda: codes.append(_swap_and_end(index, started)))
        publisher.start()
        plan = Plan(started.port, connections, LONG_SECONDS, worlds=WORLDS)  # until the server closes its connections
        load, kinds = loaded(plan, questions)
        publisher.join()
    return Swaps(
        swaps=SWAPS,
        titles=count,
        requests=load.requests,
        failed=load.failed,
        mixed=kinds["mixed"],
        exit_code=codes[0] if codes else -1,
        kinds=dict(kinds),
    )


def _swap_and_end(index: Path, started: Server) -> int:
    try:
        for number in range(SWAPS):
            time.sleep(0.3)  # of load from each
            wanted = f"gen-{1 + number % 2:06d}"
            IndexDirectory(index).rollback(wanted)
            started.wait_for(wanted)
        time.sleep(0.3)
    finally:
        code = started.end()
    return code
