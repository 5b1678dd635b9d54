"""A load over HTTP: connections that ask again as soon as they are answered, or at a rate whatever the answers take.

At a rate, a request's time counts from when it was due, so that a server that stands still is not asked less.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from semrec_faiss.cores import usable_cores
from semrec_faiss.measure.documents.fields import Amount, Count, Part

SPARE_CORES = 4
"""One process asks for every so many cores."""

MOST_PROCESSES = 4
TICK_SECONDS = 0.001
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_GENERATION = re.compile(rb"\r\nsemrec-generation: ([^\r]+)", re.IGNORECASE)
_CLOSING = re.compile(rb"\r\nconnection: close", re.IGNORECASE)


class Load(Part):
    """What callers were told: replies of status 200 count as requests, anything else, or none, has failed."""

    requests: Count
    failed: Count
    requests_per_second: Amount
    p50_ms: Amount
    p95_ms: Amount
    p99_ms: Amount
    body_bytes: Count


@dataclass(frozen=True)
class Plan:
    """How to ask.

    Attributes:
        port: of this machine.
        connections: kept open.
        seconds: for how long.
        rate: requests per second; None asks again as soon as an answer is there.
        worlds: begin of a title by generation, where every answer must be of one world; see `swaps`.
    """

    port: int
    connections: int
    seconds: float
    rate: float | None = None
    worlds: tuple[bytes, ...] = ()


@dataclass
class Told:
    """What one process's callers were told."""

    times_ms: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    body_bytes: int = 0
    seconds: float = 0.0


