"""Rows that DuckDB reads: of Parquet files here, of an Arrow table in data/tables, with the same types from either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from semrec_faiss.data.folder.parquet import parquet_parts, parquet_source, row_place

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROW_NUMBER = "file_row_number"
"""The column of a relation that numbers its rows from 0, where it is asked for."""


class Relation(Protocol):
    """Rows by their columns."""

    @property
    def name(self) -> Path | str:
        """Where they are from, for messages."""
        ...

    @property
    def parts(self) -> Sequence[Relation]:
        """Its files, each by itself; itself where it is one."""
        ...

    def place(self, row: int) -> str:
        """Say where a row is, counted from 0."""
        ...

    def sql(self, connection: DuckDBPyConnection, *, numbered: bool = False) -> str:
        """Return what a query of this connection reads them from; ``numbered`` adds the column `ROW_NUMBER`."""
        ...


@dataclass(frozen=True)
class ParquetRelation:
    """The rows of a Parquet file, or of a folder of parts.

    Attributes:
        path: the file or folder.
        told: what messages call it, where that is not its path.
    """

    path: Path
    told: str = ""

    @property
    def name(self) -> Path | str:
        """Where the rows are from, for messages."""
        return self.told or self.path

    @property
    def parts(self) -> list[ParquetRelation]:
        """Its files, each by itself; raises DataError for a folder that is none of parts."""
        return [ParquetRelation(part, self.told) for part in parquet_parts(self.path)]

    def place(self, row: int) -> str:
        """Say in which file a row is, and its number there, from 1."""
        return f"{self.told}: row {row + 1:,}" if self.told else row_place(self.path)(row)

    def sql(self, connection: DuckDBPyConnection, *, numbered: bool = False) -> str:
        """Return ``read_parquet(…)``; raises DataError for a folder that is none of parts."""
        return parquet_source(self.path, numbered=numbered)
