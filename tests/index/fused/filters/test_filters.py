"""Filters of type fused: by bitmap or from a shelf with their titles, the same answers bit for bit."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.filters.shelves import (
    shelf_size,
)
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from tests.index.fused.worlds import (
    FREE,
    PLACE,
    PRICELESS,
    SIZE,
    Truth,
    bitmaps_lose,
    clustered,
    exclude,
    needs_kernels,
    searcher,
)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, index: FusedSearcher, queries: NDArray[Any], k: int, mask: Mask, **more: Any
) -> FusedResult:
    """Search by bitmap, and from a shelf on which in between another filter's titles are; the answers are the same."""
    found, mask, other = [], mask.copy(), mask.copy()  # filters that are new to it
    first, last = np.flatnonzero(mask)[[0, -1]] if mask.any() else (0, 0)
    other[first], other[last] = False, mask.sum() == 1  # fewer of the same size
    times = 1 if PLACE == "cpu" else 3  # launched, recorded, replayed
    bitmaps_lose(monkeypatch, PRICELESS)
    found += [index.search(queries, k, mask=mask, **more) for _ in range(times)]
    bitmaps_lose(monkeypatch, FREE)
    for _ in range(times):
        for _ in range(times):
            found.append(index.search(queries, k, mask=mask, **more))
        shelf = index.filters._known[id(mask)].shelf
        assert (shelf is not None) == mask.any()
        if shelf is not None and shelf_size(int(other.sum())) == shelf.size:
            index.search(queries, k, mask=other, **more)
            assert index.filters._known[id(mask)].shelf is None
            assert index.filters._known[id(other)].shelf is shelf
        found.append(index.search(queries, k, mask=mask, **more))
        assert index.filters._known[id(mask)].shelf is shelf
    for one in found[1:]:
        np.testing.assert_array_equal(one.rows, found[0].rows)
        np.testing.assert_array_equal(one.scores.view(np.int32), found[0].scores.view(np.int32))
    return found[-1]


@needs_kernels
@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_titles_on_a_shelf_answer_as_a_bitmap_does(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(21)
    titles = clustered(rng, 600 * SIZE, 40)
    titles[rng.choice(len(titles), 30)] = titles[0]
    queries = titles[[0, -1]]  # the last one fills what a filter leaves of a shelf
    mask = rng.random(len(titles)) < share
    lists = [rng.choice(len(titles), size=60, replace=False) for _ in queries]
    allowed = np.broadcast_to(mask, (2, len(titles))).copy()
    index = searcher(titles)
    Truth.of(titles, queries, allowed).check(both_ways(monkeypatch, index, queries, 12, mask), 12)
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    found = both_ways(monkeypatch, index, queries, 12, mask, excluded=exclude(lists))
    Truth.of(titles, queries, allowed).check(found, 12)


@needs_kernels
@settings(max_examples=6 if PLACE == "cpu" else 100, deadline=None)
@given(data=st.data())
def test_filters_of_all_kinds_on_shelves(data: st.DataObject) -> None:
    """One after another, with lists of each query's own or without, from one title to all but a few."""
    n = data.draw(st.integers(10, 300 * SIZE))
    k = data.draw(st.integers(1, min(n, 40)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    titles, asked = (rng.normal(size=(count, 40)).astype(np.float32) for count in (n, 2))
    titles[rng.random(n) < data.draw(st.sampled_from([0.0, 0.5]))] = titles[0]
    asked[0] = titles[-1]
    coded_titles = data.draw(st.sampled_from([1, 500_000]))
    with (
        mock.patch("semrec_faiss.index.fused.plan.CODED_TITLES", coded_titles),
        mock.patch("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6),
        mock.patch("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: FREE),
    ):
        index = searcher(titles)
        for share in data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=3)):
            mask = rng.random(n) < share
            lists = [rng.choice(n, size=data.draw(st.integers(0, 9)), replace=False) for _ in asked]
            allowed = np.broadcast_to(mask, (2, n)).copy()
            for query, rows in enumerate(lists):
                allowed[query, rows] = False
            Truth.of(titles, asked, allowed).check(index.search(asked, k, mask=mask, excluded=exclude(lists)), k)
            shelved = index.filters.place(mask, 2).shelf is not None
            assert shelved == (mask.any() and shelf_size(int(mask.sum())) < n)


@needs_kernels
def test_ties_that_nothing_tells_apart_are_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    titles, rng = np.ones((700, 32), np.float32), np.random.default_rng(1)
    mask = rng.random(700) < 0.5
    excluded = Exclusions(np.array([0, 2, 2]), np.flatnonzero(mask)[[0, 3]])
    found = both_ways(monkeypatch, searcher(titles), titles[:2], 6, mask, excluded=excluded)
    first = np.flatnonzero(mask)
    np.testing.assert_array_equal(found.rows, [first[[1, 2, 4, 5, 6, 7]], first[:6]])


@needs_kernels
def test_without_originals_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    titles = clustered(rng, 600, 32)
    mask = rng.random(600) < 0.2
    found = both_ways(monkeypatch, searcher(titles, rescore="float16"), titles[:3], 9, mask)
    assert mask[found.rows].all()
