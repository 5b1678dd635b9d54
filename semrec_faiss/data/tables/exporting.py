"""A data folder to the table that it came from, bit for bit, or to one table where it came from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semrec_faiss.data.folder.database import first_line
from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, open_vectors
from semrec_faiss.data.folder.recipe import Recipe, read_recipe
from semrec_faiss.data.folder.vectors import release_pages
from semrec_faiss.data.tables.columns import is_vector
from semrec_faiss.data.tables.files import BATCH_ROWS
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.table import TABLE
from semrec_faiss.errors import DataError, StorageError
from semrec_faiss.places import ARROW, PARQUET, check_new_file
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_file, one_run_into

ENDINGS = (".parquet", ".arrow")
_VECTOR = "vector"


@dataclass(frozen=True)
class ExportedTable:
    """What was written.

    Attributes:
        file: the table.
        titles: its rows.
        columns: the names of its columns.
    """

    file: str
    titles: int
    columns: tuple[str, ...]


def export_table(folder: Path, out: Path, progress: Progress = silent) -> ExportedTable:
    """Write titles and vectors of a data folder as one Parquet or Arrow IPC file, whole or not at all.

    What `semrec dataset import` made of a table becomes that table again: the same columns in the same order, of the
    same types, with the same bits.

    Args:
        folder: a data folder.
        out: ends in .parquet or .arrow.
        progress: told the rows written.

    Raises:
        NotFoundError: there is no such folder.
        DataError: it is inconsistent.
        UsageError, StorageError: ``out`` cannot be written.
    """
    check_new_file(out, "OUT", PARQUET if out.suffix.lower() == ".parquet" else ARROW)
    data = find_data_folder(folder, need_vectors=False)
    vectors = open_vectors(data.media_vectors) if data.media_vectors.is_file() else None
    schema, vector, batches = _rows_of(data, vectors)
    categories = Categories({})
    if out.suffix.lower() == ".arrow":
        categories = Categories.found(schema, lambda names: _parquet_batches(data.metadata, names))
        schema = categories.widened(schema)
    rows = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with one_run_into(out), new_file(out) as file, _writer(file, schema, vector, out) as writer:
            for batch in batches:
                writer.write_batch(_with_vectors(batch, schema, categories, vector, vectors, rows))
                if vectors is not None:
                    release_pages(vectors, rows, rows + batch.num_rows)
                rows += batch.num_rows
                progress("writing rows", rows, rows if vectors is None else len(vectors))
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}", fix="name another place") from error
    return ExportedTable(str(out), rows, tuple(schema.names))


def _writer(file: Any, schema: Any, vector: str | None, out: Path) -> Any:
    if out.suffix.lower() == ".parquet":
        repeating = [name for name in schema.names if name != vector]  # no float of a vector is worth a dictionary
        return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeating)
    return pa.ipc.new_file(file, schema)


def _rows_of(data: DataFolder, vectors: NDArray[Any] | None) -> tuple[Any, str | None, Iterator[Any]]:
    """Return the table's schema, its column of vectors, and the batches of the other columns."""
    if data.metadata.suffix != ".parquet":
        catalog = Catalog.read(data.metadata, expect_count=None if vectors is None else len(vectors))
        reader = (
            catalog.cursor().sql(f"SELECT * EXCLUDE ({ROW}) FROM {TABLE} ORDER BY {ROW}").to_arrow_reader(BATCH_ROWS)
        )
        schema, vector = _with_column(reader.schema, vectors)
        return schema, vector, iter(reader)
    recipe, stored = read_recipe(data.metadata)
    schema, vector = _original(recipe, stored, vectors)
    return schema, vector, _parquet_batches(data.metadata)


def _parquet_batches(path: Path, names: list[str] | None = None) -> Iterator[Any]:
    try:
        with closing(pq.ParquetFile(path, pre_buffer=False)) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}", fix="write or copy it again") from error


def _original(recipe: Recipe, stored: Any, vectors: NDArray[Any] | None) -> tuple[Any, str | None]:
    schema = recipe.arrow_schema() or stored
    if recipe.vector is None or vectors is None:
        return _with_column(schema, vectors)
    at = schema.get_field_index(recipe.vector)
    field = schema.field(at)
    if not is_vector(field.type):  # texts that spelled vectors
        schema = schema.set(at, field.with_type(pa.list_(pa.from_numpy_dtype(vectors.dtype.newbyteorder("=")))))
    return schema, recipe.vector


def _with_column(schema: Any, vectors: NDArray[Any] | None) -> tuple[Any, str | None]:
    if vectors is None:
        return schema, None
    name = _VECTOR
    while name in schema.names:
        name += "_"
    kind = pa.list_(pa.from_numpy_dtype(vectors.dtype.newbyteorder("=")), vectors.shape[1])
    return schema.append(pa.field(name, kind)), name


def _with_vectors(
    batch: Any, schema: Any, categories: Categories, vector: str | None, vectors: NDArray[Any] | None, first: int
) -> Any:
    columns = []
    for field in schema:
        if field.name == vector and vectors is not None:
            block = np.ascontiguousarray(vectors[first : first + batch.num_rows]).astype(
                vectors.dtype.newbyteorder("="), copy=False
            )
            columns.append(_vector_array(block, field.type))
            continue
        columns.append(categories.typed(batch.column(field.name), field))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _vector_array(block: NDArray[Any], kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _vector_array(block, kind.storage_type))
    rows, dim = block.shape
    values = pa.array(block.reshape(-1))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    offsets = np.arange(rows + 1, dtype=np.int64) * dim
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, type=kind)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


class Categories:
    """The categories of columns of a table that is written in batches: a file of Arrow IPC holds one list a column."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        """Take, by column, all of its categories; `found` collects them."""
        self._known = known

    @classmethod
    def found(cls, schema: Any, batches: Callable[[list[str]], Iterable[Any]]) -> Categories:
        """Collect the categories of a table; ``batches`` reads the columns that it is asked for."""
        known = {field.name: pa.array([], field.type.value_type) for field in schema if _is_categories(field)}
        for batch in batches(list(known)) if known else ():
            for name, so_far in known.items():
                column = batch.column(name)
                values = column.dictionary if _is_categories(column) else column.unique()
                known[name] = pa.concat_arrays([so_far, values.cast(so_far.type)]).unique().drop_null()
        return cls(known)

    def widened(self, schema: Any) -> Any:
        """Return the schema with indices that tell all categories apart: parts of a table have fewer each."""
        for at, field in enumerate(schema):
            if field.name in self._known and len(self._known[field.name]) > _most(field.type.index_type):
                kind = pa.dictionary(pa.int32(), field.type.value_type, field.type.ordered)
                schema = schema.set(at, field.with_type(kind))
        return schema

    def typed(self, column: Any, field: Any) -> Any:
        """Return an array of a column with the type of ``field``, its categories all of those of the column."""
        known = self._known.get(field.name)
        if known is None:
            return column if column.type.equals(field.type) else column.cast(field.type)
        plain = column.dictionary_decode() if _is_categories(column) else column
        indices = pc.index_in(plain.cast(known.type), known).cast(field.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, known, ordered=field.type.ordered)


def _is_categories(field_or_column: Any) -> bool:
    return bool(pa.types.is_dictionary(field_or_column.type))


def _most(indices: Any) -> int:
    return int(2 ** (indices.bit_width - pa.types.is_signed_integer(indices)))
