"""Merging what parts found: the best of all by score, ties by row, whatever the number of parts and queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index import search_result
from semrec_faiss.index.search_result import best_of_parts

# Few values, so that many tie; both zeros, which are one score, and what has no title.
SCORES = st.sampled_from([-np.inf, -3.5, -1e-45, -0.0, 0.0, 1e-45, 0.25, 0.5, 3e38])


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[Scores], list[Rows], int]:
    queries, widths = draw(st.integers(1, 4)), draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    scores, rows = [], []
    for part, width in enumerate(widths):
        drawn = draw(st.lists(SCORES, min_size=queries * width, max_size=queries * width))
        own = -np.sort(-np.array(drawn, np.float32).reshape(queries, width), axis=1)
        scores.append(own)
        rows.append(np.where(np.isneginf(own), -1, 100 * part + np.arange(width)))
    return scores, rows, draw(st.integers(1, 12))


@given(parts())
def test_the_best_of_parts_are_those_of_all_ties_by_row(given_parts: tuple[list[Scores], list[Rows], int]) -> None:
    scores, rows, k = given_parts
    best, found = best_of_parts(scores, rows, k)
    assert (best.dtype, found.dtype, best.shape, found.shape) == (np.float32, np.int64, (len(scores[0]), k), best.shape)
    for query in range(len(best)):
        every = [
            (-float(score), int(row))
            for own, at in zip(scores, rows, strict=True)
            for score, row in zip(own[query], at[query], strict=True)
            if row >= 0
        ]
        expected = sorted(every)[:k] + [(np.inf, -1)] * (k - len(every))
        assert [(-float(score), int(row)) for score, row in zip(best[query], found[query], strict=True)] == expected


def test_many_queries_are_merged_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    scores = [-np.sort(-random.integers(0, 9, (50, 4)), axis=1).astype(np.float32) for _ in range(3)]
    rows = [np.sort(random.integers(0, 100, (50, 4)), axis=1) + 100 * part for part in range(3)]
    at_once = best_of_parts(scores, rows, 5)
    monkeypatch.setattr(search_result, "_MERGED_AT_ONCE", 7 * 12)
    np.testing.assert_array_equal(best_of_parts(scores, rows, 5), at_once)
