"""``semrec bench serve``: a server of an index, loaded over HTTP from this machine; a fixed body beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from semrec_faiss.cores import usable_cores
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.guide.config import Prices
from semrec_faiss.measure.guide.cost import costs_of
from semrec_faiss.measure.guide.details import Cost
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.bench.load import Clients, Load, Plan
from semrec_faiss.serve.bench.process import Server, get, post, server
from semrec_faiss.serve.bench.record import Alone, Lists, ServedIndex, ServeResults, ServeSettings
from semrec_faiss.serve.bench.swaps import swapped, two_worlds
from semrec_faiss.serve.wire.messages import ARROW

MOST_ASKED = 50_000
"""Titles that are asked, each once before any again."""

USERS_A_REQUEST = 1000
ARROW_CONNECTIONS = 4
SEARCHES = 200


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        connections: kept open, each asking again as soon as it is answered.
        workers: processes that answer.
        seconds: of each measurement.
        k: titles an answer.
        seed: of the titles' order.
    """

    connections: int = 64
    workers: int = 1
    seconds: float = 5.0
    k: int = 10
    seed: int = 7


class _Asked:
    """The requests of a benchmark."""

    def __init__(self, recommender: Recommender, bench: ServeBench) -> None:
        rng = np.random.default_rng(bench.seed)
        rows = rng.permutation(recommender.titles.count)[:MOST_ASKED]
        records = recommender.titles.records(rows)
        self.similar = [post("/v1/similar", {"title": record["media_id"], "k": bench.k}) for record in records]
        typed = [str(record["title"])[:length] for record in records[:200] for length in (3, 6)]
        self.typed = [get(f"/v1/titles?q={quote(text)}") for text in typed]
        self.users: list[bytes] = []
        if recommender.saved.users is not None:
            ids = recommender.users.ids
            drawn = rng.integers(0, len(ids), (20, USERS_A_REQUEST))
            self.users = [
                post("/v1/recommend", {"users": [ids[row] for row in some], "k": bench.k}, ARROW) for some in drawn
            ]


def bench_serve(
    index: Path, settings: Sequence[str], bench: ServeBench, prices: Prices, progress: Progress = silent
) -> ServeResults:
    """Start servers of ``index``, warm them, and measure.

    Client and server share the machine, so that what the client takes is part of every number; the fixed body, of the
    size of an answer, tells what the same server and client do at most.

    Raises:
        DeviceError: a server does not become ready.
    """
    load = load_average()
    recommender = Recommender.open(index, settings)
    asked = _Asked(recommender, bench)
    bare_ms = _bare_search_ms(recommender, bench)
    flags = [word for setting in settings for word in ("--set", setting)]
    flags += ["--workers", str(bench.workers)] if bench.workers > 1 else []
    facts = ServedIndex(
        type=recommender.index.config.type,
        titles=recommender.titles.count,
        users=0 if recommender.saved.users is None else recommender.users.count,
    )
    device = device_name(recommender.index.device)
    size = _answer_bytes(recommender, bench)
    with two_worlds(recommender) as worlds, Clients() as clients:
        del recommender  # a server needs the room
        with server(index, [*flags, "--fixed-body", str(size)]) as started:
            measure = _Measuring(clients, started, bench, progress)
            measure("warming", asked.similar, seconds=1.0)
            fixed = measure("fixed body", [post("/fixed", {"title": "film_0001", "k": bench.k})])
            similar = measure("similar", asked.similar)
            most = similar.requests_per_second
            half = measure("similar at 50 %", asked.similar, rate=0.5 * most)
            tenths = measure("similar at 90 %", asked.similar, rate=0.9 * most)
            alone = measure("one connection", asked.similar, connections=1)
            typed = measure("titles as one types", asked.typed, connections=1)
            lists = measure("users as Arrow", asked.users, connections=ARROW_CONNECTIONS) if asked.users else None
        progress("swaps and SIGTERM under load", 8, 9)
        swaps = swapped(worlds, clients, bench.connections, bench.k, flags)
    return ServeResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        device=device,
        index=facts,
        settings=ServeSettings(
            connections=bench.connections, workers=bench.workers, seconds=bench.seconds, k=bench.k, seed=bench.seed
        ),
        fixed_body=fixed,
        similar=similar,
        similar_to_fixed_body=most / fixed.requests_per_second if fixed.requests_per_second else 0.0,
        at_half_the_most=half,
        at_nine_tenths_of_the_most=tenths,
        alone=Alone(**alone.model_dump(), bare_search_p50_ms=bare_ms, added_ms=round(alone.p50_ms - bare_ms, 4)),
        as_one_types=typed,
        users_as_arrow=_lists(lists),
        swapped=swaps,
        costs=_costs(device, most, prices),
    )


def _costs(device: str, qps: float, prices: Prices) -> Cost:
    """Work out what a month's questions over HTTP cost, as the guide does for searches alone."""
    if device.startswith("cpu"):
        return costs_of(1, None, None, qps, usable_cores(), prices)
    return costs_of(1, device, qps, None, usable_cores(), prices)


class _Measuring:
    """Measures one thing after the other on a server."""

    def __init__(self, clients: Clients, started: Server, bench: ServeBench, progress: Progress) -> None:
        self._clients, self._port, self._bench, self._progress = clients, started.port, bench, progress
        self._done = 0
        self._places: dict[int, int] = {}

    def __call__(
        self,
        name: str,
        requests: Sequence[bytes],
        *,
        connections: int | None = None,
        rate: float | None = None,
        seconds: float | None = None,
    ) -> Load:
        """Ask for as long as the benchmark says, unless told otherwise, first what was not asked before."""
        self._progress(name, self._done, 9)
        plan = Plan(self._port, connections or self._bench.connections, seconds or self._bench.seconds, rate)
        place = self._places.get(id(requests), 0)
        found, kinds = self._clients.load(plan, [*requests[place:], *requests[:place]])
        self._places[id(requests)] = (place + kinds.total()) % len(requests)
        self._done += 1
        return found


def _lists(load: Load | None) -> Lists | None:
    if load is None:
        return None
    rate = round(load.requests_per_second * USERS_A_REQUEST, 1)
    return Lists(
        **load.model_dump(),
        users_a_request=USERS_A_REQUEST,
        connections=ARROW_CONNECTIONS,
        users_per_second=rate,
    )


def _answer_bytes(recommender: Recommender, bench: ServeBench) -> int:
    """Return the size of the largest of some answers, the fixed body's: over HTTP they are the same, word for word."""
    rows = np.random.default_rng(bench.seed).integers(0, recommender.titles.count, SEARCHES).tolist()
    names = [record["media_id"] for record in recommender.titles.records(rows)]
    return max(len(recommender.similar(name, bench.k).as_json_bytes()) for name in names)


def _bare_search_ms(recommender: Recommender, bench: ServeBench) -> float:
    """Return the median milliseconds of searching for one title, the title itself left out, without anything else."""
    rows = np.random.default_rng(bench.seed).integers(0, recommender.titles.count, SEARCHES).tolist()
    times = []
    for row in rows:
        vector, exclusions = recommender.index.vectors([row]), Exclusions.of([[row]])
        started = time.perf_counter()
        recommender.searcher.run(vector, Wish(bench.k), exclusions)
        times.append((time.perf_counter() - started) * 1e3)
    return round(float(np.median(times)), 4)
