"""The config file: YAML to typed, frozen models.

Unknown keys are refused with the nearest known one, and all mistakes are reported at once, each with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from semrec_faiss.config_mistakes import describe
from semrec_faiss.errors import ConfigError
from semrec_faiss.yaml_source import YamlSource

GPU_LIMIT = 2048
"""The largest k and the largest nprobe that FAISS searches with on a GPU."""

GPU_PQ_M = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""The product quantiser sizes that FAISS has GPU code for; those over 48 need float16 look-up tables."""

AtLeastOne = Annotated[int, Field(ge=1, strict=True)]


def _whole_number_or_auto(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"should be a whole number of at least 1, or auto, not {value!r}")


OrAuto = Annotated[int | Literal["auto"], BeforeValidator(_whole_number_or_auto)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, values: Any) -> Any:
        """Read ``build:`` with nothing under it, which YAML gives as null, as an empty section."""
        return {} if values is None else values


class NoSettings(_Settings):
    """A type without settings of this group."""


class IvfBuild(_Settings):
    """``nlist``: the number of inverted lists; auto takes about 4·√n, at most n/39 (FAISS's own lower bound a list)."""

    nlist: OrAuto = "auto"
    seed: Annotated[int, Field(ge=0, strict=True)] = 1234


class SqBuild(IvfBuild):
    """``storage``: what a component is stored as."""

    storage: Literal["fp16", "8bit"] = "fp16"


class PqBuild(IvfBuild):
    """``M``: sub-quantisers a vector (auto: about d/8, dividing d); ``nbits``: bits of each."""

    M: OrAuto = "auto"
    nbits: Annotated[int, Field(ge=4, le=12, strict=True)] = 8


class HnswBuild(_Settings):
    """``M``: links a node (auto: 32, and 48 from 256 dimensions up); ``efConstruction``: candidates while building."""

    M: OrAuto = "auto"
    efConstruction: AtLeastOne = 200  # noqa: N815 - FAISS's name

    @field_validator("M")
    @classmethod
    def _two_links_at_least(cls, m: int | str) -> int | str:
        if isinstance(m, int) and not 2 <= m <= 512:
            raise ValueError(f"should be from 2 to 512, or auto, not {m}")
        return m


class IvfSearch(_Settings):
    """``nprobe``: the inverted lists that a query visits."""

    nprobe: AtLeastOne = 16


class PqSearch(IvfSearch):
    """``refine``: rescore refine × k candidates with the original vectors; null returns the quantised scores."""

    refine: AtLeastOne | None = 4


class HnswSearch(_Settings):
    """``efSearch``: candidates kept during a query; raised to k when k is larger."""

    efSearch: AtLeastOne = 64  # noqa: N815 - FAISS's name


class FactorySearch(_Settings):
    """Any of the search settings; each is refused where the factory's index has no such thing."""

    nprobe: AtLeastOne | None = None
    efSearch: AtLeastOne | None = None  # noqa: N815 - FAISS's name
    refine: AtLeastOne | None = None


class _Index(_Settings):
    metric: Literal["inner_product"] = "inner_product"
    normalize: Annotated[bool, Field(strict=True)] = True
    runs_on_gpu: ClassVar[bool] = True


class FlatIndex(_Index):
    """Every vector, compared exactly."""

    type: Literal["flat"] = "flat"
    build: NoSettings = NoSettings()
    search: NoSettings = NoSettings()


class IvfFlatIndex(_Index):
    """Inverted lists of exact vectors."""

    type: Literal["ivf_flat"]
    build: IvfBuild = IvfBuild()
    search: IvfSearch = IvfSearch()


class IvfSqIndex(_Index):
    """Inverted lists of scalar-quantised vectors."""

    type: Literal["ivf_sq"]
    build: SqBuild = SqBuild()
    search: IvfSearch = IvfSearch()


class IvfPqIndex(_Index):
    """Inverted lists of product-quantised vectors, rescored exactly."""

    type: Literal["ivf_pq"]
    build: PqBuild = PqBuild()
    search: PqSearch = PqSearch()


class HnswIndex(_Index):
    """A navigable graph over exact vectors; CPU only."""

    type: Literal["hnsw"]
    build: HnswBuild = HnswBuild()
    search: HnswSearch = HnswSearch()
    runs_on_gpu: ClassVar[bool] = False


class FactoryIndex(_Index):
    """An index as ``faiss.index_factory`` spells it."""

    factory: Annotated[str, Field(min_length=1)]
    search: FactorySearch = FactorySearch()
    type: ClassVar[str] = "factory"

    @property
    def fits_gpu(self) -> bool:
        """Whether FAISS has GPU code for every part of the factory string."""
        return re.search(r"HNSW|NSG|LSH|RQ|LSQ|RFlat|Refine|fs|ZnLattice|IDMap|ITQ|Binary", self.factory) is None


INDEX_TYPES: dict[str, type[_Index]] = {
    "flat": FlatIndex,
    "ivf_flat": IvfFlatIndex,
    "ivf_sq": IvfSqIndex,
    "ivf_pq": IvfPqIndex,
    "hnsw": HnswIndex,
    "factory": FactoryIndex,
}


