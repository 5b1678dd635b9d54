"""The config file: YAML to typed, frozen models.

Unknown keys are refused with the nearest known one, and all mistakes are reported at once, each with its file and line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from semrec_faiss.config.dataset import Dataset
from semrec_faiss.config.index_types import (
    GPU_LIMIT,
    GPU_PQ_M,
    INDEX_TYPES,
    FactoryIndex,
    FlatIndex,
    FusedIndex,
    IndexConfig,
    IvfPqIndex,
    Settings,
)
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.config.profile import Profile


class DeviceConfig(Settings):
    """Where the index lives while it is searched.

    ``float16`` halves a flat index's GPU memory (scores are then rounded and no longer exact); several ``gpus`` share
    the titles among them or, as replicas, the queries (``layout``; ``auto``: replicas for type fused where they fit,
    shards otherwise); ``originals`` says where type fused keeps the float32 vectors that it proves its answers by, on
    the GPU or page-locked on the host (``auto``: on the GPU where they fit); ``temp_memory_mb`` is FAISS's scratch
    space on each GPU (null: its own default, 1.5 GiB).
    """

    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)] = (0,)
    layout: Literal["auto", "shards", "replicas"] = "auto"
    originals: Literal["auto", "gpu", "host"] = "auto"
    float16: Annotated[bool, Field(strict=True)] = False
    temp_memory_mb: Annotated[int, Field(ge=0, strict=True)] | None = None

    @field_validator("gpus")
    @classmethod
    def _distinct(cls, gpus: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(gpus)) < len(gpus):
            raise ValueError(f"gpus {list(gpus)} names a GPU twice")
        return gpus


class Config(Settings):
    """A whole config file.

    ``profile`` says how users' histories become queries; null: vectors as the data folder has them. It is left out of
    what is written then, so that versions that do not know of it read an index as before.
    """

    dataset: Dataset = Dataset()
    index: IndexConfig = FlatIndex()
    device: DeviceConfig = DeviceConfig()
    output: LocalPath | None = None
    profile: Profile | None = None

    @model_serializer(mode="wrap")
    def _leave_out_no_profile(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.profile is None:
            values.pop("profile", None)  # gone already where nothing that is null is wanted
        return values

    def of(self, folder: Path | None) -> Config:
        """Return the same for the data in another folder, whose fields play the same parts."""
        return self.model_copy(update={"dataset": self.dataset.model_copy(update={"folder": folder})})

    @model_validator(mode="after")
    def _type_fits_device(self) -> Config:
        problems = device_problems(self.index, self.device)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def device_problems(index: IndexConfig, device: DeviceConfig) -> list[str]:
    """List what ``index`` asks for that ``device`` cannot do; an automatic device is judged as the one that fits."""
    if device.kind == "cpu":
        return (
            ["device.float16 is a GPU setting; on a CPU take type ivf_sq or factory SQfp16"] if device.float16 else []
        )
    problems = []
    if device.float16 and isinstance(index, FusedIndex):
        problems.append("device.float16 changes type flat only; for type fused set index.search.rescore: float16")
    elif device.float16 and not isinstance(index, FlatIndex):
        problems.append(
            "device.float16 changes type flat only; for float16 inverted lists take type ivf_sq, storage fp16"
        )
    if device.originals != "auto" and not isinstance(index, FusedIndex):
        problems.append("device.originals is a setting of type fused alone; leave it out")
    if device.kind != "gpu":
        return problems
    if isinstance(index, FactoryIndex) and not index.fits_gpu:
        problems.append(
            f"factory {index.factory!r} has a part that FAISS runs on CPU only; set device.kind to cpu or auto"
        )
    elif not index.runs_on_gpu:
        problems.append("type hnsw runs on CPU only; set device.kind to cpu or auto, or take another type")
    nprobe = getattr(index.search, "nprobe", None)
    if nprobe is not None and nprobe > GPU_LIMIT:
        problems.append(
            f"search.nprobe {nprobe} is over the GPU's limit of {GPU_LIMIT}; lower it or set device.kind to cpu"
        )
    refine = getattr(index.search, "refine", None)
    if refine is not None and refine > GPU_LIMIT:
        problems.append(
            f"search.refine {refine}: a GPU finds at most {GPU_LIMIT} candidates, so that no result is left"
        )
    if isinstance(index, IvfPqIndex):
        if index.build.nbits != 8:
            problems.append(f"build.nbits {index.build.nbits}: on a GPU product quantisation has 8 bits only")
        if index.build.M != "auto" and index.build.M not in GPU_PQ_M:
            problems.append(f"build.M {index.build.M}: on a GPU M is one of {', '.join(map(str, GPU_PQ_M))}")
    return problems


def known_keys() -> list[str]:
    """Every key that a config file may hold, dotted, sorted."""
    keys: set[str] = set()
    for name, field in Config.model_fields.items():
        keys.add(name)
        models = INDEX_TYPES.values() if name == "index" else [field.annotation, *get_args(field.annotation)]
        for model in models:
            keys |= {f"{name}.{inner}" for inner in keys_of(model)}
    return sorted(keys)


def keys_of(model: Any) -> set[str]:
    """Every key of a model and of those in it, dotted."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for part in (field.annotation, *get_args(field.annotation)):
            keys |= {f"{name}.{inner}" for inner in keys_of(part)}
    return keys
