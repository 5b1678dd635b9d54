"""What metadata.parquet says about itself: which of its columns play which part, and the table that it came from."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from semrec_faiss.data.column_names import refuse_same_names
from semrec_faiss.errors import DataError

PARTS = ("media_id", "title", "year", "genres", "franchise")
"""What a column may be mapped to."""

NO_PARTS: Mapping[str, str] = MappingProxyType({})
"""Every part is played by the field of its name."""

_KEY = b"semrec_table"


@dataclass(frozen=True)
class Recipe:
    """How a table's columns become the fields of titles.

    Attributes:
        columns: by part (media_id, title, year, genres, franchise), the name of the column that plays it.
        split: by column of texts that are lists, what separates their elements.
        vector: the column that held the vectors; None where they came from elsewhere.
        schema: the whole table's Arrow schema, as IPC in base64; empty where it is not known.
    """

    columns: Mapping[str, str] = field(default_factory=lambda: {part: part for part in PARTS})
    split: Mapping[str, str] = field(default_factory=dict)
    vector: str | None = None
    schema: str = ""

    def column_of(self, part: str, names: list[str]) -> str | None:
        """Return the column of ``names`` that plays a part; None where none does."""
        column = self.columns.get(part, part)
        return column if column in names else None

    def with_parts(self, parts: Mapping[str, str]) -> Recipe:
        """Return the same with other columns playing ``parts``."""
        return replace(self, columns={**self.columns, **parts})

    def with_schema(self, schema: Any) -> Recipe:
        """Return the same for a table of this Arrow schema."""
        return Recipe(self.columns, self.split, self.vector, base64.b64encode(schema.serialize().to_pybytes()).decode())

    def arrow_schema(self) -> Any:
        """Return the whole table's Arrow schema; None where it is not known."""
        import pyarrow as pa

        return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(self.schema))) if self.schema else None

    def metadata(self) -> dict[bytes, bytes]:
        """Return what a Parquet file holds of it."""
        return {_KEY: json.dumps(asdict(self)).encode()}


def read_recipe(path: Path) -> tuple[Recipe, Any]:
    """Read a Parquet file's recipe, the plain one where it has none, and its Arrow schema.

    Raises:
        DataError: it cannot be read, or has two columns of one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        refuse_same_names(path, schema.names)
        text = (schema.metadata or {}).get(_KEY)
        recipe = Recipe() if text is None else Recipe(**json.loads(text))
        recipe.arrow_schema()  # which can be damaged alone
        return recipe, schema
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}", fix="write or copy it again") from error


def check_parts(path: Path | str, parts: Mapping[str, str], fields: Mapping[str, str]) -> None:
    """Refuse a field that is said to play a part and that no title has; raises DataError."""
    missing = [f"{field!r}, which is said to be {part}" for part, field in parts.items() if part not in fields]
    if missing:
        raise DataError(
            f"{path}: no title has the field {', nor '.join(missing)}",
            fix=f"mend dataset.fields; fields: {', '.join(fields)}",
        )
