"""Arrays and records become one update, and what is open goes with its index."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import semrec_faiss
from semrec_faiss import IndexWriter, Recommender
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index
from tests.index.update.living_worlds import begun


def test_a_writer_publishes_all_of_its_batches_at_once_or_none(tmp_path: Path) -> None:
    model, draws = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    vectors = np.stack([draws.vector() for _ in range(3)])
    with IndexWriter(index, compact_at=None) as writer:
        writer.put_titles([{"media_id": "a", "title": "A"}, {"media_id": "b", "title": "B"}], vectors[:2])
        writer.put_titles([{"media_id": "a", "title": "A again"}], vectors[2:])
        writer.put_users(["new"], vectors[:1])
        writer.append_seen(user_id=["new"], media_id=["b"], rating=[4.0], timestamp=[7])
        writer.remove_titles(["m00003"])
        writer.remove_users(["u3"])
    assert writer.summary is not None
    assert (writer.summary.titles.new, writer.summary.titles.removed, writer.summary.seen) == (2, 1, 1)
    recommender = Recommender.open(index)
    assert recommender.search(vectors[2], 1)[0][0].title == "A again"
    assert "b" not in {one.media_id for one in recommender.recommend("new", 60)}
    for gone in ("m00003",):
        with pytest.raises(NotFoundError):
            recommender.similar(gone)
    with pytest.raises(NotFoundError):
        recommender.recommend("u3")
    with pytest.raises(RuntimeError), IndexWriter(index) as writer:
        writer.remove_titles(["m00004"])
        raise RuntimeError
    assert IndexDirectory(index).current().name == "gen-000002"
    with pytest.raises(UsageError, match="1 records and vectors of shape"):
        IndexWriter(index).put_titles([{"media_id": "a"}], vectors)


def test_a_writer_takes_an_array_that_is_filled_again_for_the_next_batch(tmp_path: Path) -> None:
    model, draws = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    first, second = draws.vector(), draws.vector()
    buffer, record = np.empty((1, len(first)), np.float32), {"media_id": "a", "title": "A"}
    with IndexWriter(index) as writer:
        buffer[0] = first
        writer.put_titles([record], buffer)
        writer.put_users(["new"], buffer)
        buffer[0] = second
        record["title"] = "B"
        writer.put_titles([record | {"media_id": "b"}], buffer)
    found = Recommender.open(index).search(np.stack([first, second]), 1)
    assert [one[0].title for one in found] == ["A", "B"]
    assert Recommender.open(index).recommend("new", 1).results[0].media_id == "a"


@pytest.mark.parametrize("known", [[], ["u1"]])
def test_a_writer_counts_what_unknown_users_have_seen_also_where_no_other_has(known: list[str], tmp_path: Path) -> None:
    """Once a fault: a batch of events of unknown users alone was refused, and counted beside one of a known user."""
    model, _ = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    users = ["nobody", "noone", *known]
    columns = {"media_id": ["m00003"] * len(users), "rating": [4.0] * len(users), "timestamp": [7] * len(users)}
    with IndexWriter(index, compact_at=None) as writer:
        writer.append_seen(user_id=users, **columns)
    assert writer.summary is not None
    assert (writer.summary.seen, writer.summary.seen_ignored) == (len(known), 2)
    assert writer.summary.generation == f"gen-00000{1 + len(known)}"
    with pytest.raises(DataError, match="'nobody'"), IndexWriter(index, strict=True) as writer:
        writer.append_seen(user_id=users, **columns)


def test_a_batch_without_rows_adds_nothing(tmp_path: Path) -> None:
    model, draws = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    vector = draws.vector()[None]
    with IndexWriter(index) as writer:
        for vectors in ([], np.empty((0, vector.shape[1]), np.float32)):
            writer.put_titles([], vectors)
            writer.put_users([], vectors)
        writer.append_seen(user_id=[], media_id=[], rating=[], timestamp=[])
    assert writer.summary is not None and writer.summary.bytes_written == 0
    with IndexWriter(index) as writer:
        writer.put_titles([], [])
        writer.put_titles([{"media_id": "a", "title": "A"}], vector)
        writer.append_seen(user_id=[], media_id=[], rating=[], timestamp=[])
        writer.append_seen(user_id=["u1"], media_id=["a"], rating=[4.0], timestamp=[7])
    assert (writer.summary.titles.new, writer.summary.seen) == (1, 1)


def test_one_id_is_a_list_of_one(tmp_path: Path) -> None:
    model, _ = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    with IndexWriter(index, compact_at=None) as writer:
        writer.remove_titles("m00003")
        writer.remove_users("u3")
    assert writer.summary is not None
    assert (writer.summary.titles.removed, writer.summary.users.removed) == (1, 1)
    assert update_index(index, Change(remove_titles="m00004"), compact_at=None).titles.removed == 1


def test_a_writer_takes_what_numpy_holds_and_refuses_what_json_has_not(tmp_path: Path) -> None:
    model, draws = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    vectors = np.stack([draws.vector()])
    record = {"media_id": "a", "title": "A"}
    masked = np.ma.masked_array(vectors, mask=vectors > 0)
    calls: list[tuple[str, Callable[[IndexWriter], None]]] = [
        (
            "record 0, media_id 'a', cannot be written: it holds set",
            lambda w: w.put_titles([record | {"x": {1}}], vectors),
        ),
        ("surrogates not allowed", lambda w: w.put_titles([record | {"x": "\ud800"}], vectors)),
        ("record 0 is 'a'; a mapping is expected", lambda w: w.put_titles(["a"], vectors)),
        ("records is str; a list is expected", lambda w: w.put_titles("a", vectors)),
        ("vectors hold .* masked values", lambda w: w.put_titles([record], masked)),
        ("vectors are not an array of numbers", lambda w: w.put_titles([record], [[1.0], [1.0, 2.0]])),
        ("one of user_ids is None", lambda w: w.put_users([None], vectors)),
        ("columns differ in length: 1 of user_id, 0 of media_id", lambda w: w.append_seen(user_id=["u1"], media_id=[])),
        (
            "what users have seen cannot be read as a table",
            lambda w: w.append_seen(user_id=[2**70], media_id=["a"]),
        ),
        (
            "what users have seen cannot be read as a table",
            lambda w: w.append_seen(user_id=["7", 7], media_id=["a", "b"]),
        ),
        (
            "append_seen takes no column 'ratings'; it takes user_id, media_id, rating, timestamp",
            lambda w: w.append_seen(user_id=["u1"], media_id=["a"], ratings=[5.0]),
        ),
        ("media_ids is None", lambda w: w.remove_titles(None)),
    ]
    for says, call in calls:
        with pytest.raises(UsageError, match=says), IndexWriter(index) as writer:
            call(writer)
    with (
        pytest.raises(DataError, match=r"^media/content_vectors.npy: the vectors have 2 dim"),
        IndexWriter(index) as writer,
    ):
        writer.put_titles([record], vectors[:, :2])
    with (
        pytest.raises(DataError, match=r"column rating has type struct<>, which Parquet does not have"),
        IndexWriter(index) as writer,
    ):
        writer.append_seen(user_id=["u1"], media_id=["a"], rating=[{}])
    assert IndexDirectory(index).current().name == "gen-000001"
    with IndexWriter(index) as writer:
        writer.put_titles([record | {"year": np.int64(1979)}], vectors)
    assert Recommender.open(index).search(vectors, 1)[0][0].year == 1979


def test_two_writers_never_both_win(tmp_path: Path) -> None:
    model, _ = begun(2)
    index = model.build(tmp_path / "first", {"type": "flat"})
    change = Change(remove_titles=["m00001"])
    with IndexDirectory(index).writing():
        with pytest.raises(UsageError, match=f"writing .*: process {os.getpid()} on"):
            update_index(index, change)
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on .*, waited 0\.2 seconds"):
            update_index(index, change, wait=0.2)
        with pytest.raises(UsageError, match=r"waited 0\.1 seconds"):
            compact_index(index, wait=0.1)
    update_index(index, change, compact_at=None)
    assert Recommender.open(index).index.count == 59


def test_writers_that_wait_all_get_their_turn(tmp_path: Path) -> None:
    model, draws = begun(2)
    index = model.build(tmp_path / "first", {"type": "flat"})
    vectors = np.stack([draws.vector() for _ in range(5)])

    def add(number: int) -> None:
        with IndexWriter(index, compact_at=None, wait=60) as writer:
            writer.put_titles([{"media_id": f"new{number}", "title": "New"}], vectors[number : number + 1])

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(add, range(5)))
    assert IndexDirectory(index).current().name == "gen-000006"
    assert {*Recommender.open(index).catalog.all_media_ids()} == {*model.titles, *(f"new{at}" for at in range(5))}


def test_a_writer_takes_what_frames_hold_where_there_is_no_value(tmp_path: Path) -> None:
    """pandas.NA was refused, and what is no number in a list: of a frame with such columns to_dict("records")."""
    model, draws = begun(1)
    index = model.build(tmp_path / "first", {"type": "flat"})
    frame = pd.DataFrame({"media_id": ["a", "b"], "title": ["A", "B"], "year": pd.array([1979, None], "Int64")})
    frame["tags"] = [np.array([1.5, np.nan]), [pd.NA, 2.5]]
    frame["size"] = [{"width": np.nan, "height": np.int8(3)}, pd.NaT]
    vectors = np.stack([draws.vector(), draws.vector()])
    with IndexWriter(index) as writer:
        writer.put_titles(frame.to_dict("records"), vectors)
    (first,), (second,) = Recommender.open(index).search(vectors, 1)
    assert (first.year, first.fields["tags"], first.fields["size"]) == (1979, [1.5, None], {"width": None, "height": 3})
    assert (second.year, second.fields["tags"], second.fields["size"]) == (None, [None, 2.5], None)


def test_a_writer_takes_whole_decimals_that_no_float_holds(tmp_path: Path) -> None:
    number = pa.array([Decimal(2**60 + 1)] * 4, pa.decimal128(38, 0))
    titles = pa.table({"media_id": list("abcd"), "title": list("ABCD"), "number": number})
    vectors = np.eye(4, 3, dtype=np.float32) + 0.1
    semrec_faiss.build(vectors, titles, output=tmp_path / "index")
    with IndexWriter(tmp_path / "index") as writer:
        writer.put_titles([{"media_id": "e", "title": "E", "number": Decimal(2**60 + 3)}], -vectors[:1])
    recommender = Recommender.open(tmp_path / "index")
    numbers = {one.media_id: one.fields["number"] for one in recommender.search(vectors[0], 5)[0]}
    assert numbers == dict.fromkeys("abcd", 2**60 + 1) | {"e": 2**60 + 3}
    assert [one.media_id for one in recommender.search(vectors[0], 5, where=f"number = {2**60 + 3}")[0]] == ["e"]
