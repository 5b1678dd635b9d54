"""``semrec memory``: what an index of a config will take, how many titles fit, and whether the prediction holds."""

from __future__ import annotations

from pyarrow import parquet
from pydantic import ValidationError

from semrec_faiss.config.index_types import FusedIndex
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.errors import UsageError
from semrec_faiss.index.fused.titles.users import users_bytes
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.hardware.gpu_memory import smallest_gpu
from semrec_faiss.index.memory.prediction import MemoryPrediction, largest_catalogue, predict_memory
from semrec_faiss.measure.documents.fields import MOST
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.instruments.host_memory import machine_bytes
from semrec_faiss.measure.memory.measured import measure_predicted
from semrec_faiss.measure.memory.plan import MemoryPlan
from semrec_faiss.measure.memory.record import DevicePrediction, MemoryReport
from semrec_faiss.progress import Progress, silent

GUIDE_GPU_BYTES = 40 * 10**9
"""The A100 that catalogues are fitted to where there is no GPU and no limit is given."""


def memory_report(plan: MemoryPlan, *, measure: bool = False, progress: Progress = silent) -> MemoryReport:
    """Predict, and measure where asked.

    Raises:
        UsageError: neither a dataset nor titles and dim, sizes that no machine holds, or a k that no search on the
            device returns.
        NotFoundError: the dataset does not exist.
        ConfigError: settings that do not fit the data, or no device can run.
        SemrecError: the index cannot be built, or the measuring process fails.
    """
    titles, dim = plan.shape()
    devices = plan.devices()
    if "gpu" in devices:
        plan.check_k(titles)
    told: dict[str, object] = {
        "titles": titles,
        "dim": dim,
        "batch": plan.batch,
        "k": plan.k,
        "float16": plan.came_as_float16(),
        "index": plan.config.index.model_dump(mode="json"),
        "prediction": _predictions(plan, devices, titles, dim),
    }
    if "gpu" in devices and isinstance(plan.config.index, FusedIndex):
        told["gpu_users_bytes"] = _users_bytes(plan)
    if measure:
        told |= {"measured": measure_predicted(plan, titles, dim, progress), "environment": stamp_of_this_run()}
    return MemoryReport.whole(**told)


def _users_bytes(plan: MemoryPlan) -> int | None:
    """Return what the dataset's users take on a GPU; None where it has none, or the titles are not its own."""
    if plan.config.dataset.folder is None or not plan.is_of_dataset:
        return None
    folder = find_data_folder(plan.config.dataset.folder)
    if folder.user_vectors is None:
        return None
    users, dim = open_vectors(folder.user_vectors).shape
    seen = 0 if folder.seen is None else int(parquet.read_metadata(folder.seen).num_rows)
    return users_bytes(users, dim, seen)


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
    came = plan.came_as_float16()

    def of(count: int) -> MemoryPrediction:
        return predict_memory(
            index, count, dim, device, batch=plan.batch, k=plan.k, float16_titles=came, limit_bytes=limit
        )

    predicted = of(titles)
    largest: int | NotMeasured = NotMeasured("this system does not tell its memory; give --limit-gb")
    locked = 0
    if limit is not None:
        largest = largest_catalogue(index, dim, limit, device, batch=plan.batch, k=plan.k, float16_titles=came)
        locked = of(largest).host.locked if largest else 0
    return DevicePrediction.of(
        **predicted.searched.as_dict(),
        host=predicted.host.as_dict(),
        gpus=len(device.gpus),
        limit_bytes=limit,
        limit_of=limit_of,
        largest_catalogue=largest,
        largest_locked_bytes=locked,
        kept=predicted.kept if device.gpus else None,
    )


def _limit(plan: MemoryPlan, device: Device) -> tuple[int | None, str]:
    if plan.limit_bytes is not None:
        return plan.limit_bytes, "as given"
    if not device.gpus:
        return machine_bytes(), "this machine"
    smallest = smallest_gpu(device.gpus)
    if smallest is not None:
        return smallest.total_bytes, smallest.name
    return GUIDE_GPU_BYTES, "an A100 of 40 GB; there is no GPU here"