class Clients:
    """Asks: from this process, or from several where there are cores, which stay from one load to the next."""

    def __init__(self) -> None:
        self._count = min(MOST_PROCESSES, max(1, usable_cores() // SPARE_CORES))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Clients:
        if self._count > 1:
            self._pool = ProcessPoolExecutor(self._count, multiprocessing.get_context("spawn"))
            list(self._pool.map(time.sleep, [0.5] * self._count))  # all are there before one begins
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def load(self, plan: Plan, requests: Sequence[bytes]) -> tuple[Load, Counter[str]]:
        """Ask, and return what came of it, and how often what came.

        Args:
            plan: how.
            requests: whole HTTP requests, asked in turn.
        """
        count = min(self._count, plan.connections)
        if self._pool is None or count == 1:
            return _summed([_in_process(plan, requests, 0, 1)])
        work = [self._pool.submit(_in_process, plan, requests, number, count) for number in range(count)]
        return _summed([one.result() for one in work])


def _in_process(plan: Plan, requests: Sequence[bytes], number: int, count: int) -> Told:
    """Ask by uvloop where it is, as the server does: what the client takes less of shared cores, the server has."""
    asking = _asked(plan, requests, number, count)
    try:
        import uvloop
    except ImportError:  # on Windows
        return asyncio.run(asking)
    return uvloop.run(asking)


def _summed(told: Sequence[Told]) -> tuple[Load, Counter[str]]:
    times = np.concatenate([np.asarray(one.times_ms, np.float64) for one in told])
    kinds: Counter[str] = sum((one.kinds for one in told), Counter())
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).round(4).tolist() if len(times) else (0.0, 0.0, 0.0)
    load = Load(
        requests=len(times),
        failed=kinds.total() - kinds["answered"],
        requests_per_second=round(len(times) / max(one.seconds for one in told), 1),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        body_bytes=max(one.body_bytes for one in told),
    )
    return load, kinds


class _Callers:
    """The callers of one process."""

    def __init__(self, plan: Plan, requests: Sequence[bytes], first: int, step: int, count: int) -> None:
        self.plan = plan
        self.told = Told()
        self.idle: deque[_Caller] = deque()
        self.due: deque[float] = deque()
        self.open = count
        self.ended = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._next, self._step = first, step
        self.stop = time.perf_counter() + plan.seconds if plan.rate is None else math.inf
        """From when on a caller that is answered closes: at a rate, once the last request has been made due."""

    def request(self) -> bytes:
        self._next += self._step
        return self._requests[self._next % len(self._requests)]

    def begin(self, caller: _Caller) -> None:
        """A caller has connected: it asks once at least, however long that took."""
        if self.plan.rate is None:
            caller.ask(time.perf_counter())
        else:
            self.idle.append(caller)

    def free(self, caller: _Caller) -> None:
        """A caller has been answered: it asks again at once, or when something is due, or closes at the end."""
        if self.plan.rate is not None and self.due:
            caller.ask(self.due.popleft())
        elif (now := time.perf_counter()) >= self.stop:
            caller.close()
        elif self.plan.rate is None:
            caller.ask(now)
        else:
            self.idle.append(caller)

    def closed(self) -> None:
        self.open -= 1
        if not self.open and not self.ended.done():
            self.ended.set_result(None)

    async def pace(self, rate: float) -> None:
        """Make requests due, evenly at ``rate`` a second and the first at once: as many on however slow a machine."""
        began, made, elapsed = time.perf_counter(), 0, 0.0
        while made == 0 or elapsed < self.plan.seconds:
            elapsed = time.perf_counter() - began
            wanted = _due(elapsed, self.plan.seconds, rate)
            self.due.extend(began + (number / rate if number else 0) for number in range(made, wanted))
            made = wanted
            while self.due and self.idle:
                self.idle.popleft().ask(self.due.popleft())
            await asyncio.sleep(TICK_SECONDS)
        self.stop = began + self.plan.seconds
        while self.idle:
            self.idle.popleft().close()


def _due(elapsed: float, seconds: float, rate: float) -> int:
    """Count the requests that are due: one at once, and one whenever 1 / ``rate`` seconds have passed, to the end.

    The times are counted from the beginning: a clock's readings have lost the digits that tell 19.999 from 20.
    """
    return 1 + int(round(min(elapsed, seconds) * rate, 6))


class _Caller(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, callers: _Callers) -> None:
        self._callers = callers
        self._received = bytearray()
        self._needed = 0
        self._started: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._callers.begin(self)

    def ask(self, since: float) -> None:
        self._started = since
        self._transport.write(self._callers.request())

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._needed:
            head, found, _ = self._received.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not found or length is None:
                return
            self._needed = len(head) + 4 + int(length[1])
        if len(self._received) >= self._needed:
            self._answered()

    def _answered(self) -> None:
        reply, self._received, self._needed = self._received, bytearray(), 0
        told, started = self._callers.told, self._started
        self._started = None
        kind = _kind(reply, self._callers.plan.worlds)
        told.kinds[kind] += 1
        if kind == "answered" and started is not None:
            told.times_ms.append((time.perf_counter() - started) * 1e3)
            told.body_bytes = max(told.body_bytes, len(reply) - reply.index(b"\r\n\r\n") - 4)
        if _CLOSING.search(reply, 0, 600):
            self._transport.close()
        else:
            self._callers.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._started is not None:
            self._callers.told.kinds["lost"] += 1
        self._callers.closed()


def _kind(reply: bytes | bytearray, worlds: tuple[bytes, ...]) -> str:
    """Say whether a reply is an answer, and of one world where that is asked."""
    if not reply.startswith(b"HTTP/1.1 200"):
        return f"status {reply[9:12].decode('latin-1')}"
    if not worlds:
        return "answered"
    generation = _GENERATION.search(reply, 0, 600)
    wanted = worlds[(int(generation[1][-6:]) - 1) % len(worlds)] if generation else b"?"
    said = b'"title":"', b'"title": "'
    titles = sum(reply.count(mark) for mark in said)
    return "answered" if titles and titles == sum(reply.count(mark + wanted) for mark in said) else "mixed"


async def _asked(plan: Plan, requests: Sequence[bytes], number: int, count: int) -> Told:
    loop = asyncio.get_running_loop()
    mine = len(range(number, plan.connections, count))
    callers = _Callers(plan, requests, number, count, mine)
    began = time.perf_counter()
    await asyncio.gather(
        *(loop.create_connection(lambda: _Caller(callers), "127.0.0.1", plan.port) for _ in range(mine))
    )
    if plan.rate is not None:
        await callers.pace(plan.rate / count)
    await callers.ended
    callers.told.kinds["lost"] += len(callers.due)  # every connection was closed before they were asked
    callers.told.seconds = time.perf_counter() - began
    return callers.told
