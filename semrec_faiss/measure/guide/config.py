"""What `semrec compare` asks, the targets that answers are held against, and the prices of machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.reading import read_source, validated

MOST_BATCH = 1_000_000


def _counts(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


AtLeastOne = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0)]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MOST_BATCH, strict=True)], ...],
    BeforeValidator(_counts),
    Field(min_length=1),
    AfterValidator(lambda counts: tuple(sorted(set(counts)))),
]


class SimilaritySettings(Settings):
    """Test 1: titles asked for, one of each of the largest franchises by default."""

    titles: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    franchises: AtLeastOne = 5
    k: Annotated[int, Field(ge=3, strict=True)] = 10
    target_franchise_share: Share = 1.0
    target_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.6
    target_gpu_ms: AboveZero = 1.0


class PersonalizationSettings(Settings):
    """Test 2: users, by number or by id."""

    users: AtLeastOne | Annotated[tuple[str, ...], Field(min_length=1)] = 5
    k: AtLeastOne = 5
    target_genre_alignment: Share = 0.8
    target_gpu_ms: AboveZero = 2.0


class BatchSettings(Settings):
    """Test 3: batches of users."""

    sizes: Counts = (10, 100, 1000)
    k: AtLeastOne = 10
    target_qps_at_100: AboveZero = 1000.0


class FilteringSettings(Settings):
    """Test 4: one genre, and random masks of these shares."""

    title: str | None = None
    genre: str = "Sci-Fi"
    k: AtLeastOne = 10
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.1, 0.01, 0.001)


class MemorySettings(Settings):
    """Test 5: memory while these batches are searched; gigabytes are 10⁹ bytes."""

    batches: Counts = (100, 10_000)
    target_base_gb: AboveZero = 2.0
    target_peak_gb: AboveZero = 5.0
    target_headroom: Share = 0.9
    headroom_of_gb: AboveZero = 40.0


class ParitySettings(Settings):
    """How many queries are answered on CPU and GPU alike, and how many of them by float64 arithmetic too."""

    queries: AtLeastOne = 1000
    reference_queries: AtLeastOne = 100
    target_overlap: Share = 0.999


class CompareSettings(Settings):
    """A whole compare file."""

    similarity: SimilaritySettings = SimilaritySettings()
    personalization: PersonalizationSettings = PersonalizationSettings()
    batch: BatchSettings = BatchSettings()
    filtering: FilteringSettings = FilteringSettings()
    memory: MemorySettings = MemorySettings()
    parity: ParitySettings = ParitySettings()
    repeats: Annotated[int, Field(ge=2, strict=True)] = 20
    seed: Annotated[int, Field(ge=0, strict=True)] = 7


class GpuPrice(Settings):
    """Prices of one GPU machine an hour; null where it is not offered so."""

    on_demand: AboveZero
    preemptible: AboveZero | None = None
    committed: AboveZero | None = None


class CpuPrice(Settings):
    """The price of a CPU machine a month, and its cores."""

    cores: AtLeastOne = 16
    month: AboveZero = 1408.0


class Prices(Settings):
    """A whole costs file; the defaults are the guide's."""

    currency: str = "USD"
    hours_a_month: AboveZero = 730.0
    monthly_queries: AboveZero = 100e6
    gpu: dict[str, GpuPrice] = Field(
        default_factory=lambda: {"a100": GpuPrice(on_demand=3.67, preemptible=1.10, committed=2.20)}
    )
    gpu_otherwise: str | None = "a100"
    cpu: CpuPrice = CpuPrice()

    @field_validator("gpu_otherwise")
    @classmethod
    def _is_priced(cls, name: str | None, info: Any) -> str | None:
        priced = info.data.get("gpu", {})
        if name is not None and name not in priced:
            raise ValueError(f"{name!r} has no price; gpu lists {', '.join(priced) or 'none'}")
        return name


_MARKS = {"personalization", "monthly_queries"}
"""A key of either kind of settings that no other file has."""

AnySettings = TypeVar("AnySettings", bound=Settings)


def load_settings(kind: type[AnySettings], path: Path | None, overrides: Sequence[str] = ()) -> AnySettings:
    """Read a YAML file of one kind of settings and apply overrides such as ``batch.k=20``.

    Args:
        kind: `CompareSettings` or `Prices`.
        path: the file; None starts from the defaults.
        overrides: ``KEY=VALUE`` each.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it has mistakes; all of them are listed, with file and line.
        UsageError: an override is not of the form KEY=VALUE.
    """
    return validated(kind, read_source(path, overrides, _MARKS & kind.model_fields.keys()))
