"""The lists of interests as one list a user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.search.profile import merging
from semrec_faiss.search.profile.merging import blocks_of_users, merged


def one_by_one(rows: Any, scores: Any, counts: Any, k: int, merge: str) -> tuple[list[list[int]], list[list[float]]]:
    """Do the same for one user after another, a title at a time."""
    lists, best = [], []
    for last, count in zip(np.cumsum(counts).tolist(), counts, strict=True):
        found = []
        for interest in range(last - count, last):
            own = [(-scores[interest][at], at, row) for at, row in enumerate(rows[interest]) if row >= 0]
            found += [(turn, interest, row, -less) for turn, (less, _, row) in enumerate(sorted(own))]
        if merge == "score":
            found.sort(key=lambda one: (-one[3], one[2]))
        else:
            found.sort(key=lambda one: one[:2])
        mine = list(dict.fromkeys(row for _, _, row, _ in found))[:k]
        of = {row: max(score for _, _, other, score in found if other == row) for row in mine}
        lists.append(mine + [-1] * (k - len(mine)))
        best.append([of[row] for row in mine] + [-np.inf] * (k - len(mine)))
    return lists, best


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[list[int]], list[list[float]], list[int]]:
    """Make interests' lists of few titles and few scores, so that many are tied; some places are empty."""
    counts = draw(st.lists(st.integers(0, 4), min_size=0, max_size=6))
    width = draw(st.integers(1, 9))
    titles = st.lists(st.integers(0, 11), unique=True, max_size=width)
    rows = [draw(titles) for _ in range(sum(counts))]
    rows = [[*own, *[-1] * (width - len(own))] for own in rows]
    values = st.lists(st.integers(-4, 4).map(lambda number: number / 4), min_size=width, max_size=width)
    return rows, [draw(values) for _ in rows], counts


@given(made=pools(), k=st.integers(1, 12), merge=st.sampled_from(["score", "turns"]), cells=st.integers(1, 60))
def test_many_users_at_once_are_merged_as_one_by_one(made: Any, k: int, merge: str, cells: int) -> None:
    rows, scores, counts = made
    width = len(rows[0]) if rows else 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "BLOCK_CELLS", cells)
        arrays = np.array(rows, np.int64).reshape(-1, width), np.array(scores, np.float64).reshape(-1, width)
        lists, best = merged(*arrays, np.array(counts, np.int64), k, merge)
    expected_lists, expected_best = one_by_one(rows, scores, counts, k, merge)
    assert lists.tolist() == expected_lists
    assert best.tolist() == expected_best


def test_lists_of_interests_become_one() -> None:
    rows = np.array([[3, 1, 4, -1], [1, 5, 9, 2]])
    scores = np.array([[0.9, 0.8, 0.1, -np.inf], [0.85, 0.5, 0.4, 0.3]])
    counts = np.array([0, 2])
    lists, best = merged(rows, scores, counts, 8, "score")
    assert lists.tolist() == [[-1] * 8, [3, 1, 5, 9, 2, 4, -1, -1]]
    np.testing.assert_array_equal(best[1], np.float32([0.9, 0.85, 0.5, 0.4, 0.3, 0.1, -np.inf, -np.inf]))
    assert merged(rows, scores, counts, 5, "turns")[0][1].tolist() == [3, 1, 5, 4, 9]
    # The first interest alone would fill the list, and the second gives what it lists a higher score.
    lists, best = merged(np.array([[7, 8], [9, 8]]), np.array([[0.5, 0.4], [0.9, 0.8]]), np.array([2]), 3, "turns")
    assert (lists.tolist(), best.tolist()) == ([[7, 9, 8]], np.float32([[0.5, 0.9, 0.8]]).tolist())
    lists, best = merged(np.array([[7, 8], [9, 7]]), np.array([[0.5, 0.4], [0.9, 0.8]]), np.array([2]), 1, "turns")
    assert (lists.tolist(), best.tolist()) == ([[7]], np.float32([[0.8]]).tolist())


def test_a_user_with_more_interests_than_fit_is_a_block_alone() -> None:
    blocks = blocks_of_users(np.array([0, 3, 3, 5, 20, 21, 22]), 5)
    assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 4), (4, 6)]
    assert list(blocks_of_users(np.array([0]), 3)) == []
