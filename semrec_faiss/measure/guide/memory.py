"""Test 5 of the guide: memory held and reached, counted in a process of its own, against what was predicted before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.index.fused.titles.as_halves import PROBED, seem_halves
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.hardware.gpu_memory import smallest_gpu
from semrec_faiss.index.memory.parts import MemoryParts
from semrec_faiss.index.memory.prediction import predict_memory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import CompareSettings, MemorySettings
from semrec_faiss.measure.guide.details import DeviceMemory, Kind, MemoryDetails
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome
from semrec_faiss.measure.guide.record import MemoryTest
from semrec_faiss.measure.instruments.host_memory import machine_bytes
from semrec_faiss.measure.instruments.index_memory import (
    NOISE_BYTES,
    TOLERANCE,
    judge,
    measure_memory,
    settings_of,
)
from semrec_faiss.measure.instruments.index_memory_record import GpuMemory, IndexMemory
from semrec_faiss.progress import Progress

GB, MEGABYTE = 1e9, 1e6
KEYS = ("allocated_gb", "reserved_gb", "total_gb", "free_gb", "peak_allocated_gb", "peak_reserved_gb")


def memory_test(
    path: Path,
    devices: Mapping[Kind, Device | NotMeasured],
    settings: CompareSettings,
    progress: Progress,
    search: Sequence[str] = (),
) -> Outcome:
    """Predict, then measure each device in a fresh process.

    ``allocated`` is what the index and its searches take; ``reserved`` counts the CUDA context too, or on a CPU the
    whole process; both at rest, and at the peak of the largest batch.

    Args:
        path: the index directory.
        devices: ``gpu`` and ``cpu``, or why there is none.
        settings: batches and targets.
        progress: told the devices done.
        search: search settings of the index, such as ``index.search.nprobe=32``.
    """
    numbers: dict[str, float | NotMeasured] = {}
    details: dict[Kind, DeviceMemory | NotMeasured] = {}
    for done, (kind, device) in enumerate(devices.items()):
        progress("5 memory", done, len(devices))
        found = device if isinstance(device, NotMeasured) else _measured(path, device, settings, search)
        details[kind] = found
        numbers |= memory_numbers(kind, found if isinstance(found, NotMeasured) else found.measured)
    progress("5 memory", len(devices), len(devices))
    main: Kind = "gpu" if not isinstance(devices.get("gpu"), NotMeasured) else "cpu"
    guide, told = MemoryTest.of(**numbers), MemoryDetails.of(**details)
    return Outcome(guide, told, memory_criteria(guide, told, main, settings.memory))


def _measured(
    path: Path, device: Device, settings: CompareSettings, search: Sequence[str]
) -> DeviceMemory | NotMeasured:
    if len(device.gpus) > 1:
        return NotMeasured("memory is measured on one GPU; give --set device.gpus=[0]")
    saved = SavedIndex(path, search)
    k, batches = settings.batch.k, settings.memory.batches
    parts = _predicted(saved, device, batches, k)
    measured = measure_memory(path, [*search, *settings_of(device)], batches, k)
    if isinstance(measured, NotMeasured):
        return measured
    predicted = {str(batch): part.as_dict() for batch, part in parts}
    return DeviceMemory(predicted=predicted, judged=judge(measured, parts), measured=measured)


def _predicted(saved: SavedIndex, device: Device, batches: Sequence[int], k: int) -> list[tuple[int, MemoryParts]]:
    """Predict what the index takes as it is searched here; type fused on a GPU keeps its titles as they came."""
    manifest, index = saved.generation.manifest, saved.config.index
    came, smallest = False, smallest_gpu(device.gpus)
    if device.gpus and isinstance(index, FusedIndex):
        first = np.arange(min(PROBED, manifest.count))
        came = seem_halves(load_torch(), saved.load(index, Device()).vectors(first))
    limit = None if smallest is None else smallest.total_bytes
    sizes = (index, manifest.count, manifest.dim, device)
    told = [
        predict_memory(*sizes, batch=batch, k=k, float16_titles=came, limit_bytes=limit).searched for batch in batches
    ]
    return list(zip(batches, told, strict=True))


def memory_numbers(kind: Kind, measured: IndexMemory | NotMeasured) -> dict[str, float | NotMeasured]:
    """Turn what the measuring process counted into the guide's six numbers, in gigabytes of 10⁹ bytes.

    Args:
        kind: the side, which names the numbers.
        measured: on that side, or why nothing was.
    """
    names = [MemoryTest.name(kind, key) for key in KEYS]
    if isinstance(measured, NotMeasured):
        return dict.fromkeys(names, measured)
    base, peak = measured.base_bytes, max(one.peak_bytes for one in measured.searches)
    values: tuple[int | None, ...]
    if isinstance(measured, GpuMemory):  # the driver's count over what was in use before
        own = measured.context_bytes
        values = (base - own, base, measured.total_bytes, measured.free_bytes, peak - own, peak)
    else:
        start = measured.start_bytes
        values = (base, start + base, machine_bytes(), measured.available_bytes, peak, start + peak)
    untold = NotMeasured("this system does not tell")
    return {name: untold if value is None else round(value / GB, 6) for name, value in zip(names, values, strict=True)}


def memory_criteria(guide: MemoryTest, details: MemoryDetails, kind: Kind, wanted: MemorySettings) -> list[Criterion]:
    """Judge one device's numbers, and the predictions for every device.

    Args:
        guide: the six numbers of both.
        details: the predictions, held against what was measured.
        kind: the device whose numbers are judged.
        wanted: the targets.
    """
    missing = guide.why(guide.name(kind, "allocated_gb"))
    base, peak, reserved = (
        guide.of_side(kind, f"{part}_gb") for part in ("allocated", "peak_allocated", "peak_reserved")
    )
    no_headroom = missing or ("no GPU was measured" if kind == "cpu" else None)
    headroom = None if no_headroom or reserved is None else 1.0 - reserved / wanted.headroom_of_gb
    where = "GPU" if kind == "gpu" else "resident"
    judged = [row for one in (details.gpu, details.cpu) if one for row in one.judged]
    failed = sum(not row.holds for row in judged)
    off = f"predictions off by more than {100 * TOLERANCE:.0f} % and {NOISE_BYTES / MEGABYTE:.0f} MB"
    no_prediction = None if judged else missing or "nothing was measured"
    of = Criterion.judge
    return [
        of(5, "base", f"{where} memory between searches", base, wanted.target_base_gb, "gb", reason=missing),
        of(5, "peak", f"{where} memory at the peak", peak, wanted.target_peak_gb, "gb", reason=missing),
        of(
            5,
            "headroom",
            f"headroom of a GPU of {wanted.headroom_of_gb:g} GB",
            headroom,
            wanted.target_headroom,
            "share",
            at_least=True,
            reason=no_headroom,
        ),
        of(5, "prediction", off, float(failed) if judged else None, 0.0, "count", reason=no_prediction),
    ]
