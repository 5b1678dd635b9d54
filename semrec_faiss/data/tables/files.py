"""Reading tables in record batches, so that none needs to fit into memory; every file with the same columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from semrec_faiss.data.column_names import refuse_same_names
from semrec_faiss.data.folder.csv_lines import check_csv_lines, delimiter_of
from semrec_faiss.data.folder.database import first_line, literal_path, quoted_name, quoted_text, session
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import readable_schema
from semrec_faiss.data.tables.source import AS_JSON_LINES, TableFiles
from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 8192
"""Rows read at once."""

_BUFFER_BYTES = 1 << 20
_INDEX = re.compile(r"__index_level_[0-9]+__")
_SAMPLE = 20480
_ANY = ("BOOLEAN", "BIGINT", "DOUBLE", "TIME", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_WIDER = {kind: (kind,) for kind in _ANY} | {"BIGINT": ("BIGINT", "DOUBLE"), "DATE": ("DATE", "TIMESTAMP")}
"""The types that a column of CSV may have when its first lines look like the key; text is what is left."""

_LONGEST_LINE = 64 << 20
_LONGEST_CSV_LINE = 4 << 20  # DuckDB holds sixteen of them for each thread
_JSON = f"format = 'newline_delimited', maximum_object_size = {_LONGEST_LINE}"
_WHOLE_JSON = f"{_JSON}, sample_size = -1, maximum_depth = -1, map_inference_threshold = -1, union_by_name = true"
_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError, UnicodeError)


class Table(Protocol):
    """A table that is read in batches.

    Attributes:
        name: for messages.
        schema: the columns of every batch.
    """

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def schema(self) -> Any:
        """The columns of every batch."""
        ...

    def batches(self, mistakes: Mistakes) -> Iterator[Any]:
        """Yield record batches of ``schema``; rows that cannot be read are noted, and are not among them."""
        ...


def open_table(files: TableFiles, texts: Sequence[str] = ()) -> Table:
    """Open the files of a table and find out its columns.

    Args:
        files: as `find_files` gives them.
        texts: columns of CSV and JSON lines that are texts whatever they look like, such as ids with leading zeros.

    Raises:
        DataError: a file cannot be read, or its columns contradict those of the others.
    """
    if files.format in ("csv", "jsonl"):
        return _TextTable(files, texts)
    return _BinaryTable(files)


class _BinaryTable:
    """Parquet or Arrow IPC files."""

    def __init__(self, files: TableFiles) -> None:
        self.name = files.name
        self._files = files
        schemas = []
        for path in files.files:
            with _explained(path), _reader(path, files.format) as (schema, _):
                refuse_same_names(path, schema.names)
                schemas.append(_without_index(readable_schema(schema)))
        try:
            self.schema = _unified(schemas)
        except _ERRORS as error:
            raise DataError(
                f"{files.name}: its files have different columns: {error}", fix="write them with the same types"
            ) from error

    def batches(self, mistakes: Mistakes) -> Iterator[Any]:
        row = 0
        for path in self._files.files:
            mistakes.begin(str(path), row)
            with _explained(path), _reader(path, self._files.format) as (_, batches):
                for batch in batches:
                    if batch.num_rows:
                        batch.validate(full=True)  # or lengths that are none would be read beyond the file
                        yield _as(batch, self.schema)
                        row += batch.num_rows


def _without_index(schema: Any) -> Any:
    """Leave out the columns that pandas writes of an index without a name, which it reads as one again."""
    if b"pandas" not in (schema.metadata or {}):
        return schema
    return pa.schema([field for field in schema if not _INDEX.fullmatch(field.name)], schema.metadata)


def _unified(schemas: list[Any]) -> Any:
    names = {frozenset(schema.names) for schema in schemas}
    if len(names) > 1:
        differing = sorted(frozenset.union(*names) - frozenset.intersection(*names))
        raise pa.ArrowInvalid(f"not all of them have {', '.join(differing)}")
    first = schemas[0]
    if all(schema.equals(first) for schema in schemas[1:]):
        return first
    return pa.unify_schemas(schemas, promote_options="permissive").with_metadata(first.metadata)


def _as(batch: Any, schema: Any) -> Any:
    if batch.schema.equals(schema):
        return batch
    columns = [batch.column(field.name) for field in schema]
    cast = [each if each.type.equals(field.type) else each.cast(field.type) for each, field in zip(columns, schema)]  # noqa: B905
    return pa.RecordBatch.from_arrays(cast, schema=schema)


@contextmanager
def _reader(path: Path, kind: str) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Open a file: its schema and its batches."""
    if kind == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file.schema_arrow, file.iter_batches(batch_size=BATCH_ROWS)
        return
    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            file.seek(0)
            reader = pa.ipc.open_stream(file)
            batches = iter(reader)
        yield reader.schema, (part for batch in batches for part in _parts(batch))


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(first, BATCH_ROWS) for first in range(0, batch.num_rows, BATCH_ROWS))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}", fix="write or copy it again") from error


