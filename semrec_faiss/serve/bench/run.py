"""``semrec bench serve``: a server of an index, loaded over HTTP from this process; a fixed body beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.errors import DeviceError
from semrec_faiss.measure.documents.results import device_name, settle
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender

READY_SECONDS = 600


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        connections: kept open, each asking again as soon as it is answered.
        seconds: of each measurement.
        k: titles an answer.
        seed: of the titles' order.
    """

    connections: int = 64
    seconds: float = 5.0
    k: int = 10
    seed: int = 7


def bench_serve(index: Path, settings: Sequence[str], plan: ServeBench, progress: Progress = silent) -> dict[str, Any]:
    """Start a server of ``index``, warm it, and measure it; return the results document.

    Client and server share the machine, so that what the client takes is part of every number; the fixed reply of
    ``GET /openapi.json``, a body that is there already, tells what the same server and client do at most.

    Raises:
        DeviceError: the server does not become ready.
    """
    load = load_average()
    recommender = Recommender.open(index, settings)
    rows = np.random.default_rng(plan.seed).permutation(recommender.titles.count)[:50_000]
    ids = [record["media_id"] for record in recommender.titles.records(rows)]
    asked = [_post("/v1/similar", {"title": media_id, "k": plan.k}) for media_id in ids]
    facts = {
        "type": recommender.index.config.type,
        "titles": recommender.titles.count,
        "device": device_name(recommender.index.device),
    }
    del recommender
    measured: dict[str, Any] = {}
    with _server(index, settings) as port:
        fixed = [b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"]
        asyncio.run(_load(port, asked[: 2 * plan.connections], plan.connections, 1.0))
        for number, (name, requests) in enumerate((("fixed_body", fixed), ("similar", asked))):
            progress("measuring", number, 2)
            measured[name] = asyncio.run(_load(port, requests, plan.connections, plan.seconds))
    progress("measuring", 2, 2)
    ratio = measured["similar"]["requests_per_second"] / measured["fixed_body"]["requests_per_second"]
    return settle(
        {
            "environment": stamp_of_this_run().as_json(),
            "load_average_at_start": load,
            "device": facts.pop("device"),
            "index": facts,
            "settings": {"connections": plan.connections, "seconds": plan.seconds, "k": plan.k, "seed": plan.seed},
            **measured,
            "similar_to_fixed_body": ratio,
        }
    )


@contextlib.contextmanager
def _server(index: Path, settings: Sequence[str]) -> Iterator[int]:
    command = [sys.executable, "-m", "semrec_faiss", "serve", str(index), "--port", "0", "--no-access-log"]
    command += [word for setting in settings for word in ("--set", setting)]
    command += ["--log-level", "error"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline() if process.stderr is not None else ""
            found = re.search(r":(\d+)$", line.strip())
            if found is None:
                raise DeviceError(f"the server did not start: {line.strip()}")
            port = int(found[1])
            _wait_until_ready(port, process)
            yield port
        finally:
            process.terminate()


def _wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    stop = time.monotonic() + READY_SECONDS
    request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    while not asyncio.run(_load(port, [request], 1, 0.05))["requests"]:
        if process.poll() is not None or time.monotonic() > stop:
            raise DeviceError("the server did not become ready", fix="semrec serve INDEX says why")
        time.sleep(0.1)


def _post(path: str, question: dict[str, Any]) -> bytes:
    body = json.dumps(question).encode()
    return b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body)


async def _load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Ask on all connections for so long; only replies of status 200 count as requests."""
    times: list[float] = []
    failed = 0
    size = 0
    stop = time.perf_counter() + seconds

    async def caller(first: int) -> None:
        nonlocal failed, size
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        position = first
        while (started := time.perf_counter()) < stop:
            writer.write(requests[position % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            if head.startswith(b"HTTP/1.1 200"):
                times.append((time.perf_counter() - started) * 1e3)
            else:
                failed += 1
            position += connections
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(connections)))
    taken = time.perf_counter() - began
    told = np.percentile(times, [50, 95, 99]).tolist() if times else [None, None, None]
    return {
        "requests": len(times),
        "failed": failed,
        "requests_per_second": len(times) / taken,
        "p50_ms": told[0],
        "p95_ms": told[1],
        "p99_ms": told[2],
        "last_body_bytes": size,
    }
