"""What users have seen since, appended of any table: as of Parquet with our names, or told why not."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

import semrec_faiss
from semrec_faiss import IndexWriter, Recommender, StorageError

NOW = 1_600_000_000
ROWS = [("ann", "007", 2.0, NOW + 60), ("ann", "c", 5.0, NOW + 120), ("bob", "x", 4.0, NOW + 60)]
"""The last one of a title that there is not."""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    songs = {"sku": ["007", "b", "c", "d"], "name": list("ABCD")}
    did = {"user": ["ann", "bob"], "sku": ["b", "c"], "rating": [5.0, 4.0], "time": [NOW, NOW]}
    semrec_faiss.build(np.eye(4, dtype=np.float32) + 0.1, songs, interactions=did, output=tmp_path / "index")
    return tmp_path / "index"


def held(index: Path) -> Any:
    users = Recommender.open(index).users
    history = users.history
    return [
        each.tolist() for each in (users.vectors, history.offsets, history.rows, history.ratings, history.timestamps)
    ]


def written(path: Path) -> Path:
    """Write the rows under names of somebody else's, as the ending says."""
    rows = [dict(zip(("customer", "movieId", "stars", "when"), row, strict=True)) for row in ROWS]
    if path.suffix == ".csv":
        lines = [",".join(rows[0]), *(f"{c},{m},{s},{t}000" for c, m, s, t in ROWS), "nobody,,1,1600000000000"]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.mkdir()
        for at, row in enumerate(rows):
            pq.write_table(pa.Table.from_pylist([row]), path / f"part-{at}.parquet")
    return path


@pytest.mark.parametrize("name", ["since.csv", "since.jsonl", "since"])
def test_any_table_is_appended_as_parquet_with_our_names_is(
    index: Path, tmp_path: Path, semrec: Semrec, name: str
) -> None:
    names = ("user_id", "media_id", "rating", "timestamp")
    ours = pa.table(dict(zip(names, zip(*ROWS, strict=True), strict=True)))
    pq.write_table(ours, tmp_path / "since.parquet")
    told = semrec("append-seen", index, tmp_path / "since.parquet")
    assert "seen: 2 added, 1 of unknown titles or users ignored\n" in told.out and told.err == ""
    expected = held(index)
    assert semrec("rollback", index).code == 0 and held(index) != expected
    told = semrec("append-seen", index, written(tmp_path / name))
    assert "seen: 2 added, 1 of unknown titles or users ignored\n" in told.out
    assert "note: item: column 'movieId', by its name\n" in told.err
    unit = "milliseconds" if name.endswith("csv") else "seconds"
    assert f"note: times are {unit}: 2020-09-13 to 2020-09-13\n" in told.err
    left_out = "note: rows without a user or an item, which were left out: 1\n"
    assert (left_out in told.err) == name.endswith("csv")
    assert held(index) == expected
    assert semrec("append-seen", index, tmp_path / name, "--json").document["seen_known"] == 2


def test_what_cannot_be_appended_is_told_with_the_name_of_the_table(
    index: Path, tmp_path: Path, semrec: Semrec
) -> None:
    def told(text: str, *options: str) -> str:
        (tmp_path / "s.csv").write_text(text, encoding="utf-8")
        said = semrec("append-seen", index, tmp_path / "s.csv", *options)
        assert said.code in (2, 3), said
        assert "seen.parquet" not in said.err and "/semrec-" not in said.err
        return said.err

    assert "fix: name the column: --map user=COLUMN" in told("who,sku\nann,b\n")
    assert "s.csv: rows whose user_id no user has: 1" in told("who,sku,time\neve,b,1600000000\n", "--map", "user=who")
    assert "--map 'title=who' names 'title', which is not a part" in told("who,sku\nann,b\n", "--map", "title=who")
    assert "error: the index knows when titles were seen, and s.csv does not\n" in told("user,sku\nann,b\n")
    assert "s.csv: row 1 has the time 1600000000000" in told("user,sku,ts\nann,b,1600000000000\n", "--time-unit", "s")
    assert "s.csv: no row has both a user and an item\n  fix: map the columns" in told("user,sku\nann,\n,b\n")
    assert semrec("append-seen", index, tmp_path / "none.csv").code == 4


