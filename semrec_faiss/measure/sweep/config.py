"""The sweep file: what is measured on which data, as frozen models; mistakes carry file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from semrec_faiss.config.index_types import INDEX_TYPES, Settings
from semrec_faiss.config.mistakes import describe_all
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.errors import ConfigError, UsageError

MOST_K = 2048
MOST_BATCH = 1_000_000
DEFAULT_RESULTS = Path("results")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What results may be called, so that they are a folder's name."""


def as_list(value: Any) -> Any:
    """Take one value for a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a value that is given twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} holds a value twice")
    return values


Model = TypeVar("Model", bound=BaseModel)

MOST_SEED = 2**31 - 1
"""FAISS holds a seed in 32 bits, with a sign."""

MOST_COUNT = 10**9

Seed = Annotated[int, Field(ge=0, le=MOST_SEED, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(as_list), Field(min_length=1)]
Folders = Annotated[tuple[Path, ...], BeforeValidator(as_list), Field(min_length=1)]
Clauses = Annotated[tuple[str, ...], BeforeValidator(as_list)]


class QuerySettings(Settings):
    """Which questions are asked: titles, which are then not in the index, and users, drawn apart by one seed."""

    titles: Annotated[int, Field(ge=0, strict=True)] = 200
    users: Annotated[int, Field(ge=0, strict=True)] = 200
    seed: Seed = 7

    @model_validator(mode="after")
    def _some(self) -> QuerySettings:
        if not self.titles + self.users:
            raise ValueError("at least one title or user must be asked")
        return self


def query_settings(*, titles: int, users: int, seed: int) -> QuerySettings:
    """Make query settings from a command's options; raises UsageError when nothing is asked."""
    if not titles + users:
        raise UsageError("at least one title or user must be asked", fix="--titles 200, say")
    return QuerySettings(titles=titles, users=users, seed=seed)


class Sweep(Settings):
    """A whole sweep file.

    ``grid`` is a list of mappings with the keys of a config's ``index`` and ``device``, any value of which may be a
    list of alternatives.
    """

    name: Annotated[str, Field(pattern=NAME)]
    dataset: Folders
    grid: Annotated[tuple[dict[str, Any], ...], BeforeValidator(as_list), Field(min_length=1)]
    results: Path = DEFAULT_RESULTS
    queries: QuerySettings = QuerySettings()
    k: Counts = (10,)
    batch: Counts = (1, 100)
    filters: Clauses = ()
    slice: str | None = None
    repeats: Annotated[int, Field(ge=2, strict=True)] = 20
    warmup: Annotated[int, Field(ge=0, strict=True)] = 2
    time_budget_s: Seconds | None = None

    @field_validator("dataset", "k", "batch", "filters")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return distinct(values)

    @field_validator("dataset")
    @classmethod
    def _told_apart(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [folder.name for folder in folders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two data folders are called {twice!r}, so that results could not tell them apart")
        return folders

    @field_validator("k")
    @classmethod
    def _possible_k(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if max(values) > MOST_K:
            raise ValueError(f"should be at most {MOST_K}, not {max(values)}")
        return tuple(sorted(values))

    @field_validator("batch")
    @classmethod
    def _possible_batch(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if max(values) > MOST_BATCH:
            raise ValueError(f"should be at most {MOST_BATCH}, not {max(values)}")
        return tuple(sorted(values))

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.results / self.name


def load_sweep(path: str | Path, overrides: tuple[str, ...] = ()) -> tuple[Sweep, YamlSource]:
    """Read a sweep file and apply overrides such as ``repeats=5``.

    Returns:
        The sweep, and the source that knows the line of every key.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it has mistakes; all of them are listed, with file and line.
        UsageError: an override is not of the form KEY=VALUE.
    """
    source = read_source(path, overrides)
    return validate_sweep(Sweep, source), source


def read_source(path: str | Path, overrides: tuple[str, ...]) -> YamlSource:
    """Read a file and apply overrides; raises as `load_sweep` does."""
    source = YamlSource.read(Path(path))
    for assignment in overrides:
        source.override(assignment)
    return source


def validate_sweep(model: type[Model], source: YamlSource) -> Model:
    """Make a model of what a file holds, or raise the ConfigError that lists its mistakes."""
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        mistakes = describe_all([dict(mistake) for mistake in error.errors()], source, model, INDEX_TYPES)
    raise mistakes_in(source, mistakes)


def mistakes_in(source: YamlSource, mistakes: list[str]) -> ConfigError:
    """Make the error that lists all mistakes of a file."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    listing = "\n".join(f"  {mistake}" for mistake in mistakes)
    return ConfigError(f"{count} in {source.path or 'the settings'}:\n{listing}")


def known_sweep_keys() -> list[str]:
    """Every key that a sweep file may hold outside its grid, dotted, sorted: for documentation and its test."""
    queries = {f"queries.{name}" for name in QuerySettings.model_fields}
    return sorted(set(Sweep.model_fields) | queries)
