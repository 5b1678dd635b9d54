"""Many queries are brought to unit length on the GPU they are sent to, and odd ones told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender
from semrec_faiss.errors import DataError
from semrec_faiss.index.fused.queries.unit_length import UnitLength
from semrec_faiss.index.fused.room import MOST_QUERIES
from semrec_faiss.index.queries import prepared_block
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import PLACE, SIZE, Truth, clustered, needs_kernels, searcher


@needs_kernels
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_queries_are_brought_to_unit_length_as_by_numpy_and_many_where_a_gpu_fetches_them(kind: type) -> None:
    import torch

    rng, index = np.random.default_rng(5), searcher(np.eye(200, 40, dtype=np.float32))
    for queries, locked in ((1, False), (100, False), (10_000, True), (500_000, False)):
        given = rng.normal(scale=9.0, size=(queries, 40)).astype(kind)
        found = prepared_block(given, 0, normalize=True, by=index.arithmetic)
        wanted = prepared_block(given, 0, normalize=True)
        np.testing.assert_allclose(found, wanted, rtol=3e-7)
        assert torch.from_numpy(found).is_pinned() == (locked and PLACE != "cpu")
        given.setflags(write=False)
        np.testing.assert_array_equal(prepared_block(given, 0, normalize=True, by=index.arithmetic), found)


@needs_kernels
@pytest.mark.parametrize(
    ("kind", "most"),
    [(np.float32, MOST_QUERIES), (np.float32, 128), (np.float16, MOST_QUERIES), (np.float64, 128)],
)
def test_queries_that_are_prepared_where_they_are_sent_find_what_prepared_ones_do(
    kind: type, most: int, small_parts: list[int]
) -> None:
    """At once and in blocks, launched and recorded: in parts, one after the other."""
    rng = np.random.default_rng(6)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles)
        search._most = most
        for _ in range(1 if PLACE == "cpu" else 3):
            queries = rng.normal(scale=3.0, size=(131 if PLACE == "cpu" else 1000, 40)).astype(kind)
            small_parts.clear()
            found = search.search_given(queries, 0, 10, normalize=True)
            assert len(small_parts) > 1 and (most == 128 or small_parts == sorted(set(small_parts)))
            prepared = search.search(prepared_block(queries, 0, normalize=True), 10)
            np.testing.assert_array_equal(found.rows, prepared.rows)
            np.testing.assert_allclose(found.scores, prepared.scores, atol=3e-7)
            Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)


@needs_kernels
@pytest.mark.parametrize("most", [MOST_QUERIES, 128])
def test_a_query_that_cannot_be_searched_for_is_named_though_others_are_under_way(
    most: int, small_parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is forgotten then: fewer queries, in the same buffers, are searched as ever."""
    by_host: list[int] = []

    def noted(given: Any, first: int, **options: Any) -> Any:
        by_host.append(first)
        return prepared_block(given, first, **options)

    monkeypatch.setattr("semrec_faiss.index.fused.searcher.prepared_block", noted)
    rng = np.random.default_rng(7)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles)
        search._most = most
        queries = rng.normal(size=(100, 40)).astype(np.float32)  # two blocks of 64, one in each lane, or one
        for _ in range(1 if PLACE == "cpu" else 3):
            odd = (np.nan, "NaN"), (np.inf, "infinite"), (0.0, "zero")
            for value, told in odd if most == MOST_QUERIES or PLACE != "cpu" else odd[:1]:
                wrong = queries.copy()
                wrong[99] = value
                with pytest.raises(DataError, match=rf"queries\[10000099\] .*{told}"):
                    search.search_given(wrong, 10_000_000, 10, normalize=True)
                fewer = queries[:-1]
                found = search.search_given(fewer, 0, 10, normalize=True)
                assert by_host == [10_000_000]
                by_host.clear()
                Truth.of(titles, prepared_block(fewer, 0, normalize=True)).check(found, 10)
        assert len(small_parts) > 1


@needs_kernels
def test_queries_too_short_or_long_for_float32_squares_are_searched_all_the_same(small_parts: list[int]) -> None:
    rng = np.random.default_rng(7)
    titles, queries = clustered(rng, 140 * SIZE, 40), rng.normal(size=(40, 40))
    queries[::3] *= 1e-22
    queries[1::3] *= 1e25
    search = searcher(titles)
    for kind in (np.float32, np.float64):
        found = search.search_given(queries.astype(kind), 0, 10, normalize=True)
        Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)
    found = search.search_given(queries * 1e30, 0, 10, normalize=True)  # 1e55: no float32 holds that
    Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)
    assert len(small_parts) > 1


@needs_kernels
def test_queries_are_of_unit_length_to_the_last_bit_or_left_as_they_are() -> None:
    import torch

    rng = np.random.default_rng(5)
    given = rng.normal(scale=9.0, size=(50, 40)).astype(np.float32)
    given[::2] /= np.linalg.norm(given[::2], axis=1, keepdims=True)  # within a few parts in ten million
    there = torch.from_numpy(given.copy()).to(PLACE)
    unit = UnitLength(there.device, normalize=True)
    unit.launch(there)
    unit.fetch()
    found, wide = there.cpu().numpy(), given.astype(np.float64)
    unit.check()
    np.testing.assert_array_equal(found[::2], given[::2])
    np.testing.assert_array_equal(found[1::2], (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype("f4")[1::2])


@needs_kernels
def test_queries_that_are_not_normalised_keep_their_lengths(small_parts: list[int]) -> None:
    rng = np.random.default_rng(8)
    titles = clustered(rng, 140 * SIZE, 40)
    queries = rng.normal(scale=3.0, size=(131, 40))
    queries[7] = 0.0
    search = searcher(titles)
    found = search.search_given(queries, 0, 10, normalize=False)
    assert len(small_parts) > 1
    Truth.of(titles, queries.astype(np.float32)).check(found, 10)
    queries[9, 1] = np.nan
    with pytest.raises(DataError, match=r"queries\[49\] "):
        search.search_given(queries, 40, 10, normalize=False)


@pytest.mark.gpu
def test_many_vectors_of_any_length_find_what_each_finds_alone() -> None:
    rng = np.random.default_rng(9)
    titles = clustered(rng, 20_000, 384)
    asked = rng.normal(scale=5.0, size=(20_000, 384)).astype(np.float32)  # two blocks, the first of several parts
    flat, fused = (
        Recommender.from_arrays(titles, config={"index": {"type": kind}, "device": "gpu"}) for kind in ("flat", "fused")
    )
    answers = fused.search(asked)
    np.testing.assert_array_equal(
        answers.rows[::1000], np.concatenate([fused.search(one).rows for one in asked[::1000]])
    )
    np.testing.assert_allclose(answers.scores, flat.search(asked).scores, atol=1e-5)
    asked[17_003] = np.inf
    with pytest.raises(DataError, match=r"queries\[17003\] "):
        fused.search(asked)
