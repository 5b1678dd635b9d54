"""What users have seen in several files: of types that differ, or with columns that some lack or have twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history
from semrec_faiss.errors import DataError

FIRST, SECOND = {"user_id": ["u"], "media_id": ["a"]}, {"user_id": ["u"], "media_id": ["b"]}
SPAN = pa.duration("s")


def history(folder: Path, first: Mapping[str, Any], second: Mapping[str, Any]) -> History:
    (folder / "seen.parquet").mkdir()
    (folder / "metadata.jsonl").write_text("".join(f'{{"media_id": "{each}", "title": "T"}}\n' for each in "ab"))
    for number, more in enumerate((first, second)):
        table = pa.table({**(FIRST, SECOND)[number], **more})
        pq.write_table(table, folder / "seen.parquet" / f"part-{number}.parquet")
    return read_history(folder / "seen.parquet", ["u"], Catalog.read(folder / "metadata.jsonl"))


@pytest.mark.parametrize(
    ("first", "second", "ratings"),
    [
        ({"rating": [1]}, {"rating": [4.5]}, ["1.0", "4.5"]),
        ({"rating": pa.nulls(1)}, {"rating": [4.5]}, ["nan", "4.5"]),
        ({}, {"rating": [4.5]}, ["nan", "4.5"]),
        ({"rating": [4.5]}, {}, ["4.5", "nan"]),
    ],
)
def test_ratings_are_those_of_each_part(
    tmp_path: Path, first: Mapping[str, Any], second: Mapping[str, Any], ratings: list[str]
) -> None:
    """Once a fault: all parts were read as the first one has it, 4.5 beside whole numbers as 4, or not at all."""
    found = history(tmp_path, first, second)
    assert found.ratings is not None and [str(each) for each in found.ratings.tolist()] == ratings


@pytest.mark.parametrize(
    ("column", "usual", "odd", "told"),
    [
        ("rating", [4.5], ["5"], "the column rating has type VARCHAR; a number is expected"),
        ("rating", [4.5], [True], "the column rating has type BOOLEAN; a number is expected"),
        ("rating", [4.5], pa.array([5], SPAN), r"column rating has type duration\[s\]; a length of time"),
        ("timestamp", [1_600_000_000], pa.array([5], SPAN), r"column timestamp has type duration\[s\]"),
        ("user_id", ["u"], [7.5], "user_id has type DOUBLE; a text or a whole number is expected"),
    ],
)
def test_no_part_may_have_columns_of_other_types(tmp_path: Path, column: str, usual: Any, odd: Any, told: str) -> None:
    with pytest.raises(DataError, match=rf"part-1\.parquet: .*{told}"):
        history(tmp_path, {column: usual}, {column: odd})


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    """Once a fault: the second one was passed over."""
    table = pa.Table.from_arrays([["u"], ["a"], ["b"]], ["user_id", "media_id", "media_id"])
    pq.write_table(table, tmp_path / "seen.parquet")
    with pytest.raises(DataError, match=r"seen\.parquet: two columns are called 'media_id'"):
        read_history(tmp_path / "seen.parquet", ["u"], Catalog.read(titles(tmp_path)))


def titles(folder: Path) -> Path:
    (folder / "metadata.jsonl").write_text('{"media_id": "a", "title": "T"}\n')
    return folder / "metadata.jsonl"
