"""``semrec memory``: what an index of a config will take, how many titles fit, and whether the prediction holds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pyarrow import parquet
from pydantic import Field, JsonValue, ValidationError

from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.config.schema import Config, device_problems
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import ConfigError, DeviceError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.fused.titles.users import users_bytes
from semrec_faiss.index.hardware.device import Device, choose_device, gpu_k_limit, out_of_k_limit
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.index.memory.prediction import largest_catalogue, predict_memory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.documents.fields import MOST, AtLeastOne, Count, Part, Share
from semrec_faiss.measure.documents.gaps import Document, WithGaps
from semrec_faiss.measure.documents.results import NotMeasured, device_name
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.host_memory import machine_bytes
from semrec_faiss.measure.instruments.index_memory import (
    TOLERANCE,
    JudgedPrediction,
    judge,
    measure_memory,
    settings_of,
)
from semrec_faiss.measure.instruments.index_memory_record import SearchPeak
from semrec_faiss.progress import Progress, silent

GUIDE_GPU_BYTES = 40 * 10**9
"""The A100 that catalogues are fitted to where there is no GPU and no limit is given."""

SEED = 7
ONE_QUERY = 1

LARGEST = {"titles": 10**12, "dim": 2**20, "batch": 10**9, "k": 10**9, "limit_bytes": MOST}
"""Up to which sizes a prediction means anything."""


@dataclass(frozen=True)
class MemoryPlan:
    """What to predict.

    Attributes:
        config: index, device, and the dataset where titles and dim are not given.
        titles: how many; the dataset's by default.
        dim: dimensions of a vector; the dataset's by default.
        batch: queries searched at once.
        k: titles per query.
        limit_bytes: what the largest catalogue must fit; the machine's memory and the GPU's by default.
    """

    config: Config
    titles: int | None = None
    dim: int | None = None
    batch: int = 10_000
    k: int = 10
    limit_bytes: int | None = None


class DevicePrediction(WithGaps):
    """What is predicted of one device: bytes by part, the host's besides, and the largest catalogue that fits."""

    vectors_bytes: Count
    structure_bytes: Count
    originals_bytes: Count
    context_bytes: Count
    reserved_bytes: Count
    scratch_bytes: Count
    batch_bytes: Count
    base_bytes: Count
    peak_bytes: Count
    host: dict[str, int]
    gpus: Count
    limit_bytes: Count | None
    limit_of: str
    largest_catalogue: Count | None


class DeviceMeasurement(Part):
    """The predictions for one device, held against what was measured, and that itself."""

    device: str
    tolerance: Share
    holds: bool
    judged: list[JudgedPrediction]
    start_bytes: Count | None = None
    context_bytes: int | None = None
    base_bytes: int
    total_bytes: Count | None = None
    free_bytes: Count | None = None
    available_bytes: Count | None = None
    faiss_counts_bytes: dict[str, int] | None = None
    searches: list[SearchPeak]


class MemoryReport(Document):
    """What an index of a config takes, by device; ``measured`` and the stamp only where that was asked for.

    ``gpu_users_bytes`` is what the dataset's users, with what they have seen, take beside the titles of type fused on
    one GPU, once several questions are asked about them and where they fit.
    """

    titles: AtLeastOne
    dim: AtLeastOne
    batch: AtLeastOne
    k: AtLeastOne
    index: dict[str, JsonValue]
    prediction: dict[Literal["cpu", "gpu"], DevicePrediction]
    gpu_users_bytes: Count | None = None
    measured: dict[Literal["cpu", "gpu"], DeviceMeasurement | None] = Field(default_factory=dict)
    environment: Stamp | None = None
    not_measured: dict[str, str]


