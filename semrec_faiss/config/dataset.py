"""The dataset section of a config: where the data is, and which of its fields plays which part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.errors import quoted

_Name = Annotated[str, Field(min_length=1, strict=True)] | None


class Fields(Settings):
    """The fields of the data that play a part under another name; such a field is called by its part from then on.

    Filters understand both names: with ``franchise: brand``, ``--max-per brand=2`` and ``--max-per-franchise 2`` say
    the same.
    """

    media_id: _Name = None
    title: _Name = None
    year: _Name = None
    genres: _Name = None
    franchise: _Name = None

    @model_validator(mode="after")
    def _each_plays_one(self) -> Fields:
        named = list(self.parts.values())
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"{quoted(twice[0])} cannot play two parts")
        return self

    @property
    def parts(self) -> dict[str, str]:
        """The field of each part that one of another name plays."""
        return {part: name for part, name in self.model_dump().items() if name is not None and name != part}


class Dataset(Settings):
    """A data folder; written as its path alone where no field is named, as it was before fields could be."""

    folder: LocalPath | None = None
    fields: Fields = Fields()

    @model_validator(mode="before")
    @classmethod
    def _of_path(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return {"folder": value}
        if value is not None and not isinstance(value, dict | Dataset):
            raise ValueError(f"{quoted(value)} is neither a folder nor {{folder: …, fields: …}}")
        return value

    @model_serializer(mode="wrap")
    def _as_path(self, serialize: SerializerFunctionWrapHandler) -> Any:
        values: dict[str, Any] = serialize(self)
        if not self.fields.parts:
            return values.get("folder")
        return {"folder": values.get("folder"), "fields": self.fields.parts}
