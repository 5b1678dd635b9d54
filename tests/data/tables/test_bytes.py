"""Bytes are neither text nor numbers: refused wherever tables come in, and never told as a text that they are not."""

from __future__ import annotations

from collections.abc import Callable
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
    assert "row 1, column user_id: is b'u'; a text or a whole number is expected" in caught.value.message
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
    for odd, what in (([7.5, 8.0], "7.5 is no whole number"), ([True, False], "is True; a text")):
        with pytest.raises(DataError, match=what):
            Recommender.from_arrays(VECTORS, SONGS, users=users.set_column(0, "user_id", [odd]))
