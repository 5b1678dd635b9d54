"""What is counted later is counted when it is asked for, once, and goes wherever the rest goes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from semrec_faiss.arrays import Rows
from semrec_faiss.search.batching.joined import part_of
from semrec_faiss.search.restricted.found import CountedLater, TopK


def test_matching_titles_are_counted_when_they_are_asked_for() -> None:
    counted: list[int] = []

    def count() -> Rows:
        counted.append(1)
        return np.array([5, 6, 7])

    rows, scores, nothing = np.zeros((3, 2), np.int64), np.zeros((3, 2), np.float32), np.empty(0, np.int64)
    found = CountedLater(rows, scores, nothing, True, "masked", count=count)
    assert found.returned.tolist() == [2, 2, 2]
    assert counted == []
    assert [found.matching.tolist() for _ in range(2)] == [[5, 6, 7]] * 2
    assert counted == [1]
    assert part_of(found, 1, 2).matching.tolist() == [6]
    assert replace(found, rows=rows[:, :1]).matching.tolist() == [5, 6, 7]
    plain = CountedLater(rows, scores, np.array([1, 2, 3]), True, "index")
    assert pickle.loads(pickle.dumps(plain)).matching.tolist() == [1, 2, 3]
    assert isinstance(plain, TopK)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        found.nothing_of_the_kind  # noqa: B018
