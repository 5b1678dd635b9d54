"""``semrec bench gpu --originals``: originals that stay on the host beside those on the GPU, from numpy to numpy."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of
from semrec_faiss.measure.bench.gpu.one import GpuBench, each_catalogue, first_gpu, made_of
from semrec_faiss.measure.bench.gpu.record import GpuStamp, MadeVectors
from semrec_faiss.measure.bench.gpu.vectors import clustered, users_of
from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.timing import measure_paired, measure_steady
from semrec_faiss.progress import Progress, silent


class OriginalsBatch(Part):
    """A batch size: both in turns, from numpy to numpy.

    Attributes:
        gpu, host: where the float32 originals are.
        ratio: how many times as long it takes with those on the host, median of rounds.
        same_answers: whether rows and scores are the same, bit for bit.
        repeated: queries searched again with more candidates.
    """

    queries: AtLeastOne
    gpu: Times
    host: Times
    ratio: Amount
    same_answers: bool
    repeated: Count


class OriginalsCatalogue(Part):
    """A catalogue: the GPU memory of its vectors either way, and how long page-locking and uploading took."""

    titles: AtLeastOne
    gpu_bytes: Count
    host_bytes: Count
    gpu_uploaded_s: Amount
    host_uploaded_s: Amount
    search: Annotated[list[OriginalsBatch], Field(min_length=1)]


class OriginalsResults(BenchResults):
    """A whole results file."""

    environment: GpuStamp
    device: str
    data: MadeVectors
    catalogues: Annotated[list[OriginalsCatalogue], Field(min_length=1)]
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-gpu-h200-originals.json``."""
        return f"bench-gpu-{self.device}-originals{self.data.k_part}.json"


def bench_originals(bench: GpuBench, progress: Progress = silent) -> OriginalsResults:
    """Measure every catalogue on the first GPU.

    Raises:
        DeviceError: no GPU, or a catalogue that it does not hold.
        MissingPackageError: no torch and Triton.
    """
    device = first_gpu(bench)
    return OriginalsResults.whole(
        environment=GpuStamp(**dict(stamp_of_this_run())),
        device=device_name(device),
        data=made_of(bench),
        catalogues=each_catalogue(bench, "originals", partial(_measure, bench), progress),
    )


def _measure(bench: GpuBench, titles: int) -> OriginalsCatalogue:
    place = f"cuda:{bench.gpus[0]}"
    made = clustered(titles, bench.dim, bench.seed, load_torch().device(place))
    vectors = made.cpu().numpy()
    searchers, took = [], []
    for originals in ("gpu", "host"):
        started = time.perf_counter()
        searchers.append(FusedSearcher(vectors, place, originals=originals))
        took.append(round(time.perf_counter() - started, 2))
    asked = {count: users_of(made, count, bench.seed + count).cpu().numpy() for count in bench.batches}
    del made
    on_gpu, on_host = searchers
    return OriginalsCatalogue(
        titles=titles,
        gpu_bytes=on_gpu.titles.bytes,
        host_bytes=on_host.titles.bytes,
        gpu_uploaded_s=took[0],
        host_uploaded_s=took[1],
        search=[_batch(bench, on_gpu, on_host, queries) for queries in asked.values()],
    )


def _batch(bench: GpuBench, on_gpu: FusedSearcher, on_host: FusedSearcher, asked: np.ndarray) -> OriginalsBatch:
    work = {"gpu": partial(on_gpu.search, asked, bench.k), "host": partial(on_host.search, asked, bench.k)}
    slowest = max(measure_steady(one, warmup=3, repeats=1).median_ms for one in work.values())
    paired = measure_paired(work, warmup=1, repeats=repeats_of(bench.seconds, slowest))
    ours, its = work["gpu"](), work["host"]()
    same = np.array_equal(ours.scores.view(np.int32), its.scores.view(np.int32))
    return OriginalsBatch(
        queries=len(asked),
        gpu=paired.timings["gpu"].told(),
        host=paired.timings["host"].told(),
        ratio=round(paired.median_ratio("host", "gpu"), 3),
        same_answers=same and np.array_equal(ours.rows, its.rows),
        repeated=its.repeated,
    )
