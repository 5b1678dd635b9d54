"""The DuckDB table that a catalog is: moving titles in and out, as JSON text and as Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.database import first_line, literal_path, quoted_name, quoted_text, session
from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.errors import DataError, StorageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE = "titles"

BATCH_TITLES = 16384
"""How many titles move at a time."""

_BATCH_CHARACTERS = 16 << 20

_ROW_GROUP = 16384
"""Rows of a Parquet file's groups: few, so that several threads share the reading of a catalog."""


def create_table(connection: DuckDBPyConnection, fields: dict[str, str], *, temporary: bool = False) -> None:
    """Create the empty table with a column for the row and one per field; ``temporary``: of this connection alone."""
    columns = ", ".join(f"{quoted_name(name)} {kind}" for name, kind in fields.items())
    connection.execute(f"CREATE {'TEMP ' if temporary else ''}TABLE {TABLE} ({ROW} BIGINT, {columns})")


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


def load_parquet(connection: DuckDBPyConnection, path: Path) -> tuple[int, dict[str, str]]:
    """Make the table of a file that `copy_to_parquet` wrote; return and raise as `inspect_parquet`."""
    import duckdb

    try:
        connection.execute(f"CREATE TABLE {TABLE} AS FROM {_read(path)}")
    except (duckdb.Error, UnicodeError) as error:
        raise _unreadable(path, error) from error
    return _inspected(connection, TABLE, path)


def inspect_parquet(path: Path) -> tuple[int, dict[str, str]]:
    """Return the number of titles in a file that `copy_to_parquet` wrote, and each field's type, without loading them.

    Raises:
        DataError: the file cannot be read, or is none of these files.
    """
    with session() as connection:
        return _inspected(connection, _read(path), path)


def _read(path: Path) -> str:
    return f"read_parquet({quoted_text(literal_path(path))}, hive_partitioning = false)"


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.resolve()}: cannot read the titles: {first_line(error)}")


def _inspected(connection: DuckDBPyConnection, titles: str, path: Path) -> tuple[int, dict[str, str]]:
    import duckdb

    try:
        columns = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {titles}").fetchall()}
        fields = {name: kind for name, kind in columns.items() if name != ROW}
        if columns.get(ROW) != "BIGINT" or not {"media_id": "VARCHAR", "title": "VARCHAR"}.items() <= fields.items():
            raise DataError(f"{path.resolve()} is not a catalog: it has the columns {', '.join(columns)}")
        count, distinct, last, ids, titles = connection.execute(
            f"SELECT count(*), count(DISTINCT {ROW}), max({ROW}), count(media_id), count(title) FROM {titles}"
        ).fetchall()[0]
    except (duckdb.Error, UnicodeError) as error:
        raise _unreadable(path, error) from error
    if not count or {distinct, last + 1, ids, titles} != {count}:
        raise DataError(
            f"{path.resolve()} is not a catalog: its {count:,} rows are not numbered from 0, or lack media_id or title"
        )
    return count, fields


def insert_kept(
    connection: DuckDBPyConnection, fields: dict[str, str], path: Path, held: dict[str, str], rows: NDArray[np.int64]
) -> None:
    """Fill an empty table with some titles of a file that `copy_to_parquet` wrote.

    Args:
        connection: of the table.
        fields: the table's, with their types.
        path: the file.
        held: the file's fields, with their types, which may be narrower.
        rows: int64 (n,), ascending: which of its rows.
    """
    connection.register("kept", {ROW: np.arange(len(rows)), "held": rows})
    columns = ", ".join(_as_type(name, held.get(name), kind) for name, kind in fields.items())
    connection.execute(
        f"INSERT INTO {TABLE} SELECT kept.{ROW}, {columns} FROM kept JOIN {_read(path)} AS b ON b.{ROW} = kept.held"
    )
    connection.unregister("kept")


def _as_type(name: str, held: str | None, wanted: str) -> str:
    """Return the SQL for a field of a file as a type that may be wider than the file's, or null."""
    column = f"b.{quoted_name(name)}"
    if held is None:
        return f"NULL::{wanted}"
    if held == wanted:
        return column
    return f"to_json({column})" if wanted == "JSON" else f"{column}::{wanted}"


def copy_to_parquet(connection: DuckDBPyConnection, path: Path) -> None:
    """Write the table to a file, in row order.

    Raises:
        StorageError: the file cannot be written.
    """
    import duckdb

    try:
        connection.execute(
            f"COPY (FROM {TABLE} ORDER BY {ROW}) TO {quoted_text(str(path))}"
            f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP}, USE_TMP_FILE false)"
        )
    except (duckdb.Error, OSError, UnicodeError) as error:
        raise StorageError(f"cannot write {path}: {first_line(error)}") from error
