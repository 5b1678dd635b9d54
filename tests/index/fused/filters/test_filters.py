"""Filters of type fused: by bitmap or from a shelf with their titles, the same answers bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from fused_worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.block_search import BlockSearch, Workspace
from semrec_faiss.index.fused.filters import known_filters
from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.filters.known_filters import MAKING_MS, loading_ms, masking_loss_ms
from semrec_faiss.index.fused.filters.shelves import (
    LEAST_SHELVED,
    Shelf,
    list_rows,
    listing_programs,
    shelf_bytes,
    shelf_size,
)
from semrec_faiss.index.fused.plan import bitmap_words, plan_search
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.titles.codes import TitleCodes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles
from semrec_faiss.index.screening.spectrum import principal_directions

FREE, PRICELESS = float("inf"), 0.0


def bitmaps_lose(monkeypatch: pytest.MonkeyPatch, ms: float) -> None:
    """Shelves are free where bitmaps lose any time, and priceless where they lose none."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: ms)


@pytest.fixture(autouse=True)
def _small_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)


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
@pytest.mark.parametrize("titles", [300, 255 * 32, 256 * 32, 3 * 256 * 32 + 33])
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_the_rows_of_a_filter_are_listed_on_the_gpu(titles: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.COUNTED_AT_ONCE", 2)
    mask = np.random.default_rng(titles).random(titles) < share
    mask[[7, titles - 1]] = True
    allowed, bitmap, _ = Bitmaps(titles, torch.device(str(PLACE))).send(mask)
    assert allowed == mask.sum()
    rows = torch.full((allowed + 5,), -7, dtype=torch.int32, device=PLACE)
    list_rows(bitmap, torch.empty(listing_programs(titles), dtype=torch.int32, device=PLACE), rows)
    np.testing.assert_array_equal(rows.cpu().numpy(), [*np.flatnonzero(mask), *[-7] * 5])


@needs_kernels
@pytest.mark.usefixtures("read")
def test_what_is_on_a_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter's titles after another's, launched, recorded and replayed, and the last title where none is."""
    launched: list[str] = []

    def noted(launches: Callable[[], None], _: Any) -> Any:
        launched.append("recorded")
        launches()
        return SimpleNamespace(replay=lambda: (launched.append("replayed"), launches()))

    whole = searcher(clustered(np.random.default_rng(3), 600, 32)).titles
    shelf, bitmaps = Shelf(whole, 96, Workspace()), Bitmaps(600, whole.halves.device)
    if PLACE == "cpu":
        monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.recorded", noted)
        monkeypatch.setattr(shelf, "_device", SimpleNamespace(type="cuda"))
    for count in (90, 1, 96, 50):
        mask = np.zeros(600, np.bool_)
        mask[np.random.default_rng(count).choice(600, count, replace=False)] = True
        shelf.load(bitmaps.send(mask)[1])
        rows = np.concatenate((np.flatnonzero(mask), np.full(96 - count, 599)))
        np.testing.assert_array_equal(shelf.titles.origins.cpu().numpy(), rows)
        pairs = [(whole.halves, shelf.titles.halves)]
        if whole.codes is not None and shelf.titles.codes is not None:
            pairs += zip(whole.codes.tables, shelf.titles.codes.tables, strict=True)
        assert len(pairs) == (1 if whole.codes is None else 4)
        for its, mine in pairs:
            np.testing.assert_array_equal(mine.cpu().numpy(), its.cpu().numpy()[rows])
    assert launched == (["recorded", "replayed", "replayed"] if PLACE == "cpu" else [])


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
@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("kept", ["rounded", "halves", "bounds", "float16"])
def test_a_shelf_takes_as_much_memory_as_predicted(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.SCREENED_TITLES", 1)
    titles = clustered(np.random.default_rng(3), 600, 40)
    if kept == "halves":
        titles = titles.astype(np.float16).astype(np.float32)
    directions = np.ascontiguousarray(principal_directions(titles)[0][:15]) if kept == "bounds" else None
    whole = searcher(titles, directions=directions, rescore="float16" if kept == "float16" else "float32").titles
    assert (whole.factors is not None, whole.screened, whole.proves) == (
        kept == "halves",
        kept == "bounds",
        kept != "float16",
    )
    shelf = Shelf(whole, 96, Workspace())
    held = sum(int(part.nbytes) for part in (shelf._bitmap, shelf._counts))
    assert shelf_bytes(whole, 96) == shelf.bytes == shelf.titles.bytes + held
    each = {"rounded": 2 * 40, "halves": 2 * 40 + 8, "bounds": 2 * 16, "float16": 2 * 40}[kept]
    coded = whole.codes is not None and whole.codes.width + 4
    assert shelf.titles.bytes == 96 * (each + coded + 4)


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
    return GpuTitles(halves, made(titles, dim, dtype=torch.float32), 1.0, 1.0, 0.1, codes=kept)


@needs_kernels
def test_what_is_copied_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million titles whenever there is a shelf, which a batch pays for at once, one query after some uses."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", LEAST_SHELVED)
    million, size = catalogue(10**6, codes=True), shelf_size(10**4)
    assert masking_loss_ms(million, 1, size) > 2 * loading_ms(million, size)
    assert 5 < MAKING_MS / masking_loss_ms(million, 1, size) < 8
    assert masking_loss_ms(million, 1000, size) > MAKING_MS + loading_ms(million, size)
    small = shelf_size(624)
    movies = catalogue(62_423)
    assert 3 < loading_ms(movies, small) / masking_loss_ms(movies, 1, small) < 4
    half = shelf_size(500_000)
    assert masking_loss_ms(million, 1, half) < loading_ms(million, half) / 4
    assert masking_loss_ms(million, 1000, half) > loading_ms(million, half)
    assert masking_loss_ms(million, 1000, 10**6) == 0


def test_sizes_of_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than half as large again, and what is on the smallest is ranked at once."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", LEAST_SHELVED)
    sizes = [shelf_size(allowed) for allowed in (1, 6144, 6145, 8193, 12_288, 12_289, 10**6)]
    assert sizes == [6144, 6144, 8192, 12_288, 12_288, 16_384, 1 << 20]
    assert plan_search(shelf_size(1), 384, 1000, 10).piece == 1


@needs_kernels
def test_codes_are_half_of_what_is_read_without_them() -> None:
    coded, plain = catalogue(10**6, codes=True), catalogue(10**6)
    assert masking_loss_ms(coded, 1, 0) / masking_loss_ms(plain, 1, 0) == pytest.approx((384 + 4) / (2 * 384))
    assert masking_loss_ms(coded, 100, 0) == masking_loss_ms(plain, 100, 0), "too many for codes to be read"


@needs_kernels
def test_bitmaps_are_packed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself: the room that they are sent from is used again."""
    import torch

    def bits(bitmap: Any) -> list[int]:
        return [int(bit) for bit in np.unpackbits(bitmap.cpu().numpy().view(np.uint8), bitorder="little")]

    rng = np.random.default_rng(4)
    for titles in (1, 31, 256, 1000):
        bitmaps = Bitmaps(titles, torch.device(str(PLACE)))
        masks = [rng.random(titles) < share for share in (1.0, 0.3, 0.0, 0.5)]
        sent = [bitmaps.send(mask) for mask in masks]
        for mask, (allowed, bitmap, within) in zip(masks, sent, strict=True):
            assert allowed == mask.sum()
            assert bits(bitmap) == [*mask, *[0] * (32 * bitmap_words(titles) - titles)]
            size = shelf_size(allowed)
            assert (within is None) == (size >= titles)
            if within is not None:
                assert bits(within) == [1] * allowed + [0] * (32 * bitmap_words(size) - allowed)
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # numpy 1 has none
    assert [bitmaps.send(mask)[0] for mask in masks] == [mask.sum() for mask in masks]


@needs_kernels
def test_a_bitmap_waits_until_the_last_one_has_left() -> None:
    """Packed too soon it would be sent in its place. A stand-in plays the GPU's clock."""
    import torch

    bitmaps, told = Bitmaps(300, torch.device(str(PLACE))), []
    bitmaps._sent = SimpleNamespace(
        query=lambda: False,
        synchronize=lambda: told.append(bitmaps._view[: bitmap_words(300)].copy()),
        record=lambda _: told.append(None),
    )
    masks = [np.arange(300) % 3 == rest for rest in range(2)]
    with mock.patch("torch.cuda.current_stream"):
        first, second = (bitmaps.send(mask)[1].cpu().numpy() for mask in masks)
    assert [one is None for one in told] == [False, True, False, True]
    np.testing.assert_array_equal(told[2], first)
    assert not np.array_equal(first, second)
