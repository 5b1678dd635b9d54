"""Answers as tables: pyarrow first, pandas and polars from it, columns and types from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.errors import MissingPackageError
from semrec_faiss.search.answers.result import OURS, shown_names

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.search.answers.batch import Answers


def arrow_table(answers: Answers) -> pa.Table:
    """Return a row a query and title; see `Answers.to_arrow`."""
    import pyarrow as pa

    kept = answers.rows >= 0
    query_of, place = np.nonzero(kept)
    rows = answers.rows[kept]
    titles = answers.titles.columns(rows)
    asked = {f"query_{name}": _asked(values) for name, values in answers.asked.items()}
    columns = {name: values.take(pa.array(query_of)) for name, values in asked.items()}
    columns["rank"] = pa.array(place + 1, pa.int32())
    columns["media_id"] = titles["media_id"]
    columns["title"] = _encoded(titles["title"], rows)
    columns["score"] = pa.array(answers.scores[kept], pa.float32())
    fields = answers.titles.fields
    names = shown_names(fields, (*asked, *OURS))
    for name in fields:
        if name not in ("media_id", "title"):
            columns[names[name]] = titles[name]
    return pa.table(columns)


def _encoded(texts: pa.ChunkedArray, rows: Rows) -> pa.Array:
    """Encode titles by a dictionary that has each row's once: rows are told apart sooner than texts."""
    import pyarrow as pa

    last_of = np.empty(int(rows.max(initial=0)) + 1, np.int32)  # only where there are such rows is it touched
    places = np.arange(len(rows), dtype=np.int32)
    last_of[rows] = places
    last = last_of[rows]
    is_last = last == places
    at = (np.cumsum(is_last, dtype=np.int32) - 1)[last]
    distinct = texts.take(pa.array(np.flatnonzero(is_last))).combine_chunks()
    return pa.DictionaryArray.from_arrays(pa.array(at, pa.int32()), distinct)


def pandas_frame(table: pa.Table) -> Any:
    """Return a table as a pandas DataFrame; integers and truth values may be missing and stay what they are."""
    pandas = _library("pandas")
    import pyarrow as pa

    nullable = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return _decoded(table).to_pandas(types_mapper=nullable.get)


def polars_frame(table: pa.Table) -> Any:
    """Return a table as a polars DataFrame."""
    return _library("polars").from_arrow(_decoded(table))


def _asked(values: Sequence[Any]) -> pa.Array:
    """Return what was asked as a column: positions as numbers, texts as they are, a taste as JSON text."""
    import pyarrow as pa

    if isinstance(values, range):
        return pa.array(np.asarray(values), pa.int64())
    if values and isinstance(values[0], int):
        return pa.array(values, pa.int64())
    if all(type(value) is str for value in values):
        return pa.array(values, pa.string())
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
