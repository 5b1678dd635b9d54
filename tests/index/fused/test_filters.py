"""Filters of type fused: by bitmap or with their titles gathered together, the same answers bit for bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from fused_worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.bitmaps import Bitmaps
from semrec_faiss.index.fused.known_filters import GATHERED_RECORDED_AT, gathering_ms, masking_loss_ms
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.codes import TitleCodes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles

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


def catalogue(titles: int, dim: int = 384, *, codes: bool = False) -> GpuTitles:
    """Titles without memory, for estimates."""
    import torch

    def made(*shape: int, dtype: Any) -> Any:
        return torch.empty(shape, dtype=dtype, device="meta")

    halves = made(titles, dim, dtype=torch.float16)
    steps = made(titles, dtype=torch.float16)
    kept = TitleCodes(made(titles, dim, dtype=torch.int8), steps, steps, 1.0) if codes else None
    return GpuTitles(halves, made(titles, dim, dtype=torch.float32), 1.0, 1.0, 0.1, codes=kept)


@needs_kernels
def test_what_is_gathered_when() -> None:
    """One percent of a million titles at once for a batch, after some uses for one query; never all but a few."""
    million = catalogue(10**6, codes=True)
    gathering = gathering_ms(10**4, 384)
    assert masking_loss_ms(million, 1000, 10**4) > gathering
    assert 5 < gathering / masking_loss_ms(million, 1, 10**4) < 8
    assert masking_loss_ms(catalogue(62_423), 1, 624) < gathering_ms(624, 384) / 40
    assert 10 * masking_loss_ms(million, 100, 990_000) < gathering_ms(990_000, 384)


@needs_kernels
def test_codes_are_half_of_what_is_read_without_them() -> None:
    coded, plain = catalogue(10**6, codes=True), catalogue(10**6)
    assert masking_loss_ms(coded, 1, 0) / masking_loss_ms(plain, 1, 0) == pytest.approx((384 + 4) / (2 * 384))
    assert masking_loss_ms(coded, 100, 0) == masking_loss_ms(plain, 100, 0), "too many for codes to be read"


@needs_kernels
def test_bitmaps_are_packed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself: the room that they are sent from is used again."""
    import torch

    rng = np.random.default_rng(4)
    for titles in (1, 31, 256, 1000):
        bitmaps = Bitmaps(titles, torch.device(str(PLACE)))
        masks = [rng.random(titles) < share for share in (1.0, 0.3, 0.0, 0.5)]
        sent = [bitmaps.send(mask) for mask in masks]
        for mask, (bitmap, allowed) in zip(masks, sent, strict=True):
            assert len(bitmap) == bitmap_words(titles) and allowed == mask.sum()
            bits = np.unpackbits(bitmap.cpu().numpy().view(np.uint8), bitorder="little").astype(np.bool_)
            np.testing.assert_array_equal(bits[:titles], mask)
            assert not bits[titles:].any()
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # numpy 1 has none
    assert [bitmaps.send(mask)[1] for mask in masks] == [mask.sum() for mask in masks]


@needs_kernels
def test_a_bitmap_waits_until_the_last_one_has_left() -> None:
    """Packed too soon it would be sent in its place. A stand-in plays the GPU's clock."""
    import torch

    bitmaps, told = Bitmaps(300, torch.device(str(PLACE))), []
    bitmaps._sent = SimpleNamespace(
        query=lambda: False,
        synchronize=lambda: told.append(bitmaps._view.copy()),
        record=lambda _: told.append(None),
    )
    masks = [np.arange(300) % 3 == rest for rest in range(2)]
    with mock.patch("torch.cuda.current_stream"):
        first, second = (bitmaps.send(mask)[0].cpu().numpy() for mask in masks)
    assert [one is None for one in told] == [False, True, False, True]
    np.testing.assert_array_equal(told[2], first)
    assert not np.array_equal(first, second)
