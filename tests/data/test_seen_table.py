"""Rows of what users have seen, put together."""

from __future__ import annotations

import numpy as np

from semrec_faiss.data.seen_table import SeenRows, joined_ratings_and_times


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
