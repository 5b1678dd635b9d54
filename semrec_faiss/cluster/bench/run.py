"""``semrec bench cluster``: what a hop and a merge cost, and what workers bring, beside one process."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.cluster.bench.record import (
    BesideOneProcess,
    ClusterResults,
    ClusterSettings,
    Hop,
    ListsMade,
    Machine,
    ShardHeld,
)
from semrec_faiss.cluster.connection import connect, load_ray
from semrec_faiss.cluster.merging import merged
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.cluster.workers.lists import ListMaker, recommend_all
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.cores import usable_cores
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.measure.bench.record import SEED
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.timing import measure_paired, measure_steady
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.export import ExportSummary, export_all_users
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish

LOCAL = "local"
"""Stands for a cluster of two nodes that is made on this machine for the run."""

BATCHES = (1, 100, 1000)
PARTS = (2, 16, 128)

MOST_QUERIES = 5_000
"""So many queries of a kind end its rounds early: of a thousand at a time a few tell as much."""


@dataclass(frozen=True)
class ClusterBench:
    """What to measure.

    Attributes:
        titles, users, dim: of the made-up data.
        index_type: of the index and its shards, with its usual settings.
        shards: how many.
        gpus: as many for one process and, one each, for the shards; 0 for CPUs.
        k: titles a list.
        repeats: rounds.
    """

    titles: int = 100_000
    users: int = 20_000
    dim: int = 384
    index_type: str = "flat"
    shards: int = 2
    gpus: int = 0
    k: int = 10
    repeats: int = 20


def bench_cluster(plan: ClusterBench, address: str, progress: Progress = silent) -> ClusterResults:
    """Measure on the cluster at ``address``; raises what building and asking raise."""
    load = load_average()
    with _joined(address, plan.gpus), tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_synthetic(root / "data", titles=plan.titles, users=plan.users, dim=plan.dim, seed=SEED, progress=progress)
        build_index(_config(plan, root, "whole"), progress)
        started = time.perf_counter()
        build_shards(_config(plan, root, "sharded"), plan.shards, progress=progress)
        build_seconds = time.perf_counter() - started
        whole = Recommender.open(root / "whole", _of_one_process(plan))
        with ClusterRecommender.open(root / "sharded") as sharded:
            held = [ShardHeld(titles=one.titles, rss_bytes=one.rss_bytes) for one in sharded.shards.opened()]
            hop = _hops(sharded, plan)
            searches = {str(batch): _searches(whole, sharded, batch, plan) for batch in BATCHES}
        lists = _lists(root, whole, plan, progress)
        worker_bytes = _worker_memory(whole, plan)
        machines = [
            Machine(cores=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
            for node in load_ray().nodes()
            if node["Alive"]
        ]
    return ClusterResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        device=device_name(whole.index.device),
        ray=load_ray().__version__,
        machines=machines,
        settings=ClusterSettings(**asdict(plan), seed=SEED),
        build_seconds=round(build_seconds, 3),
        shards=held,
        hop=hop,
        merge={str(parts): _merges(parts, plan) for parts in PARTS},
        searches=searches,
        lists=lists,
        worker_rss_bytes=worker_bytes,
    )


@contextlib.contextmanager
def _joined(address: str, gpus: int) -> Iterator[None]:
    """Join a cluster, or make one of two nodes on this machine, which share its cores, and its first one has GPUs."""
    if address != LOCAL:
        connect(address)
        yield
        return
    ray = load_ray()
    make: Any = import_module("ray.cluster_utils").Cluster
    node = {"object_store_memory": 256 << 20, "num_cpus": max(1, usable_cores() // 2)}  # else one, and no GPU
    cluster = make(initialize_head=True, head_node_args={**node, "num_gpus": gpus, "include_dashboard": False})
    try:
        cluster.add_node(**node, num_gpus=0)
        connect(cluster.address)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def _config(plan: ClusterBench, root: Path, name: str) -> Config:
    device = "auto" if plan.gpus else "cpu"
    return config_from_dict(
        {
            "index": {"type": plan.index_type},
            "device": device,
            "dataset": str(root / "data"),
            "output": str(root / name),
        }
    )


def _of_one_process(plan: ClusterBench) -> tuple[str, ...]:
    return (f"device.gpus={list(range(plan.gpus))}", "device.kind=gpu") if plan.gpus else ()


def _queries(plan: ClusterBench, count: int) -> Any:
    return np.random.default_rng(SEED).normal(size=(count, plan.dim)).astype(np.float32)


def _hops(sharded: ClusterRecommender, plan: ClusterBench) -> dict[str, Hop]:
    """Time a call that does nothing but come back, alone and to all shards at once, with one vector and many."""
    shards = sharded.shards
    told = {}
    for count in (1, 1000):
        vectors = _queries(plan, count)
        one = measure_steady(partial(shards.ask, 0, "same", vectors), warmup=20, repeats=200)
        every = measure_steady(partial(shards.ask_all, "same", vectors), warmup=20, repeats=200)
        told[str(count)] = Hop(one=one.told(), all=every.told())
    return told


def _merges(parts: int, plan: ClusterBench) -> dict[str, Times]:
    """Time the merge of what so many shards give, for one query and for a thousand."""
    random = np.random.default_rng(SEED)
    told = {}
    for queries in (1, 1000):
        found = [
            TopK(
                np.sort(random.integers(0, 1000, (queries, plan.k)), axis=1) + 1000 * part,
                -np.sort(-random.random((queries, plan.k)).astype(np.float32), axis=1),
                np.full(queries, 1000),
                True,
                "index",
            )
            for part in range(parts)
        ]
        timing = measure_steady(partial(merged, found, plan.k, 0.0), warmup=5, repeats=100)
        told[str(queries)] = timing.told()
    return told


def _searches(whole: Recommender, sharded: ClusterRecommender, batch: int, plan: ClusterBench) -> BesideOneProcess:
    """Time the same questions of one process and of the shards in turns; the answers are held against each other."""
    queries = whole.index.prepare(_queries(plan, batch))
    wish = Wish(plan.k)
    asked = {
        "one_process": lambda: whole.searcher.run(queries, wish),
        "shards": lambda: sharded.searcher.run(queries, wish),
    }
    same = bool((asked["one_process"]().rows == asked["shards"]().rows).all())
    rounds = min(plan.repeats, max(MOST_QUERIES // batch, 2))
    times = measure_paired(asked, warmup=min(3, rounds), repeats=rounds)
    return BesideOneProcess(same_titles=same, **{name: times.timings[name].told() for name in asked})


def _lists(root: Path, whole: Recommender, plan: ClusterBench, progress: Progress) -> dict[str, ListsMade]:
    """Time every user's list: one process to a file, workers with an index each to parts, workers that ask shards."""
    ways: dict[str, Callable[[Path], ExportSummary]] = {
        "one_process": lambda out: export_all_users(whole, out / "lists.parquet", plan.k, progress=progress),
        "1_worker": lambda out: recommend_all(root / "whole", out / "parts", plan.k, workers=1, progress=progress),
        "2_workers": lambda out: recommend_all(root / "whole", out / "parts", plan.k, workers=2, progress=progress),
        "2_workers_of_shards": lambda out: recommend_all(
            root / "sharded", out / "parts", plan.k, workers=2, progress=progress
        ),
    }
    told = {}
    for name, make in ways.items():
        out = root / name
        out.mkdir()
        started = time.perf_counter()
        summary = make(out)
        seconds = time.perf_counter() - started
        told[name] = ListsMade(
            seconds=round(seconds, 3),
            lists_per_second=round(plan.users / seconds, 1),
            repeats=summary.repeats,
            titles_recommended=summary.titles_recommended,
        )
    return told


def _worker_memory(whole: Recommender, plan: ClusterBench) -> int:
    """Return the memory of a worker with an index of its own that has made some lists."""
    ray = load_ray()
    maker = ray.remote(ListMaker).options(num_cpus=0.1).remote(whole, Wish(plan.k), False, None)
    ray.get(maker.make.remote(0, min(4096, plan.users)))
    found = int(ray.get(maker.rss_bytes.remote()))
    ray.kill(maker)
    return found