class _TextTable:
    """CSV files or JSON lines, read by DuckDB; a column has the type that fits all of its values."""

    def __init__(self, files: TableFiles, texts: Sequence[str]) -> None:
        import duckdb

        self.name = files.name
        self._files = files
        self._csv = files.format == "csv"
        self._delimiter = delimiter_of(files.files[0]) if self._csv else ""
        try:
            with session() as connection:
                self._types = self._found_types(connection, texts)
                columns = ", ".join(f"NULL::{kind} AS {quoted_name(name)}" for name, kind in self._types.items())
                self.schema = connection.sql(f"SELECT {columns} LIMIT 0").to_arrow_table().schema
        except (duckdb.Error, UnicodeError) as error:
            raise self._refused(error) from error

    def batches(self, mistakes: Mistakes) -> Iterator[Any]:
        import duckdb

        row = 0
        for path in self._files.files:
            mistakes.begin(str(path), row)
            try:
                with session() as connection:
                    for batch in connection.sql(f"FROM {self._rows(path)}").to_arrow_reader(BATCH_ROWS):
                        yield batch
                        row += batch.num_rows
                    self._note_rejected(connection, path, mistakes)
            except (duckdb.Error, pa.ArrowException, OSError, UnicodeError) as error:  # as which Arrow tells DuckDB's
                raise self._refused(error) from error

    def _found_types(self, connection: DuckDBPyConnection, texts: Sequence[str]) -> dict[str, str]:
        if not self._csv:
            listed = ", ".join(quoted_text(literal_path(path)) for path in self._files.files)
            found = connection.execute(f"DESCRIBE FROM read_json([{listed}], {_WHOLE_JSON})").fetchall()
            types = {name: kind for name, kind, *_ in found}
            if list(types) == ["json"]:  # what DuckDB calls lines that are no objects
                raise DataError(f"{self.name}: its lines are no objects", fix=AS_JSON_LINES)
            self._check_ids(connection, listed, [name for name in texts if types.get(name, "BIGINT") != "BIGINT"])
            return {name: "VARCHAR" if name in texts else kind for name, kind in types.items()}
        merged: dict[str, str] = {}
        for path in self._files.files:
            types = self._csv_types(connection, path)
            if merged and types.keys() != merged.keys():
                differing = sorted(types.keys() ^ merged.keys())
                raise DataError(
                    f"{path} has other columns than the files before it: {', '.join(differing)}",
                    fix="write all files with the same columns",
                )
            merged = {name: _fitting(merged.get(name, kind), kind) for name, kind in types.items()}
        return merged | {name: "VARCHAR" for name in texts if name in merged}

    def _check_ids(self, connection: DuckDBPyConnection, listed: str, names: Sequence[str]) -> None:
        """Refuse JSON ids that are neither texts nor whole numbers, as true and 1.0 are; raises DataError."""
        if not names:
            return
        fields = ", ".join(f"{quoted_text(name)}: 'JSON'" for name in names)
        is_one = "json_type({0}) IN ('VARCHAR', 'NULL') OR regexp_full_match({0}::VARCHAR, '-?[0-9]+')"
        columns = [quoted_name(name) for name in names]
        firsts = ", ".join(f"first({column}) FILTER (WHERE NOT ({is_one.format(column)}))" for column in columns)
        rows = f"read_json([{listed}], {_JSON}, columns = {{{fields}}})"
        for name, odd in zip(names, connection.execute(f"SELECT {firsts} FROM {rows}").fetchall()[0], strict=True):
            if odd is not None:
                raise DataError(
                    f"{self.name}: column {name} holds {odd}; a text or a whole number is expected",
                    fix="write the ids as texts or whole numbers",
                )

    def _csv_types(self, connection: DuckDBPyConnection, path: Path) -> dict[str, str]:
        """Return the type that fits all values of each column: the first lines propose it, every line is asked.

        Asking DuckDB to look at all lines itself would hold the whole file in memory.
        """
        file = quoted_text(literal_path(path))
        first = f"read_csv({file}, {self._dialect}, store_rejects = true)"
        sampled = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {first}").fetchall()}
        raw = f"read_csv({file}, {self._dialect}, all_varchar = true, store_rejects = true)"
        some = ", ".join(f"count({quoted_name(name)})" for name in sampled)
        known = connection.execute(f"SELECT {some} FROM (FROM {raw} LIMIT {_SAMPLE})").fetchall()[0]
        proposed = {
            name: _WIDER.get(kind, ()) if held else _ANY
            for (name, kind), held in zip(sampled.items(), known, strict=True)
        }
        asked = [(name, kind) for name, kinds in proposed.items() for kind in kinds]
        if not asked:
            return sampled
        fits = ", ".join(f"bool_and({_is_of(quoted_name(name), kind)})" for name, kind in asked)
        answers = connection.execute(f"SELECT {fits} FROM {raw}").fetchall()[0]
        fitting = [one for one, fit in zip(asked, answers, strict=True) if fit]  # null: no value at all
        return {name: next((kind for column, kind in fitting if column == name), "VARCHAR") for name in sampled}

    @property
    def _dialect(self) -> str:
        return (
            f"header = true, delim = {quoted_text(self._delimiter)}, quote = '\"', escape = '\"',"
            f" dateformat = '%Y-%m-%d', max_line_size = {_LONGEST_CSV_LINE}, hive_partitioning = false"
        )

    def _rows(self, path: Path) -> str:
        file = quoted_text(literal_path(path))
        types = ", ".join(f"{quoted_text(name)}: {quoted_text(kind)}" for name, kind in self._types.items())
        if not self._csv:
            return f"read_json({file}, {_JSON}, columns = {{{types}}})"
        return f"read_csv({file}, {self._dialect}, types = {{{types}}}, store_rejects = true)"

    def _note_rejected(self, connection: DuckDBPyConnection, path: Path, mistakes: Mistakes) -> None:
        if not self._csv:
            return
        found = connection.execute("SELECT line, column_name, error_message FROM reject_errors ORDER BY ALL").fetchall()
        if any("not utf-8" in what for _, _, what in found):  # most likely of all lines, and no mistake of one
            check_csv_lines(path, self._delimiter)
        for line, column, what in found:
            place = f"{path}: line {line:,}" + ("" if column is None else f", column {column}")
            mistakes.note_text(f"{place}: {what}")

    def _refused(self, error: BaseException) -> DataError:
        for path in self._files.files:
            if self._csv:
                check_csv_lines(path, self._delimiter)
            else:
                _check_lines(path)
        return DataError(f"{self.name} cannot be read: {first_line(error)}", fix="mend or write it again")