def memory_report(plan: MemoryPlan, *, measure: bool = False, progress: Progress = silent) -> MemoryReport:
    """Predict, and measure where asked.

    Raises:
        UsageError: neither a dataset nor titles and dim, sizes that no machine holds, or a k that no search on the
            device returns.
        NotFoundError: the dataset does not exist.
        ConfigError: settings that do not fit the data, or no device can run.
        SemrecError: the index cannot be built, or the measuring process fails.
    """
    titles, dim = _shape(plan)
    _check_sizes(plan, titles, dim)
    devices = _devices(plan.config)
    if "gpu" in devices:
        _check_k(plan, titles)
    told: dict[str, object] = {
        "titles": titles,
        "dim": dim,
        "batch": plan.batch,
        "k": plan.k,
        "index": plan.config.index.model_dump(mode="json"),
        "prediction": _predictions(plan, devices, titles, dim),
    }
    if "gpu" in devices and isinstance(plan.config.index, FusedIndex):
        told["gpu_users_bytes"] = _users_bytes(plan.config)
    if measure:
        told |= {"measured": _measured(plan, titles, dim, progress), "environment": stamp_of_this_run()}
    return MemoryReport.whole(**told)


def _shape(plan: MemoryPlan) -> tuple[int, int]:
    """Return titles and dim, each as given or else as the dataset has it."""
    if plan.titles is not None and plan.dim is not None:
        return plan.titles, plan.dim
    folder = plan.config.dataset.folder
    if folder is None:
        raise UsageError(
            "how many titles of what dimension is not said",
            fix="give --titles and --dim, or set dataset: in the config, or --dataset DIR",
        )
    vectors = open_vectors(find_data_folder(folder).media_vectors)
    return plan.titles or int(vectors.shape[0]), plan.dim or int(vectors.shape[1])


def _users_bytes(config: Config) -> int | None:
    """Return what the dataset's users take on a GPU; None where it has none, or there is no dataset."""
    if config.dataset.folder is None or not config.dataset.folder.is_dir():
        return None
    folder = find_data_folder(config.dataset.folder)
    if folder.user_vectors is None:
        return None
    users, dim = open_vectors(folder.user_vectors).shape
    seen = 0 if folder.seen is None else int(parquet.read_metadata(folder.seen).num_rows)
    return users_bytes(users, dim, seen)


def _check_sizes(plan: MemoryPlan, titles: int, dim: int) -> None:
    asked = {"titles": titles, "dim": dim, "batch": plan.batch, "k": plan.k, "limit_bytes": plan.limit_bytes or 0}
    for name, most in LARGEST.items():
        if asked[name] > most:
            raise UsageError(
                f"{name} is {asked[name]:,}; sizes are predicted up to {most:,}", fix="give what a machine may hold"
            )


def _check_k(plan: MemoryPlan, titles: int) -> None:
    """Refuse a k that a search on a GPU refuses: what it would take is not what anything takes."""
    limit = gpu_k_limit(plan.config.index, titles)
    if limit is not None and plan.k > limit:
        kind = plan.config.index.type
        raise UsageError(
            f"k is {plan.k}, over type {kind}'s limit of {limit} on a GPU", fix=out_of_k_limit(plan.config.index)
        )


def _devices(config: Config) -> dict[str, Device]:
    """The devices that the config may run on, whether this machine has them or not."""
    wanted = config.device
    problems = device_problems(config.index, wanted.model_copy(update={"kind": "gpu"}))
    if wanted.kind == "gpu" and problems:
        raise ConfigError("; ".join(problems))
    devices = {} if wanted.kind == "gpu" else {"cpu": Device()}
    if wanted.kind != "cpu" and not problems:
        devices["gpu"] = Device(wanted.gpus, wanted.float16, wanted.temp_memory_mb, wanted.layout, wanted.originals)
    return devices


def _predictions(plan: MemoryPlan, devices: dict[str, Device], titles: int, dim: int) -> dict[str, DevicePrediction]:
    try:
        return {name: _predicted(plan, device, titles, dim) for name, device in devices.items()}
    except ValidationError:
        raise UsageError(
            f"{titles:,} titles × {dim:,}, with {plan.batch:,} queries of {plan.k:,} titles each at once, take over"
            f" {MOST:,} bytes somewhere",
            fix="give what a machine may hold",
        ) from None