def _index_tag(value: Any) -> str | None:
    if isinstance(value, BaseModel):
        return str(getattr(value, "type", "flat"))
    if value is None:
        return "flat"
    if not isinstance(value, dict):
        return None
    if "factory" in value:
        return "factory"
    kind = value.get("type", "flat")
    return kind if isinstance(kind, str) and kind in INDEX_TYPES and kind != "factory" else None


IndexConfig = Annotated[
    Union[  # noqa: UP007 - Annotated members need the subscript form on Python 3.10
        Annotated[FlatIndex, Tag("flat")],
        Annotated[IvfFlatIndex, Tag("ivf_flat")],
        Annotated[IvfSqIndex, Tag("ivf_sq")],
        Annotated[IvfPqIndex, Tag("ivf_pq")],
        Annotated[HnswIndex, Tag("hnsw")],
        Annotated[FactoryIndex, Tag("factory")],
    ],
    Discriminator(_index_tag),
]


class DeviceConfig(_Settings):
    """Where the index lives while it is searched.

    ``float16`` halves a flat index's GPU memory (scores are then rounded and no longer exact); several ``gpus`` share
    the titles among them; ``temp_memory_mb`` is FAISS's scratch space on each GPU (null: its own default, 1.5 GiB).
    """

    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)] = (0,)
    float16: Annotated[bool, Field(strict=True)] = False
    temp_memory_mb: Annotated[int, Field(ge=0, strict=True)] | None = None

    @field_validator("gpus")
    @classmethod
    def _distinct(cls, gpus: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(gpus)) < len(gpus):
            raise ValueError(f"gpus {list(gpus)} names a GPU twice")
        return gpus


class Config(_Settings):
    """A whole config file."""

    dataset: Path | None = None
    index: IndexConfig = FlatIndex()
    device: DeviceConfig = DeviceConfig()
    output: Path | None = None

    @model_validator(mode="after")
    def _type_fits_device(self) -> Config:
        problems = device_problems(self.index, self.device)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def device_problems(index: _Index, device: DeviceConfig) -> list[str]:
    """List what ``index`` asks for that ``device`` cannot do; an automatic device is judged as the one that fits."""
    if device.kind == "cpu":
        return (
            ["device.float16 is a GPU setting; on a CPU take type ivf_sq or factory SQfp16"] if device.float16 else []
        )
    problems = []
    if device.float16 and not isinstance(index, FlatIndex):
        problems.append(
            "device.float16 changes type flat only; for float16 inverted lists take type ivf_sq, storage fp16"
        )
    if device.kind != "gpu":
        return problems
    if isinstance(index, FactoryIndex) and not index.fits_gpu:
        problems.append(
            f"factory {index.factory!r} has a part that FAISS runs on CPU only; set device.kind to cpu or auto"
        )
    elif not index.runs_on_gpu:
        problems.append("type hnsw runs on CPU only; set device.kind to cpu or auto, or take another type")
    nprobe = getattr(index.search, "nprobe", None)  # type: ignore[attr-defined]
    if nprobe is not None and nprobe > GPU_LIMIT:
        problems.append(
            f"search.nprobe {nprobe} is over the GPU's limit of {GPU_LIMIT}; lower it or set device.kind to cpu"
        )
    if isinstance(index, IvfPqIndex):
        if index.build.nbits != 8:
            problems.append(f"build.nbits {index.build.nbits}: on a GPU product quantisation has 8 bits only")
        if index.build.M != "auto" and index.build.M not in GPU_PQ_M:
            problems.append(f"build.M {index.build.M}: on a GPU M is one of {', '.join(map(str, GPU_PQ_M))}")
    return problems


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config file and apply overrides such as ``index.search.nprobe=32``.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it has mistakes; all of them are listed, with file and line.
        UsageError: an override is not of the form KEY=VALUE.
    """
    source = YamlSource.read(Path(path))
    return _validate(source, overrides)


def config_from_dict(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Validate a mapping with the keys of a config file; see `load_config`."""
    return _validate(YamlSource(values), overrides)


def _validate(source: YamlSource, overrides: Sequence[str]) -> Config:
    if isinstance(source.values.get("device"), str):  # `device: cpu`, so that device.gpus can still be set beside it
        source.values["device"] = {"kind": source.values["device"]}
    for assignment in overrides:
        source.override(assignment)
    try:
        return Config.model_validate(source.values)
    except ValidationError as error:
        mistakes = [describe(dict(mistake), source, Config, INDEX_TYPES) for mistake in error.errors()]
    subject = source.path or "the settings"
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    raise ConfigError(f"{count} in {subject}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))


def known_keys() -> list[str]:
    """Every key that a config file may hold, dotted, sorted: for documentation and its test."""
    keys: set[str] = set()
    for name, field in Config.model_fields.items():
        keys.add(name)
        models = INDEX_TYPES.values() if name == "index" else [field.annotation]
        for model in models:
            keys |= {f"{name}.{inner}" for inner in _keys_of(model)}
    return sorted(keys)


def _keys_of(model: Any) -> set[str]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for part in (field.annotation, *get_args(field.annotation)):
            keys |= {f"{name}.{inner}" for inner in _keys_of(part)}
    return keys
