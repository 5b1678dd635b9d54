"""The sweep file: what is measured on which data, as frozen models; mistakes carry file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.measure.documents.fields import Text
from semrec_faiss.measure.trials.settings import DEFAULT_RESULTS, Name, QuerySettings, Seconds, as_list, distinct

MOST_K = 2048
MOST_BATCH = 1_000_000


AtLeastOne = Annotated[int, Field(ge=1, strict=True)]
Counts = Annotated[tuple[AtLeastOne, ...], BeforeValidator(as_list), Field(min_length=1)]
Folders = Annotated[tuple[LocalPath, ...], BeforeValidator(as_list), Field(min_length=1)]
Clauses = Annotated[tuple[Text, ...], BeforeValidator(as_list)]


class Sweep(Settings):
    """A whole sweep file.

    ``grid`` is a list of mappings with the keys of a config's ``index`` and ``device``, any value of which may be a
    list of alternatives.
    """

    name: Name
    dataset: Folders
    grid: Annotated[tuple[dict[str, Any], ...], BeforeValidator(as_list), Field(min_length=1)]
    results: LocalPath = DEFAULT_RESULTS
    queries: QuerySettings = QuerySettings()
    k: Counts = (10,)
    batch: Counts = (1, 100)
    filters: Clauses = ()
    slice: Text | None = None
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


def known_sweep_keys() -> list[str]:
    """Every key that a sweep file may hold outside its grid, dotted, sorted: for documentation and its test."""
    queries = {f"queries.{name}" for name in QuerySettings.model_fields}
    return sorted(set(Sweep.model_fields) | queries)