def _predicted(plan: MemoryPlan, device: Device, titles: int, dim: int) -> DevicePrediction:
    index = plan.config.index
    limit, limit_of = _limit(plan, device)
    came = _came_as_float16(plan)
    predicted = predict_memory(
        index, titles, dim, device, batch=plan.batch, k=plan.k, float16_titles=came, limit_bytes=limit
    )
    largest: int | NotMeasured = NotMeasured("this system does not tell its memory; give --limit-gb")
    if limit is not None:
        largest = largest_catalogue(index, dim, limit, device, batch=plan.batch, k=plan.k, float16_titles=came)
    return DevicePrediction.of(
        **predicted.searched.as_dict(),
        host=predicted.host.as_dict(),
        gpus=len(device.gpus),
        limit_bytes=limit,
        limit_of=limit_of,
        largest_catalogue=largest,
    )


def _came_as_float16(plan: MemoryPlan) -> bool:
    """Tell whether the titles of the dataset are float16; made ones are float32."""
    folder = plan.config.dataset.folder
    if folder is None or (plan.titles is not None and plan.dim is not None):
        return False
    return bool(open_vectors(find_data_folder(folder).media_vectors).dtype == np.float16)


def _limit(plan: MemoryPlan, device: Device) -> tuple[int | None, str]:
    if plan.limit_bytes is not None:
        return plan.limit_bytes, "as given"
    if not device.gpus:
        return machine_bytes(), "this machine"
    totals = {state.gpu: state for state in gpu_states()}
    if all(gpu in totals for gpu in device.gpus):
        smallest = min((totals[gpu] for gpu in device.gpus), key=lambda state: state.total_bytes)
        return smallest.total_bytes, smallest.name
    return GUIDE_GPU_BYTES, "an A100 of 40 GB; there is no GPU here"


def _measured(
    plan: MemoryPlan, titles: int, dim: int, progress: Progress
) -> dict[str, DeviceMeasurement | NotMeasured]:
    with tempfile.TemporaryDirectory(prefix="semrec-memory-") as folder:
        scratch = Path(folder)
        index = _build(plan, titles, dim, scratch, progress)
        built = SavedIndex(index).config.index  # which says what auto has come to
        plan = replace(plan, config=plan.config.model_copy(update={"index": built}))
        measured: dict[str, DeviceMeasurement | NotMeasured] = {}
        for name, device in _devices(plan.config).items():
            progress("measuring memory", len(measured), 2)
            measured[name] = _measure_one(plan, device, index, titles, dim)
        progress("measuring memory", 2, 2)
        return measured


def _build(plan: MemoryPlan, titles: int, dim: int, scratch: Path, progress: Progress) -> Path:
    config = plan.config.model_copy(update={"output": scratch / "index"})
    if plan.titles is not None or plan.dim is not None or config.dataset.folder is None:
        dataset = scratch / "data"
        write_synthetic(dataset, titles=titles, users=0, dim=dim, seed=SEED, progress=progress)
        config = Config(index=config.index, device=config.device, output=config.output).of(dataset)
    if not config.device.float16:
        config = config.model_copy(update={"device": config.device.model_copy(update={"kind": "auto"})})
    build_index(config, progress)
    return scratch / "index"


def _measure_one(
    plan: MemoryPlan, device: Device, index: Path, titles: int, dim: int
) -> DeviceMeasurement | NotMeasured:
    if device.gpus:
        try:
            choose_device(plan.config.device.model_copy(update={"kind": "gpu"}), plan.config.index)
        except DeviceError as error:
            return NotMeasured(error.message)
        if len(device.gpus) > 1:
            return NotMeasured("memory is measured on one GPU; set device.gpus=[0]")
    batches = sorted({ONE_QUERY, plan.batch})
    parts = [
        (
            batch,
            predict_memory(
                plan.config.index,
                titles,
                dim,
                device,
                batch=batch,
                k=plan.k,
                float16_titles=_came_as_float16(plan),
            ).searched,
        )
        for batch in batches
    ]
    found = measure_memory(index, settings_of(device), batches, plan.k)
    if isinstance(found, NotMeasured):
        return found
    judged = judge(found, parts)
    holds = all(row.holds for row in judged)
    return DeviceMeasurement(
        device=device_name(device),
        tolerance=TOLERANCE,
        holds=holds,
        judged=judged,
        **found.model_dump(exclude_unset=True),
    )
