"""Filters of type fused: by bitmap or with their titles gathered together, the same answers bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fused_worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.known_filters import GATHERED_RECORDED_AT, gathering_ms, masking_loss_ms
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher

FREE, PRICELESS = 0.0, float("inf")


def price(monkeypatch: pytest.MonkeyPatch, ms: float) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.known_filters.gathering_ms", lambda *_: ms)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, index: FusedSearcher, queries: NDArray[Any], k: int, mask: Mask, **more: Any
) -> FusedResult:
    """Search by bitmap and with the titles gathered; the answers must be the same ones."""
    found, mask = [], mask.copy()  # a filter that is new to it
    for ms in (PRICELESS, FREE):
        price(monkeypatch, ms)
        for _ in range(1 if PLACE == "cpu" else GATHERED_RECORDED_AT + 1):  # launched, recorded, replayed
            found.append(index.search(queries, k, mask=mask, **more))
        known = index.filters._known[id(mask)]
        assert (known.gathered is not None) == (ms == FREE and mask.any())
    for one in found[1:]:
        np.testing.assert_array_equal(one.rows, found[0].rows)
        np.testing.assert_array_equal(one.scores.view(np.int32), found[0].scores.view(np.int32))
    return found[-1]


@needs_kernels
@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_gathered_titles_answer_as_a_bitmap_does(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(21)
    titles = clustered(rng, 600 * SIZE, 40)
    titles[rng.choice(len(titles), 30)] = titles[0]
    queries = np.concatenate((titles[:1], rng.normal(size=(1, 40)))).astype(np.float32)
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


@needs_kernels
def test_gathered_titles_keep_to_their_budget_and_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rng = np.random.default_rng(6)
    titles = clustered(rng, 900, 32)
    index = searcher(titles)
    price(monkeypatch, FREE)
    monkeypatch.setattr(index.filters, "budget", 2 * 300 * (2 * 32 + 4) + 100)
    masks = [np.arange(900) % 3 == rest for rest in range(3)]

    def gathered() -> list[bool]:
        return [getattr(index.filters._known.get(id(mask)), "gathered", None) is not None for mask in masks]

    monkeypatch.setattr("semrec_faiss.index.fused.block_search.GRAPH_BYTES", 0)
    for mask, expected in zip(masks, ([1, 0, 0], [1, 1, 0], [0, 1, 1]), strict=True):
        index.search(titles[:2], 4, mask=mask)
        assert gathered() == list(map(bool, expected))
    assert index.search(titles[:2], 4, mask=np.ones(900, np.bool_)).rows[0, 0] == 0, "too large: by its bitmap"
    monkeypatch.setattr("semrec_faiss.index.fused.known_filters.gathering_ms", lambda *_: PRICELESS)
    answer, failed = index._all.answer, []

    def short_of_memory(*given: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return answer(*given, **options)

    monkeypatch.setattr(index._all, "answer", short_of_memory)
    index.search(titles[:2], 4)  # without a warning: blocks stay as large as they were
    assert gathered() == [False] * 3


@needs_kernels
@pytest.mark.parametrize("titles", [300, 255 * 32, 256 * 32, 3 * 256 * 32 + 33])
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_the_rows_of_a_filter_are_listed_on_the_gpu(titles: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.known_filters.COUNTED_AT_ONCE", 2)
    mask = np.random.default_rng(titles).random(titles) < share
    mask[[7, titles - 1]] = True
    filters = searcher(np.eye(titles, 32, dtype=np.float32)).filters
    known = filters.place(mask, 1)
    assert known.allowed == mask.sum()
    rows = filters._rows_of(known).cpu().numpy()
    np.testing.assert_array_equal(rows, np.flatnonzero(mask))


@needs_kernels
def test_a_filter_that_is_forgotten_leaves_no_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    price(monkeypatch, FREE)
    monkeypatch.setattr("semrec_faiss.index.fused.known_filters.FILTERS_KNOWN", 1)
    index = searcher(clustered(np.random.default_rng(3), 600, 32))
    masks = [np.arange(600) % 3 == rest for rest in range(2)]
    index.search(np.eye(2, 32, dtype=np.float32), 4, mask=masks[0])
    gathered = index.filters._known[id(masks[0])].gathered
    assert gathered is not None and index._workspace.lanes[0].work.titles is gathered.titles
    index.filters.place(masks[1], 2)
    assert list(index.filters._known) == [id(masks[1])]
    assert not index._workspace.lanes


def test_what_is_gathered_when() -> None:
    """One percent of a million titles at once for a batch, at the second use for one query; never all but a few."""
    assert masking_loss_ms(10**6, 384, 1000, 10**4) > gathering_ms(10**4, 384)
    one = masking_loss_ms(10**6, 384, 1, 10**4)
    assert one > gathering_ms(10**4, 384) / 2
    assert masking_loss_ms(62_423, 384, 1, 624) < gathering_ms(624, 384) / 2
    assert 10 * masking_loss_ms(10**6, 384, 100, 990_000) < gathering_ms(990_000, 384)
