"""Answers as tables: pyarrow first, pandas and polars from it, columns and types from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.data.titles.titles import Record
from semrec_faiss.errors import MissingPackageError
from semrec_faiss.search.answers.result import OURS, record_of, shown_names

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.search.answers.answer import Answers


def arrow_table(answers: Answers) -> pa.Table:
    """Return a row a query and title; see `Answers.to_arrow`."""
    import pyarrow as pa

    kept = answers.rows >= 0
    query_of, place = np.nonzero(kept)
    rows, title_of = np.unique(answers.rows[kept], return_inverse=True)
    records = [record_of(line) for line in answers.titles.lines(rows)]
    asked = {f"query_{name}": _asked(values) for name, values in answers.asked.items()}
    columns = {name: values.take(pa.array(query_of)) for name, values in asked.items()}
    at = pa.array(title_of.reshape(-1), pa.int32())
    columns["rank"] = pa.array(place + 1, pa.int32())
    columns["media_id"] = _column(records, "media_id", "VARCHAR").take(at)
    columns["title"] = pa.DictionaryArray.from_arrays(at, _column(records, "title", "VARCHAR"))
    columns["score"] = pa.array(answers.scores[kept], pa.float32())
    fields = answers.titles.fields
    names = shown_names(fields, (*asked, *OURS))
    for name, kind in fields.items():
        if name not in ("media_id", "title"):
            columns[names[name]] = _column(records, name, kind).take(at)
    return pa.table(columns)


def pandas_frame(table: pa.Table) -> Any:
    """Return a table as a pandas DataFrame; integers and truth values may be missing and stay what they are."""
    pandas = _library("pandas")
    import pyarrow as pa

    nullable = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return _decoded(table).to_pandas(types_mapper=nullable.get)


def polars_frame(table: pa.Table) -> Any:
    """Return a table as a polars DataFrame."""
    return _library("polars").from_arrow(_decoded(table))


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a field's DuckDB type; JSON is text."""
    import pyarrow as pa

    if kind.endswith("[]"):
        return pa.list_(arrow_type(kind[:-2]))
    return {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}.get(kind, pa.string())


def _column(records: Sequence[Record], name: str, kind: str) -> pa.Array:
    import pyarrow as pa

    values = [record.get(name) for record in records]
    if kind == "JSON":
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.array(values, arrow_type(kind))


def _asked(values: Sequence[Any]) -> pa.Array:
    """Return what was asked as a column: positions as numbers, texts as they are, a taste as JSON text."""
    import pyarrow as pa

    if isinstance(values, range):
        return pa.array(np.asarray(values), pa.int64())
    if values and isinstance(values[0], int):
        return pa.array(values, pa.int64())
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())


def _decoded(table: pa.Table) -> pa.Table:
    """Return the table with plain texts for dictionary-encoded ones."""
    import pyarrow as pa

    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"{name} is not installed", fix=f"pip install {name}") from error
