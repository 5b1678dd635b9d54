"""``semrec bench search``: what a search costs, beside raw FAISS and beside what the machine allows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.index_types import FlatIndex
from semrec_faiss.config.schema import Config
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.measure.bench.beside_faiss import (
    agreement_with_cpu,
    batch_cost,
    cost_beside_defaults,
    raw_search,
)
from semrec_faiss.measure.bench.footprint import memory_peaks, process_times
from semrec_faiss.measure.bench.promises import PROMISED_DIM, PROMISED_TITLES, judge
from semrec_faiss.measure.bench.record import SEED
from semrec_faiss.measure.bench.search_record import (
    BatchCost,
    BatchLimit,
    BesideDefaults,
    CpuAgreement,
    Limits,
    SearchedData,
    SearchedDevice,
    SearchResults,
)
from semrec_faiss.measure.documents.results import NotMeasured, device_name
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.gpu_memory import GpuMemoryWatch, WatchedMemory
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits, measure_limits
from semrec_faiss.measure.instruments.other_programs import OtherPrograms
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender

BATCHES = (1, 10, 100, 1000, 10_000)
AGREEMENT_BATCH = 1000
K = 10
FEWEST_PROCESS_RUNS, MOST_PROCESS_RUNS = 3, 10


@dataclass(frozen=True)
class SearchBench:
    """What to measure.

    Attributes:
        config: the index type, its settings and the device, for an index that is built; not used with ``index``.
        index: an index directory; None makes data, and builds one, in a temporary folder.
        settings: overrides for ``index``, such as ``index.search.nprobe=32``.
        titles: titles of the made-up data.
        users: its users.
        dim: dimensions of its vectors.
        repeats: rounds of a batch of 1,000; shorter batches get more, longer ones fewer.
    """

    config: Config = field(default_factory=Config)
    index: Path | None = None
    settings: tuple[str, ...] = ()
    titles: int = PROMISED_TITLES
    users: int = 119_743
    dim: int = PROMISED_DIM
    repeats: int = 20


def bench_search(bench: SearchBench, progress: Progress = silent) -> SearchResults:
    """Measure everything and hold it against the promises.

    Raises:
        SemrecError: the data, the index or the device cannot be had, or a measured process fails.
    """
    load, others, gpu_memory = load_average(), OtherPrograms(), GpuMemoryWatch()
    with tempfile.TemporaryDirectory(prefix="semrec-bench-") as folder:
        scratch = Path(folder)
        with gpu_memory:
            path = bench.index or _build(bench, scratch, progress)
            recommender = Recommender.open(path, bench.settings if bench.index else ())
        queries = made_up_queries(recommender.index, max(BATCHES), SEED)
        k = min(K, recommender.index.count)
        rows = [batch_cost(recommender, queries[:count], k, bench.repeats, progress) for count in BATCHES]
        runs = min(MOST_PROCESS_RUNS, max(FEWEST_PROCESS_RUNS, bench.repeats))
        measured = {
            "search": rows,
            "faiss_defaults": _beside_defaults(recommender, queries, k, bench.repeats, progress),
            "agreement_with_cpu": _agreement(recommender, queries[:AGREEMENT_BATCH], k),
            "gpu_memory": _gpu_memory(recommender, queries, k, gpu_memory),
            "processes": process_times(recommender, path, runs, progress),
            "memory": memory_peaks(recommender, scratch, progress),
            "floor": _limits(recommender, rows, k, progress),
        }
        results = SearchResults.whole(
            benchmark="search",
            environment=stamp_of_this_run(),  # taken last, when everything that is used has been imported
            load_average_at_start=_or_untold(load),
            others_used_cores=_or_untold(others.cores_used()),
            data=_data(bench, recommender),
            index=recommender.index.config.model_dump(mode="json"),
            device=_device(recommender.index.device),
            k=k,
            **measured,
        )
        results.promises = judge(results)
        return results


def _or_untold(value: float | None) -> float | NotMeasured:
    return NotMeasured("this system does not tell") if value is None else value


def _build(bench: SearchBench, scratch: Path, progress: Progress) -> Path:
    data, output = scratch / "data", scratch / "index"
    write_synthetic(
        data,
        titles=bench.titles,
        users=bench.users,
        dim=bench.dim,
        seed=SEED,
        user_dtype="float64",
        progress=progress,
    )
    build_index(bench.config.of(data).model_copy(update={"output": output}), progress)
    return output


def _data(bench: SearchBench, recommender: Recommender) -> SearchedData:
    given = NotMeasured("the index was given, not made for this run") if bench.index else None
    return SearchedData.of(
        titles=recommender.index.count,
        users=recommender.saved.generation.manifest.users,
        dim=recommender.index.dim,
        made_by=given or "semrec dataset synth",
        seed=given or SEED,
    )


def _device(device: Device) -> SearchedDevice:
    kind: Literal["cpu", "gpu"] = "gpu" if device.gpus else "cpu"
    return SearchedDevice(name=device_name(device), kind=kind, gpus=list(device.gpus), float16=device.float16)


def _is_flat(recommender: Recommender) -> bool:
    return isinstance(recommender.index.config, FlatIndex)


def _beside_defaults(
    recommender: Recommender, queries: Vectors, k: int, repeats: int, progress: Progress
) -> BesideDefaults | NotMeasured:
    if recommender.index.device.gpus:
        return NotMeasured("FAISS's BLAS settings matter on a CPU only")
    if not _is_flat(recommender):
        return NotMeasured("FAISS's BLAS settings matter to exact scans, so to type flat")
    batches = {count: queries[:count] for count in BATCHES}
    return cost_beside_defaults(recommender.index, batches, k, repeats, progress)


def _agreement(recommender: Recommender, queries: Vectors, k: int) -> CpuAgreement | NotMeasured:
    if not recommender.index.device.gpus:
        return NotMeasured("the index is searched on the CPU")
    return agreement_with_cpu(recommender, queries, k)


def _gpu_memory(
    recommender: Recommender, queries: Vectors, k: int, watch: GpuMemoryWatch
) -> WatchedMemory | NotMeasured:
    """Search every batch once more while the GPU's memory is read, which would disturb the times."""
    if not recommender.index.device.gpus:
        return NotMeasured("the index is searched on the CPU")
    with watch:
        for count in BATCHES:
            raw_search(recommender.index, queries[:count], k)
    return watch.told()


def _limits(recommender: Recommender, rows: list[BatchCost], k: int, progress: Progress) -> Limits | NotMeasured:
    progress("machine's limits", 0, 1)
    hardware = measure_limits(recommender.index.device)
    progress("machine's limits", 1, 1)
    if isinstance(hardware, NotMeasured):
        return hardware
    if not _is_flat(recommender):
        reason = "an approximate index does not compare every title, so that no scan bounds it"
        return Limits.of(**dict(hardware), batches=NotMeasured(reason))
    return Limits.of(**dict(hardware), batches=[_batch_limit(hardware, recommender, row, k) for row in rows])


def _batch_limit(hardware: HardwareLimits, recommender: Recommender, row: BatchCost, k: int) -> BatchLimit:
    index = recommender.index
    limit = hardware.limit(
        row.queries, index.count, index.dim, k, numbers="float16" if index.device.float16 else "float32"
    )
    return BatchLimit(
        queries=row.queries,
        raw_faiss_gap=round(row.raw_faiss.median_ms / limit.limit_ms, 3),
        recommender_gap=round(row.recommender.median_ms / limit.limit_ms, 3),
        **dict(limit),
    )
