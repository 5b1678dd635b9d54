"""Lengths of time and periods are no whole numbers: they are refused wherever tables come in, never told as some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

import semrec_faiss
from semrec_faiss import DataError, Recommender
from semrec_faiss.data.interactions.source import write_seen

VECTORS = np.eye(3, 4, dtype=np.float32)
SONGS = {"media_id": ["a", "b", "c"], "title": ["A", "B", "C"]}
SPAN = pa.duration("s")
SPANS = [
    pa.array([90, 5_400, None], SPAN),
    pa.array([[90], [], None], pa.list_(SPAN)),
    pa.array([{"of": 90}, None, None], pa.struct([("of", SPAN)])),
    pa.array([[("intro", 90)], [], None], pa.map_(pa.string(), SPAN)),
    pa.array([90, 90, None], SPAN).dictionary_encode(),
]


def refused(vectors: Any, table: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        Recommender.from_arrays(vectors, table)
    return caught.value


@pytest.mark.parametrize("span", SPANS, ids=lambda span: str(span.type))
def test_a_length_of_time_is_refused(span: Any) -> None:
    told = refused(VECTORS, pa.table({**SONGS, "runtime": span}))
    assert told.message == (
        f"metadata: column runtime has type {span.type}; a length of time is stored as a whole number, which does not"
        " tell its unit"
    )
    assert told.fix == "write it as a number, frame[column].dt.total_seconds() in pandas, or leave it out"


def test_so_are_those_of_frames_and_what_the_error_says_to_write_is_taken() -> None:
    """Once a fault: 90 minutes were the number 5400000000, or another one in another unit, and January 2020 was 600."""
    frame = pd.DataFrame({**SONGS, "runtime": pd.to_timedelta([90, 2, 3], unit="min")})
    assert "column runtime has type duration[" in refused(VECTORS, frame).message
    assert "column runtime has type duration[" in refused(VECTORS, pl.from_pandas(frame)).message
    frame["runtime"] = frame["runtime"].dt.total_seconds()
    frame["month"] = pd.period_range("2020-01", periods=3, freq="M")
    assert "column month holds periods of pandas" in refused(VECTORS, frame).message
    assert "column month holds periods of pandas" in refused(VECTORS, frame.astype({"month": "category"})).message
    frame["month"] = frame["month"].dt.to_timestamp()
    first = Recommender.from_arrays(VECTORS, frame).search(VECTORS[:1], 1)[0][0].as_dict()
    assert (first["runtime"], first["month"]) == (5_400.0, "2020-01-01 00:00:00")


def test_so_they_are_in_files_in_data_folders_and_as_times(tmp_path: Path, semrec: Semrec) -> None:
    media = tmp_path / "data" / "media"
    media.mkdir(parents=True)
    np.save(media / "content_vectors.npy", VECTORS)
    frame = pd.DataFrame({**SONGS, "month": pd.period_range("2020-01", periods=3, freq="M")})
    frame.to_parquet(media / "metadata.parquet")
    told = semrec("dataset", "check", tmp_path / "data")
    assert told.code == 3 and f"{media}/metadata.parquet: column month holds periods of pandas" in told.err
    np.save(media / "metadata.npy", VECTORS)
    told = semrec("dataset", "import", media / "metadata.parquet", tmp_path / "out")
    assert told.code == 3 and "metadata.parquet: column month holds periods" in told.err
    assert not (tmp_path / "out").exists()
    done = pa.table({"user": ["u"], "item": ["a"], "time": pa.array([90], SPAN), "more": pa.array([90], SPAN)})
    with pytest.raises(DataError, match=r"interactions: column time has type duration\[s\]"):
        Recommender.from_arrays(VECTORS, SONGS, interactions=done)
    pq.write_table(done, tmp_path / "done.parquet")
    made = semrec_faiss.build(
        VECTORS,
        SONGS,
        interactions=tmp_path / "done.parquet",
        columns={"time": "-"},
        output=tmp_path / "index",
    )
    assert [one.media_id for one in made.recommend("u", 3)] == ["b", "c"], "what plays no part may be of any type"


def test_so_they_are_in_what_is_learned_of(tmp_path: Path) -> None:
    """Once a fault: a day was the rating 86400000000."""
    table = pa.table({"user_id": ["u"], "media_id": ["a"], "rating": pa.array([90], SPAN)})
    pq.write_table(table, tmp_path / "done.parquet")
    with pytest.raises(DataError, match=r"done\.parquet: column rating has type duration\[s\]; a length of time"):
        write_seen(tmp_path / "done.parquet", tmp_path / "seen.parquet")
    pq.write_table(table.append_column("media_id", [["b"]]), tmp_path / "done.parquet")
    with pytest.raises(DataError, match=r"done\.parquet: two columns are called 'media_id'"):
        write_seen(tmp_path / "done.parquet", tmp_path / "seen.parquet")
