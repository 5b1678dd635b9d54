"""``semrec bench gpu --float16``: catalogues as large as a GPU holds, of titles that came as float16."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.fused.plan import through_codes
from semrec_faiss.index.fused.room import Kept, code_bytes, title_bytes
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.memory.prediction import predict_memory
from semrec_faiss.index.screening.spectrum import choose
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of
from semrec_faiss.measure.bench.gpu.one import GpuBench, each_catalogue, first_gpu, limits_of, made_of
from semrec_faiss.measure.bench.gpu.record import GpuStamp, MadeVectors
from semrec_faiss.measure.bench.gpu.vectors import Float16Titles
from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, Count, Part, Time
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.gpu_memory import OTHERS, others_use
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits, Numbers
from semrec_faiss.measure.instruments.timing import measure_paired, measure_steady
from semrec_faiss.progress import Progress, silent

CHECKED_QUERIES = 64

CHOSEN_BY = 2_000_000
"""Titles that directions are chosen by: a host would not hold all."""


class Float16Batch(Part):
    """A batch size: the whole search from numpy to numpy, and how far its answers are right.

    Attributes:
        repeated: queries searched again with more candidates for want of a proof.
        compared_with_all: of these, compared with every title.
        checked_queries: held against a float64 product with every title.
        largest_error: the largest difference from the best possible scores.
    """

    queries: PositiveInt
    limit_ms: Time
    numpy: Times
    repeated: Count
    compared_with_all: Count
    checked_queries: Count
    largest_error: Amount


class Float16Catalogue(WithGaps):
    """A catalogue: its memory as predicted and as held, and how long making and uploading it took.

    Attributes:
        predicted_bytes: by ``semrec memory``: of the whole GPU while the largest batch is searched.
        used_bytes: in use on the whole GPU after that, by the driver: CUDA's context and what torch keeps with it;
            None where other processes are there.
        predicted_vector_bytes, vector_bytes: of the vectors in it.
        screened_width: numbers of a bound, where titles are searched by bounds beside what they came as; else 0.
        coded: whether there are int8 codes, which a few queries read and many multiply.
        peak_bytes: the most that torch has allocated on the way, what finding out float16 needs included.
    """

    titles: PositiveInt
    predicted_bytes: Count
    used_bytes: Count | None
    predicted_vector_bytes: Count
    vector_bytes: Count
    screened_width: Count = 0
    coded: bool = True
    peak_bytes: Count
    uploaded_s: Amount
    search: Annotated[list[Float16Batch], Field(min_length=1)]


class Float16Results(BenchResults):
    """A whole results file."""

    environment: GpuStamp
    device: str
    data: MadeVectors
    floor: HardwareLimits
    catalogues: Annotated[list[Float16Catalogue], Field(min_length=1)]
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-gpu-h200-float16.json``."""
        made = "-text" if self.data.spectrum == "text" else ""
        return f"bench-gpu-{self.device}-float16{made}{self.data.k_part}.json"


def bench_float16(bench: GpuBench, progress: Progress = silent) -> Float16Results:
    """Measure every catalogue on the first GPU.

    Raises:
        DeviceError: no GPU, or a catalogue that it does not hold.
        MissingPackageError: no torch and Triton.
    """
    device = first_gpu(bench)
    hardware = limits_of(device)
    return Float16Results.whole(
        environment=GpuStamp(**dict(stamp_of_this_run())),
        device=device_name(device),
        data=made_of(bench),
        floor=hardware,
        catalogues=each_catalogue(
            bench, "float16 catalogues", lambda titles: _measure(bench, titles, hardware), progress
        ),
    )


