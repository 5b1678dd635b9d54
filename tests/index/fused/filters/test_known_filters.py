"""Which filters are put on shelves, when, and what of them memory that runs out leaves."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.filters import known_filters
from semrec_faiss.index.fused.filters.known_filters import MAKING_MS, loading_ms, masking_loss_ms
from semrec_faiss.index.fused.filters.shelves import (
    LEAST_SHELVED,
    Shelf,
    shelf_bytes,
    shelf_size,
)
from semrec_faiss.index.fused.titles.codes import TitleCodes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles
from tests.index.fused.worlds import FREE, PLACE, PRICELESS, Truth, bitmaps_lose, clustered, needs_kernels, searcher


@needs_kernels
def test_shelves_keep_to_their_budget_and_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rng = np.random.default_rng(6)
    titles = clustered(rng, 900, 32)
    index = searcher(titles)
    bitmaps_lose(monkeypatch, FREE)
    sizes = [shelf_bytes(index.titles, size) for size in (96, 192, 384)]
    monkeypatch.setattr(index.filters, "budget", sizes[1] + sizes[2] + 100)
    masks = [np.arange(900) < count for count in (90, 190, 380)]

    def shelved() -> list[bool]:
        known = [index.filters._known.get(id(mask)) for mask in masks]
        return [one is not None and one.shelf is not None for one in known]

    monkeypatch.setattr("semrec_faiss.index.fused.block_search.GRAPH_BYTES", 0)
    for mask, expected in zip(masks, ([1, 0, 0], [1, 1, 0], [0, 1, 1]), strict=True):
        index.search(titles[:2], 4, mask=mask)
        assert shelved() == list(map(bool, expected))
    assert index.search(titles[:2], 4, mask=np.arange(900) < 700).rows[0, 0] == 0, "too large: by its bitmap"
    assert shelved() == [False, True, True]
    bitmaps_lose(monkeypatch, PRICELESS)
    answer, failed = index._all.answer, []

    def short_of_memory(*given: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return answer(*given, **options)

    monkeypatch.setattr(index._all, "answer", short_of_memory)
    index.search(titles[:2], 4)  # without a warning: blocks stay as large as they were
    assert shelved() == [False] * 3
    assert not index._workspace.lanes or next(iter(index._workspace.lanes.values())).work.titles is index.titles
    assert index.filters.budget == (sizes[1] + sizes[2]) // 2, "memory is short, so there are fewer"


@needs_kernels
def test_shelves_come_back_once_memory_has_sufficed_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    bitmaps_lose(monkeypatch, FREE)
    monkeypatch.setattr(known_filters, "CALM_BATCHES", 3)
    index = searcher(clustered(np.random.default_rng(6), 900, 32))
    filters, most = index.filters, index.filters.budget
    masks = [np.arange(900) < count for count in (90, 190)]
    one = shelf_bytes(index.titles, 96)
    held = one + shelf_bytes(index.titles, 192)

    def placed(times: int) -> list[bool]:
        return [filters.place(masks[turn % 2], 1).shelf is not None for turn in range(times)]

    assert placed(4) == [True] * 4 and filters._held == held
    assert filters.let_go() and filters.budget == held // 2 and filters._held == 0
    assert placed(2) == [True, False], "of the two only the smaller one fits half of what they took"
    assert filters.let_go() and filters.budget == one // 2, "short again: half of what was left"
    assert placed(2) == [False, False] and filters.budget == one // 2, "it is counted anew"
    assert placed(2) == [True, False] and filters.budget == one
    assert not placed(1)[0] or filters._held <= filters.budget
    placed(9)
    assert filters.budget == 8 * one and filters._held == held, "as before"
    placed(3 * 30)
    assert filters.budget == most
    assert not (filters._shelves.clear() or filters.let_go()) and filters.budget == most, "nothing could be let go of"


@needs_kernels
def test_memory_that_never_suffices_ends_in_searches_by_bitmap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a loop without end: titles were put on a shelf again each time that their search had run out of memory."""
    import torch

    titles = clustered(np.random.default_rng(6), 900, 32)
    index, mask = searcher(titles), np.arange(900) % 9 == 0
    bitmaps_lose(monkeypatch, FREE)
    answer, failed = BlockSearch.answer, []

    def short_of_memory(self: BlockSearch, *given: Any, **options: Any) -> Any:
        if self is not index._all:
            failed.append(index.filters.budget)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return answer(self, *given, **options)

    monkeypatch.setattr(BlockSearch, "answer", short_of_memory)
    monkeypatch.setattr(index.filters, "budget", 4 * shelf_bytes(index.titles, 128))
    found = index.search(titles[:2], 4, mask=mask)
    Truth.of(titles, titles[:2], np.broadcast_to(mask, (2, 900))).check(found, 4)
    assert failed == [4 * shelf_bytes(index.titles, 128)], "there was one, and it was too many"