def _is_of(column: str, kind: str) -> str:
    """Return the SQL of whether a text spells a value of a type; null where there is none."""
    cast = f"TRY_CAST({column} AS {kind}) IS NOT NULL"
    holds = {
        "DATE": f"try_strptime({column}, '%Y-%m-%d') IS NOT NULL",
        "BOOLEAN": f"lower({column}) IN ('true', 'false')",
        "BIGINT": f"{cast} AND regexp_full_match(trim({column}), '[-+]?(0|[1-9][0-9]*)')",  # a cast would round 2.5
        "DOUBLE": f"{cast} AND NOT regexp_matches({column}, '^[-+]?0[0-9]')",  # 00123 is a code and no number
    }.get(kind, cast)
    return f"CASE WHEN {column} IS NOT NULL THEN {holds} END"


def _fitting(one: str, other: str) -> str:
    """Return the type that holds the values of both."""
    if one == other:
        return one
    return "DOUBLE" if {one, other} == {"BIGINT", "DOUBLE"} else "VARCHAR"


def _check_lines(path: Path) -> None:
    """Raise what is wrong with the lines of a JSON lines file that is not compressed, all at once."""
    from semrec_faiss.data.folder.metadata_lines import check_json_lines

    if path.suffix.lower() in (".jsonl", ".ndjson"):
        check_json_lines(path)
