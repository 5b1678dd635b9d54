"""Memory that an index takes, measured in a process of its own and held against what was predicted before."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.memory.parts import MemoryParts
from semrec_faiss.measure.documents.fields import Count, Part
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.index_memory_record import INDEX_MEMORY, CouldNot, IndexMemory
from semrec_faiss.measure.instruments.processes import output_of

TOLERANCE = 0.10
"""How far a prediction may be off, as a share of what is measured …"""

NOISE_BYTES = 3 << 20
"""… or this much, which allocators, thread stacks and the pages of shared libraries come to whatever the index."""


class JudgedPrediction(Part):
    """One prediction beside its measurement.

    Attributes:
        what: ``base``, or ``peak at 100 queries``.
        predicted_bytes: before anything was built.
        measured_bytes: of the process that searched.
        error: how far the prediction is off, as a share of what was measured; negative where it is too low.
        holds: whether it is within `TOLERANCE`, or `NOISE_BYTES`.
    """

    what: str
    predicted_bytes: Count
    measured_bytes: int
    error: float
    holds: bool

    @classmethod
    def of(cls, what: str, predicted: int, measured: int) -> JudgedPrediction:
        """Hold a prediction, in bytes, against what was measured."""
        return cls(
            what=what,
            predicted_bytes=predicted,
            measured_bytes=measured,
            error=round((predicted - measured) / max(measured, 1), 4),
            holds=abs(predicted - measured) <= max(TOLERANCE * measured, NOISE_BYTES),
        )


def measure_memory(index: Path, settings: Sequence[str], batches: Sequence[int], k: int) -> IndexMemory | NotMeasured:
    """Open an index in a fresh process, search each batch, and count memory.

    Args:
        index: the index directory.
        settings: search and device settings, as for `SavedIndex`.
        batches: numbers of queries, ascending.
        k: titles per query.

    Raises:
        SemrecError: the process ends with an error.
    """
    asked = {"index": str(index.absolute()), "settings": list(settings), "batches": list(batches), "k": k}
    command = [sys.executable, "-m", "semrec_faiss.measure.instruments.index_memory_child", json.dumps(asked)]
    measured = INDEX_MEMORY.validate_json(output_of(command).splitlines()[-1])
    return NotMeasured(measured.error) if isinstance(measured, CouldNot) else measured


def judge(measured: IndexMemory, predicted: Sequence[tuple[int, MemoryParts]]) -> list[JudgedPrediction]:
    """Hold predictions against what was measured.

    Args:
        measured: by `measure_memory`.
        predicted: (batch, parts) for each batch that was measured.
    """
    peaks = {one.batch: one.peak_bytes for one in measured.searches}
    of = JudgedPrediction.of
    rows = [of("base", predicted[0][1].base, measured.base_bytes)]
    return rows + [of(f"peak at {_queries(batch)}", parts.peak, peaks[batch]) for batch, parts in predicted]


def _queries(batch: int) -> str:
    return "1 query" if batch == 1 else f"{batch:,} queries"


def settings_of(device: Device) -> Sequence[str]:
    """Spell a device as settings of a saved index."""
    if not device.gpus:
        return ["device.kind=cpu"]
    temp = "null" if device.temp_memory_mb is None else str(device.temp_memory_mb)
    return [
        "device.kind=gpu",
        f"device.gpus={list(device.gpus)}",
        f"device.layout={device.layout}",
        f"device.originals={device.originals}",
        f"device.float16={str(device.float16).lower()}",
        f"device.temp_memory_mb={temp}",
    ]
