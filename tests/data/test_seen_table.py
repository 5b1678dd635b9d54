"""Rows of what users have seen, read in the order of their file, and put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semrec_faiss.data.seen_table import (
    SeenRows,
    joined_ratings_and_times,
    numbered,
    read_delisted_rows,
    read_seen_rows,
)
from semrec_faiss.data.users import grouped_history


def rows(*users: int, ratings: list[float] | None = None, timestamps: list[int] | None = None) -> SeenRows:
    return SeenRows(
        np.array(users, np.int32),
        np.array(users, np.int32),
        None if ratings is None else np.array(ratings, np.float32),
        None if timestamps is None else np.array(timestamps, np.int64),
        0,
    )


def test_a_rating_may_be_missing_a_time_may_not() -> None:
    first = rows(1, 2, ratings=[4.0, 0.5], timestamps=[7, 8])
    ratings, times = joined_ratings_and_times([first, rows(3, timestamps=[9])])
    assert ratings is not None and times is not None
    np.testing.assert_array_equal(ratings, np.array([4.0, 0.5, np.nan], np.float32))
    assert times.tolist() == [7, 8, 9]
    assert joined_ratings_and_times([rows(1), rows(2)]) == (None, None)
    assert joined_ratings_and_times([first, rows(3)])[1] is None, "the times of some would be those of others"


@pytest.mark.parametrize(("count", "users", "titles"), [(2, 2, 2), (100, 20, 20), (100, 9, 3_000), (100_000, 50, 50)])
def test_of_rows_that_repeat_a_user_and_a_title_the_last_one_counts(
    tmp_path: Path, count: int, users: int, titles: int
) -> None:
    """Once a fault: DuckDB's joins keep no order, and an earlier rating counted."""
    rng = np.random.default_rng(1)
    who, what = rng.integers(1, users, count), rng.integers(1, titles, count)
    columns = {"user_id": [f"u{one}" for one in who], "media_id": [f"t{one}" for one in what]}
    path = tmp_path / "seen.parquet"
    pq.write_table(pa.table({**columns, "rating": np.arange(count)}), path, row_group_size=max(1, count // 20))
    people, media = (
        numbered(np.array([f"{letter}{one}" for one in range(many)], object))
        for letter, many in (("u", users), ("t", titles))
    )
    found = read_seen_rows(path, people, media)
    history = grouped_history(found.users, found.titles, found.ratings, None, users, titles)
    last = dict(zip((who * titles + what).tolist(), range(count), strict=True))
    assert history.ratings is not None
    assert history.ratings.tolist() == [last[pair] for pair in sorted(last)]
    nobody = numbered(np.array(["t0"], object))
    assert read_delisted_rows(path, people, nobody).users.tolist() == who.tolist()
