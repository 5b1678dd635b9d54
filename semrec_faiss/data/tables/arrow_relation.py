"""An Arrow table in memory as rows that DuckDB reads, with the types that they would have in a Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.folder.relation import ROW_NUMBER
from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class ArrowRelation:
    """The rows of an Arrow table, whose columns have the types that they would have in a Parquet file.

    Attributes:
        name: for messages.
        table: a pyarrow table.
    """

    name: str
    table: Any

    @classmethod
    def of(cls, name: str, table: Any) -> ArrowRelation:
        """Take a table with columns of any type; raises DataError where a value does not fit."""
        schema = pa.schema([field.with_type(_as_in_parquet(field.type)) for field in table.schema])
        try:
            return cls(name, table if schema.equals(table.schema) else table.cast(schema))
        except pa.ArrowException as error:
            raise DataError(f"{name} cannot be read: {error}", fix="write these values as another type") from error

    @property
    def parts(self) -> list[ArrowRelation]:
        """Itself."""
        return [self]

    def place(self, row: int) -> str:
        """Say where a row is, as Python counts."""
        return f"{self.name}[{row}]"

    def sql(self, connection: DuckDBPyConnection, *, numbered: bool = False) -> str:
        """Let the connection see the table, and return its name there."""
        table = self.table
        if numbered:
            table = table.append_column(ROW_NUMBER, pa.array(np.arange(len(table))))
        name = f"arrow_{id(self)}"
        connection.register(name, table)
        return quoted_name(name)


def _as_in_parquet(kind: Any) -> Any:
    """Return the type that DuckDB reads as it reads a Parquet file written of ``kind``."""
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name not in ("arrow.uuid", "arrow.json"):
        return _as_in_parquet(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _as_in_parquet(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_in_parquet(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_as_in_parquet(kind.value_type))
    return _plain_as_in_parquet(kind)


def _plain_as_in_parquet(kind: Any) -> Any:
    if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind):
        return pa.int64()
    return pa.float32() if pa.types.is_float16(kind) else kind
