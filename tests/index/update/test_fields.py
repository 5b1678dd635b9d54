"""Metadata fields that an update brings, or whose types it widens, are those of an index built anew, at once."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DataError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index

TITLES = 20


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"media_id": f"m{number}", "title": f"Film {number}", **fields}


def write(root: Path, records: list[dict[str, Any]]) -> Path:
    (root / "media").mkdir(parents=True)
    (root / "media/metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    vectors = [np.random.default_rng(int(each["media_id"][1:])).normal(size=8) for each in records]
    np.save(root / "media/content_vectors.npy", np.array(vectors, np.float32))
    return root


def build(data: Path, output: Path) -> Path:
    build_index(config_from_dict({"dataset": str(data), "output": str(output), "index": {"type": "flat"}}))
    return output


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a new field": ({"year": 1950}, {"year": 1960, "prize": "Palme d'Or"}),
    "a leading one": ({"stars": 2.5}, {"year": 1960, "genres": ["Drama"]}),
    "decimals": ({"votes": 7, "marks": [1, 2]}, {"votes": 0.5, "marks": [0.5, None]}),
    "beside what no double holds": ({"votes": 2**60 + 1, "marks": [-(2**60) - 1]}, {"votes": 0.5, "marks": [3.5]}),
    "texts beside numbers": ({"seat": 7}, {"seat": "7b"}),
    "true, which is not a number": ({"x": 1, "y": [1, 0]}, {"x": True, "y": [True, False]}),
    "numbers, which are not true": ({"x": {"y": True}}, {"x": {"y": 1}}),
    "objects": ({"crew": {"by": ["A"], "n": 1}}, {"crew": {"by": [], "of": None}}),
    "a list beside a text": ({"tag": "a"}, {"tag": ["a", "b"]}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_records_and_filters_are_those_of_a_rebuild_before_it_is_compacted(name: str, tmp_path: Path) -> None:
    old, new = CHANGES[name]
    before, since = [record(number, **old) for number in range(TITLES)], [record(100, **new), record(3, **new)]
    index = build(write(tmp_path / "data", before), tmp_path / "index")
    update_index(index, Change(write(tmp_path / "change", since)), compact_at=None)
    merged = [each for each in before if each["media_id"] != "m3"] + since
    rebuilt = Recommender.open(build(write(tmp_path / "merged", merged), tmp_path / "rebuilt"))
    updated = Recommender.open(index)
    rows = np.arange(TITLES + 1)
    expected = [json.loads(line) for line in rebuilt.titles.lines(rows)]
    lines = updated.titles.lines(rows)
    assert [json.loads(line) for line in lines] == expected
    assert updated.titles.fields == rebuilt.titles.fields
    columns = [each.titles.columns(rows).to_pylist() for each in (updated, rebuilt)]
    assert columns[0] == columns[1]
    assert updated.titles.find("m7") == rebuilt.titles.find("m7") == 6
    for where in (f"{field} IS NULL" for field in {**old, **new}):
        assert updated.search(np.ones(8), where=where)[0].matching == sum(
            each[where.split()[0]] is None for each in expected
        )
    compact_index(index)
    assert Recommender.open(index).titles.lines(rows) == lines
    assert Recommender.open(index).titles.fields == rebuilt.titles.fields


def write_table(root: Path, table: pa.Table) -> Path:
    (root / "media").mkdir(parents=True)
    pq.write_table(table, root / "media/metadata.parquet")
    numbers = [int(media_id[1:]) for media_id in table["media_id"].to_pylist()]
    vectors = [np.random.default_rng(number).normal(size=8) for number in numbers]
    np.save(root / "media/content_vectors.npy", np.array(vectors, np.float32))
    return root


def table_of(numbers: list[int], **columns: Any) -> pa.Table:
    named = {"media_id": [f"m{number}" for number in numbers], "title": [f"Film {number}" for number in numbers]}
    return pa.table(named | columns)


DAY = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
KINDS: dict[str, tuple[pa.DataType, Any]] = {
    "year": (pa.int64(), 1999),
    "genres": (pa.list_(pa.string()), ["Drama"]),
    "whole": (pa.int64(), 7),
    "small": (pa.int16(), -3),
    "huge": (pa.uint64(), 2**63),
    "decimal": (pa.float64(), 2.5),
    "single": (pa.float32(), 0.5),
    "price": (pa.decimal128(9, 2), decimal.Decimal("9.99")),
    "text": (pa.string(), "a"),
    "ok": (pa.bool_(), True),
    "day": (pa.date32(), DAY.date()),
    "moment": (pa.timestamp("us"), DAY.replace(tzinfo=None)),
    "anywhere": (pa.timestamp("us", "UTC"), DAY),
    "hour": (pa.time64("us"), datetime.time(7, 30)),
    "kind": (pa.dictionary(pa.int32(), pa.string()), "b"),
    "seats": (pa.list_(pa.int64()), [1, 2]),
    "marks": (pa.list_(pa.float64()), [0.5]),
    "days": (pa.list_(pa.date32()), [DAY.date()]),
    "deep": (pa.list_(pa.list_(pa.int64())), [[1], [2]]),
    "pair": (pa.list_(pa.int64(), 2), [1, 2]),
    "crew": (pa.struct([("name", pa.string()), ("n", pa.int32())]), {"name": "A", "n": 1}),
    "prices": (pa.map_(pa.string(), pa.float64()), [("EUR", 1.5)]),
}
"""A type of Arrow's for each field, and a value of it."""

