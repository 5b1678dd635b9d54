"""Tables that are in memory already: Arrow, pandas, polars, whatever speaks Arrow, and numpy arrays beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semrec_faiss.arguments import array_of, path_of
from semrec_faiss.data.column_names import refuse_same_names
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import is_vector, readable_schema, refuse_vectors, vector_column
from semrec_faiss.data.tables.files import BATCH_ROWS, Table, open_table
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.errors import UsageError, quoted

VECTOR = "vector"


@dataclass(frozen=True)
class MemoryTable:
    """A table in memory, read as those in files are.

    Attributes:
        name: for messages.
        table: a pyarrow table.
    """

    name: str
    table: Any

    @property
    def schema(self) -> Any:
        """The columns."""
        return self.table.schema

    def batches(self, mistakes: Mistakes) -> Iterator[Any]:
        """Yield it in record batches."""
        mistakes.begin_array(self.name)
        yield from (batch for batch in self.table.to_batches(max_chunksize=BATCH_ROWS) if batch.num_rows)


def as_table(value: Any, name: str) -> Table:
    """Return a frame, a mapping of columns, a list of records or the path of a table as a table.

    Raises:
        UsageError: it is none of these.
        NotFoundError, DataError: as `find_files` and `open_table`.
    """
    if isinstance(value, str | Path):
        return open_table(find_files(path_of(value, name)))
    return MemoryTable(name, arrow_of(value, name))


def arrow_of(value: Any, name: str, *, with_index: bool = True) -> Any:
    """Return a pyarrow table of a frame, a mapping of columns or a list of records.

    Args:
        value: of pandas, polars, Arrow, or Python's own.
        name: of the table, for messages.
        with_index: whether the index of a pandas frame is columns, where it has names, as in a file that pandas writes.

    Raises:
        UsageError: it is none of these.
        DataError: two of its columns have one name.
    """
    table = _arrow_of(value, name, with_index=with_index)
    refuse_same_names(name, table.schema.names)
    schema = readable_schema(table.schema)
    return table if schema.equals(table.schema) else table.cast(schema)


def _arrow_of(value: Any, name: str, *, with_index: bool) -> Any:
    try:
        if isinstance(value, pa.Table):
            return value
        if isinstance(value, pa.RecordBatch):
            return pa.Table.from_batches([value])
        if _is_of_pandas(value):
            frame = value.reset_index() if with_index and _has_named_index(value) else value
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        if hasattr(value, "__arrow_c_stream__"):
            return pa.table(value)
        if isinstance(value, Mapping):
            return pa.Table.from_arrays([_column(values) for values in value.values()], list(map(str, value)))
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            keys = dict.fromkeys(key for record in value for key in record)  # pyarrow takes those of the first alone
            columns = [pa.array([record.get(key) for record in value]) for key in keys]
            return pa.Table.from_arrays(columns, list(map(str, keys)))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        parts = [error] if isinstance(error, UnicodeError) else reversed(error.args)  # in which the column comes last
        raise UsageError(
            f"{name} cannot be read as a table: {': '.join(map(str, parts))}",
            fix="give columns of one length, of one type each, and with a name of their own",
        ) from error
    raise UsageError(
        f"{name} is {type(value).__name__}; a table is expected",
        fix="give a pandas or polars DataFrame, an Arrow table, a dict of columns, a list of dicts, or a path",
    )


def _is_of_pandas(value: Any) -> bool:
    """Tell a pandas frame, which by itself hands Arrow its index as a column of numbers."""
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return frame is not None and isinstance(value, frame)


def _has_named_index(frame: Any) -> bool:
    names = frame.index.names
    return any(each is not None for each in names) and not set(names) & set(getattr(frame, "columns", names))


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return vector_array(values)
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    return values if isinstance(values, pa.Array) else pa.array(values)


def vector_array(vectors: Any) -> Any:
    """Return float (n, d) as an Arrow column of vectors.

    Raises:
        UsageError: it has another shape, or holds no floats.
    """
    array = array_of(vectors, "the vectors")
    if array.ndim != 2 or not array.size or array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        raise UsageError(
            f"the vectors are {array.dtype} of shape {array.shape}; floats of shape (count, dimensions) are expected",
            fix="give a float32 array with a row for each title",
        )
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return pa.FixedSizeListArray.from_arrays(pa.array(native.reshape(-1)), native.shape[1])


def titles_table(vectors: Any, metadata: Any, vector: str | None = None) -> tuple[Table, str | None]:
    """Join vectors and metadata to one table; return it and its column of vectors, None where that is to be guessed.

    Args:
        vectors: float (n, d); a series of vectors; a frame of numbers alone, a column a dimension; or None where the
            metadata has them.
        metadata: a table with a row for each vector; None: titles are named by their row.
        vector: the column of vectors, where that is named.

    Raises:
        UsageError: they are none of these, or have different numbers of rows.
    """
    if vectors is None and metadata is None:
        raise UsageError("neither vectors nor metadata are given", fix="give vectors=, a row for each title")
    if vectors is None:
        table = as_table(metadata, "metadata")
        chosen, _ = vector_column(table.name, table.schema, vector)
        if chosen is None:
            raise UsageError(
                f"{table.name} has no column of lists or tensors of floats; its columns are"
                f" {', '.join(f'{one.name} ({one.type})' for one in table.schema)}",
                fix="give vectors=, a row for each title",
            )
        return table, chosen
    if vector is not None:
        raise UsageError(f"the vectors are given, and column {vector!r} is named for them", fix="give one of the two")
    column = vector_array(_numbers(vectors))
    rows = len(column)
    if metadata is None:
        numbers = range(rows)
        named = {"media_id": [f"row_{row}" for row in numbers], "title": [f"Vector {row}" for row in numbers]}
        return MemoryTable("the titles", pa.table(named | {VECTOR: column})), VECTOR
    table = _read(as_table(metadata, "metadata"))
    refuse_vectors("metadata", table.schema, "vectors=")
    if table.num_rows != rows:
        raise UsageError(
            f"there are {rows:,} vectors, but {table.num_rows:,} rows of metadata",
            fix="give a row for each vector, in the same order",
        )
    name = VECTOR
    while name in table.column_names:
        name += "_"
    return MemoryTable("metadata", table.append_column(name, column)), name


def _read(table: Table) -> Any:
    """Return all of a table as Arrow has it; raises DataError with every row that cannot be read."""
    if isinstance(table, MemoryTable):
        return table.table
    mistakes = Mistakes()
    found = pa.Table.from_batches(table.batches(mistakes), table.schema)
    mistakes.raise_all(table.name)
    return found


def _numbers(vectors: Any) -> Any:
    """Return an array or a series as it is, and a frame of numbers, or of vectors alone, as one."""
    if not hasattr(vectors, "columns"):
        return vectors
    table = arrow_of(vectors, "vectors", with_index=False)
    if table.num_columns == 1 and is_vector(table.schema.field(0).type):
        return table.column(0).to_pylist()
    odd = [one for one in table.schema if not (pa.types.is_floating(one.type) or pa.types.is_integer(one.type))]
    if odd:
        raise UsageError(
            f"vectors is a frame whose column {quoted(odd[0].name)} has type {odd[0].type}; numbers alone are expected",
            fix="give the frame as metadata=, without vectors= where one of its columns holds them",
        )
    return np.column_stack([column.to_numpy() for column in table.columns] or [[]])
