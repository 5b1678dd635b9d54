"""``semrec bench search``: what a search costs, beside raw FAISS and beside what the machine allows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.index_types import FlatIndex
from semrec_faiss.config.schema import Config
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build import build_index
from semrec_faiss.measure.bench.beside_faiss import (
    RAW,
    RECOMMENDER,
    agreement_with_cpu,
    batch_cost,
    cost_beside_defaults,
    raw_search,
)
from semrec_faiss.measure.bench.footprint import memory_peaks, process_times
from semrec_faiss.measure.bench.promises import PROMISED_DIM, PROMISED_TITLES, judge
from semrec_faiss.measure.documents.results import NotMeasured, device_name, settle
from semrec_faiss.measure.instruments.environment import environment, load_average
from semrec_faiss.measure.instruments.gpu_memory import GpuMemoryWatch
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
        seed: of the data and the queries.
        repeats: rounds of a batch of 1,000; shorter batches get more, longer ones fewer.
    """

    config: Config = field(default_factory=Config)
    index: Path | None = None
    settings: tuple[str, ...] = ()
    titles: int = PROMISED_TITLES
    users: int = 119_743
    dim: int = PROMISED_DIM
    seed: int = 7
    repeats: int = 20


def bench_search(bench: SearchBench, progress: Progress = silent) -> dict[str, Any]:
    """Measure everything and hold it against the promises.

    Returns:
        The results file as a document. What was not measured is None, and ``not_measured`` says why.

    Raises:
        SemrecError: the data, the index or the device cannot be had, or a measured process fails.
    """
    load, others, gpu_memory = load_average(), OtherPrograms(), GpuMemoryWatch()
    with tempfile.TemporaryDirectory(prefix="semrec-bench-") as folder:
        scratch = Path(folder)
        with gpu_memory:
            path = bench.index or _build(bench, scratch, progress)
            recommender = Recommender.open(path, bench.settings if bench.index else ())
        queries = made_up_queries(recommender.index, max(BATCHES), bench.seed)
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
        # The stamp is taken last, when everything that is used has been imported, and stands first.
        head = {
            "benchmark": "search",
            "environment": environment(),
            "load_average_at_start": _or_untold(load),
            "others_used_cores": _or_untold(others.cores_used()),
            **_subject(bench, recommender),
            "k": k,
        }
        document = settle(head | measured)
        return document | {"promises": [promise.as_limit() for promise in judge(document)]}


def _or_untold(value: float | None) -> float | NotMeasured:
    return NotMeasured("this system does not tell") if value is None else value


def results_name(document: dict[str, Any]) -> str:
    """Name a document's file: ``bench-search-cpu.json``, ``bench-search-h200-ivf_flat.json``."""
    kind = document["index"].get("type", "factory")
    parts = ["bench", "search", document["device"]["name"], *([] if kind == "flat" else [kind])]
    return "-".join(parts) + ".json"


def _build(bench: SearchBench, scratch: Path, progress: Progress) -> Path:
    data, output = scratch / "data", scratch / "index"
    write_synthetic(
        data,
        titles=bench.titles,
        users=bench.users,
        dim=bench.dim,
        seed=bench.seed,
        user_dtype="float64",
        progress=progress,
    )
    build_index(bench.config.model_copy(update={"dataset": data, "output": output}), progress)
    return output


def _subject(bench: SearchBench, recommender: Recommender) -> dict[str, Any]:
    """Describe what is measured: the data, the index and the device."""
    index, device = recommender.index, recommender.index.device
    given = NotMeasured("the index was given, not made for this run") if bench.index else None
    data = {
        "titles": index.count,
        "users": recommender.saved.generation.manifest.users,
        "dim": index.dim,
        "made_by": given or "semrec dataset synth",
        "seed": given or bench.seed,
    }
    on = {"name": device_name(device), "kind": device.kind, "gpus": list(device.gpus), "float16": device.float16}
    return {"data": data, "index": index.config.model_dump(mode="json"), "device": on}


def _is_flat(recommender: Recommender) -> bool:
    return isinstance(recommender.index.config, FlatIndex)


def _beside_defaults(
    recommender: Recommender, queries: Vectors, k: int, repeats: int, progress: Progress
) -> dict[str, Any] | NotMeasured:
    if recommender.index.device.gpus:
        return NotMeasured("FAISS's BLAS settings matter on a CPU only")
    if not _is_flat(recommender):
        return NotMeasured("FAISS's BLAS settings matter to exact scans, so to type flat")
    batches = {count: queries[:count] for count in BATCHES}
    return cost_beside_defaults(recommender.index, batches, k, repeats, progress)


def _agreement(recommender: Recommender, queries: Vectors, k: int) -> dict[str, Any] | NotMeasured:
    if not recommender.index.device.gpus:
        return NotMeasured("the index is searched on the CPU")
    return agreement_with_cpu(recommender, queries, k)


def _gpu_memory(
    recommender: Recommender, queries: Vectors, k: int, watch: GpuMemoryWatch
) -> dict[str, Any] | NotMeasured:
    """Search every batch once more while the GPU's memory is read, which would disturb the times."""
    if not recommender.index.device.gpus:
        return NotMeasured("the index is searched on the CPU")
    with watch:
        for count in BATCHES:
            raw_search(recommender.index, queries[:count], k)
    return watch.as_dict() or NotMeasured("nvidia-ml-py is not installed, or finds no driver")


def _limits(
    recommender: Recommender, rows: list[dict[str, Any]], k: int, progress: Progress
) -> dict[str, Any] | NotMeasured:
    progress("machine's limits", 0, 1)
    hardware = measure_limits(recommender.index.device)
    progress("machine's limits", 1, 1)
    if isinstance(hardware, NotMeasured):
        return hardware
    if not _is_flat(recommender):
        reason = "an approximate index does not compare every title, so that no scan bounds it"
        return hardware.as_dict() | {"batches": NotMeasured(reason)}
    return hardware.as_dict() | {"batches": [_batch_limit(hardware, recommender, row, k) for row in rows]}


def _batch_limit(hardware: HardwareLimits, recommender: Recommender, row: dict[str, Any], k: int) -> dict[str, Any]:
    index = recommender.index
    limit = hardware.limit(row["queries"], index.count, index.dim, k, float16=index.device.float16)
    gaps = {f"{name}_gap": round(row[name]["median_ms"] / limit["limit_ms"], 3) for name in (RAW, RECOMMENDER)}
    return {"queries": row["queries"], **limit, **gaps}
