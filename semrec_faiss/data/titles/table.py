"""The DuckDB table that a catalog is: opening a database for it, and moving titles in and out as JSON text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semrec_faiss.data.titles.field_types import ROW

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE = "titles"

BATCH_TITLES = 16384
"""How many titles move at a time."""

_BATCH_CHARACTERS = 16 << 20


def connect() -> DuckDBPyConnection:
    """Open a database in memory that spills to no file, fetches no extension and sees no Python variable."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            # Look-ups are small; as many threads as a large machine has cores would only take time to start.
            "threads": min(4, os.cpu_count() or 1),
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )


def create_table(connection: DuckDBPyConnection, fields: dict[str, str]) -> None:
    """Create the empty table with a column for the row and one a field."""
    columns = ", ".join(f"{quoted_name(name)} {kind}" for name, kind in fields.items())
    connection.execute(f"CREATE TABLE {TABLE} ({ROW} BIGINT, {columns})")


def insert_titles(connection: DuckDBPyConnection, fields: dict[str, str], lines: Iterator[str]) -> Iterator[int]:
    """Append titles given as JSON objects to the table; yield how many it holds after each batch."""
    structure = {name: [kind[:-2]] if kind.endswith("[]") else kind for name, kind in fields.items()}
    sql = (
        f"INSERT INTO {TABLE} SELECT {ROW}, unnest(entry) FROM"
        f" (SELECT {ROW}, from_json(line, {quoted_text(json.dumps(structure))}) AS entry FROM batch)"
    )
    first = 0
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


def json_text(fields: dict[str, str]) -> str:
    """Return the SQL for one title as a JSON object, its fields in order."""
    packed = ", ".join(f"{quoted_name(name)} := {quoted_name(name)}" for name in fields)
    return f"to_json(struct_pack({packed}))::VARCHAR"


def quoted_name(name: str) -> str:
    """Return ``name`` as SQL spells a column."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return ``text`` as SQL spells a string."""
    return "'" + text.replace("'", "''") + "'"


def literal_path(path: Path) -> str:
    """Return ``path`` so that DuckDB reads this one file even where its name holds wildcards."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))


def first_line(error: BaseException) -> str:
    """Return what ``error`` says, without the excerpt of SQL that DuckDB adds."""
    return str(error).split("\n", 1)[0]
