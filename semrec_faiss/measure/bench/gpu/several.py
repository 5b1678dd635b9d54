"""``semrec bench gpu --gpus 0,1``: several GPUs beside the first of them, ours and FAISS's, from numpy to numpy.

Vectors come from the host, where several GPUs wait for the copying. Users that they hold are told by their rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import UsageError
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.fused.titles.users import HostUsers
from semrec_faiss.index.hardware.device import Device, choose_device, load_faiss
from semrec_faiss.index.hardware.on_gpu import to_gpu
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of
from semrec_faiss.measure.bench.gpu.one import ALL_BATCHES, GpuBench
from semrec_faiss.measure.bench.gpu.record import GpuStamp, MadeVectors
from semrec_faiss.measure.bench.gpu.several_record import Faster, GpusBatch, GpusResults, SearcherTimes
from semrec_faiss.measure.bench.gpu.vectors import CLUSTERS, SPREAD, clustered, seeing_users, users_of
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.timing import Work, measure_paired, measure_steady
from semrec_faiss.progress import Progress, silent

LAYOUTS: tuple[Literal["shards", "replicas"], ...] = ("shards", "replicas")

MOST_ROUNDS = 60

USERS = ALL_BATCHES[-1]

SearchUsers = Callable[[Rows], FusedResult]
"""Makes the lists of some of the users that are held, given their rows."""


def bench_gpus(bench: GpuBench, progress: Progress = silent) -> GpusResults:
    """Measure every catalogue on the first GPU, and on all of them as shards and as replicas.

    Raises:
        UsageError: only one GPU is named.
        DeviceError: not so many GPUs.
        MissingPackageError: no torch and Triton.
    """
    if len(bench.gpus) < 2:
        raise UsageError(f"one GPU is named ({bench.gpus[0]}); several are to be compared with it", fix="--gpus 0,1")
    wanted = config_from_dict({"device": {"kind": "gpu", "gpus": list(bench.gpus)}})
    device = choose_device(wanted.device, wanted.index)
    rows: list[GpusBatch] = []
    for titles in bench.titles:
        run = _Catalogue(bench, titles, [f"cuda:{gpu}" for gpu in bench.gpus])
        batches = bench.batches_of(titles)
        for done, count in enumerate(batches):
            progress(f"{titles:,} titles", done, len(batches))
            rows.append(run.batch(count))
        progress(f"{titles:,} titles", len(batches), len(batches))
        del run
        load_torch().cuda.empty_cache()
    return GpusResults.whole(
        environment=GpuStamp(**dict(stamp_of_this_run())),
        device=device_name(device),
        gpus=list(bench.gpus),
        data=MadeVectors(dim=bench.dim, k=bench.k, seed=bench.seed, clusters=CLUSTERS, spread=SPREAD),
        search=rows,
    )


class _Catalogue:
    """Title vectors on the GPUs, as each of the contestants has them, and users beside those of type fused."""

    def __init__(self, bench: GpuBench, titles: int, devices: Sequence[str]) -> None:
        self._bench = bench
        self._made = clustered(titles, bench.dim, bench.seed, load_torch().device(devices[0]))
        vectors = self._made.cpu().numpy()
        self._fused: dict[str, FusedSearcher | SeveralGpus] = {"one_gpu": FusedSearcher(vectors, devices[0])}
        for layout in LAYOUTS:
            self._fused[layout] = SeveralGpus(vectors, devices, layout=layout)
        self._users = seeing_users(self._made, max(USERS, *bench.batches), bench.seed)
        self._lists = {name: _lists_of(one, self._users, bench.k) for name, one in self._fused.items()}
        self._faiss = _faiss_indexes(vectors, bench.gpus)

    def batch(self, count: int) -> GpusBatch:
        """Time one batch size, and hold the answers of several GPUs against those of one."""
        k = self._bench.k
        asked = users_of(self._made, count, self._bench.seed + count).cpu().numpy()
        fused = self._time({name: partial(one.search, asked, k) for name, one in self._fused.items()})
        users, same_lists = self._of_users(count)
        faiss = self._time({name: partial(one.search, asked, k) for name, one in self._faiss.items()})
        found = {name: searcher.search(asked, k) for name, searcher in self._fused.items()}
        return GpusBatch(
            titles=len(self._made),
            queries=count,
            fused=fused,
            users=users,
            faiss=faiss,
            same_answers=_same(found) and same_lists,
            repeated=found["shards"].repeated,
            compared_with_all=found["shards"].scanned,
        )

    def _of_users(self, count: int) -> tuple[SearcherTimes | None, bool]:
        """Time lists for random users, other ones each time, and tell whether all contestants give the same."""
        searches = {name: search for name, search in self._lists.items() if search is not None}
        if len(searches) < len(self._lists):
            return None, True
        rng = np.random.default_rng(self._bench.seed + count)
        drawn = [rng.choice(self._users.count, count, replace=False) for _ in range(MOST_ROUNDS)]
        times = self._time({name: _in_turn(search, drawn) for name, search in searches.items()})
        return times, _same({name: search(drawn[0]) for name, search in searches.items()})

    def _time(self, work: Mapping[str, Work]) -> SearcherTimes:
        slowest = max(measure_steady(one, warmup=2, repeats=1).median_ms for one in work.values())
        rounds = min(MOST_ROUNDS, repeats_of(self._bench.seconds, slowest))
        paired = measure_paired(work, warmup=1, repeats=rounds)
        times = {name: timing.told() for name, timing in paired.timings.items()}
        several = {
            name: Faster(**dict(times[name]), speedup=round(1 / paired.median_ratio(name, "one_gpu"), 3))
            for name in LAYOUTS
        }
        return SearcherTimes(one_gpu=times["one_gpu"], **several)


def _lists_of(searcher: FusedSearcher | SeveralGpus, users: HostUsers, k: int) -> SearchUsers | None:
    """Hold users beside the titles; return the search for some of them, or None where they cannot be held."""
    held: Any = searcher.hold_users(users)
    return None if held is None else lambda rows: searcher.search_users(held, rows, k)


def _in_turn(search: SearchUsers, drawn: Sequence[Rows]) -> Work:
    rows = itertools.cycle(drawn)
    return lambda: search(next(rows))


def _same(found: Mapping[str, FusedResult]) -> bool:
    """Tell whether everybody found what one GPU found, bit for bit."""
    one = found["one_gpu"]
    rows = all(np.array_equal(other.rows, one.rows) for other in found.values())
    return rows and all(
        np.array_equal(other.scores.view(np.int32), one.scores.view(np.int32)) for other in found.values()
    )


def _faiss_indexes(vectors: Vectors, gpus: tuple[int, ...]) -> dict[str, Any]:
    flat = load_faiss().IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    indexes = {"one_gpu": to_gpu(flat, Device(gpus[:1]))[0]}
    for layout in LAYOUTS:
        indexes[layout] = to_gpu(flat, Device(gpus, layout=layout))[0]
    return indexes