def _measure(bench: GpuBench, count: int, hardware: HardwareLimits) -> Float16Catalogue:
    torch, place = load_torch(), f"cuda:{bench.gpus[0]}"
    torch.cuda.reset_peak_memory_stats(place)
    titles = Float16Titles(count, bench.dim, bench.seed, torch.device(place), bench.spectrum)
    directions = None if bench.spectrum == "round" else _directions(titles)
    started = time.perf_counter()
    searcher = FusedSearcher(titles, place, directions=directions)  # type: ignore[arg-type]  # read as an array is
    uploaded_s = time.perf_counter() - started
    peak_bytes = int(torch.cuda.max_memory_allocated(place))
    batches = [_batch(bench, searcher, titles, queries, hardware) for queries in bench.batches]
    its = searcher.titles
    kept: Kept = "halves" if not its.screened else "uncoded" if its.codes is None else "bounded"
    return Float16Catalogue.of(
        titles=count,
        predicted_bytes=_predicted(bench, count, its),
        used_bytes=OTHERS if others_use(bench.gpus[0]) else max(used for _, used in batches),
        predicted_vector_bytes=title_bytes(count, bench.dim, kept, width=its.dim),
        vector_bytes=its.bytes,
        screened_width=its.dim if its.screened else 0,
        coded=its.codes is not None,
        peak_bytes=max(peak_bytes, int(torch.cuda.max_memory_allocated(place))),
        uploaded_s=round(uploaded_s, 2),
        search=[batch for batch, _ in batches],
    )


def _directions(titles: Float16Titles) -> NDArray[np.float64] | None:
    """Choose directions by the first titles, as a build does by all; None where none pay."""
    steps = range(0, min(len(titles), CHOSEN_BY), titles.part_rows)
    some = np.concatenate([titles[start : start + titles.part_rows].cpu().numpy() for start in steps])
    choice, directions = choose(lambda: [(0, some)], *some.shape, fused=True)
    return np.ascontiguousarray(directions[: choice.directions]) if choice.directions else None


def _batch(
    bench: GpuBench, searcher: FusedSearcher, titles: Float16Titles, count: int, hardware: HardwareLimits
) -> tuple[Float16Batch, int]:
    """Time and check one batch size; return also what is in use on the GPU before the checking."""
    torch, k, dim = load_torch(), bench.k, bench.dim
    asked = _users(titles, count)
    torch.cuda.empty_cache()
    first = measure_steady(lambda: searcher.search(asked, k), warmup=3, repeats=1).median_ms
    times = measure_paired(
        {"": lambda: searcher.search(asked, k)}, warmup=1, repeats=repeats_of(bench.seconds, first)
    ).timings[""]
    coded = not searcher.titles.screened and searcher.titles.codes is not None and through_codes(len(titles), count, k)
    read = code_bytes(1, dim) if coded else 2 * dim
    numbers: Numbers = "int8" if coded else "float16"
    found = searcher.search(asked, k)
    free, total = torch.cuda.mem_get_info(searcher.device)
    checked = min(CHECKED_QUERIES, count)
    best = _best_scores(titles, asked[:checked], k)
    batch = Float16Batch(
        queries=count,
        limit_ms=hardware.limit(count, len(titles), dim, k, numbers=numbers, title_bytes=read).limit_ms,
        numpy=times.told(),
        repeated=found.repeated,
        compared_with_all=found.scanned,
        checked_queries=checked,
        largest_error=float(np.abs(found.scores[:checked] - best).max()),
    )
    return batch, total - free


def _predicted(bench: GpuBench, titles: int, its: GpuTitles) -> int:
    """Ask what ``semrec memory`` says of such titles: of the GPU, whose memory may be too little for codes."""
    directions = len(its.directions) if its.screened else 0
    index = config_from_dict({"index": {"type": "fused", "build": {"directions": directions}}}).index
    on, batch = Device((bench.gpus[0],)), max(bench.batches)
    limit = load_torch().cuda.mem_get_info(its.halves.device)[1]
    asked = {"batch": batch, "k": bench.k, "limit_bytes": limit}
    return predict_memory(index, titles, bench.dim, on, float16_titles=True, **asked).searched.peak


def _users(titles: Float16Titles, count: int) -> Vectors:
    """Make users: means of three of the first titles each, of unit length."""
    some, random = titles[: titles.part_rows].cpu().numpy(), np.random.default_rng(count)
    made = some[random.integers(len(some), size=(count, 3))].sum(axis=1)
    users: Vectors = made / np.linalg.norm(made, axis=1, keepdims=True)
    return users


def _best_scores(titles: Float16Titles, asked: Vectors, k: int) -> Any:
    """Return the k best scores of a float64 product with every title: (queries, k), descending."""
    torch = load_torch()
    best: Any = None
    for start in range(0, len(titles), titles.part_rows):
        block = titles[start : start + titles.part_rows]
        queries = torch.from_numpy(asked).to(block.device).double()
        scores = queries @ block.double().T
        best = (scores if best is None else torch.cat([best, scores], dim=1)).topk(k, dim=1).values
    return best.cpu().numpy()
