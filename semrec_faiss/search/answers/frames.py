"""Answers as tables: pyarrow first, pandas and polars from it, columns and types from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.titles.columns import column_of_numbers, column_of_texts
from semrec_faiss.errors import MissingPackageError
from semrec_faiss.search.answers.result import OURS, shown_names

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.search.answers.batch import Answers

Places = NDArray[np.int32]
"""Indices, of which Arrow takes half as long as of int64."""

BITS_A_ROW = 32
"""Where the last row is below so many times their number, distinct rows are found by a mask, and else by sorting."""


def arrow_table(answers: Answers) -> pa.Table:
    """Return one row per query and title; see `Answers.to_arrow`."""
    import pyarrow as pa

    query_of, rank, rows, scores = _pairs(answers)
    distinct, place_of = _distinct(rows)
    titles = answers.titles.columns(distinct)  # in their order: what is taken here and there waits for memory each time
    at = column_of_numbers(place_of)
    fields = [name for name in answers.titles.fields if name not in ("media_id", "title")]
    found = titles.select(["media_id", *fields]).take(at)
    asked = {f"query_{name}": _asked(values) for name, values in answers.asked.items()}
    columns = {name: values.take(column_of_numbers(query_of)) for name, values in asked.items()}
    columns["rank"] = column_of_numbers(rank)
    columns["media_id"] = found["media_id"]
    columns["title"] = pa.DictionaryArray.from_arrays(at, titles["title"])
    columns["score"] = column_of_numbers(scores)
    names = shown_names(answers.titles.fields, (*asked, *OURS))
    return pa.table(columns | {names[name]: found[name] for name in fields})


def _pairs(answers: Answers) -> tuple[Places, Places, Rows, Scores]:
    """Return query, rank, title row and score of each title found, in order: four arrays (titles found,)."""
    queries, k = answers.rows.shape
    query_of, rank = np.arange(queries, dtype=np.int32), np.arange(1, k + 1, dtype=np.int32)
    if k and (answers.rows[:, -1] >= 0).all():  # as nearly always
        return query_of.repeat(k), np.tile(rank, queries), answers.rows.ravel(), answers.scores.ravel()
    kept = answers.rows >= 0
    at, place = np.nonzero(kept)
    return query_of[at], rank[place], answers.rows[kept], answers.scores[kept]


def _distinct(rows: Rows) -> tuple[Rows, Places]:
    """Return the distinct ones of some rows, ascending, and the place of each row among them."""
    most = int(rows.max(initial=0)) + 1
    if most > BITS_A_ROW * len(rows):
        distinct, at = np.unique(rows, return_inverse=True)
        return distinct, at.reshape(-1).astype(np.int32)
    is_there = np.zeros(most, np.bool_)
    is_there[rows] = True
    distinct = np.flatnonzero(is_there)
    place_of = np.empty(most, np.int32)
    place_of[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, place_of[rows]


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
    """Return what was asked as a column: positions, texts and truth values as they are, a taste as JSON text."""
    import pyarrow as pa

    if isinstance(values, range):
        return column_of_numbers(np.asarray(values, np.int64))
    if values and isinstance(values[0], bool):
        return pa.array(values, pa.bool_())
    if values and isinstance(values[0], int):
        return column_of_numbers(np.array(values, np.int64))
    if not values or isinstance(values[0], str):
        return column_of_texts(values)
    return column_of_texts([json.dumps(value, ensure_ascii=False) for value in values])


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