@needs_kernels
@pytest.mark.parametrize("name", ["load", "__init__"])
def test_no_memory_for_a_shelf_leaves_the_bitmap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    titles = clustered(np.random.default_rng(6), 300, 32)
    index, mask = searcher(titles), np.arange(300) % 9 == 0
    bitmaps_lose(monkeypatch, FREE)
    monkeypatch.setattr(Shelf, name, mock.Mock(side_effect=torch.cuda.OutOfMemoryError("CUDA out of memory.")))
    found = index.search(titles[:2], 4, mask=mask)
    known = index.filters._known[id(mask)]
    assert known.shelf is None and known.lost_ms == 0.0
    Truth.of(titles, titles[:2], np.broadcast_to(mask, (2, 300))).check(found, 4)


@needs_kernels
def test_a_filter_that_is_forgotten_leaves_its_shelf_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bitmaps_lose(monkeypatch, FREE)
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.FILTERS_KNOWN", 1)
    index = searcher(clustered(np.random.default_rng(3), 600, 32))
    masks = [np.arange(600) % 3 == rest for rest in range(2)]
    index.search(np.eye(2, 32, dtype=np.float32), 4, mask=masks[0])
    shelf = index.filters._known[id(masks[0])].shelf
    assert shelf is not None and index._workspace.lanes[0].work.titles is shelf.titles
    buffers = index._workspace.lanes[0]
    index.search(np.eye(2, 32, dtype=np.float32), 4, mask=masks[1])
    assert list(index.filters._known) == [id(masks[1])]
    assert index.filters._shelves == [shelf] and index.filters._known[id(masks[1])].shelf is shelf
    if PLACE == "cpu":
        assert index._workspace.lanes[0] is buffers, "a new filter waits for no buffers"


@needs_kernels
def test_filters_share_a_shelf_until_they_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ms in (("MAKING_MS", 1.0), ("ANOTHER_MS", 0.35)):
        monkeypatch.setattr(f"semrec_faiss.index.fused.filters.known_filters.{name}", ms)
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.loading_ms", lambda *_: 0.1)
    filters = searcher(np.eye(900, 32, dtype=np.float32)).filters
    one, two = (np.arange(900) % 9 == rest for rest in (0, 1))
    large = np.arange(900) < 400

    def after(mask: Mask, lost: float) -> tuple[bool, int]:
        bitmaps_lose(monkeypatch, lost)
        return filters.place(mask, 1).shelf is not None, len(filters._shelves)

    assert [after(one, 0.4) for _ in range(3)] == [(False, 0), (False, 0), (True, 1)], "made for 1.1 ms lost"
    assert after(two, 0.05) == (False, 1), "the first use of another: copying costs more"
    assert after(one, 0.05) == (True, 1), "who was on it still is"
    assert after(two, 0.05) == (True, 1), "the second: as much"
    assert filters.place(one, 1).shelf is None
    assert after(large, 0.4) == (False, 1), "a size of its own has to pay for a shelf of its own"
    for _ in range(3):
        assert (after(one, 0.1), after(two, 0.1)) == ((True, 1), (True, 1)), "they take turns"
    assert after(one, 0.1) == (True, 2), "copied four times already: one more would cost as much as a shelf"
    assert after(two, 0.1) == (True, 2)
    assert filters.place(one, 1).shelf is not filters.place(two, 1).shelf
    assert filters.place(one, 1).shelf is not None
    three = np.arange(900) % 9 == 2
    monkeypatch.setattr(filters, "budget", 2 * shelf_bytes(filters._titles, 128))
    for _ in range(6):
        for mask in (one, two, three):
            assert after(mask, 0.1) == (True, 2), "no room for a third: none is let go of for it"


