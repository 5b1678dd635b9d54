"""Few titles as columns: a batch finds and scores what each query does alone, to the last digit, and ties by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from semrec_faiss.config.index_types import FlatIndex
from semrec_faiss.index import faiss_index
from semrec_faiss.index.cpu import few
from semrec_faiss.index.cpu.few import FewTitles
from semrec_faiss.index.cpu.views import flat_over
from semrec_faiss.index.vector_index import VectorIndex

TITLES, DIM = 700, 48


@pytest.fixture
def index() -> VectorIndex:
    """Random titles, of which some stand there three times: what is tied goes on past any k."""
    vectors = np.random.default_rng(1).standard_normal((TITLES, DIM)).astype(np.float32)
    vectors[100:200] = vectors[:100]
    vectors[400:500] = vectors[:100]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VectorIndex(flat_over(vectors), FlatIndex(type="flat"))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Multiply by columns whatever the processor; the batches that were."""
    searched: list[int] = []
    real = FewTitles.search
    monkeypatch.setattr(few, "numpy_is_faster", lambda: True)
    monkeypatch.setattr(
        FewTitles, "search", lambda self, queries, k: (searched.append(len(queries)), real(self, queries, k))[1]
    )
    yield searched


@pytest.mark.parametrize("k", [1, 2, 3, 10, 32])
def test_a_batch_finds_and_scores_as_each_query_does_alone(index: VectorIndex, always: list[int], k: int) -> None:
    rows = np.random.default_rng(k).integers(100, TITLES, 40)
    queries = index.vectors(rows)
    together = index.search(queries, k, prepared=True)
    assert always[0] == 40
    for place in range(40):
        alone = index.search(queries[place : place + 1], k, prepared=True)
        np.testing.assert_array_equal(together.rows[place], alone.rows[0])
        np.testing.assert_array_equal(together.scores[place], alone.scores[0])
    assert together.exact is True


def test_the_best_of_all_titles_are_found_in_order_of_their_scores() -> None:
    vectors = np.random.default_rng(3).integers(-2, 3, (30, 4)).astype(np.float32)
    queries = np.random.default_rng(4).integers(-2, 3, (25, 4)).astype(np.float32)
    scores, rows = FewTitles(vectors).search(queries, 30)
    table = queries @ vectors.T
    np.testing.assert_array_equal(scores, -np.sort(-table, axis=1))
    np.testing.assert_array_equal(scores, np.take_along_axis(table, rows, axis=1))
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.broadcast_to(np.arange(30), (25, 30)))


def test_a_search_takes_the_way_that_is_quicker(index: VectorIndex, always: list[int]) -> None:
    for queries, k in ((few.LEAST_BATCH - 1, 5), (few.MOST_BATCH + 1, 5), (40, few.MOST_RESULTS + 1)):
        index.search(index.vectors(np.arange(500, 500 + queries)), k, prepared=True)
    assert always == []
    index.search(index.vectors(np.arange(500, 540)), 5, prepared=True)
    assert always == [40]


@pytest.mark.parametrize(
    ("titles", "dim", "is_quicker", "expected"),
    [(1519, 384, True, True), (1519, 384, False, False), (5461, 384, True, True), (5462, 384, True, False)],
)
def test_it_suits_few_titles_where_numpy_is_quicker(
    monkeypatch: pytest.MonkeyPatch, titles: int, dim: int, *, is_quicker: bool, expected: bool
) -> None:
    monkeypatch.setattr(few, "numpy_is_faster", lambda: is_quicker)
    assert few.suits(64, 11, titles, dim) is expected
    assert faiss_index.suits is few.suits
