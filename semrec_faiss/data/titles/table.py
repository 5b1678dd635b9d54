"""The DuckDB table that a catalog is: opening a database for it, and moving titles in and out as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from semrec_faiss.data.folder.database import quoted_name, quoted_text
from semrec_faiss.data.folder.field_types import ROW

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE = "titles"

BATCH_TITLES = 16384
"""How many titles move at a time."""

_BATCH_CHARACTERS = 16 << 20


def create_table(connection: DuckDBPyConnection, fields: dict[str, str]) -> None:
    """Create the empty table with a column for the row and one a field."""
    columns = ", ".join(f"{quoted_name(name)} {kind}" for name, kind in fields.items())
    connection.execute(f"CREATE TABLE {TABLE} ({ROW} BIGINT, {columns})")


def insert_titles(
    connection: DuckDBPyConnection, fields: dict[str, str], lines: Iterator[str], first: int = 0
) -> Iterator[int]:
    """Append titles given as JSON objects to a table of ``first``; yield how many it holds after each batch."""
    structure = {name: [kind[:-2]] if kind.endswith("[]") else kind for name, kind in fields.items()}
    sql = (
        f"INSERT INTO {TABLE} SELECT {ROW}, unnest(entry) FROM"
        f" (SELECT {ROW}, from_json(line, {quoted_text(json.dumps(structure))}) AS entry FROM batch)"
    )
    for batch in _batches(lines):
        rows = np.arange(first, first + len(batch), dtype=np.int64)
        connection.register("batch", {ROW: rows, "line": np.array(batch, dtype=object)})
        connection.execute(sql)
        connection.unregister("batch")
        first += len(batch)
        yield first


def _batches(lines: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for line in lines:
        batch.append(line)
        characters += len(line)
        if len(batch) == BATCH_TITLES or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
