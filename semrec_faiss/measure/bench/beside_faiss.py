"""What our search costs beside raw FAISS on the very same index, in the very same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Scores, Vectors
from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.index.hardware.kernels import as_faiss_comes
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.bench.record import BesideRaw
from semrec_faiss.measure.bench.search_record import BatchCost, BesideDefaults, CpuAgreement, DefaultsBatch
from semrec_faiss.measure.instruments.timing import PairedTimings, measure_paired
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

RAW = "raw_faiss"
VECTOR_INDEX = "vector_index"
RECOMMENDER = "recommender"
WITH_TITLES = "recommender_with_titles"

DEFAULTS_BATCH = 100
"""The batch whose time is promised beside FAISS as it comes."""

# FAISS 1.15's own distance_compute_blas_threshold, _query_bs and _database_bs.
_FAISS_DEFAULTS = (128_000, 4096, 1024)

# Rounds for each one that --repeats asks for: short searches need many for a steady median, long ones are steady.
_ROUNDS = {1: 10.0, 10: 5.0, 100: 2.0, 1000: 1.0, 10_000: 0.25}
_FEWEST_ROUNDS = 2


def rounds_of(queries: int, repeats: int) -> int:
    """Return how often a batch of ``queries`` is searched when ``repeats`` are asked for."""
    return max(_FEWEST_ROUNDS, round(repeats * _ROUNDS.get(queries, 1.0)))


def raw_search(index: VectorIndex, queries: Vectors, k: int) -> tuple[Scores, NDArray[np.int64]]:
    """Search the FAISS object inside ``index`` with nothing of ours around it but the GPU's lock.

    Args:
        index: whose.
        queries: float32 (queries, dim), prepared.
        k: how many titles.

    Returns:
        scores float32 and rows int64 (queries, k), in FAISS's order.
    """
    with index.locked():
        scores, rows = index.faiss_index.search(queries, k)
    return scores, rows


def batch_cost(recommender: Recommender, queries: Vectors, k: int, repeats: int, progress: Progress) -> BatchCost:
    """Time one batch of queries, float32 (queries, dim), raw and ours in turns."""
    index = recommender.index
    count = len(queries)
    work: dict[str, Callable[[], object]] = {
        RAW: lambda: raw_search(index, queries, k),
        VECTOR_INDEX: lambda: index.search(queries, k),
        RECOMMENDER: lambda: recommender.search(queries, k),
        WITH_TITLES: lambda: [answer.results for answer in recommender.search(queries, k)],
    }
    warmup = 3 if count < 1000 else 1
    what = f"{count:,} queries" if count > 1 else "1 query"
    timings = measure_paired(work, warmup=warmup, repeats=rounds_of(count, repeats), what=what, progress=progress)
    scores, rows = raw_search(index, queries, k)
    found = index.search(queries, k).scores
    differences = np.abs(found - scores[:, : found.shape[1]])[rows[:, : found.shape[1]] >= 0]
    return row_of_batch(count, timings, float(differences.max(initial=0.0)))


def row_of_batch(queries: int, timings: PairedTimings, largest_score_difference: float) -> BatchCost:
    """Arrange the timings of one batch: raw FAISS, then each of ours with its ratio and what it adds."""
    row: dict[str, object] = {"queries": queries, "rounds": len(timings.timings[RAW].times_ms)}
    row[RAW] = timings.timings[RAW].told()
    for name in (VECTOR_INDEX, RECOMMENDER, WITH_TITLES):
        row[name] = BesideRaw(
            ratio=round(timings.median_ratio(name, RAW), 5),
            added_ms=round(timings.median_added_ms(name, RAW), 5),
            **dict(timings.timings[name].told()),
        )
    return BatchCost.model_validate(row | {"largest_score_difference": largest_score_difference})


def cost_beside_defaults(
    index: VectorIndex, batches: Mapping[int, Vectors], k: int, repeats: int, progress: Progress
) -> BesideDefaults:
    """Time batches on the CPU beside raw FAISS as it comes, and raw FAISS with our settings, in turns.

    As it comes FAISS has its own block sizes, and the BLAS kernels that it chose by itself.

    Args:
        index: of type flat, on a CPU.
        batches: the queries, float32 (how many, dim), by how many there are; 100 among them.
        k: how many titles.
        repeats: rounds of 1,000 queries.
        progress: told the rounds done.

    Returns:
        What 100 queries took, and under ``batches`` a row for each.
    """
    rows = [_beside_defaults(index, queries, k, repeats, progress) for queries in batches.values()]
    hundred = next(row for row in rows if row.queries == DEFAULTS_BATCH)
    return BesideDefaults(
        queries=hundred.queries,
        rounds=hundred.rounds,
        ratio=hundred.ratio,
        faiss_defaults=hundred.faiss_defaults,
        ours=hundred.ours,
        batches=rows,
    )


def _beside_defaults(index: VectorIndex, queries: Vectors, k: int, repeats: int, progress: Progress) -> DefaultsBatch:
    def at_defaults() -> None:
        with as_faiss_comes(), blas_settings(*_FAISS_DEFAULTS):
            raw_search(index, queries, k)

    work: dict[str, Callable[[], object]] = {
        "faiss_defaults": at_defaults,
        RAW: lambda: raw_search(index, queries, k),
        "ours": lambda: index.search(queries, k),
    }
    rounds = rounds_of(len(queries), repeats)
    timings = measure_paired(work, warmup=1, repeats=rounds, what="FAISS's defaults", progress=progress)
    return DefaultsBatch(
        queries=len(queries),
        rounds=rounds,
        ratio=round(timings.median_ratio("ours", "faiss_defaults"), 5),
        ratio_to_best=round(timings.median_ratio("ours", RAW), 5),
        faiss_defaults=timings.timings["faiss_defaults"].told(),
        raw_faiss=timings.timings[RAW].told(),
        ours=timings.timings["ours"].told(),
    )


@contextmanager
def blas_settings(threshold: int, query_block: int, title_block: int) -> Iterator[None]:
    """Let FAISS search with other settings, and give it back the earlier ones whatever happens."""
    settings = load_faiss().cvar
    names = ("distance_compute_blas_threshold", "distance_compute_blas_query_bs", "distance_compute_blas_database_bs")
    before = [getattr(settings, name) for name in names]
    try:
        for name, value in zip(names, (threshold, query_block, title_block), strict=True):
            setattr(settings, name, value)
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(settings, name, value)


def agreement_with_cpu(recommender: Recommender, queries: Vectors, k: int) -> CpuAgreement:
    """Search float32 (queries, dim) on the GPU and on the CPU, and say how far the answers are the same."""
    on_gpu = recommender.index.search(queries, k)
    on_cpu = recommender.saved.load(recommender.saved.config.index, Device()).search(queries, k)
    shared = [len(np.intersect1d(ours, theirs)) for ours, theirs in zip(on_gpu.rows, on_cpu.rows, strict=True)]
    return CpuAgreement(
        queries=len(queries),
        same_title_in_same_place_share=float((on_gpu.rows == on_cpu.rows).mean()),
        same_titles_share=float(np.sum(shared) / on_cpu.rows.size),
        largest_score_difference=float(np.abs(on_gpu.scores - on_cpu.scores).max()),
    )
