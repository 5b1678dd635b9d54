"""A chosen trial's settings as a config file that `semrec build` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from semrec_faiss.config.index_types import FactoryIndex
from semrec_faiss.errors import StorageError
from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.storage import new_file

SettingValues = dict[str, Any]
"""A config as YAML has it."""


def config_of(record: Measured, *, dataset: str, output: str) -> SettingValues:
    """Return a trial's settings as a config that `semrec build` takes."""
    device = record.device
    on: SettingValues = {"kind": device.kind}
    if device.kind == "gpu":
        on |= {"gpus": device.gpus, "float16": device.float16}
        on |= {"layout": device.layout} if device.layout is not None else {}
        on |= {"originals": device.originals} if device.originals is not None else {}
        on |= {"temp_memory_mb": device.temp_memory_mb} if device.temp_memory_mb is not None else {}
    index = record.index.model_dump(mode="json", exclude_none=isinstance(record.index, FactoryIndex))
    given = {key: value for key, value in index.items() if value != {}}
    return {"dataset": dataset, "index": given, "device": on, "output": output}


def write_config(record: Measured, path: Path, *, dataset: str, output: str, note: str) -> None:
    """Write a trial's settings as a YAML file for `semrec build`, a remark on top.

    Raises:
        StorageError: the file cannot be written.
    """
    write_yaml(config_of(record, dataset=dataset, output=output), path, note=note)


def write_yaml(values: SettingValues, path: Path, *, note: str) -> None:
    """Write a config file, a remark on top; raises StorageError as `write_config` does."""
    text = "".join(f"# {line}\n" for line in note.splitlines())
    text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="name another --out") from error


def dataset_of(results: SweepResults, name: str) -> str:
    """Return the path of the data folder with this name, as the sweep was given it."""
    for path in results.plan.sweep.dataset:
        if (Path(path).name or path) == name:
            return path
    return name
