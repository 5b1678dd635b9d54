"""Results files: one JSON document, null and a reason for whatever was not measured, written whole or not at all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.data.atomic import new_file
from semrec_faiss.errors import StorageError
from semrec_faiss.index.device import Device
from semrec_faiss.index.gpu_memory import gpu_states


@dataclass(frozen=True)
class NotMeasured:
    """Stands in a document where a number could not be had."""

    reason: str


def settle(document: dict[str, Any]) -> dict[str, Any]:
    """Turn every `NotMeasured` into None, and add ``not_measured``: its dotted place and the reason."""
    reasons: dict[str, str] = {}

    def settled(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, NotMeasured):
                reasons[f"{prefix}{key}"] = value.reason
                plain[key] = None
            else:
                plain[key] = settled(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        return plain

    return settled(document, "") | {"not_measured": reasons}


def device_name(device: Device) -> str:
    """Name the hardware for a file name: ``cpu``, ``h200``, ``h200-x2``."""
    if not device.gpus:
        return "cpu"
    names = {state.gpu: state.name for state in gpu_states()}
    name = names.get(device.gpus[0], "gpu").removeprefix("NVIDIA ")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if len(device.gpus) == 1 else f"{slug}-x{len(device.gpus)}"


def save_results(document: dict[str, Any], path: Path) -> None:
    """Write a document to ``path``, whole or not at all.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="name another --out") from error
