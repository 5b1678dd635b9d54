"""The index section of a config: one model a type, with the settings that it has and no others."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from semrec_faiss.errors import quoted

GPU_LIMIT = 2048
"""The largest k and the largest nprobe that FAISS searches with on a GPU."""

GPU_PQ_M = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""The product quantiser sizes that FAISS has GPU code for; those over 48 need float16 look-up tables."""

FUSED_K_LIMIT = 2048
"""The most titles that type fused returns a query on a GPU."""

FUSED_DIM_LIMIT = 4096
"""The most dimensions that type fused takes on a GPU: its kernels were compiled, and its bounds of errors tested, up to
here."""

MOST = 2**31 - 1
"""The largest number that FAISS takes for a setting."""

AtLeastOne = Annotated[int, Field(ge=1, le=MOST, strict=True)]


def _whole_number_or_auto(value: Any, least: int = 1) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST):
        return value
    raise ValueError(f"should be a whole number from {least} to {MOST}, or auto, not {quoted(value)}")


def _directions_or_auto(value: Any) -> Any:
    return _whole_number_or_auto(value, least=0)


OrAuto = Annotated[int | Literal["auto"], BeforeValidator(_whole_number_or_auto)]


class Settings(BaseModel):
    """A group of settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, values: Any) -> Any:
        """Read ``build:`` with nothing under it, which YAML gives as null, as an empty section."""
        return {} if values is None else values


class NoSettings(Settings):
    """A type without settings of this group."""


class IvfBuild(Settings):
    """``nlist``: the number of inverted lists; auto takes about 4·√n, at most n/39 (FAISS's own lower bound a list)."""

    nlist: OrAuto = "auto"
    seed: Annotated[int, Field(ge=0, le=MOST, strict=True)] = 1234


class SqBuild(IvfBuild):
    """``storage``: what a component is stored as."""

    storage: Literal["fp16", "8bit"] = "fp16"


class PqBuild(IvfBuild):
    """``M``: sub-quantisers a vector (auto: about d/8, dividing d); ``nbits``: bits of each."""

    M: OrAuto = "auto"
    nbits: Annotated[int, Field(ge=4, le=12, strict=True)] = 8


class HnswBuild(Settings):
    """``M``: links a node (auto: 32, and 48 from 256 dimensions up); ``efConstruction``: candidates while building."""

    M: OrAuto = "auto"
    efConstruction: AtLeastOne = 200  # noqa: N815 - FAISS's name

    @field_validator("M")
    @classmethod
    def _two_links_at_least(cls, m: int | str) -> int | str:
        if isinstance(m, int) and not 2 <= m <= 512:
            raise ValueError(f"should be from 2 to 512, or auto, not {m}")
        return m


class IvfSearch(Settings):
    """``nprobe``: the inverted lists that a query visits."""

    nprobe: AtLeastOne = 16


class PqSearch(IvfSearch):
    """``refine``: rescore refine × k candidates with the original vectors; null returns the quantised scores."""

    refine: AtLeastOne | None = 4


class HnswSearch(Settings):
    """``efSearch``: candidates kept during a query; raised to k when k is larger."""

    efSearch: AtLeastOne = 64  # noqa: N815 - FAISS's name


class FactorySearch(Settings):
    """Any of the search settings; each is refused where the factory's index has no such thing."""

    nprobe: AtLeastOne | None = None
    efSearch: AtLeastOne | None = None  # noqa: N815 - FAISS's name
    refine: AtLeastOne | None = None


class ExactBuild(Settings):
    """``directions``: the principal directions by which a search leaves most titles out, proven, before it compares.

    auto chooses from the vectors' spectrum whether they pay and how many; 0 keeps none.
    """

    directions: Annotated[int | Literal["auto"], BeforeValidator(_directions_or_auto)] = "auto"


class AnyIndex(Settings):
    """What every index type has; ``build`` and ``search`` differ from type to type."""

    metric: Literal["inner_product"] = "inner_product"
    normalize: Annotated[bool, Field(strict=True)] = True
    runs_on_gpu: ClassVar[bool] = True


class FlatIndex(AnyIndex):
    """Every vector, compared exactly."""

    type: Literal["flat"] = "flat"
    build: ExactBuild = ExactBuild()
    search: NoSettings = NoSettings()


class IvfFlatIndex(AnyIndex):
    """Inverted lists of exact vectors."""

    type: Literal["ivf_flat"]
    build: IvfBuild = IvfBuild()
    search: IvfSearch = IvfSearch()


class IvfSqIndex(AnyIndex):
    """Inverted lists of scalar-quantised vectors."""

    type: Literal["ivf_sq"]
    build: SqBuild = SqBuild()
    search: IvfSearch = IvfSearch()


class IvfPqIndex(AnyIndex):
    """Inverted lists of product-quantised vectors, rescored exactly."""

    type: Literal["ivf_pq"]
    build: PqBuild = PqBuild()
    search: PqSearch = PqSearch()


class HnswIndex(AnyIndex):
    """A navigable graph over exact vectors; CPU only."""

    type: Literal["hnsw"]
    build: HnswBuild = HnswBuild()
    search: HnswSearch = HnswSearch()
    runs_on_gpu: ClassVar[bool] = False


class FusedSearch(Settings):
    """``rescore``: float32 ranks by the original vectors and proves it; float16 takes a third of the GPU memory."""

    rescore: Literal["float32", "float16"] = "float32"


class FusedIndex(AnyIndex):
    """Every vector, compared exactly by our own GPU kernels; on a CPU it is searched as ``flat``."""

    type: Literal["fused"]
    build: ExactBuild = ExactBuild()
    search: FusedSearch = FusedSearch()


class FactoryIndex(AnyIndex):
    """An index as ``faiss.index_factory`` spells it."""

    factory: Annotated[str, Field(min_length=1, max_length=200)]
    search: FactorySearch = FactorySearch()
    type: ClassVar[str] = "factory"

    @property
    def fits_gpu(self) -> bool:
        """Whether FAISS has GPU code for every part of the factory string."""
        return re.search(r"HNSW|NSG|LSH|RQ|LSQ|RFlat|Refine|fs|ZnLattice|IDMap|ITQ|Binary", self.factory) is None


INDEX_TYPES: dict[str, type[AnyIndex]] = {
    "flat": FlatIndex,
    "ivf_flat": IvfFlatIndex,
    "ivf_sq": IvfSqIndex,
    "ivf_pq": IvfPqIndex,
    "hnsw": HnswIndex,
    "fused": FusedIndex,
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
    Annotated[FlatIndex, Tag("flat")]
    | Annotated[IvfFlatIndex, Tag("ivf_flat")]
    | Annotated[IvfSqIndex, Tag("ivf_sq")]
    | Annotated[IvfPqIndex, Tag("ivf_pq")]
    | Annotated[HnswIndex, Tag("hnsw")]
    | Annotated[FusedIndex, Tag("fused")]
    | Annotated[FactoryIndex, Tag("factory")],
    Discriminator(_index_tag),
]
