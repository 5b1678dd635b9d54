"""Frames of pandas: an index that has a name is columns, one without is none, whatever pandas' version hands Arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semrec_faiss import Recommender
from semrec_faiss.data.tables.exporting import export_table
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.importing import TableWish

VECTORS = np.eye(3, dtype=np.float32)
SONGS = pd.DataFrame({"media_id": ["a", "b", "c"], "title": ["A", "B", "C"], "x": [1, 2, 3]})


def found(vectors: Any, frame: Any) -> list[dict[str, Any]]:
    index = Recommender.from_arrays(vectors, frame)  # of another dimension it would refuse the vectors
    return [{**answer[0].as_dict(), "rank": 0, "score": 0} for answer in index.search(VECTORS, 1)]


@pytest.mark.parametrize(
    "frame",
    [
        SONGS.set_axis([7, 3, 5]),
        SONGS.set_axis(["p", "q", "r"]),
        SONGS.set_index("media_id"),
        SONGS.set_index(["media_id", "x"]),
        SONGS.set_index("media_id", drop=False),
    ],
    ids=["numbers", "texts", "ids", "two", "kept"],
)
def test_an_index_without_a_name_is_no_field(frame: Any) -> None:
    """Once a fault: with pandas 3 the field __index_level_0__ was in every answer."""
    assert found(VECTORS, frame) == found(VECTORS, SONGS)


@pytest.mark.parametrize("index", [pd.Index([7, 3, 5]), pd.Index([7, 3, 5], name="sku")])
def test_an_index_is_no_dimension(index: Any) -> None:
    """Once a fault: with pandas 3 the numbers of the rows were a dimension of the vectors, larger than all others."""
    assert found(pd.DataFrame(VECTORS, index=index), SONGS) == found(VECTORS, SONGS)


def test_nor_is_it_a_field_in_files_that_pandas_writes(tmp_path: Path) -> None:
    """Once a fault: a frame that was filtered had the field __index_level_0__, and a part of it other columns."""
    frame = SONGS.assign(vector=list(VECTORS))
    (tmp_path / "parts").mkdir()
    frame[1:].set_axis([7, 3]).to_parquet(tmp_path / "parts/b.parquet")
    frame[:1].to_parquet(tmp_path / "parts/a.parquet")
    made = import_folder(tmp_path / "parts", tmp_path / "data", TableWish())
    assert list(made.table.fields) == ["media_id", "title", "x"]
    export_table(tmp_path / "data", tmp_path / "again.parquet")
    again = pd.read_parquet(tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(again[["media_id", "title", "x"]], SONGS)
    mine = pa.table({**SONGS.to_dict("list"), "vector": list(VECTORS), "__index_level_0__": [1, 2, 3]})
    pq.write_table(mine, tmp_path / "mine.parquet")
    made = import_folder(tmp_path / "mine.parquet", tmp_path / "other", TableWish())
    assert "__index_level_0__" in made.table.fields, "pandas did not write it"
