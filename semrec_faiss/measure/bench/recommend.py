"""``semrec bench recommend``: lists for every user, beside the bare search of the same vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import gpu_count
from semrec_faiss.measure.bench.beside_faiss import raw_search
from semrec_faiss.measure.bench.record import SEED, BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.gpu_memory import GpuMemoryWatch, WatchedMemory
from semrec_faiss.measure.instruments.timing import PairedTimings, measure_paired
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.export import BLOCK_USERS, ExportSummary, export_all_users
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender

K = 10
GENRE = "Sci-Fi"
RAW, ALL, RESTRICTED = "raw_faiss", "all_users", "all_users_unseen_one_genre"
"""``raw_faiss`` is the bare search of all users' vectors; of type fused on a GPU its own."""

LIMITS = {ALL: 1.25, RESTRICTED: 1.6}
"""How many times FAISS's bare search each may cost; type fused takes so little that writing takes longer."""


@dataclass(frozen=True)
class RecommendBench:
    """What to measure.

    Attributes:
        device: ``auto``, ``cpu`` or ``gpu``.
        type: of the index, ``flat`` or ``fused``; ``auto`` takes fused where it runs on a GPU.
        titles: titles of the made-up data.
        users: its users.
        dim: dimensions of its vectors.
        seen: titles that a user has seen, on average.
        repeats: rounds.
    """

    device: str = "auto"
    type: str = "auto"
    titles: int = 62_423
    users: int = 119_743
    dim: int = 384
    seen: int = 100
    repeats: int = 3


class AllUsersTimes(Times):
    """The times of lists for all users, and beside the raw search what they may cost."""

    ratio: Amount | None = None
    limit: Amount | None = None
    met: bool | None = None
    users_per_second: Amount


class MadeUsers(Part):
    """The data that was made for the run."""

    titles: AtLeastOne
    users: AtLeastOne
    dim: AtLeastOne
    seen_a_user: Count
    genre: str
    titles_of_the_genre: Count
    seed: Count
    k: AtLeastOne


class RecommendResults(BenchResults):
    """A whole results file."""

    load_average_at_start: Amount | None
    device: str
    index: dict[str, str]
    data: MadeUsers
    times: dict[str, AllUsersTimes]
    summaries: dict[str, dict[str, JsonValue]]
    gpu_memory: WatchedMemory | None
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-recommend-h200.json``, ``bench-recommend-h200-fused.json``."""
        kind = self.index["type"]
        return f"bench-recommend-{self.device}{'' if kind == 'flat' else f'-{kind}'}.json"


def bench_recommend(bench: RecommendBench, progress: Progress = silent) -> RecommendResults:
    """Time the export of every user's list in turns with the bare search."""
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        data, output = Path(scratch) / "data", Path(scratch) / "index"
        write_synthetic(
            data,
            titles=bench.titles,
            users=bench.users,
            dim=bench.dim,
            seed=SEED,
            seen_per_user=bench.seen,
            progress=progress,
        )
        kind = _fastest_type(bench.device) if bench.type == "auto" else bench.type
        settings = {"index": {"type": kind}, "device": bench.device, "dataset": str(data), "output": str(output)}
        build_index(config_from_dict(settings), progress)
        recommender = Recommender.open(output)
        with GpuMemoryWatch() as watch:
            timings, summaries = _take_turns(recommender, bench, Path(scratch), progress)
        genre = recommender.searcher.selections.get(Filter(genres=(GENRE,)))
    return RecommendResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        device=device_name(recommender.index.device),
        index={"type": kind},
        data=MadeUsers(
            titles=bench.titles,
            users=bench.users,
            dim=bench.dim,
            seen_a_user=bench.seen,
            genre=GENRE,
            titles_of_the_genre=0 if genre is None else len(genre.rows),
            seed=SEED,
            k=K,
        ),
        times=_rows(timings, bench.users, {} if kind == "fused" else LIMITS),
        summaries={name: summary.as_dict() for name, summary in summaries.items()},
        gpu_memory=watch.told(),
    )


def _fastest_type(device: str) -> str:
    """Return fused where a GPU and what its kernels need are there, and else flat."""
    on_gpu = device != "cpu" and gpu_count() > 0 and find_spec("triton") is not None
    return "fused" if on_gpu else "flat"


def _take_turns(
    recommender: Recommender, bench: RecommendBench, scratch: Path, progress: Progress
) -> tuple[PairedTimings, dict[str, ExportSummary]]:
    users = recommender.users
    vectors = np.ascontiguousarray(users.vectors)
    summaries: dict[str, ExportSummary] = {}

    def bare(queries: Vectors) -> None:
        if recommender.index.fused is None:
            raw_search(recommender.index, queries, K)
        else:  # FAISS has no such search
            recommender.index.search(queries, K, prepared=True)

    def raw() -> None:
        for start in range(0, len(vectors), BLOCK_USERS):
            bare(vectors[start : start + BLOCK_USERS])

    def everything() -> None:
        summaries[ALL] = export_all_users(recommender, scratch / "all.parquet", K, include_seen=True)

    def restricted() -> None:
        where = Filter(genres=(GENRE,))
        summaries[RESTRICTED] = export_all_users(recommender, scratch / "restricted.parquet", K, where=where)

    work: dict[str, Callable[[], object]] = {RAW: raw, ALL: everything, RESTRICTED: restricted}
    timings = measure_paired(work, warmup=0, repeats=bench.repeats, what="all users", progress=progress)
    return timings, summaries


def _rows(timings: PairedTimings, users: int, limits: Mapping[str, float]) -> dict[str, AllUsersTimes]:
    rows = {}
    for name, timing in timings.timings.items():
        told: dict[str, object] = dict(timing.told())
        if name != RAW:
            ratio = timings.median_ratio(name, RAW)
            told["ratio"] = round(ratio, 4)
            if name in limits:
                told |= {"limit": limits[name], "met": ratio <= limits[name]}
        told["users_per_second"] = round(1e3 * users / timing.median_ms, 1)
        rows[name] = AllUsersTimes.model_validate(told)
    return rows
