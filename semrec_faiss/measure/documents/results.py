"""Results files: one JSON document, null and a reason for whatever was not measured, written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.errors import DataError, NotFoundError, StorageError
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.storage import flush_to_disk, new_file, read_small

MOST_BYTES = 256 << 20
"""More than any results file takes."""


@dataclass(frozen=True)
class NotMeasured:
    """Stands in a document where a number could not be had."""

    reason: str


Unsettled = dict[str, object]
"""A part of a document in which `NotMeasured` may stand."""


def settle(document: Mapping[str, Any]) -> dict[str, Any]:
    """Turn every `NotMeasured` into None, and add ``not_measured``: its dotted place and the reason."""
    settled, reasons = gaps_apart(document)
    return {**settled, "not_measured": reasons}


def gaps_apart(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a document in which every `NotMeasured` is None, and the reasons by their dotted places."""
    reasons: dict[str, str] = {}

    def settled(value: Any, place: str) -> Any:
        if isinstance(value, NotMeasured):
            reasons[place] = value.reason
            return None
        if isinstance(value, dict):
            return {key: settled(inner, f"{place}.{key}" if place else str(key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [settled(inner, f"{place}.{position}") for position, inner in enumerate(value)]
        return value

    return settled(dict(document), ""), reasons


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        NotFoundError: there is none.
        DataError: it is not a JSON object.
    """
    try:
        document = json.loads(read_small(path, MOST_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as JSON: {told}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds no results: it is not a JSON object")
    return document


def device_name(device: Device, *, short: bool = False) -> str:
    """Name the hardware for a file name: ``cpu``, ``h200``, ``h200-x2``.

    Args:
        device: where an index is searched.
        short: the model alone, without memory and connection: ``a100`` for ``a100-sxm4-40gb``.
    """
    if not device.gpus:
        return "cpu"
    names = {state.gpu: state.name for state in gpu_states()}
    name = names.get(device.gpus[0], "gpu").removeprefix("NVIDIA ")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if short:
        model = re.search(r"(?:(?:rtx|gtx)-)?(?:[a-z]+\d+|\d+)[a-z]*(?:-ti|-super)?", slug)
        slug = model.group() if model else slug
    return slug if len(device.gpus) == 1 else f"{slug}-x{len(device.gpus)}"


def save_results(document: Mapping[str, Any], path: Path) -> None:
    """Write a document to ``path``, whole or not at all.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    save_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", path)


def save_text(text: str, path: Path) -> None:
    """Write a text to ``path``, whole or not at all; raises StorageError as `save_results` does."""
    save_bytes(text.encode("utf-8"), path)


def save_bytes(content: bytes, path: Path) -> None:
    """Write bytes to ``path``, whole or not at all; raises StorageError as `save_results` does."""
    save_files({path: content})


def save_files(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, all of them or none; folders that were made for them go with them.

    Raises:
        StorageError: a folder cannot be made or written; what was there is as it was.
    """
    made: list[Path] = []
    path = Path()
    try:
        with ExitStack() as together:
            for path, content in contents.items():
                made += _make_folder(path.parent)
                file = together.enter_context(new_file(path))
                file.write(content)
                flush_to_disk(file)  # so that nothing is renamed before all of it is on the disk
    except BaseException as error:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="name another --out") from error


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those that it lies in; return those that were not there, the outermost first."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new[::-1]
