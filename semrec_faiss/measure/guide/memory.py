"""Test 5 of the guide: memory held and reached, counted in a process of its own, against what was predicted before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semrec_faiss.index.device import Device
from semrec_faiss.index.memory.prediction import MemoryParts, predict_memory
from semrec_faiss.index.saved import SavedIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import CompareSettings, MemorySettings
from semrec_faiss.measure.guide.sides import Outcome
from semrec_faiss.measure.instruments.host_memory import machine_bytes
from semrec_faiss.measure.instruments.index_memory import (
    NOISE_BYTES,
    TOLERANCE,
    Judged,
    judge,
    measure_memory,
    settings_of,
)
from semrec_faiss.progress import Progress

GB, MEGABYTE = 1e9, 1e6
KEYS = ("allocated_gb", "reserved_gb", "total_gb", "free_gb", "peak_allocated_gb", "peak_reserved_gb")


def memory_test(
    path: Path,
    devices: dict[str, Device | NotMeasured],
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
    guide: dict[str, Any] = {}
    details: dict[str, Any] = {}
    judged: dict[str, list[Judged]] = {}
    for done, (kind, device) in enumerate(devices.items()):
        progress("5 memory", done, len(devices))
        prefix = "" if kind == "gpu" else "cpu_"
        found = device if isinstance(device, NotMeasured) else _measured(path, device, settings, search)
        if isinstance(found, NotMeasured):
            guide |= {f"{prefix}{key}": found for key in KEYS}
            details[kind] = found
            continue
        numbers, measured, judged[kind] = found
        guide |= {f"{prefix}{key}": value for key, value in numbers.items()}
        details[kind] = measured
    progress("5 memory", len(devices), len(devices))
    main = "gpu" if not isinstance(devices.get("gpu"), NotMeasured) else "cpu"
    return Outcome(guide, details, memory_criteria(guide, judged, main, settings.memory))


Measured = tuple[dict[str, float | NotMeasured], dict[str, Any], list[Judged]]


def _measured(path: Path, device: Device, settings: CompareSettings, search: Sequence[str]) -> Measured | NotMeasured:
    if len(device.gpus) > 1:
        return NotMeasured("memory is measured on one GPU; give --set device.gpus=[0]")
    saved = SavedIndex(path, search)
    manifest, index = saved.generation.manifest, saved.config.index
    k, batches = settings.batch.k, settings.memory.batches
    parts: list[tuple[int, MemoryParts]] = [
        (batch, predict_memory(index, manifest.count, manifest.dim, device, batch=batch, k=k).searched)
        for batch in batches
    ]
    measured = measure_memory(path, [*search, *settings_of(device)], batches, k)
    if isinstance(measured, NotMeasured):
        return measured
    rows = judge(measured, parts)
    details = {
        "predicted": {str(batch): part.as_dict() for batch, part in parts},
        "judged": [row.as_dict() for row in rows],
        "measured": measured,
    }
    return memory_numbers(measured), details, rows


def memory_numbers(measured: dict[str, Any]) -> dict[str, float | NotMeasured]:
    """Turn what the measuring process counted into the guide's six numbers, in gigabytes of 10⁹ bytes."""
    base = measured["base_bytes"]
    peak = max(row["peak_bytes"] for row in measured["searches"])
    if "context_bytes" in measured:  # a GPU: the driver's count over what was in use before
        own = measured["context_bytes"]
        values = (base - own, base, measured["total_bytes"], measured["free_bytes"], peak - own, peak)
    else:
        start, total = measured["start_bytes"], machine_bytes()
        values = (base, start + base, total, measured.get("available_bytes"), peak, start + peak)
    untold = NotMeasured("this system does not tell")
    return {key: untold if value is None else round(value / GB, 6) for key, value in zip(KEYS, values, strict=True)}


def memory_criteria(
    guide: dict[str, Any], judged: dict[str, list[Judged]], kind: str, wanted: MemorySettings
) -> list[Criterion]:
    """Judge one device's numbers, and the predictions for every device.

    Args:
        guide: the six numbers, those of the CPU under ``cpu_`` keys.
        judged: predictions by device.
        kind: the device whose numbers are judged.
        wanted: the targets.
    """
    prefix = "" if kind == "gpu" else "cpu_"
    numbers = {key: guide[f"{prefix}{key}"] for key in KEYS}
    missing = numbers["allocated_gb"].reason if isinstance(numbers["allocated_gb"], NotMeasured) else None
    base, peak = (None if missing else float(numbers[key]) for key in ("allocated_gb", "peak_allocated_gb"))
    no_headroom = missing or ("no GPU was measured" if kind == "cpu" else None)
    headroom = None if no_headroom else 1.0 - float(numbers["peak_reserved_gb"]) / wanted.headroom_of_gb
    where = "GPU" if kind == "gpu" else "resident"
    failed = sum(not row.holds for rows in judged.values() for row in rows)
    off = f"predictions off by more than {100 * TOLERANCE:.0f} % and {NOISE_BYTES / MEGABYTE:.0f} MB"
    no_prediction = None if judged else missing or "nothing was measured"
    return [
        Criterion(5, "base", f"{where} memory between searches", base, wanted.target_base_gb, False, "gb", missing),
        Criterion(5, "peak", f"{where} memory at the peak", peak, wanted.target_peak_gb, False, "gb", missing),
        Criterion(
            5,
            "headroom",
            f"headroom of a GPU of {wanted.headroom_of_gb:g} GB",
            headroom,
            wanted.target_headroom,
            True,
            "share",
            no_headroom,
        ),
        Criterion(5, "prediction", off, float(failed) if judged else None, 0.0, False, "count", no_prediction),
    ]
