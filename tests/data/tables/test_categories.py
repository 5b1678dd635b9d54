"""Categories of pandas and polars: taken however Arrow holds them, and written back to a file of Arrow IPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semrec_faiss import Recommender
from semrec_faiss.data.tables.exporting import export_table
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.importing import TableWish
from semrec_faiss.errors import DataError
from semrec_faiss.search.filters.filter import Filter

pl = pytest.importorskip("polars")

VECTORS = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
KINDS = [pl.Categorical, pl.Enum(["LG", "Sony"])]


def frame(kind: Any) -> Any:
    return pl.DataFrame(
        {
            "media_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "brand": pl.Series(["Sony", None, "LG"], dtype=kind),
            "also": pl.Series([["LG"], [], None], dtype=pl.List(kind)),
        }
    )


def sold_by(recommender: Recommender, field: str, brand: str) -> list[str]:
    return [title.media_id for title in recommender.search(VECTORS[0], 3, where=Filter(any_of={field: brand}))[0]]


@pytest.mark.parametrize("kind", KINDS, ids=["categorical", "enum"])
def test_categories_of_polars_are_texts(kind: Any) -> None:
    recommender = Recommender.from_arrays(VECTORS, frame(kind))
    assert recommender.catalog.fields["brand"] == "VARCHAR" and recommender.catalog.fields["also"] == "VARCHAR[]"
    assert sold_by(recommender, "brand", "LG") == ["c"] and sold_by(recommender, "also", "LG") == ["a"]


@pytest.mark.parametrize("kind", KINDS, ids=["categorical", "enum"])
@pytest.mark.parametrize("write", ["write_ipc", "write_ipc_stream", "write_parquet"])
def test_categories_in_files_of_polars(tmp_path: Path, write: str, kind: Any) -> None:
    file = tmp_path / ("titles.parquet" if write == "write_parquet" else "titles.arrow")
    getattr(frame(kind).with_columns(vector=pl.Series(VECTORS)), write)(file)
    made = import_folder(file, tmp_path / "data", TableWish()).table
    assert made.fields["brand"] == "VARCHAR" and made.fields["also"] == "VARCHAR[]"
    export_table(tmp_path / "data", tmp_path / "out.arrow")
    again = pa.ipc.open_file(tmp_path / "out.arrow").read_all()
    assert again["brand"].to_pylist() == ["Sony", None, "LG"] and pa.types.is_dictionary(again["brand"].type)
    assert again["also"].to_pylist() == [["LG"], [], None]


def part(first: int, values: list[Any], kind: Any) -> pa.Table:
    rows = range(first, first + 10)
    column = pa.array([values[row % len(values)] for row in rows], kind.value_type).dictionary_encode().cast(kind)
    ids = [f"m{row}" for row in rows]
    return pa.table({"media_id": ids, "title": ids, "kind": column, "vector": [[1.0, float(row)] for row in rows]})


@pytest.mark.parametrize(
    ("first", "second", "kind", "kept"),
    [
        (["a", "b"], ["c", "b", None], pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.string())),
        ([1, None], [2**60, 3], pa.dictionary(pa.int8(), pa.int64()), pa.dictionary(pa.int8(), pa.int64())),
        (["a"], ["b"], pa.dictionary(pa.uint8(), pa.string(), True), pa.dictionary(pa.uint8(), pa.string(), True)),
    ],
    ids=["texts", "numbers", "ordered"],
)
def test_parts_of_other_categories_become_one_file(
    tmp_path: Path, first: list[Any], second: list[Any], kind: Any, kept: Any
) -> None:
    (tmp_path / "parts").mkdir()
    parts = [part(0, first, kind), part(10, second, kind)]
    for number, table in enumerate(parts):
        with pa.ipc.new_file(tmp_path / "parts" / f"{number}.arrow", table.schema) as writer:
            writer.write_table(table)
    import_folder(tmp_path / "parts", tmp_path / "data", TableWish())
    export_table(tmp_path / "data", tmp_path / "out.arrow")
    again = pa.ipc.open_file(tmp_path / "out.arrow").read_all()
    assert again["kind"].type == kept
    assert again["kind"].to_pylist() == [value for table in parts for value in table["kind"].to_pylist()]


def test_more_categories_than_the_indices_of_the_parts_tell_apart(tmp_path: Path) -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    (tmp_path / "parts").mkdir()
    texts = [f"t{number}" for number in range(200)]
    for number in range(20):
        pq.write_table(part(10 * number, texts, kind), tmp_path / "parts" / f"{number:02d}.parquet")
    import_folder(tmp_path / "parts", tmp_path / "data", TableWish())
    export_table(tmp_path / "data", tmp_path / "out.arrow")
    again = pa.ipc.open_file(tmp_path / "out.arrow").read_all()
    assert again["kind"].type == pa.dictionary(pa.int32(), pa.string()) and again["kind"].to_pylist() == texts


def test_a_type_that_parquet_does_not_have(tmp_path: Path) -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"])
    table = pa.table({"media_id": ["a", "b", "c"], "title": ["A", "B", "C"], "vector": list(VECTORS), "runs": runs})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"column runs has type run_end_encoded.*, which Parquet does not have"):
        import_folder(tmp_path / "t.arrow", tmp_path / "data", TableWish())
    assert not (tmp_path / "data").exists()
