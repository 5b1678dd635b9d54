"""The sweep file: what is measured on which data, as frozen models; mistakes carry file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.measure.documents.fields import Text
from semrec_faiss.measure.trials.settings import (
    DEFAULT_RESULTS,
    Name,
    QuerySettings,
    Seconds,
    as_list,
    distinct,
    told_apart,
)

MOST_K = 2048
MOST_BATCH = 1_000_000
UpToMostK = Annotated[int, Field(ge=1, le=MOST_K, strict=True)]
UpToMostBatch = Annotated[int, Field(ge=1, le=MOST_BATCH, strict=True)]

Ascending = AfterValidator(lambda values: tuple(sorted(values)))
AllK = Annotated[tuple[UpToMostK, ...], BeforeValidator(as_list), Field(min_length=1), Ascending]
Batches = Annotated[tuple[UpToMostBatch, ...], BeforeValidator(as_list), Field(min_length=1), Ascending]
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
    k: AllK = (10,)
    batch: Batches = (1, 100)
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
        return told_apart(folders, "data folders")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.results / self.name
