"""Frames of pandas: an index that has a name is columns, one without is none, whatever pandas' version hands Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from semrec_faiss import Recommender

VECTORS = np.eye(3, dtype=np.float32)
SONGS = pd.DataFrame({"media_id": ["a", "b", "c"], "title": ["A", "B", "C"], "x": [1, 2, 3]})


def found(vectors: Any, frame: Any) -> list[dict[str, Any]]:
    index = Recommender.from_arrays(vectors, frame)  # of another dimension it would refuse the vectors
    return [{**answer[0].as_dict(), "rank": 0, "score": 0} for answer in index.search(VECTORS, 1)]


@pytest.mark.parametrize(
    "frame",
    [
        SONGS.set_axis([7, 3, 5]),
        SONGS.set_axis(["p", "q", "r"]),
        SONGS.set_index("media_id"),
        SONGS.set_index(["media_id", "x"]),
        SONGS.set_index("media_id", drop=False),
    ],
    ids=["numbers", "texts", "ids", "two", "kept"],
)
def test_an_index_without_a_name_is_no_field(frame: Any) -> None:
    """Once a fault: with pandas 3 the field __index_level_0__ was in every answer."""
    assert found(VECTORS, frame) == found(VECTORS, SONGS)


@pytest.mark.parametrize("index", [pd.Index([7, 3, 5]), pd.Index([7, 3, 5], name="sku")])
def test_an_index_is_no_dimension(index: Any) -> None:
    """Once a fault: with pandas 3 the numbers of the rows were a dimension of the vectors, larger than all others."""
    assert found(pd.DataFrame(VECTORS, index=index), SONGS) == found(VECTORS, SONGS)
