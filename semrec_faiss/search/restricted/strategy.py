"""Which strategy answers a restricted batch soonest, estimated from measured costs.

`semrec bench filters` measures the costs and every strategy's true time; results/bench-filters-cpu.json is where the
built-in numbers come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from semrec_faiss.config.index_types import GPU_LIMIT
from semrec_faiss.index.subset import honours_selector
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.restricted.restriction import Restriction

Chosen = Literal["overfetch", "subset", "selector", "masked"]


@dataclass(frozen=True)
class Costs:
    """Time in nanoseconds a vector component, of each kind of work.

    Attributes:
        gather: copying matching vectors together, a component of each.
        scan: reading the vectors of an exact scan once, whatever the number of queries.
        multiply: multiplying them, a query.
        selector: FAISS's exact search with a selector, a matching component and query.
        lists: visiting inverted lists, a component and query.
    """

    gather: float
    scan: float
    multiply: float
    selector: float
    lists: float


CPU_COSTS = Costs(gather=0.6, scan=0.37, multiply=0.0114, selector=0.66, lists=0.25)

# Measured on one H100; on an H200 they choose the best 31 of 32 times (results/bench-filters-h200.json). lists is what
# 1,000 queries of type ivf_flat take whose filter lets half pass, over the components that they visit.
GPU_COSTS = Costs(gather=0.54, scan=0.0187, multiply=0.000098, selector=float("inf"), lists=0.011)

USUAL_BATCH = 100
"""The batch that an approximate index's strategy is chosen for, so that a query alone is answered as in any batch."""

CHEAP_FETCH = 1000
"""An exact CPU search costs the same for any number of results up to about this many."""

CANDIDATES_PER_RESULT = 4
"""Matching titles that the visited lists must hold for each result, or an approximate search loses too many."""

SELECTOR_SHARE = 0.8
"""An approximate CPU search with a selector skips what does not match, where over-fetching fetches and drops it."""

GRAPH_SHARE = 0.05
"""Below this share of matching titles a graph search mostly walks over titles that it may not return."""


def choose_strategy(
    index: VectorIndex, queries: int, k: int, restriction: Restriction, costs: Costs | None, *, is_gathered: bool
) -> Chosen:
    """Choose the strategy with the least estimated time for a batch.

    Args:
        index: where to look.
        queries: the size of the batch.
        k: results per query.
        restriction: what may be returned.
        costs: measured costs; None takes the built-in ones of the device.
        is_gathered: the matching vectors are at hand already.
    """
    if index.fused is not None:
        return "masked"
    costs = costs or (GPU_COSTS if index.device.gpus else CPU_COSTS)
    matching = restriction.allowed
    if restriction.mask is None or matching == 0:
        return "overfetch"
    share = matching / index.count
    if not index.exact:  # what is found hangs on the strategy, so the strategy must not hang on the batch
        queries, is_gathered = USUAL_BATCH, False
    estimates: dict[Chosen, float] = {
        "subset": (0.0 if is_gathered else matching * costs.gather) + _scan(matching, queries, costs),
        "overfetch": _index_time(index, queries, costs) * _fetch_factor(index, k, share),
    }
    if honours_selector(index):
        estimates["selector"] = _selector_time(index, queries, matching, costs)
    if not index.exact and not _finds_enough(index, k, share):
        estimates = {"subset": estimates["subset"]}
    return min(estimates, key=estimates.__getitem__)


def _scan(rows: int, queries: int, costs: Costs) -> float:
    return rows * max(costs.scan, queries * costs.multiply)


def _visited(index: VectorIndex) -> float:
    """The share of titles that one query looks at."""
    nprobe = getattr(index.config.search, "nprobe", None)
    nlist = int(getattr(index.cpu_index, "nlist", 0))
    if nprobe and nlist:
        return min(1.0, float(nprobe) / nlist)
    ef_search = getattr(index.config.search, "efSearch", None)
    return 1.0 if ef_search is None else min(1.0, 50 * ef_search / index.count)


def _index_time(index: VectorIndex, queries: int, costs: Costs) -> float:
    visited = _visited(index)
    if visited == 1.0:
        return _scan(index.count, queries, costs)
    return index.count * visited * queries * costs.lists


def _fetch_factor(index: VectorIndex, k: int, share: float) -> float:
    """How much dearer a search is for fetching enough that k pass a filter of this share."""
    fetch = 1.25 * k / share
    if index.device.gpus and fetch > GPU_LIMIT:
        return float(np.inf)
    return max(1.0, fetch / CHEAP_FETCH)


def _selector_time(index: VectorIndex, queries: int, matching: int, costs: Costs) -> float:
    if index.exact:
        return queries * matching * costs.selector
    return SELECTOR_SHARE * _index_time(index, queries, costs)


def _finds_enough(index: VectorIndex, k: int, share: float) -> bool:
    if getattr(index.config.search, "efSearch", None) is not None:
        return share >= GRAPH_SHARE
    return index.count * _visited(index) * share >= CANDIDATES_PER_RESULT * k
