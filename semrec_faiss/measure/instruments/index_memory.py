"""Memory that an index takes, measured in a process of its own and held against what was predicted before."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.index.device import Device
from semrec_faiss.index.memory.prediction import MemoryParts
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.processes import output_of

TOLERANCE = 0.10
"""How far a prediction may be off, as a share of what is measured …"""

NOISE_BYTES = 3 << 20
"""… or this much, which allocators, thread stacks and the pages of shared libraries come to whatever the index."""


@dataclass(frozen=True)
class Judged:
    """One prediction beside its measurement.

    Attributes:
        what: ``base``, or ``peak at 100 queries``.
        predicted: bytes.
        measured: bytes.
    """

    what: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured; negative where it is too low."""
        return (self.predicted - self.measured) / max(self.measured, 1)

    @property
    def holds(self) -> bool:
        """Whether it is within the tolerance."""
        return abs(self.predicted - self.measured) <= max(TOLERANCE * self.measured, NOISE_BYTES)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a results file holds it."""
        return {
            "what": self.what,
            "predicted_bytes": self.predicted,
            "measured_bytes": self.measured,
            "error": round(self.error, 4),
            "holds": self.holds,
        }


def measure_memory(
    index: Path, settings: Sequence[str], batches: Sequence[int], k: int
) -> dict[str, Any] | NotMeasured:
    """Open an index in a fresh process, search each batch, and count memory.

    Args:
        index: the index directory.
        settings: search and device settings, as for `SavedIndex`.
        batches: numbers of queries, ascending.
        k: titles a query.

    Returns:
        ``base_bytes`` that the index takes once it is loaded, and ``searches``: ``peak_bytes`` by ``batch``; both over
        what the process held before. On a CPU also ``start_bytes``, which that was; on a GPU ``context_bytes``,
        ``total_bytes``, ``free_bytes`` and ``faiss_counts_bytes``.

    Raises:
        SemrecError: the process ends with an error.
    """
    asked = {"index": str(index.absolute()), "settings": list(settings), "batches": list(batches), "k": k}
    command = [sys.executable, "-m", "semrec_faiss.measure.instruments.index_memory_child", json.dumps(asked)]
    measured: dict[str, Any] = json.loads(output_of(command).splitlines()[-1])
    return NotMeasured(measured["error"]) if "error" in measured else measured


def judge(measured: dict[str, Any], predicted: Sequence[tuple[int, MemoryParts]]) -> list[Judged]:
    """Hold predictions against what `measure_memory` returned.

    Args:
        measured: its result.
        predicted: (batch, parts) for each batch that was measured.
    """
    peaks = {row["batch"]: row["peak_bytes"] for row in measured["searches"]}
    rows = [Judged("base", predicted[0][1].base, measured["base_bytes"])]
    return rows + [Judged(f"peak at {_queries(batch)}", parts.peak, peaks[batch]) for batch, parts in predicted]


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
        f"device.float16={str(device.float16).lower()}",
        f"device.temp_memory_mb={temp}",
    ]