def test_interactions_of_nobody_are_told_as_that(tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: "Catalog Error: Table with name people does not exist!"."""
    (tmp_path / "t.csv").write_text("sku,name,vector\na,A,1 2\nb,B,2 1\n", encoding="utf-8")
    (tmp_path / "i.csv").write_text("user,sku\n,a\n,b\n", encoding="utf-8")
    asked = ("dataset", "import", tmp_path / "t.csv", tmp_path / "d", "--interactions", tmp_path / "i.csv")
    assert "i.csv: no row has both a user and an item\n  fix: map the columns that hold them" in semrec(*asked).err
    (tmp_path / "i.csv").write_text("user,sku\n,a\nu,x\n", encoding="utf-8")
    assert "i.csv: no row names a title; items look like 'x', titles' ids like 'a', 'b'\n" in semrec(*asked).err


@pytest.mark.parametrize("name", ["raw", "rows.parquet", ".."])
def test_a_table_may_have_any_name(
    index: Path, tmp_path: Path, semrec: Semrec, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: what was called "raw", and the folder above, were a mistake in semrec."""
    (tmp_path / "tables" / "inside").mkdir(parents=True)
    folder = tmp_path / "tables" if name == ".." else tmp_path / "tables" / "inside" / name
    folder.mkdir(exist_ok=True)
    rows = [dict(zip(("user", "sku", "stars", "when"), row, strict=True)) for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    monkeypatch.chdir(tmp_path / "tables" / "inside")
    assert "seen: 2 added" in semrec("append-seen", index, name).out


def test_columns_beside_ours_that_play_a_part_are_not_passed_over(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: "the index knows when titles were seen, and since.parquet does not", with a column of times."""
    names = ("user_id", "media_id", "stars", "time")
    pq.write_table(pa.table(dict(zip(names, zip(*ROWS, strict=True), strict=True))), tmp_path / "since.parquet")
    told = semrec("append-seen", index, tmp_path / "since.parquet")
    assert "seen: 2 added" in told.out and "note: rating: column 'stars', by its name\n" in told.err
    twice = pa.Table.from_arrays([["ann"], ["007"], ["c"]], ["user_id", "media_id", "media_id"])
    pq.write_table(twice, tmp_path / "since.parquet")
    assert (
        "since.parquet: two columns are called 'media_id'"
        in semrec("append-seen", index, tmp_path / "since.parquet").err
    )
    pq.write_table(pa.table({"user_id": ["ann"], "media_id": ["c"], "ratings": [1.0]}), tmp_path / "odd.parquet")
    made = (tmp_path / "odd.parquet").read_bytes()
    (tmp_path / "odd.parquet").write_bytes(made.replace(b"ratings", b"rating\xff"))
    told = semrec("append-seen", index, tmp_path / "odd.parquet")
    assert told.code == 3 and "odd.parquet cannot be read: " in told.err, told.err


def test_no_room_for_temporary_files_is_no_mistake_in_semrec(
    index: Path, tmp_path: Path, semrec: Semrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.csv").write_text(f"user,sku,time\nann,c,{NOW + 60}\n", encoding="utf-8")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    for where in ("pyarrow.parquet.ParquetWriter.write_batch", "tempfile.TemporaryDirectory"):
        with monkeypatch.context() as patch:
            patch.setattr(where, refused)
            told = semrec("append-seen", index, tmp_path / "s.csv")
            assert told.code == 8 and told.err.endswith(
                "error: temporary files cannot be written: File too large\n"
                "  fix: free room, or give the environment variable TMPDIR a folder that has some\n"
            )
            with pytest.raises(StorageError, match="temporary files cannot be written"), IndexWriter(index) as writer:
                writer.append_seen(user_id=["ann"], media_id=["c"], timestamp=[NOW + 60])
    assert "seen: 1 added" in semrec("append-seen", index, tmp_path / "s.csv").out
