"""``semrec bench filters``: what a filter costs, which strategy answers soonest, and whether the planner knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.subset import honours_selector
from semrec_faiss.measure.bench.record import SEED, BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.timing import measure, measure_paired
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.filters.filter import Filter, Selections
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.strategy import Chosen, choose_strategy
from semrec_faiss.search.restricted.topk import restricted_top_k

BATCHES = (1, 10, 100, 1000)
SHARES = (0.5, 0.1, 0.01, 0.001)
K = 10
LEAST_RECALL = 0.9
FILTERS = (
    "year BETWEEN 1990 AND 1999 AND 'Sci-Fi' IN genres",
    "year >= 2000",
    "list_has_any(genres, ['Drama', 'Crime']) AND NOT 'Comedy' IN genres",
    "title LIKE 'A%' OR franchise IS NOT NULL",
)


@dataclass(frozen=True)
class FilterBench:
    """What to measure.

    Attributes:
        types: index types, each built in a temporary folder.
        device: ``auto``, ``cpu`` or ``gpu``.
        titles: titles of the made-up data.
        dim: dimensions of its vectors.
        repeats: rounds of every comparison.
    """

    types: tuple[str, ...] = ("flat", "ivf_flat", "hnsw")
    device: str = "auto"
    titles: int = 62_423
    dim: int = 384
    repeats: int = 5


class FilterTimes(Part):
    """A filter from its expression to a mask: the first time, and again from what is kept."""

    where: str
    matching: Count
    first: Times
    repeated: Times


class StrategyTimes(Part):
    """Every strategy through one random mask, and the planner's choice beside the fastest."""

    type: str
    share: Share
    matching: Count
    queries: AtLeastOne
    overfetch: Times | None = None
    subset: Times | None = None
    selector: Times | None = None
    masked: Times | None = None
    chosen: Chosen
    best: Chosen
    chosen_to_best: Amount

    def median_ms(self, strategy: Chosen) -> float | None:
        """Return the median time of a strategy; None of one that the index has not."""
        found: Times | None = getattr(self, strategy)
        return None if found is None else found.median_ms


class Planner(Part):
    """How well the planner chose."""

    choices: AtLeastOne
    best_chosen: Count
    median_chosen_to_best: Amount
    worst_chosen_to_best: Amount


class ScanCosts(Part):
    """The coefficients of `search.strategy`, measured here: nanoseconds a vector component."""

    gather: Amount
    scan: Amount
    multiply: Amount
    selector: Amount | None = None


class MadeTitles(Part):
    """The data that was made for the run."""

    titles: AtLeastOne
    dim: AtLeastOne
    seed: Count
    k: AtLeastOne


class FilterResults(BenchResults):
    """A whole results file."""

    load_average_at_start: Amount | None
    data: MadeTitles
    device: str
    filters: list[FilterTimes]
    costs_ns: ScanCosts
    strategies: list[StrategyTimes]
    planner: Planner

    @property
    def file_name(self) -> str:
        """``bench-filters-h200.json``."""
        return f"bench-filters-{self.device}.json"


def bench_filters(bench: FilterBench, progress: Progress = silent) -> FilterResults:
    """Measure filters and costs on the first index type, strategies on all."""
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        write_synthetic(data, titles=bench.titles, users=0, dim=bench.dim, seed=SEED, progress=progress)
        indexes = {kind: _open(bench, kind, data, Path(scratch) / kind, progress) for kind in bench.types}
        first = next(iter(indexes.values()))
        rows = [row for kind, one in indexes.items() for row in _strategies(one, kind, bench, progress)]
        ratios = [row.chosen_to_best for row in rows]
        return FilterResults(
            environment=stamp_of_this_run(),
            load_average_at_start=load,
            data=MadeTitles(titles=bench.titles, dim=bench.dim, seed=SEED, k=K),
            device=device_name(first.index.device),
            filters=[_filter_times(first, where, bench.repeats) for where in FILTERS],
            costs_ns=_costs(first, bench),
            strategies=rows,
            planner=Planner(
                choices=len(rows),
                best_chosen=sum(ratio == 1.0 for ratio in ratios),
                median_chosen_to_best=float(np.median(ratios)),
                worst_chosen_to_best=max(ratios),
            ),
        )


def _open(bench: FilterBench, kind: str, data: Path, output: Path, progress: Progress) -> Recommender:
    settings = {"index": {"type": kind}, "device": bench.device if kind != "hnsw" else "cpu"}
    config: Config = config_from_dict({**settings, "dataset": str(data), "output": str(output)})
    build_index(config, progress)
    return Recommender.open(output)


