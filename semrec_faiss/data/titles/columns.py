"""The titles' fields as Arrow columns, mapped from disk: what tables of answers are taken from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.storage import too_many_open

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_TITLES = 1 << 16
"""Titles in a record batch of the file."""

_MOST_TEXT_BYTES = (1 << 31) - 1
"""What the offsets of an Arrow array of texts reach."""

_TYPES = {"BIGINT": "int64", "BOOLEAN": "bool_"}
_TYPES |= dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"), "int64")
_TYPES |= dict.fromkeys(("DOUBLE", "FLOAT", "DECIMAL"), "float64")
"""What is no text, as the records' JSON has it; dates, objects and integers that may exceed 64 bits are text."""


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a field's DuckDB type; JSON is text."""
    import pyarrow as pa

    if kind.endswith("[]"):
        return pa.list_(arrow_type(kind[:-2]))
    found: pa.DataType = getattr(pa, _TYPES.get(kind.partition("(")[0], "string"))()
    return found


def column_of_numbers(values: NDArray[Any]) -> pa.Array:
    """Return numbers as an Arrow array; `pyarrow.array` would import pandas where there is one, for half a second."""
    import pyarrow as pa

    held = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(held.dtype), len(held), [None, pa.py_buffer(held)])


def column_of_texts(texts: Sequence[str]) -> pa.Array:
    """Return texts as an Arrow array; see `column_of_numbers`.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    import pyarrow as pa

    joined = "".join(texts)
    lengths = map(len, texts) if joined.isascii() else (len(text.encode()) for text in texts)
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, len(texts)), out=ends[1:])
    if ends[-1] > _MOST_TEXT_BYTES:
        return pa.array(texts, pa.string())
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(joined.encode())]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def columns_of(records: Iterable[Mapping[str, Any]], fields: Mapping[str, str]) -> pa.RecordBatch:
    """Return records by column: one a field, of the type that ``fields`` gives; JSON as text."""
    import pyarrow as pa

    held = list(records)
    return pa.RecordBatch.from_pydict({name: _column(held, name, kind) for name, kind in fields.items()})


def _column(records: list[Mapping[str, Any]], name: str, kind: str) -> pa.Array:
    import pyarrow as pa

    values = [record.get(name) for record in records]
    if kind == "JSON":
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    wanted = arrow_type(kind)
    return pa.array([_fitting(value, wanted) for value in values], wanted)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value as it is; where a text is wanted and it is none, such as an object, its JSON.

    A whole number of a DECIMAL becomes the nearest float, which Arrow refuses to make of a large one.
    """
    import pyarrow as pa

    if value is None or isinstance(value, str):
        return value
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_list(kind):
        return [_fitting(one, kind.value_type) for one in value]
    return json.dumps(value, ensure_ascii=False) if pa.types.is_string(kind) else value


class ColumnsWriter:
    """Writes the fields of titles to a file of Arrow's stream format, in row order, a batch at a time."""

    def __init__(self, path: Path, fields: Mapping[str, str]) -> None:
        """Write to ``path`` the ``fields``, each of its DuckDB type; raises OSError when the disk refuses."""
        import pyarrow as pa

        self._fields = fields
        self._records: list[Mapping[str, Any]] = []
        self._file = pa.OSFile(str(path), "wb")
        schema = pa.schema([(name, arrow_type(kind)) for name, kind in fields.items()])
        self._stream = pa.ipc.new_stream(self._file, schema)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a title."""
        self._records.append(record)
        if len(self._records) == BATCH_TITLES:
            self._write()

    def _write(self) -> None:
        self._stream.write_batch(columns_of(self._records, self._fields))
        self._records = []

    def __enter__(self) -> ColumnsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self._write()
            self._stream.close()
        self._file.close()


class StoredColumns:
    """The columns of a file that `ColumnsWriter` wrote, mapped when the first are taken; safe for many threads."""

    def __init__(self, path: Callable[[], Path], fields: Mapping[str, str], count: int) -> None:
        """Take from the file that ``path`` gives, held against its digest, of ``count`` titles."""
        self._path = path
        self._fields = fields
        self._count = count

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        """The batches of the fields in their order."""
        import pyarrow as pa

        path = self._path()
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all().select(list(self._fields))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise too_many_open(error, path) or DamagedIndexError(
                f"{path} cannot be read: {error}", fix="build the index again"
            ) from error
        if table.num_rows != self._count:
            raise DamagedIndexError(f"{path} holds {table.num_rows} titles, there are {self._count}")
        batches: list[pa.RecordBatch] = table.to_batches()
        return batches

    def take(self, rows: Rows, names: Sequence[str] | None = None) -> pa.RecordBatch:
        """Return the titles in ``rows``, int64 (n,), in that order: a column a field, all or those of ``names``."""
        batches = self._batches if names is None else [batch.select(list(names)) for batch in self._batches]
        if len(batches) == 1:
            return _taken(batches[0], rows)
        # Arrow would first copy all batches together.
        import pyarrow as pa

        order = None if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")
        ordered = rows if order is None else rows[order]
        bounds = np.searchsorted(ordered, BATCH_TITLES * np.arange(len(batches) + 1))
        parts = [
            _taken(batch, ordered[bounds[place] : bounds[place + 1]] - BATCH_TITLES * place)
            for place, batch in enumerate(batches)
            if bounds[place] < bounds[place + 1]
        ]
        if not parts:
            return batches[0].slice(0, 0) if batches else columns_of((), self._fields)
        [together] = pa.Table.from_batches(parts).combine_chunks().to_batches()
        if order is None:
            return together
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return _taken(together, back)


def _taken(batch: pa.RecordBatch, rows: Rows) -> pa.RecordBatch:
    """Take rows of a batch, which has fewer than int32 reaches: of int64 Arrow takes twice as long."""
    return batch.take(column_of_numbers(rows.astype(np.int32)))