NOTHING: dict[str, Any] = {
    "nulls": pa.nulls(2),
    "nulls as texts": pa.nulls(2, pa.string()),
    "numbers that are none": pa.array([float("nan"), None], pa.float64()),
}


@pytest.mark.parametrize("said", NOTHING)
def test_a_column_without_values_is_of_the_type_that_the_index_has(said: str, tmp_path: Path) -> None:
    """Once a fault: "column stars has type VARCHAR, and the titles that there are have DOUBLE"."""
    values = {name: pa.array([value] * 4, kind) for name, (kind, value) in KINDS.items()}
    before = table_of([0, 1, 2, 3], **values)
    since = table_of([9, 1], **dict.fromkeys(KINDS, NOTHING[said]))
    if said != "nulls":
        since = since.drop_columns(
            ["genres"]
        )  # a text of genres is split, and numbers of them are refused by any build
    index = build(write_table(tmp_path / "data", before), tmp_path / "index")
    done = update_index(index, Change(write_table(tmp_path / "change", since)), compact_at=None)
    assert (done.titles.new, done.titles.changed) == (1, 1)
    nulls = {name: pa.nulls(2, kind) for name, (kind, _) in KINDS.items()}
    merged = pa.concat_tables([before.take([0, 2, 3]), table_of([9, 1], **nulls)])
    rebuilt = Recommender.open(build(write_table(tmp_path / "merged", merged), tmp_path / "rebuilt"))
    for _ in range(2):
        updated = Recommender.open(index)
        assert updated.titles.fields == rebuilt.titles.fields
        assert updated.titles.lines(np.arange(5)) == rebuilt.titles.lines(np.arange(5))
        for name in KINDS:
            assert updated.search(np.ones(8), where=f'"{name}" IS NULL')[0].matching == 2, name
        assert updated.search(np.ones(8), where="whole = 7 AND decimal > 2 AND ok")[0].matching == 3
        compact_index(index)


@pytest.mark.parametrize(
    "said", [pa.array([[], None], pa.list_(pa.null())), pa.array([[None], []], pa.list_(pa.null()))]
)
def test_lists_of_nothing_are_of_the_type_that_the_index_has(said: pa.Array, tmp_path: Path) -> None:
    names = ["genres", "seats", "marks", "days", "deep"]
    before = table_of([0, 1, 2, 3], **{name: pa.array([KINDS[name][1]] * 4, KINDS[name][0]) for name in names})
    index = build(write_table(tmp_path / "data", before), tmp_path / "index")
    since = table_of([9, 1], **dict.fromkeys(names, said))
    update_index(index, Change(write_table(tmp_path / "change", since)), compact_at=None)
    updated, expected = Recommender.open(index), said.to_pylist()
    assert updated.titles.fields["deep"] == "BIGINT[][]"
    for record, value in zip(updated.titles.records([3, 4]), expected, strict=True):
        assert [record[name] for name in names[1:]] == [value] * 4
        assert record["genres"] == (value and [])
    assert updated.search(np.ones(8), where="list_contains(seats, 2)")[0].matching == 3


def test_values_of_another_type_are_refused_still(tmp_path: Path) -> None:
    index = build(
        write_table(tmp_path / "data", table_of([0, 1], stars=[0.5, 1.0], seats=[[1], [2]])), tmp_path / "index"
    )
    for columns, told in (
        ({"stars": pa.nulls(2), "seats": [["a"], []]}, r"column seats has type VARCHAR\[\], .* have BIGINT\[\]"),
        ({"stars": ["good", None]}, "column stars has type VARCHAR, .* have DOUBLE"),
        ({"stars": [[], None]}, r"column stars has type VARCHAR\[\], .* have DOUBLE"),
    ):
        folder = write_table(tmp_path / str(len(told)), table_of([3, 4], **columns))
        with pytest.raises(DataError, match=told):
            update_index(index, Change(folder))


def test_fields_that_a_change_brings_are_told(tmp_path: Path, semrec: Semrec) -> None:
    """Once a trap: a column of another name than the first time became a field of its own, without a word."""
    index = build(write(tmp_path / "data", [record(number, released=1950) for number in range(3)]), tmp_path / "index")
    same = write(tmp_path / "same", [record(3, released=1960)])
    assert update_index(index, Change(same), dry_run=True).brought == ()
    other = write(tmp_path / "other", [record(3, year=1960, prize=None, cast=["A"])])
    told = "fields that no title of the index had: year, prize, cast"
    assert told in semrec("update", index, other, "--dry-run").lines
    assert told in semrec("update", index, other).lines
    assert update_index(index, Change(other)).brought == ()
