"""The two sides of a comparison, CPU and GPU: opened, asked the same, timed, and heard when memory runs out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.config.index_types import FUSED_DIM_LIMIT, FlatIndex
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.fused.plan import LEAST_CAPABILITY
from semrec_faiss.index.hardware.device import gpu_count
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.fields import Part
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.results import NotMeasured, device_name
from semrec_faiss.measure.guide.details import Kind
from semrec_faiss.measure.guide.record import BatchNumbers
from semrec_faiss.measure.instruments.timing import Timing, measure
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

BUDGET_S = 1.5
"""A question is repeated until about this much time is spent on it …"""

FEWEST_REPEATS = 3
"""… but so often at least."""

MEMORY_RAN_OUT = "memory on "

AS_FUSED = "index.type=fused"

FIRST_TIMES = 100
"""Titles, and users, drawn to be asked once each."""


@dataclass
class Side:
    """One device with the index on it.

    Attributes:
        kind: ``cpu`` or ``gpu``; what keys in a results file begin with.
        name: of the device: ``cpu``, ``h200``.
        recommender: the index, opened there.
        first_search_ms: the very first search in this process, which loads code and, on a GPU, the device.
    """

    kind: Kind
    name: str
    recommender: Recommender
    first_search_ms: float


@dataclass
class Sides:
    """Both sides; the GPU's may be missing for a reason.

    Attributes:
        cpu: always there.
        gpu: None where there is none.
        no_gpu: why.
    """

    cpu: Side
    gpu: Side | None
    no_gpu: NotMeasured

    def __iter__(self) -> Iterator[Side]:
        return iter([self.cpu] if self.gpu is None else [self.gpu, self.cpu])

    @property
    def why_no_gpu(self) -> str | None:
        """Why the GPU's side is missing; None where it is there."""
        return None if self.gpu else self.no_gpu.reason

    @property
    def main(self) -> Side:
        """The side that the comparison is about: the GPU's where there is one."""
        return self.gpu or self.cpu


@dataclass
class Outcome:
    """What one test found.

    Attributes:
        guide: the guide's object, the CPU's numbers beside its own; of test 3 one per batch, of parity none.
        details: everything else that is worth keeping, raw times included.
        criteria: the guide's, judged.
    """

    guide: WithGaps | Mapping[str, BatchNumbers] | None
    details: Part
    criteria: list[Criterion]


def open_sides(path: Path, settings: Sequence[str], progress: Progress) -> Sides:
    """Open the index on the CPU and, where there is one that it runs on, on the GPU.

    Raises:
        SemrecError: it cannot be opened on the CPU.
    """
    progress("opening", 0, 2)
    gpu: Side | None = None
    no_gpu = NotMeasured("")
    reason = why_no_gpu(settings)
    if reason is not None:
        no_gpu = NotMeasured(reason)
    else:
        try:
            gpu = _open(path, [*settings, "device.kind=gpu"])
        except Exception as error:  # whatever a GPU or its driver does must not lose the CPU's results
            no_gpu = NotMeasured(
                error.message if isinstance(error, SemrecError) else f"{type(error).__name__}: {error}"
            )
    progress("opening", 1, 2)
    cpu = _open(path, [*(one for one in settings if not one.startswith("device.")), "device.kind=cpu"])
    progress("opening", 2, 2)
    return Sides(cpu, gpu, no_gpu)


def why_no_gpu(settings: Sequence[str]) -> str | None:
    """Say why a GPU is out of the question whatever the index: none is here, or settings leave it out."""
    if any(setting.replace(" ", "") == "device.kind=cpu" for setting in settings):
        return "device.kind=cpu was asked for"
    return None if gpu_count() else "FAISS sees no GPU on this machine"


def as_fused(saved: SavedIndex, settings: Sequence[str]) -> tuple[str, ...]:
    """Return what an index of type flat is to be opened with besides, for its GPU to search it as type fused.

    Nothing where ``settings`` name a type or there is no such GPU; FAISS's own float16 vectors are another choice.
    """
    index, device = saved.config.index, saved.config.device
    named = any(setting.partition("=")[0].strip() == "index.type" for setting in settings)
    if named or not isinstance(index, FlatIndex) or saved.generation.manifest.dim > FUSED_DIM_LIMIT:
        return ()
    if why_no_gpu(settings) is not None or device.float16 or not _runs_fused(device.gpus):
        return ()
    return (AS_FUSED,)


def _runs_fused(gpus: Sequence[int]) -> bool:
    """Tell whether torch and Triton are here, for these GPUs."""
    if any(find_spec(name) is None for name in ("torch", "triton")):
        return False
    import torch

    known = {state.gpu: state.capability for state in gpu_states()}
    untold = (0, 0)
    return torch.cuda.is_available() and all(
        known.get(gpu, untold) == untold or known[gpu] >= LEAST_CAPABILITY for gpu in gpus
    )


def _open(path: Path, settings: Sequence[str]) -> Side:
    recommender = Recommender.open(path, settings)
    index = recommender.index
    query = made_up_queries(index, 1, 0)
    started = time.perf_counter()
    index.search(query, 1, prepared=True)
    elapsed_ms = (time.perf_counter() - started) * 1e3
    return Side("gpu" if index.device.gpus else "cpu", device_name(index.device, short=True), recommender, elapsed_ms)


def steady(work: Callable[[], object], repeats: int) -> Timing:
    """Time work after a warm-up, ``repeats`` times or as often as its time allows."""
    once = measure(work, warmup=1, repeats=1).times_ms[0]
    affordable = int(1e3 * BUDGET_S / max(once, 1e-3))
    return measure(work, warmup=0, repeats=max(FEWEST_REPEATS, min(repeats, affordable)))


def asked_once(ask: Callable[[str], object], names: Sequence[str]) -> Timing:
    """Ask for each of ``names`` once, so that nothing is answered from what an earlier question has left."""
    times = []
    for name in names:
        started = time.perf_counter()
        ask(name)
        times.append((time.perf_counter() - started) * 1e3)
    return Timing(tuple(times))


def drawn(count: int, seed: int) -> Rows:
    """Draw different rows below ``count``, to be asked once each: int64 (FIRST_TIMES or ``count``,)."""
    return np.random.default_rng(seed).choice(count, min(FIRST_TIMES, count), replace=False)


@contextmanager
def hearing_of_memory() -> Iterator[list[str]]:
    """Collect what searches say about memory that ran out, and let every other warning pass."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
    for warning in caught:
        if str(warning.message).startswith(MEMORY_RAN_OUT):
            heard.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def median(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return float(np.median(values)) if len(values) else None
