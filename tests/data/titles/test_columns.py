"""Titles by column: written in batches, mapped, and taken in any order; damage and a wrong count are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from semrec_faiss.data.titles import columns
from semrec_faiss.data.titles.columns import (
    ColumnsWriter,
    StoredColumns,
    column_of_numbers,
    column_of_texts,
    columns_of,
)
from semrec_faiss.errors import DamagedIndexError

FIELDS = {"media_id": "VARCHAR", "year": "BIGINT", "genres": "VARCHAR[]", "mixed": "JSON"}


def record(row: int) -> dict[str, Any]:
    return {
        "media_id": f"m{row}",
        "year": 1900 + row if row % 3 else None,
        "genres": ["Drama"] * (row % 2),
        "mixed": {"deep": row} if row % 2 else None,
    }


def told(row: int) -> dict[str, Any]:
    return record(row) | {"mixed": f'{{"deep": {row}}}' if row % 2 else None}


def written(folder: Path, count: int) -> StoredColumns:
    with ColumnsWriter(folder / "c.arrow", FIELDS) as writer:
        for row in range(count):
            writer.add(record(row))
    return StoredColumns(lambda: folder / "c.arrow", FIELDS, count)


@pytest.mark.parametrize("count", [1, 9, 10, 31])
def test_any_rows_of_any_batches(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH_TITLES", 10)
    stored = written(tmp_path, count)
    rng = np.random.default_rng(count)
    for rows in (np.arange(count), rng.integers(count, size=50), np.array([count - 1, 0]), np.empty(0, np.int64)):
        assert stored.take(rows).to_pylist() == [told(row) for row in rows.tolist()]
    assert stored.take(np.array([0]), ("year",)).to_pylist() == [{"year": told(0)["year"]}]


def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 5)
    with pytest.raises(DamagedIndexError, match="holds 5 titles, there are 6"):
        StoredColumns(lambda: tmp_path / "c.arrow", FIELDS, 6).take(np.array([0]))
    with pytest.raises(DamagedIndexError, match="cannot be read"):
        StoredColumns(lambda: tmp_path / "c.arrow", FIELDS | {"other": "BIGINT"}, 5).take(np.array([0]))
    (tmp_path / "c.arrow").write_bytes(b"nothing of Arrow's")
    with pytest.raises(DamagedIndexError, match="cannot be read"):
        StoredColumns(lambda: tmp_path / "c.arrow", FIELDS, 5).take(np.array([0]))


def test_fields_of_any_type_become_columns() -> None:
    """Once a fault: an index of titles with decimals or objects could not be built."""
    kinds = {
        "price": "DECIMAL(10,2)",
        "weight": "FLOAT",
        "stock": "USMALLINT",
        "day": "DATE",
        "maker": "STRUCT(name VARCHAR)",
        "sizes": "INTEGER[]",
        "makers": "STRUCT(name VARCHAR)[]",
        "box": "FLOAT[2]",
        "huge": "HUGEINT",
        "number": "DECIMAL(38,0)",
        "numbers": "DECIMAL(20,0)[]",
    }
    record: dict[str, Any] = {
        "price": 1.25,
        "weight": 0.5,
        "stock": 7,
        "day": "2024-05-01",
        "maker": {"name": "é"},
        "sizes": [1, None],
        "makers": [{"name": "a"}],
        "box": [1.0, 2.0],
        "huge": 2**70,
        "number": 10**37,  # as some databases have every number; of this, and of the next, Arrow makes no float
        "numbers": [2**53 + 1, 7],
    }
    found = columns_of([record, {}], kinds).to_pylist()
    texts = {"maker": '{"name": "é"}', "makers": ['{"name": "a"}'], "box": "[1.0, 2.0]", "huge": str(2**70)}
    floats = {"number": 1e37, "numbers": [float(2**53), 7.0]}
    assert found == [record | texts | floats, dict.fromkeys(kinds)]


@pytest.mark.parametrize("texts", [[], [""], ["one", "", "three"], ["é", "日本", "plain", "\U0001f600"]])
def test_texts_become_a_column(texts: list[str]) -> None:
    column = column_of_texts(texts)
    column.validate(full=True)
    assert (column.to_pylist(), str(column.type)) == (texts, "string")


def test_more_text_than_offsets_reach_is_left_to_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MOST_TEXT_BYTES", 3)
    assert column_of_texts(["four", "é"]).to_pylist() == ["four", "é"]


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        column_of_texts(["a", "\ud800"])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32])
def test_numbers_become_a_column(kind: type[Any]) -> None:
    numbers = np.arange(10).astype(kind)
    column = column_of_numbers(numbers[::3])
    column.validate(full=True)
    assert column.to_pylist() == [0, 3, 6, 9]
    assert column.type == pa.from_numpy_dtype(numbers.dtype)
