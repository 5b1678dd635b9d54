"""``semrec bench gpu --gpus 0,1``: several GPUs beside the first of them, ours and FAISS's, from numpy to numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import UsageError
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.hardware.device import Device, choose_device, load_faiss, to_gpu
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of
from semrec_faiss.measure.bench.gpu.one import GpuBench
from semrec_faiss.measure.bench.gpu.record import GpuStamp, MadeVectors
from semrec_faiss.measure.bench.gpu.several_record import Faster, GpusBatch, GpusResults, SearcherTimes
from semrec_faiss.measure.bench.gpu.vectors import CLUSTERS, SPREAD, clustered, users_of
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.timing import measure_paired, measure_steady
from semrec_faiss.progress import Progress, silent

LAYOUTS: tuple[Literal["shards", "replicas"], ...] = ("shards", "replicas")

MOST_ROUNDS = 60

Search = Callable[[Vectors], Any]


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
        run = _Catalogue(bench, titles)
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
    """Title vectors on the GPUs, as each of the contestants has them."""

    def __init__(self, bench: GpuBench, titles: int) -> None:
        torch, self._bench = load_torch(), bench
        self._made = clustered(titles, bench.dim, bench.seed, torch.device("cuda", bench.gpus[0]))
        vectors = self._made.cpu().numpy()
        devices = [f"cuda:{gpu}" for gpu in bench.gpus]
        self._fused: dict[str, FusedSearcher | SeveralGpus] = {"one_gpu": FusedSearcher(vectors, devices[0])}
        for layout in LAYOUTS:
            self._fused[layout] = SeveralGpus(vectors, devices, layout=layout)
        self._faiss = _faiss_indexes(vectors, bench.gpus)

    def batch(self, count: int) -> GpusBatch:
        """Time one batch size, and hold the answers of several GPUs against those of one."""
        k = self._bench.k
        asked = users_of(self._made, count, self._bench.seed + count).cpu().numpy()
        fused = self._time({name: _fused_search(one, k) for name, one in self._fused.items()}, asked)
        faiss = self._time({name: _faiss_search(one, k) for name, one in self._faiss.items()}, asked)
        found = {name: searcher.search(asked, k) for name, searcher in self._fused.items()}
        same = all(_same(one, found["one_gpu"]) for one in found.values())
        return GpusBatch(
            titles=len(self._made),
            queries=count,
            fused=fused,
            faiss=faiss,
            same_answers=same,
            repeated=found["shards"].repeated,
            compared_with_all=found["shards"].scanned,
        )

    def _time(self, searches: Mapping[str, Search], asked: Vectors) -> SearcherTimes:
        work = {name: lambda search=search: search(asked) for name, search in searches.items()}
        slowest = max(measure_steady(one, warmup=2, repeats=1).median_ms for one in work.values())
        rounds = min(MOST_ROUNDS, repeats_of(self._bench.seconds, slowest))
        paired = measure_paired(work, warmup=1, repeats=rounds)
        times = {name: timing.told() for name, timing in paired.timings.items()}
        several = {
            name: Faster(**dict(times[name]), speedup=round(1 / paired.median_ratio(name, "one_gpu"), 3))
            for name in LAYOUTS
        }
        return SearcherTimes(one_gpu=times["one_gpu"], **several)


def _same(one: FusedResult, other: FusedResult) -> bool:
    same_bits = np.array_equal(one.scores.view(np.int32), other.scores.view(np.int32))
    return np.array_equal(one.rows, other.rows) and same_bits


def _fused_search(searcher: FusedSearcher | SeveralGpus, k: int) -> Search:
    return lambda asked: searcher.search(asked, k)


def _faiss_search(index: Any, k: int) -> Search:
    return lambda asked: index.search(asked, k)


def _faiss_indexes(vectors: Vectors, gpus: tuple[int, ...]) -> dict[str, Any]:
    flat = load_faiss().IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    indexes = {"one_gpu": to_gpu(flat, Device(gpus[:1]))[0]}
    for layout in LAYOUTS:
        indexes[layout] = to_gpu(flat, Device(gpus, layout=layout))[0]
    return indexes