def _filter_times(recommender: Recommender, where: str, repeats: int) -> FilterTimes:
    """Time a filter from expression to mask: the first time on a cache that does not know it, and again."""
    wanted = Filter(where=where)

    def first() -> None:
        Selections(recommender.catalog, recommender.index).get(wanted)

    warm = Selections(recommender.catalog, recommender.index)
    selection = warm.get(wanted)
    return FilterTimes(
        where=where,
        matching=0 if selection is None else len(selection.rows),
        first=measure(first, warmup=1, repeats=max(5, repeats)).told(),
        repeated=measure(lambda: warm.get(wanted), warmup=1, repeats=max(50, repeats)).told(),
    )


def _strategies(recommender: Recommender, kind: str, bench: FilterBench, progress: Progress) -> list[StrategyTimes]:
    """Time every strategy on random masks of each share, and set the planner's choice beside the fastest."""
    random = np.random.default_rng(SEED)
    rows = []
    for share in SHARES:
        mask = random.random(recommender.index.count) < share
        restriction = Restriction(recommender.index.count, mask, None, np.flatnonzero(mask))
        for count in BATCHES:
            what = f"{kind} {share:.1%} × {count}"
            times = _strategy_times(recommender, restriction, count, bench, what, progress)
            about = {"type": kind, "share": share, "matching": restriction.allowed, "queries": count}
            rows.append(StrategyTimes.model_validate(about | times))
    return rows


def _strategy_times(
    recommender: Recommender, restriction: Restriction, count: int, bench: FilterBench, what: str, progress: Progress
) -> dict[str, object]:
    index = recommender.index
    queries = made_up_queries(index, count, SEED)
    able = {"selector": honours_selector(index), "masked": index.fused is not None}
    names: list[Chosen] = [name for name in get_args(Chosen) if able.get(name, True)]

    def search(name: Chosen) -> Callable[[], object]:
        return lambda: restricted_top_k(index, queries, K, restriction, strategy=name)

    work = {str(name): search(name) for name in names}
    timings = measure_paired(work, warmup=1, repeats=bench.repeats, what=what, progress=progress).timings
    chosen = choose_strategy(index, count, K, restriction, None, is_gathered=False)
    good = _good_enough(names, restriction, queries, recommender)
    best = min(good, key=lambda name: timings[name].median_ms)
    return {
        **{name: timing.told() for name, timing in timings.items()},
        "chosen": chosen,
        "best": best,
        "chosen_to_best": round(timings[chosen].median_ms / timings[best].median_ms, 4),
    }


def _good_enough(
    names: list[Chosen], restriction: Restriction, queries: NDArray[np.float32], recommender: Recommender
) -> list[Chosen]:
    """Leave out, for an approximate index, the strategies that lose over a tenth of the titles to the filter."""
    if recommender.index.exact:
        return names
    sample = queries[:100]
    truth = restricted_top_k(recommender.index, sample, K, restriction, strategy="subset").rows

    def recall(name: Chosen) -> float:
        found = restricted_top_k(recommender.index, sample, K, restriction, strategy=name).rows
        hits = sum(len(np.intersect1d(ours, theirs[theirs >= 0])) for ours, theirs in zip(found, truth, strict=True))
        return hits / max(1, int((truth >= 0).sum()))

    return [name for name in names if name == "subset" or recall(name) >= LEAST_RECALL]


def _costs(recommender: Recommender, bench: FilterBench) -> ScanCosts:
    """Measure the coefficients of the planner on this machine, nanoseconds a vector component."""
    index = recommender.index
    components = index.count * index.dim
    rows = np.flatnonzero(np.random.default_rng(SEED).random(index.count) < 0.1)
    one, many = made_up_queries(index, 1, SEED), made_up_queries(index, 1000, SEED)
    mask = np.zeros(index.count, np.bool_)
    mask[rows] = True
    restriction = Restriction(index.count, mask, None, rows)

    def ns(function: Callable[[], object], amount: float) -> float:
        return round(1e6 * measure(function, warmup=2, repeats=max(5, bench.repeats)).median_ms / amount, 6)

    measured = {
        "gather": ns(lambda: index.vectors(rows), len(rows) * index.dim),
        "scan": ns(lambda: index.search(one, K), components),
        "multiply": ns(lambda: index.search(many, K), components * len(many)),
    }
    if honours_selector(index):
        measured["selector"] = ns(
            lambda: restricted_top_k(index, one, K, restriction, strategy="selector"), len(rows) * index.dim
        )
    return ScanCosts(**measured)
