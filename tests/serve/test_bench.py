"""``semrec bench serve`` measures a server that it starts, and writes it down."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import HANG_SECONDS, Semrec
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.serve.bench.load import Plan, Told, _asked, _due, _kind
from semrec_faiss.serve.bench.swaps import WORLDS


@pytest.mark.slow
def test_a_server_is_measured(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    command = [
        "bench",
        "serve",
        str(index),
        "--seconds",
        "0.3",
        "--connections",
        "4",
        "-k",
        "3",
        "--out",
        str(tmp_path),
    ]
    result = semrec(*command)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "bench-serve-cpu.json").read_text())
    for name in ("fixed_body", "similar", "at_half_the_most", "alone", "as_one_types", "users_as_arrow"):
        assert document[name]["requests"] > 0, name
        assert document[name]["failed"] == 0, name
        assert document[name]["p50_ms"] <= document[name]["p99_ms"]
    rates = [document[name]["requests_per_second"] for name in ("similar", "fixed_body")]
    assert document["similar_to_fixed_body"] == pytest.approx(rates[0] / rates[1])
    assert document["fixed_body"]["body_bytes"] == pytest.approx(document["similar"]["body_bytes"], rel=0.1)
    due = 0.3 * 0.5 * rates[0]  # each of at most four processes begins at once
    assert due - 1 <= document["at_half_the_most"]["requests"] <= due + 5
    lists = document["users_as_arrow"]
    assert lists["users_per_second"] == pytest.approx(1000 * lists["requests_per_second"], rel=0.1)
    assert document["index"] == {"type": "flat", "titles": 300, "users": 20}
    (machine,) = document["costs"]["machines"]
    assert machine["throughput_qps"] == pytest.approx(rates[0], rel=1e-3)
    assert machine["busy_hours_a_month"] == pytest.approx(100e6 / rates[0] / 3600, rel=1e-3)
    swapped = document["swapped"]
    assert {name: swapped[name] for name in ("swaps", "failed", "mixed", "exit_code")} == {
        "swaps": 10,
        "failed": 0,
        "mixed": 0,
        "exit_code": 0,
    }
    assert swapped["taken_ms"] > 0
    assert swapped["requests"] == swapped["kinds"]["answered"] > 0


HEAD = b"HTTP/1.1 200 OK\r\nsemrec-generation: gen-000002\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (HEAD + b'{"title":"Second A"}', "answered"),
        (HEAD + b'{"title": "Second A", "x": {"title":"First B"}}', "mixed"),
        (HEAD + b"{}", "mixed"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
    ],
)
def test_answers_of_two_generations_are_told(reply: bytes, kind: str) -> None:
    assert _kind(reply, WORLDS) == kind


def _asked_at_a_rate(reply: bytes) -> Told:
    """Twenty-one requests are due within 0.02 seconds; the machine stands still while the first is answered, longer."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(1024):
            seen.append(asked)
            time.sleep(0.05 if len(seen) == 1 else 0)
            writer.write(reply)

    async def measure() -> Told:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            plan = Plan(server.sockets[0].getsockname()[1], connections=1, seconds=0.02, rate=1000)
            return await _asked(plan, [b"GET / HTTP/1.1\r\n\r\n"], 0, 1)

    told = asyncio.run(asyncio.wait_for(measure(), HANG_SECONDS))
    assert len(seen) == told.kinds["answered"]
    return told


@pytest.mark.parametrize("up_seconds", [0, 20_000, 33_918.49, 70_000, 1e6, 3e7])
def test_a_rate_is_asked_in_full_however_late_the_clock_is_looked_at(
    up_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On machines that have been up for seconds or for a year: the clock counts from then, and rounds the more."""
    clock = time.perf_counter
    monkeypatch.setattr(
        "semrec_faiss.serve.bench.load.time", SimpleNamespace(perf_counter=lambda: up_seconds + clock())
    )
    told = _asked_at_a_rate(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert told.kinds == Counter(answered=21)  # one at once, and one a thousandth of a second for 0.02
    assert min(told.times_ms) >= 30 - 1e-3  # from when it was due: what stood still is told


@given(st.integers(1, 100_000), st.integers(1, 60_000))
def test_what_is_due_is_counted_to_the_last(rate: int, milliseconds: int) -> None:
    assert _due(1e9, milliseconds / 1000, rate) == 1 + rate * milliseconds // 1000
    assert _due(0, milliseconds / 1000, rate) == 1
    for number in (1, rate, 7 * rate):
        assert _due(number / rate, math.inf, rate) == 1 + number


def test_what_was_due_of_a_server_that_closes_is_lost() -> None:
    told = _asked_at_a_rate(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
    assert told.kinds == Counter(answered=1, lost=20)
