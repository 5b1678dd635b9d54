"""Titles whose fields have types that JSON has not, put by records of Python as a table would bring them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semrec_faiss
from semrec_faiss import Change, DataError, IndexWriter, Recommender, UsageError, update_index

VECTORS = np.eye(3, 4, dtype=np.float32) + 0.1
SCHEMA = pa.schema(
    {
        "media_id": pa.string(),
        "title": pa.string(),
        "out": pa.date32(),
        "added": pa.timestamp("us", "UTC"),
        "at": pa.timestamp("us"),
        "airs": pa.time64("us"),
        "price": pa.decimal128(8, 2),
        "weight": pa.float32(),
        "stock": pa.int32(),
        "sizes": pa.list_(pa.int16()),
        "code": pa.uuid(),
    }
)


def record(number: int) -> dict[str, Any]:
    return {
        "media_id": f"m{number}",
        "title": f"Title {number}",
        "out": dt.date(2000 + number, 2, 28),
        "added": dt.datetime(2020, 1, 1, number, 30, tzinfo=dt.UTC),
        "at": dt.datetime(2020, 1, 1, number, 30, 0, 250),
        "airs": dt.time(number, 15),
        "price": Decimal(f"{number}.10"),
        "weight": 0.1 * number,
        "stock": number,
        "sizes": [number, None],
        "code": UUID(int=number).bytes,
    }


def table(*numbers: int) -> pa.Table:
    return pa.Table.from_pylist([record(number) for number in numbers], SCHEMA)


def answers(index: Path, where: str) -> list[dict[str, Any]]:
    recommender = Recommender.open(index)
    return [title.as_dict() for title in recommender.search(VECTORS[0] + VECTORS[2], 3, where=where)[0]]


def test_records_of_python_are_the_titles_of_a_table(tmp_path: Path) -> None:
    for name in ("by_records", "by_table", "by_fields"):
        semrec_faiss.build(VECTORS, table(1, 2, 3), output=tmp_path / name)
    fresh = [record(number) | {"code": UUID(int=number)} for number in (7, 9)]
    with IndexWriter(tmp_path / "by_records") as writer:
        writer.put_titles(fresh, VECTORS[:2])
    media = tmp_path / "change" / "media"
    media.mkdir(parents=True)
    pq.write_table(table(7, 9), media / "metadata.parquet")
    np.save(media / "content_vectors.npy", VECTORS[:2])
    update_index(tmp_path / "by_table", Change(tmp_path / "change"))
    with IndexWriter(tmp_path / "by_fields") as writer:  # what answers say of a title is a record again
        found = Recommender.open(tmp_path / "by_table").search(VECTORS[:1], 9)[0]
        told = [{"media_id": one.media_id, "title": one.title, **one.fields} for one in found]
        writer.put_titles([one for one in told if one["media_id"] in ("m7", "m9")], np.empty((2, 4), np.float32) + 1)
    where = "out > DATE '2006-01-01' AND price > 7 AND stock IN (7, 9) AND list_contains(sizes, 9) AND weight < 0.95"
    by_table = answers(tmp_path / "by_table", where)
    assert [one["media_id"] for one in by_table] == ["m9"] and by_table[0]["out"] == "2009-02-28"
    assert answers(tmp_path / "by_records", where) == by_table
    unscored = [{name: value for name, value in one.items() if name != "score"} for one in by_table]
    told_again = answers(tmp_path / "by_fields", where)
    assert [{name: value for name, value in one.items() if name != "score"} for one in told_again] == unscored
    assert Recommender.open(tmp_path / "by_records").catalog.fields["price"] == "DECIMAL(8,2)"


def test_the_same_titles_again_change_nothing(tmp_path: Path) -> None:
    semrec_faiss.build(VECTORS, table(1, 2, 3), output=tmp_path / "index")
    with IndexWriter(tmp_path / "index") as writer:
        writer.put_titles([record(number) | {"code": UUID(int=number)} for number in (1, 2, 3)], VECTORS)
    assert writer.summary is not None and writer.summary.titles.unchanged == 3


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("out", "1800-02-29", 'out is "1800-02-29", which is no DATE as the index has it'),
        ("added", dt.datetime(2020, 1, 1), "which is no TIMESTAMP WITH TIME ZONE as the index has it"),
        ("price", 1.005, r"price is 1.005, which is no DECIMAL\(8,2\) as the index has it"),
        ("stock", 1 << 31, "stock is 2147483648, which is no INTEGER as the index has it"),
        ("sizes", [1.5], r"sizes is \[1.5\], which is no SMALLINT\[\] as the index has it"),
    ],
)
def test_what_the_type_of_the_index_does_not_hold(tmp_path: Path, field: str, value: Any, says: str) -> None:
    semrec_faiss.build(VECTORS, table(1, 2, 3), output=tmp_path / "index")
    wrong = record(7) | {"code": UUID(int=7), field: value}
    with pytest.raises(DataError, match=says), IndexWriter(tmp_path / "index") as writer:
        writer.put_titles([wrong], VECTORS[:1])


def test_nothing_where_a_frame_has_no_value(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "media_id": ["a", "b"],
            "title": ["A", "B"],
            "out": pandas.to_datetime(["2020-01-01", None]),
            "weight": [1.5, None],
        }
    )
    semrec_faiss.build(VECTORS[:2], frame, output=tmp_path / "index")
    with IndexWriter(tmp_path / "index") as writer:
        writer.put_titles(frame.assign(title=["A2", "B2"]).to_dict("records"), VECTORS[:2])
    titles = {one.media_id: one for one in Recommender.open(tmp_path / "index").search(VECTORS[:1], 2)[0]}
    assert titles["b"].title == "B2" and titles["b"].fields["out"] is None and titles["b"].fields["weight"] is None
    assert titles["a"].fields["out"] == "2020-01-01 00:00:00"
    with pytest.raises(UsageError, match="it holds Decimal, which JSON has not"):
        IndexWriter(tmp_path / "index").put_titles(
            [{"media_id": "c", "title": "C", "price": Decimal("0.1234567890123456789")}], VECTORS[:1]
        )
