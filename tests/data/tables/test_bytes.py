"""Bytes are neither text nor numbers, and ids are one of these: what is neither is refused, never told as a text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MadeFolder, Semrec

import semrec_faiss
from semrec_faiss import DataError, Recommender
from semrec_faiss.data.interactions.source import write_seen
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index

STEAM = 76_561_198_000_000_001  # an account of a shop of games
VECTORS = np.eye(3, 4, dtype=np.float32)
SONGS = {"sku": ["a", "b", "c"], "name": ["A", "B", "C"]}
COVERS = [
    pa.array([b"\xff\x00", b"text", None]),
    pa.array([b"ab", b"cd", b"ef"], pa.binary(2)),
    pa.array([[b"x"], [], None]),
    pa.array([{"path": "x.png", "bytes": b"\x89PNG"}, None, None]),
    pa.array([[("k", b"v")], [], None], pa.map_(pa.string(), pa.binary())),
    pa.array([b"", b"", b""], pa.large_binary()).dictionary_encode(),
]


def refusal(made: Callable[[], object]) -> str:
    with pytest.raises(DataError, match="bytes") as caught:
        made()
    assert caught.value.fix is not None
    return f"{caught.value.message}; fix: {caught.value.fix}"


@pytest.mark.parametrize("cover", COVERS, ids=lambda cover: str(cover.type))
def test_a_field_of_bytes_is_refused(tmp_path: Path, cover: Any) -> None:
    table = pa.table({**SONGS, "cover": cover})
    told = refusal(lambda: Recommender.from_arrays(VECTORS, table))
    assert "column cover has type" in told and "leave the column out, or write it as text" in told
    vectors = pa.array(VECTORS.tolist(), pa.list_(pa.float32()))
    pq.write_table(table.append_column("vector", vectors), tmp_path / "songs.parquet")
    told = refusal(lambda: semrec_faiss.build(None, tmp_path / "songs.parquet", output=tmp_path / "index"))
    assert told.startswith(f"{tmp_path}/songs.parquet: column cover has type") and not (tmp_path / "index").exists()


def test_a_data_folder_and_a_change_of_an_index_with_bytes_are_refused(
    tmp_path: Path, make_folder: Callable[..., MadeFolder], semrec: Semrec
) -> None:
    made = make_folder(tmp_path / "data", titles=20, dim=4)
    assert semrec("build", "flat", "--dataset", made.root, "--output", tmp_path / "index").code == 0
    change = tmp_path / "change" / "media"
    change.mkdir(parents=True)
    np.save(change / "content_vectors.npy", made.vectors[:2])
    told = {"media_id": ["new", "m00001"], "title": ["New", "Old"], "cover": [b"\xff", b"ok"]}
    pq.write_table(pa.table(told), change / "metadata.parquet")
    for asked in (
        ["update", tmp_path / "index", tmp_path / "change"],
        ["build", "flat", "--dataset", tmp_path / "change", "--output", tmp_path / "other"],
        ["dataset", "check", tmp_path / "change"],
    ):
        ended = semrec(*asked)
        assert ended.code == 3 and "column cover has type BLOB; bytes are neither text nor numbers" in ended.err
    assert not (tmp_path / "other").exists()
    assert semrec("info", tmp_path / "index", "--json").document["generation"] == "gen-000001"


def test_ids_that_are_bytes_are_refused(tmp_path: Path, make_folder: Callable[..., MadeFolder], semrec: Semrec) -> None:
    plays = {"user": ["u", "v", "v"], "item": [b"a", b"b", b"c"]}
    told = refusal(lambda: Recommender.from_arrays(VECTORS, SONGS, interactions=plays))
    assert "column item has type BLOB" in told
    users = pa.table({"user_id": pa.array([b"u", b"v"]), "vector": pa.array(VECTORS[:2].tolist())})
    with pytest.raises(DataError) as caught:
        Recommender.from_arrays(VECTORS, SONGS, users=users)
    assert "[0], column user_id: is b'u'; a text or a whole number is expected" in caught.value.message
    pq.write_table(pa.table({"user_id": [b"u"], "media_id": ["a"]}), tmp_path / "seen.parquet")
    assert "column user_id has type BLOB" in refusal(lambda: write_seen(tmp_path / "seen.parquet", tmp_path / "out"))
    made = make_folder(tmp_path / "data", titles=20, dim=4, users=2)
    seen = pa.table({"user_id": made.user_ids, "media_id": [b"m00001", b"m00002"]})
    pq.write_table(seen, made.root / "users" / "seen.parquet")
    ended = semrec("dataset", "check", made.root)
    assert ended.code == 3 and "seen.parquet: column media_id has type BLOB" in ended.err


def test_users_numbers_are_the_same_ids_with_and_without_a_fraction() -> None:
    """A table that has lost a value holds its whole numbers as floats, as interactions may."""
    users = pa.table({"user_id": [7.0, 8.0], "vector": pa.array(VECTORS[:2].tolist())})
    recommender = Recommender.from_arrays(
        VECTORS, SONGS, users=users, interactions={"user": [7, 7], "item": ["b", "a"]}
    )
    assert [one.media_id for one in recommender.recommend("7", 3)] == ["c"]
    tenths = pa.array([Decimal("7.0"), Decimal("8.0")])
    for odd, what in (
        ([7.5, 8.0], "7.5 is not a whole number"),
        ([True, False], "is True; a text"),
        ([float(STEAM), 8.0], "76561198000000000 is a float, and these do not tell whole numbers of that size apart"),
        (tenths, "is Decimal.*; a text"),
    ):
        with pytest.raises(DataError, match=what):
            Recommender.from_arrays(VECTORS, SONGS, users=users.set_column(0, "user_id", [odd]))


@pytest.mark.parametrize(("dtype", "least"), [("float64", 2**53), ("float32", 2**24)])
@pytest.mark.parametrize("part", ["user", "item"])
def test_floats_that_no_longer_tell_ids_apart_are_none(part: str, dtype: str, least: int) -> None:
    """A missing value makes floats of a column of ids, after which two of this size may have become one."""
    numbered = pa.table({"media_id": [str(least - 1), "b", "c"], "title": ["A", "B", "C"]})
    plays = {"user": [float(least - 1), 7.0], "item": [float(least - 1), 7.0]}
    known = {name: np.array(ids, dtype) for name, ids in plays.items()}
    assert len(Recommender.from_arrays(VECTORS, numbered, interactions=known).recommend(str(least - 1), 3)) == 2
    with pytest.raises(
        DataError, match=rf"interactions\[0\] has the {part} .*; an id is a whole number of less than {least:,}"
    ):
        Recommender.from_arrays(
            VECTORS, numbered, interactions=known | {part: np.array([float(STEAM), least - 1], dtype)}
        )


@pytest.mark.parametrize(
    "odd",
    [
        pa.array([True, False]),
        pa.array([date(2020, 1, 1), date(2020, 1, 2)]),
        pa.array([Decimal("7.0"), Decimal("8.0")]),
        pa.array([["u"], ["v"]]),
    ],
    ids=lambda odd: str(odd.type),
)
def test_ids_of_what_people_did_are_texts_or_whole_numbers(tmp_path: Path, odd: Any) -> None:
    """They were told as the texts "true", "2020-01-01", "7.0" and "[u]"."""
    expected = "a text or a whole number is expected"
    for part in ("user", "item"):
        with pytest.raises(DataError, match=f"column {part} has type .*; {expected}"):
            Recommender.from_arrays(VECTORS, SONGS, interactions={"user": ["u", "v"], "item": ["a", "b"], part: odd})
    people = pa.table({"user_id": [7, 8], "vector": pa.array(VECTORS[:2].tolist())})
    semrec_faiss.build(VECTORS, SONGS, users=people, output=tmp_path / "index")
    pq.write_table(pa.table({"user_id": odd, "media_id": ["a", "b"]}), tmp_path / "seen.parquet")
    with pytest.raises(DataError, match=f"column user_id has type .*; {expected}"):
        write_seen(tmp_path / "seen.parquet", tmp_path / "out")
    with pytest.raises(DataError, match=f"column user_id has type .*; {expected}"):
        update_index(tmp_path / "index", Change(seen=tmp_path / "seen.parquet"))


def test_ids_as_databases_and_frames_have_them(tmp_path: Path) -> None:
    index = tmp_path / "index"
    decimals = pa.array([7, 8]).cast(pa.decimal128(20, 0))
    users = pa.table({"user_id": decimals, "vector": pa.array(VECTORS[:2].tolist())})
    numbered = pa.table({"media_id": pa.array([1, 2, 3]).cast(pa.decimal128(20, 0)), "title": ["A", "B", "C"]})
    assert [one.media_id for one in Recommender.from_arrays(VECTORS, numbered).similar("1", 2)] == ["2", "3"]
    semrec_faiss.build(VECTORS, SONGS, users=users, output=index)
    for ids, media in ((pa.array([7]).cast(pa.decimal128(20, 0)), "a"), (pa.array(["7"]).dictionary_encode(), "b")):
        pq.write_table(pa.table({"user_id": ids, "media_id": [media]}), tmp_path / "seen.parquet")
        assert update_index(index, Change(seen=tmp_path / "seen.parquet")).seen == 1
    assert [one.media_id for one in Recommender.open(index).recommend("7", 3)] == ["c"]
    pq.write_table(pa.table({"user_id": pa.nulls(0), "media_id": pa.nulls(0)}), tmp_path / "seen.parquet")
    assert update_index(index, Change(seen=tmp_path / "seen.parquet")).bytes_written == 0
    pq.write_table(pa.table({"user_id": [7.0], "media_id": ["c"]}), tmp_path / "seen.parquet")
    with pytest.raises(DataError, match="column user_id has type DOUBLE"):  # was a row of an unknown user, "7.0"
        update_index(index, Change(seen=tmp_path / "seen.parquet"))
    for number in (float("nan"), float("inf"), 7.5, 1e300):
        with pytest.raises(DataError, match=r"interactions\[0\] has the user .*; an id is a whole number"):
            Recommender.from_arrays(VECTORS, SONGS, interactions={"user": np.array([number, 7.0]), "item": ["a", "b"]})


def test_ids_of_a_csv_keep_their_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "plays.csv").write_text("user_id,media_id,rating\r\n007,010,4.5\r\n7,011,3\r\n")
    assert write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet") == ["007", "7"]
    assert pq.read_table(tmp_path / "seen.parquet").to_pylist() == [
        {"user_id": "007", "media_id": "010", "rating": 4.5},
        {"user_id": "7", "media_id": "011", "rating": 3.0},
    ]
