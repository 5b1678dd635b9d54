"""A table's rows as a Parquet file; what that cannot hold is told as bad data, with the column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from semrec_faiss.errors import DataError


@contextmanager
def staged_rows(name: str, path: Path, schema: Any) -> Iterator[Callable[[Any], None]]:
    """Open ``path`` as a Parquet file of columns; yields what writes a record batch of them.

    Args:
        name: the table, for messages.
        path: the file.
        schema: an Arrow schema.

    Raises:
        DataError: a column has a type that Parquet does not have, or a value that it does not hold.
    """
    _check_writable(name, schema)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(batch: Any) -> None:
            try:
                writer.write_batch(batch)
            except pa.ArrowInvalid as error:
                raise _of_column(name, batch, error) from error

        yield write


def _check_writable(name: str, schema: Any) -> None:
    """Refuse, by DataError, the first column whose type Parquet does not have."""
    for column in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([column])).close()
        except pa.ArrowNotImplementedError as error:
            raise DataError(
                f"{name}: column {column.name} has type {column.type}, which Parquet does not have",
                fix="leave the column out, or write it as another type",
            ) from error


def _of_column(name: str, batch: Any, whole: Exception) -> DataError:
    """Say which column holds what could not be written: a time too far away, say, for the unit that Parquet has."""
    for column in batch.schema:
        try:
            pq.write_table(pa.table({column.name: batch.column(column.name)}), pa.BufferOutputStream())
        except pa.ArrowInvalid as error:
            return DataError(
                f"{name}: column {column.name} holds what Parquet does not: {error}",
                fix="mend these values, or leave the column out",
            )
    return DataError(f"{name} cannot be kept as Parquet: {whole}", fix="mend these values, or leave them out")
