"""The best titles of a batch by numpy's product: what a sort finds, in any shape, and no thread is lost."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.index.cpu import products
from semrec_faiss.index.cpu.products import best_by_numpy, best_of_batch
from semrec_faiss.index.hardware.kernels import Blas


def whole_numbers(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Vectors whose products are the same in any order of adding, with ties."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    queries=st.integers(2, 300),
    titles=st.integers(1, 5000),
    k=st.integers(1, 80),
    seed=st.integers(0, 2**16),
)
def test_the_best_are_those_of_a_sort(queries: int, titles: int, k: int, seed: int) -> None:
    asked, vectors = whole_numbers((queries, 4), seed), whole_numbers((titles, 4), seed + 1)
    k = min(k, titles)
    scores, rows = best_by_numpy(asked, k, vectors)
    check_best(asked, vectors, scores, rows)


def check_best(asked: np.ndarray, vectors: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> None:
    """Assert that they are the best scores, each of another title that has it."""
    table = asked @ vectors.T
    np.testing.assert_array_equal(scores, -np.sort(-table, axis=1)[:, : scores.shape[1]])
    np.testing.assert_array_equal(scores, np.take_along_axis(table, rows, axis=1))
    assert all(len(set(found)) == len(found) for found in rows.tolist())


def test_titles_are_shared_among_threads_where_queries_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "TITLE_TILE", 64)
    asked, vectors = whole_numbers((40, 4), 1), whole_numbers((1001, 4), 2)
    searched: list[slice] = []
    real = products._best_of_tile
    monkeypatch.setattr(products, "_best_of_tile", lambda *given: (searched.append(given[-1]), real(*given))[1])
    check_best(asked, vectors, *best_by_numpy(asked, 20, vectors))
    assert len(searched) > 1
    assert sum(part.stop - part.start for part in searched) == 1001


def test_vectors_at_odd_addresses_are_multiplied_too() -> None:
    vectors = whole_numbers((3000, 4), 3)
    odd = np.frombuffer(b"x" + vectors.tobytes(), np.uint8)[1:].view(np.float32).reshape(vectors.shape)
    assert not odd.flags.aligned
    asked = whole_numbers((50, 4), 4)
    np.testing.assert_array_equal(best_by_numpy(asked, 9, odd)[1], best_by_numpy(asked, 9, vectors)[1])


@pytest.mark.parametrize(("odd", "columns"), [(False, 200), (True, 200 + 16)])
def test_all_tiles_of_a_thread_are_multiplied_in_the_same_memory(*, odd: bool, columns: int) -> None:
    """A score a query and title of one tile, and a copy of the tile's vectors where they lie at odd addresses."""
    vectors = whole_numbers((4 * products.TITLE_TILE + 5, 16), 11)
    if odd:
        vectors = np.frombuffer(b"x" + vectors.tobytes(), np.uint8)[1:].view(np.float32).reshape(vectors.shape)
    asked = whole_numbers((200, 16), 12)
    tracemalloc.start()
    try:
        products._best_of_tile(asked, 5, vectors, slice(0, len(vectors)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak == pytest.approx(4 * products.TITLE_TILE * columns, rel=0.05)


def test_a_score_that_is_no_number_is_nobodys_best() -> None:
    vectors = whole_numbers((200, 2), 5)
    vectors[7] = (np.inf, 0)
    asked = whole_numbers((3, 2), 6)
    asked[1] = (0, 1)  # 0 × inf
    scores, rows = best_by_numpy(asked, 5, vectors)
    assert (rows >= 0).all()
    assert 7 not in rows[1]
    assert np.isfinite(scores[1]).all()


def test_numpy_has_its_threads_again_when_the_last_of_several_searches_ends() -> None:
    blas = Blas.of("numpy")
    if blas is None or blas.threads is None:
        pytest.skip("this numpy's BLAS does not tell its threads")
    before = blas.threads
    asked, vectors = whole_numbers((400, 16), 7), whole_numbers((9000, 16), 8)
    blas.threads = 2
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: best_by_numpy(asked, 5, vectors), range(12)))
        assert blas.threads == 2
    finally:
        blas.threads = before


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_product_is_taken(monkeypatch: pytest.MonkeyPatch, *, faster: bool) -> None:
    monkeypatch.setattr(products, "numpy_is_faster", lambda: faster)
    taken: list[str] = []
    for name in ("best_by_numpy", "_best_by_faiss"):
        real = getattr(products, name)
        monkeypatch.setattr(products, name, lambda *given, name=name, real=real: (taken.append(name), real(*given))[1])
    asked, vectors = whole_numbers((64, 4), 9), whole_numbers((products.LEAST_TITLES, 4), 10)
    scores, _ = best_of_batch(asked, 5, vectors)
    assert taken == ["best_by_numpy" if faster else "_best_by_faiss"]
    np.testing.assert_array_equal(scores, -np.sort(-(asked @ vectors.T), axis=1)[:, :5])
