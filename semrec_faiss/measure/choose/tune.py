"""The least search setting that finds enough: bisection over nprobe, efSearch or refine of one index."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.config.index_types import GPU_LIMIT, IndexConfig
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.errors import ConfigError, UsageError
from semrec_faiss.index.build.source import check_lengths_stay
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.hardware.device import Device, choose_device
from semrec_faiss.index.memory.stored_bytes import lists_of
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.instruments.timing import measure
from semrec_faiss.measure.quality.metrics import (
    Interval,
    Latency,
    confidence_interval,
    descending,
    exact_scores,
    mean_of,
    recall_at_k,
)
from semrec_faiss.measure.trials.questions import SweepData
from semrec_faiss.measure.trials.settings import QuerySettings
from semrec_faiss.measure.trials.tested_index import batches_of
from semrec_faiss.measure.trials.trial import SEARCH_EFFORT
from semrec_faiss.progress import Progress, silent

MOST_CANDIDATES = 4096
"""The largest efSearch and refine that are tried."""


@dataclass(frozen=True)
class Step:
    """One value that was tried.

    Attributes:
        value: of the setting.
        recall: of all questions.
        interval: its 95 % confidence interval.
        latency: of batches of the wanted size.
    """

    value: int
    recall: float
    interval: Interval | None
    latency: Latency

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        interval = None if self.interval is None else self.interval.as_dict()
        times = {name: round(value, 4) for name, value in self.latency.__dict__.items()}
        return {"value": self.value, "recall": round(self.recall, 6), "recall_interval": interval, **times}


@dataclass(frozen=True)
class Tuned:
    """What a search for a setting found.

    Attributes:
        parameter: ``nprobe``, ``efSearch`` or ``refine``.
        steps: what was tried, in order.
        chosen: the least value that finds enough; None where not even the largest does.
        config: the config with that value, autos resolved; None where none was chosen.
    """

    parameter: str
    steps: tuple[Step, ...]
    chosen: Step | None
    config: Config | None


def least_value(reaches: Callable[[int], bool], most: int) -> int | None:
    """Find the least whole number from 1 to ``most`` that reaches, by bisection between the cheap ones first.

    Args:
        reaches: once true for a number, true for all larger ones.
        most: the largest number.

    Returns:
        The number, or None when not even ``most`` reaches.
    """
    if not reaches(most):
        return None
    too_few, enough = 0, most
    while enough - too_few > 1:
        middle = min(enough - 1, max(too_few + 1, math.isqrt(max(1, too_few) * enough)))
        too_few, enough = (too_few, middle) if reaches(middle) else (middle, enough)
    return enough


def tune(
    config: Config,
    recall: float,
    *,
    parameter: str | None = None,
    k: int = 10,
    batch: int = 1,
    queries: QuerySettings | None = None,
    repeats: int = 50,
    progress: Progress = silent,
) -> Tuned:
    """Build an index once and find the least search setting that reaches a recall.

    Args:
        config: needs ``dataset``; the setting's own value in it does not matter.
        recall: how much of the exact lists is to be found, above 0 and at most 1.
        parameter: which setting; by default the type's first of nprobe, efSearch and refine.
        k: titles returned per query.
        batch: queries searched at once while the time is taken.
        queries: what is asked; 200 titles and 200 users by default, or as many as there are.
        repeats: timed searches of each value.
        progress: told the steps.

    Raises:
        ConfigError: no dataset, or settings that do not fit it.
        UsageError: the type has no such setting, or none at all.
        SemrecError: the data, the device or the disk refuses.
    """
    folder = config.dataset.folder
    if folder is None:
        raise ConfigError("no dataset is given", fix="set dataset: in the config, or --dataset DIR")
    check_lengths_stay(folder, config.index)
    with tempfile.TemporaryDirectory(prefix="semrec-tune-") as scratch:
        asked = queries or QuerySettings(titles=200, users=0)
        data = SweepData(
            folder, "tune", asked, normalize=config.index.normalize, cache=Path(scratch), progress=progress
        )
        resolved = resolve(config.index, data.count, data.dim)
        device = choose_device(config.device, resolved)
        name = _parameter(resolved, parameter)
        truth = data.truth(None, k)
        exact = descending(exact_scores(data.questions.vectors, truth.rows, data.vectors_of))
        data.release()
        first = with_setting(resolved, name, 1)
        built = build_faiss_index(first, data.blocks, data.count, data.dim, device, progress)
        index = VectorIndex(built, first, device, originals=data.vectors)
        steps: list[Step] = []

        def reaches(value: int) -> bool:
            progress(f"{name}={value}", 0, 1)
            index.set_search(with_setting(resolved, name, value))
            found = index.search(data.questions.vectors, k, prepared=True).rows
            recalls = recall_at_k(found, exact_scores(data.questions.vectors, found, data.vectors_of), exact)
            interval = confidence_interval(recalls)
            steps.append(Step(value, mean_of(recalls) or 0.0, interval, _latency(index, data, k, batch, repeats)))
            progress(f"{name}={value}", 1, 1)
            return steps[-1].recall >= recall

        value = least_value(reaches, _most(resolved, name, data.count, k, device))
    chosen = next((step for step in steps if step.value == value), None)
    if chosen is None:
        return Tuned(name, tuple(steps), None, None)
    tuned = config.model_copy(update={"index": with_setting(resolved, name, chosen.value)})
    return Tuned(name, tuple(steps), chosen, tuned)


def _latency(index: VectorIndex, data: SweepData, k: int, batch: int, repeats: int) -> Latency:
    turns = itertools.cycle(batches_of(data.questions.vectors, batch))
    return Latency.of(measure(lambda: index.search(next(turns), k, prepared=True), warmup=2, repeats=repeats).times_ms)


def with_setting(index: IndexConfig, name: str, value: int) -> IndexConfig:
    """Return an index's config with one search setting changed.

    Raises:
        ConfigError: the value is out of range.
    """
    values = index.model_dump(mode="json")
    return config_from_dict({"index": {**values, "search": {**values["search"], name: value}}}).index


def _parameter(index: IndexConfig, wanted: str | None) -> str:
    """Return the setting to look for; a factory's string tells which it has."""
    kind = getattr(index, "factory", None) or index.type
    has = [name for name in SEARCH_EFFORT if name in type(index.search).model_fields]
    if kind != index.type:
        has = [name for name, sign in (("nprobe", "IVF"), ("efSearch", "HNSW")) if sign in kind]
    if wanted is None and has:
        return has[0]
    if wanted not in has:
        raise UsageError(
            f"{kind} has no {wanted}" if wanted else f"{kind} has no search setting to tune",
            fix=f"it has {' and '.join(has)}" if has else "take type ivf_flat, ivf_sq, ivf_pq or hnsw",
        )
    return wanted


def _most(index: IndexConfig, name: str, titles: int, k: int, device: Device) -> int:
    """Return the largest value that is worth a try or possible."""
    if name == "nprobe":
        nlist = max(1, lists_of(index))
        return min(nlist, GPU_LIMIT) if device.gpus else nlist
    if name == "refine":
        candidates = min(titles, GPU_LIMIT) if device.gpus else titles
        return max(1, min(MOST_CANDIDATES, candidates // k))
    return max(1, min(MOST_CANDIDATES, titles))