@needs_kernels
@pytest.mark.parametrize("room", [True, False])
def test_a_filter_is_shelved_on_request(room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that has come to pay, and where there is no room not at all."""
    bitmaps_lose(monkeypatch, PRICELESS)
    titles = clustered(np.random.default_rng(3), 600, 32)
    index = searcher(titles)
    masks = [np.arange(600) % every == 0 for every in (7, 8)]
    if not room:
        monkeypatch.setattr(index.filters, "budget", 0)
    for mask in masks:
        index.search(titles[:2], 4, mask=mask)
        assert index.filters._known[id(mask)].shelf is None
        index.shelve(mask)
        assert (index.filters._known[id(mask)].shelf is not None) == room
        found = index.search(titles[:2], 4, mask=mask)
        assert (index.filters._known[id(mask)].shelf is not None) == room
        Truth.of(titles, titles[:2], np.tile(mask, (2, 1))).check(found, 4)
    assert len(index.filters._shelves) == room, "which they share"


def catalogue(titles: int, dim: int = 384, *, codes: bool = False) -> GpuTitles:
    """Titles without memory, for estimates."""
    import torch

    def made(*shape: int, dtype: Any) -> Any:
        return torch.empty(shape, dtype=dtype, device="meta")

    halves = made(titles, dim, dtype=torch.float16)
    steps = made(titles, dtype=torch.float16)
    kept = TitleCodes(made(titles, dim, dtype=torch.int8), steps, steps, 1.0) if codes else None
    return GpuTitles(halves, made(titles, dim, dtype=torch.float32), dim, 1.0, 1.0, 0.1, codes=kept)


@needs_kernels
def test_what_is_copied_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million titles whenever there is a shelf, which a batch pays for at once, one query after some uses."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", LEAST_SHELVED)
    million, size = catalogue(10**6, codes=True), shelf_size(10**4)
    assert masking_loss_ms(million, 1, size) > 2 * loading_ms(million, size)
    assert 5 < MAKING_MS / masking_loss_ms(million, 1, size) < 8
    assert masking_loss_ms(million, 2000, size) > MAKING_MS + loading_ms(million, size)
    assert 10 * loading_ms(million, size) < masking_loss_ms(million, 1000, size) < MAKING_MS + loading_ms(million, size)
    small = shelf_size(624)
    movies = catalogue(62_423)
    assert 3 < loading_ms(movies, small) / masking_loss_ms(movies, 1, small) < 4
    half = shelf_size(500_000)
    assert masking_loss_ms(million, 1, half) < loading_ms(million, half) / 4
    assert loading_ms(million, half) / 4 < masking_loss_ms(million, 1000, half) < loading_ms(million, half) / 2
    assert masking_loss_ms(million, 256, half) > loading_ms(million, half) / 3
    assert masking_loss_ms(million, 1000, 10**6) == 0


@needs_kernels
def test_codes_are_half_of_what_is_read_without_them() -> None:
    coded, plain = catalogue(10**6, codes=True), catalogue(10**6)
    assert masking_loss_ms(coded, 1, 0) / masking_loss_ms(plain, 1, 0) == pytest.approx((384 + 4) / (2 * 384))
    assert masking_loss_ms(coded, 100, 0) == masking_loss_ms(plain, 100, 0), "too many for codes to be read"
