"""Whether what is predicted of an index holds: one is built, and measured in a process of its own."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from semrec_faiss.config.schema import Config
from semrec_faiss.data.synthetic.titles import FloatName
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import DeviceError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import Device, choose_device
from semrec_faiss.index.hardware.gpu_memory import smallest_gpu
from semrec_faiss.index.memory.prediction import predict_memory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.documents.results import NotMeasured, device_name
from semrec_faiss.measure.instruments.index_memory import TOLERANCE, judge, measure_memory, settings_of
from semrec_faiss.measure.memory.plan import MemoryPlan
from semrec_faiss.measure.memory.record import DeviceMeasurement
from semrec_faiss.progress import Progress

SEED = 7
ONE_QUERY = 1


def measure_predicted(
    plan: MemoryPlan, titles: int, dim: int, progress: Progress
) -> dict[str, DeviceMeasurement | NotMeasured]:
    """Build an index in a temporary folder, and hold its predictions against what it takes, device by device.

    Args:
        plan: what is predicted.
        titles: how many.
        dim: dimensions of a vector.
        progress: told the steps.

    Raises:
        SemrecError: the index cannot be built, or the measuring process fails.
    """
    with tempfile.TemporaryDirectory(prefix="semrec-memory-") as folder:
        scratch = Path(folder)
        index = _build(plan, titles, dim, scratch, progress)
        built = SavedIndex(index).config.index  # which says what auto has come to
        plan = replace(plan, config=plan.config.model_copy(update={"index": built}))
        measured: dict[str, DeviceMeasurement | NotMeasured] = {}
        for name, device in plan.devices().items():
            progress("measuring memory", len(measured), 2)
            measured[name] = _measure_one(plan, device, index, titles, dim)
        progress("measuring memory", 2, 2)
        return measured


def _build(plan: MemoryPlan, titles: int, dim: int, scratch: Path, progress: Progress) -> Path:
    config = plan.config.model_copy(update={"output": scratch / "index"})
    if plan.titles is not None or plan.dim is not None or plan.float16 or config.dataset.folder is None:
        dataset = scratch / "data"
        kind: FloatName = "float16" if plan.came_as_float16() else "float32"
        write_synthetic(dataset, titles=titles, users=0, dim=dim, seed=SEED, media_dtype=kind, progress=progress)
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
    batches, smallest = sorted({ONE_QUERY, plan.batch}), smallest_gpu(device.gpus)
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
                float16_titles=plan.came_as_float16(),
                limit_bytes=None if smallest is None else smallest.total_bytes,
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
