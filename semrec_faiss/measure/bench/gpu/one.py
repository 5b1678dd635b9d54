"""``semrec bench gpu``: exact search on one GPU beside its limit, FAISS and a matrix product, all in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.room import code_bytes
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.hardware.device import Device, choose_device
from semrec_faiss.index.screening.spectrum import choose
from semrec_faiss.measure.bench.gpu.filtered import Filtered
from semrec_faiss.measure.bench.gpu.gpu_clock import repeats_of, time_on_gpu
from semrec_faiss.measure.bench.gpu.peers import (
    FaissPeer,
    FusedPeer,
    Search,
    faiss_name,
    flashlib_peers,
    product_and_topk,
)
from semrec_faiss.measure.bench.gpu.record import (
    GpuBatch,
    GpuPeak,
    GpuResults,
    GpuStamp,
    MadeVectors,
    MaskedBatch,
)
from semrec_faiss.measure.bench.gpu.vectors import CLUSTERS, MADE_AT_ONCE, SPREAD, Spectrum, clustered, texts, users_of
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits, Numbers, measure_limits
from semrec_faiss.measure.instruments.timing import Timing, measure_paired
from semrec_faiss.progress import Progress, silent

Measured = TypeVar("Measured")

ALL_BATCHES = (1, 100, 1000, 10_000, 119_743)
SMALL_TITLES = 100_000
CHECKED_QUERIES = 256
SHARES = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0001)
MASKED_BATCHES = (1, 1000, 2048, 10_000)


@dataclass(frozen=True)
class GpuBench:
    """What to measure.

    Attributes:
        titles: catalogues to make, on the GPU.
        batches: queries at once; the largest of `ALL_BATCHES` only on catalogues of under `SMALL_TITLES`.
        dim: dimensions.
        k: titles per query.
        seconds: how long each contestant is timed for, about; at least three times.
        seed: of the vectors.
        spectrum: ``round`` vectors, or such as a ``text`` model makes, which are searched by bounds too.
        gpus: which GPUs; `bench_gpu` takes the first.
    """

    titles: tuple[int, ...] = (62_423, 1_000_000, 4_000_000)
    batches: tuple[int, ...] = ALL_BATCHES
    dim: int = 384
    k: int = 10
    seconds: float = 0.4
    seed: int = 7
    gpus: tuple[int, ...] = (0,)
    spectrum: Spectrum = "round"

    def batches_of(self, titles: int) -> list[int]:
        """Return the batches that a catalogue is searched with."""
        return [*(self.batches if titles < SMALL_TITLES or self.batches != ALL_BATCHES else ALL_BATCHES[:-1])]


def bench_gpu(bench: GpuBench, progress: Progress = silent) -> GpuResults:
    """Measure every catalogue.

    Raises:
        DeviceError: no GPU.
        MissingPackageError: no torch and Triton.
    """
    device, torch = first_gpu(bench), load_torch()
    hardware = limits_of(device)
    rows: list[GpuBatch] = []
    masked: list[MaskedBatch] = []
    memory: list[GpuPeak] = []
    for titles in bench.titles:
        run = _Catalogue(torch, bench, titles, device)
        batches = bench.batches_of(titles)
        for count in batches:
            progress(f"{titles:,} titles", batches.index(count), len(batches))
            rows.append(run.batch(count, hardware))
        if bench.spectrum == "round":  # filters are searched alike, whatever the vectors
            masked += [run.masked(count, share) for count in MASKED_BATCHES if count in batches for share in SHARES]
        memory.append(run.memory(max(batches)))
        progress(f"{titles:,} titles", len(batches), len(batches))
        del run
        torch.cuda.empty_cache()
    return GpuResults.whole(
        environment=GpuStamp(**dict(stamp_of_this_run())),
        device=device_name(device),
        data=made_of(bench),
        floor=hardware,
        search=rows,
        masked=masked,
        memory=memory,
    )


def each_catalogue(
    bench: GpuBench, what: str, measured: Callable[[int], Measured], progress: Progress
) -> list[Measured]:
    """Measure catalogues of so many titles one after the other; none is left on the GPU when the next one comes."""
    catalogues = []
    for done, titles in enumerate(bench.titles):
        progress(what, done, len(bench.titles))
        catalogues.append(measured(titles))
        load_torch().cuda.empty_cache()
    return catalogues


def first_gpu(bench: GpuBench) -> Device:
    """Return the first of the GPUs that are asked for; raises DeviceError where it is not there."""
    wanted = config_from_dict({"device": {"kind": "gpu", "gpus": [bench.gpus[0]]}})
    return choose_device(wanted.device, wanted.index)


def limits_of(device: Device) -> HardwareLimits:
    """Measure what a GPU can do at most."""
    hardware = measure_limits(device)
    if not isinstance(hardware, HardwareLimits):
        raise DeviceError(f"the limits of the GPU are not to be had: {hardware.reason}")
    return hardware


def made_of(bench: GpuBench) -> MadeVectors:
    """Say what vectors are made."""
    how = {"clusters": CLUSTERS, "spread": SPREAD, "spectrum": bench.spectrum}
    return MadeVectors.model_validate({"dim": bench.dim, "k": bench.k, "seed": bench.seed, **how})


class _Catalogue:
    """Title vectors on the GPU, and everybody who searches them."""

    def __init__(self, torch: Any, bench: GpuBench, titles: int, device: Device) -> None:
        self._torch, self._bench = torch, bench
        self._gpu = device.gpus[0]
        self._cuda = torch.device("cuda", self._gpu)
        made = texts if bench.spectrum == "text" else clustered
        self._vectors = made(titles, bench.dim, bench.seed, self._cuda)
        vectors = self._vectors.cpu().numpy()
        self._searcher = FusedSearcher(vectors, f"cuda:{self._gpu}")
        self._filtered = Filtered(self._searcher, bench.k, bench.seconds, bench.seed)
        self._flashlib = flashlib_peers(self._vectors, bench.k)
        self._screened = None if bench.spectrum == "round" else _screened(vectors, f"cuda:{self._gpu}")

    def batch(self, count: int, hardware: HardwareLimits) -> GpuBatch:
        """Time one batch size: everybody in turns."""
        k, dim, titles = self._bench.k, self._bench.dim, len(self._vectors)
        queries = self._queries(count)
        fused = FusedPeer(self._searcher.whole, queries, k)
        ours, searches = faiss_name(), {"fused": fused.search}
        screened = None if self._screened is None else FusedPeer(self._screened.whole, queries, k)
        if screened is not None:
            searches["screened"] = screened.search
        for name, float16 in ((f"{ours}_float32", False), (f"{ours}_float16", True)):
            searches[name] = FaissPeer(self._vectors, self._gpu, float16=float16).on(queries, k)
        searches["torch_float16"] = product_and_topk(self._searcher.titles.halves[:, :dim], queries, k)
        theirs = {name: on(queries) for name, on in self._flashlib.items()}
        searches |= theirs
        timings = {name: time_on_gpu(search, self._bench.seconds) for name, search in searches.items()}
        read = code_bytes(1, dim) if fused.coded else 2 * dim
        numbers: Numbers = "int8" if fused.coded else "float16"
        limit = hardware.limit(count, titles, dim, k, numbers=numbers, title_bytes=read)
        unproven = fused.find_unproven()
        left = 0 if screened is None else len(screened.find_unproven())
        coded, fused_ms = fused.coded, timings["fused"].median_ms
        del fused, screened, searches
        self._torch.cuda.empty_cache()
        return GpuBatch.model_validate(
            {
                "titles": titles,
                "queries": count,
                "reads": "int8 codes" if coded else "float16",
                **dict(limit),
                "fused_to_limit": round(fused_ms / limit.limit_ms, 3),
                "fused_to_faiss": round(fused_ms / timings[f"{ours}_float32"].median_ms, 4),
                "unproven": len(unproven),
                **{name: timing.told() for name, timing in timings.items()},
                **self._through_numpy(queries, timings["fused"]),
                **self._error(self._searcher, queries, unproven),
                "recall": {name: self._recall(search, queries) for name, search in theirs.items()},
                **(self._by_bounds(queries, left) if self._screened is not None else {}),
            }
        )

    def _recall(self, search: Search, queries: Any) -> float:
        """Return the share of the titles of our answers that a peer's have."""
        found = self._searcher.search(queries.cpu().numpy(), self._bench.k).rows
        theirs = search()[1].cpu().numpy()
        hits = (found[:, :, None] == theirs[:, None, :]).any(axis=2)
        return round(float(hits.mean()), 6)

    def _through_numpy(self, queries: Any, kernels: Timing) -> dict[str, object]:
        """Time the whole search, from numpy to numpy, repetitions of what is not proven included."""
        asked, k = queries.cpu().numpy(), self._bench.k
        found = self._searcher.search(asked, k)
        repeats = repeats_of(self._bench.seconds, kernels.median_ms)
        whole = measure_paired({"": lambda: self._searcher.search(asked, k)}, warmup=2, repeats=repeats).timings[""]
        return {
            "numpy": whole.told(),
            "numpy_added_ms": round(whole.median_ms - kernels.median_ms, 4),
            "repeated": found.repeated,
            "compared_with_all": found.scanned,
        }

    def _by_bounds(self, queries: Any, unproven: int) -> dict[str, object]:
        """Time and check the whole search by bounds."""
        assert self._screened is not None
        asked, k, search = queries.cpu().numpy(), self._bench.k, self._screened.search
        found = search(asked, k)
        first = measure_paired({"": lambda: search(asked, k)}, warmup=1, repeats=3).timings[""]
        repeats = repeats_of(self._bench.seconds, first.median_ms)
        whole = measure_paired({"": lambda: search(asked, k)}, warmup=1, repeats=repeats).timings[""]
        error = self._error(self._screened, queries, np.empty(0, np.int64))
        return {
            "screened_numpy": whole.told(),
            "screened_width": self._screened.titles.dim,
            "screened_unproven": unproven,
            "screened_repeated": found.repeated,
            "screened_with_all": found.scanned,
            "screened_largest_error": error["largest_error"],
        }

    def _error(self, searcher: FusedSearcher, queries: Any, unproven: NDArray[np.int64]) -> dict[str, object]:
        """Hold answers against a float64 product: the largest difference to the best possible scores.

        Of the first queries, and of those that need more than the first pass.
        """
        checked = np.union1d(np.arange(min(CHECKED_QUERIES, len(queries))), unproven)
        given = queries.cpu().numpy()
        found = searcher.search(given, self._bench.k)
        largest = 0.0
        for first in range(0, len(checked), CHECKED_QUERIES):
            part = checked[first : first + CHECKED_QUERIES]
            largest = max(largest, self._largest_error(given[part], found.rows[part], found.scores[part]))
        return {"checked_queries": len(checked), "largest_error": largest}

    def _largest_error(self, given: Vectors, rows: Rows, scores: Scores) -> float:
        torch = self._torch
        asked, at, told = (torch.from_numpy(part).to(self._cuda) for part in (given, rows, scores))
        best = torch.full((len(asked), self._bench.k), -np.inf, dtype=torch.float64, device=self._cuda)
        for block in self._vectors.split(MADE_AT_ONCE):
            both = torch.cat([best, asked.double() @ block.double().T], dim=1)
            best = both.topk(self._bench.k, dim=1).values
        own = (self._vectors[at].double() * asked.double()[:, None, :]).sum(-1)
        return max(float((own - best).abs().max()), float((told - best).abs().max()))

    def masked(self, count: int, share: float) -> MaskedBatch:
        """Time ``count`` queries under a random mask for a ``share`` (0 to 1) of titles and without."""
        return self._filtered.batch(self._queries(count), share)

    def memory(self, count: int) -> GpuPeak:
        """Return the peak that torch allocated beyond the vectors while the largest batch was searched."""
        torch = self._torch
        asked = self._queries(count).cpu().numpy()
        mask = np.arange(len(self._vectors)) % 2 == 0
        held = self._searcher.titles.bytes + int(self._vectors.nbytes)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._cuda)
        self._searcher.search(asked, self._bench.k, mask=mask)
        peak = int(torch.cuda.max_memory_allocated(self._cuda))
        return GpuPeak(
            titles=len(self._vectors),
            queries=count,
            vector_bytes=self._searcher.titles.bytes,
            peak_beyond_vectors_bytes=peak - held,
        )

    def _queries(self, count: int) -> Any:
        return users_of(self._vectors, count, self._bench.seed + count)


def _screened(vectors: Vectors, device: str) -> FusedSearcher | None:
    """Search by bounds of as many directions as a build chooses; None where it chooses none, or copies are faster."""
    choice, directions = choose(lambda: [(0, vectors)], *vectors.shape, fused=True)
    if not choice.directions:
        return None
    made = FusedSearcher(vectors, device, directions=np.ascontiguousarray(directions[: choice.directions]))
    return made if made.titles.screened else None
