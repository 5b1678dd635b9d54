"""Which batches of type fused are recorded, and for how much memory."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from semrec_faiss.index.fused.batch import DirectSearch
from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.cards import COPY_ENGINE
from semrec_faiss.index.fused.kernels.compiling import recorded
from semrec_faiss.index.fused.plan import plan_search
from semrec_faiss.index.fused.queries.batches import VectorBatch
from semrec_faiss.index.fused.repeating import plan_repeat, prepared_bytes
from tests.index.fused.compiled import CARDS, Launch, Search, launches_of
from tests.index.fused.worlds import PLACE, clustered, needs_kernels, searcher


@needs_kernels
def test_where_memory_does_not_suffice_for_another_recording_it_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not tried again: one query that fits goes on to be answered. A stand-in plays the GPU."""
    import torch

    titles = clustered(np.random.default_rng(2), 300, 32)
    search = searcher(titles).whole
    if PLACE == "cpu":
        monkeypatch.setattr(search, "_device", SimpleNamespace(type="cuda"))
        fed = SimpleNamespace(takes=lambda _: True)
        monkeypatch.setattr("semrec_faiss.index.fused.block_search.feed_for", lambda *_, **__: fed)
    tried: list[int] = []

    def capture(_: BlockSearch, __: Any, ___: Any, k: int, ____: Any, **_____: Any) -> Any:
        tried.append(k)
        if k == 3:
            return SimpleNamespace(feed=SimpleNamespace(takes=lambda _: True))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(BlockSearch, "_capture", capture)
    asked = VectorBatch(titles[:1])

    def chosen(k: int) -> Any:
        return search._search_for(asked, k, "none", 0, 1, coded=False)

    assert isinstance(chosen(3), DirectSearch) and not isinstance(chosen(3), DirectSearch)
    held = search.recorded_bytes
    assert held > 0
    assert [isinstance(chosen(5), DirectSearch) for _ in range(4)] == [True] * 4
    assert tried == [3, 5]
    assert search.recorded_bytes == held and not isinstance(chosen(3), DirectSearch)


@needs_kernels
def test_batches_that_come_in_turns_do_not_drop_each_others_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one: the first keeps it until it comes no more. A stand-in plays the GPU."""
    search = searcher(clustered(np.random.default_rng(2), 300, 32)).whole
    if PLACE == "cpu":
        monkeypatch.setattr(search, "_device", SimpleNamespace(type="cuda"))
        monkeypatch.setattr(
            "semrec_faiss.index.fused.block_search.feed_for", lambda *_, **__: SimpleNamespace(takes=lambda _: True)
        )
    captured: list[int] = []

    def capture(_: BlockSearch, __: Any, ___: Any, k: int, ____: Any, **_____: Any) -> Any:
        captured.append(k)
        return SimpleNamespace(feed=SimpleNamespace(takes=lambda _: True))

    monkeypatch.setattr(BlockSearch, "_capture", capture)
    asked = VectorBatch(np.zeros((1, 32), np.float32))

    def is_recorded(k: int) -> bool:
        return not isinstance(search._search_for(asked, k, "none", 0, 1, coded=False), DirectSearch)

    assert [is_recorded(3), is_recorded(3)] == [False, True]
    search._graphs_bytes = search.recorded_bytes * 3 // 2
    assert [is_recorded(k) for _ in range(4) for k in (3, 4)] == [True, False] * 4
    assert captured == [3]
    assert [is_recorded(4) for _ in range(3)] == [True] * 3, "3 has not come since"
    assert captured == [3, 4]
    assert [is_recorded(3) for _ in range(3)] == [False, True, True]


def test_the_repetition_that_is_recorded_beside_is_counted() -> None:
    plan = plan_search(4_000_000, 384, 1, 10)
    chunks = plan_repeat(plan, 4_000_000).chunks(4_000_000)
    assert chunks >= 4_000_000 // 32
    assert 2 * chunks < prepared_bytes(plan, 4_000_000, 16) / 16 < 2.1 * chunks


@needs_kernels
@pytest.mark.parametrize("queries", [1, 40, 1000, 3000])
@pytest.mark.parametrize("rest", [0, 1, 15])
def test_how_many_titles_a_filter_leaves_compiles_nothing(queries: int, rest: int) -> None:
    """Of a number that is a multiple of 16, or 1, Triton makes a kernel of its own, which takes seconds."""
    card = next(card for card in CARDS if card.capability == COPY_ENGINE)

    def launched(titles: int) -> list[Launch]:
        return launches_of(Search(titles, queries, 1, "own", coded=False, kept="rounded", shelved=True), card)

    for titles in (9_984, 199_984):
        assert launched(titles + rest) == launched(titles + 7)
    for launch in launched(1):
        given = [name for name, value in launch.constants if not name.isupper() and value is not None]
        assert not given, launch.name


class Rubbish:
    """Only the garbage collector frees it."""

    def __init__(self, older: list[Any]) -> None:
        self.itself, self.older = self, older


@pytest.fixture
def _collects_soon() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)
    gc.enable()


@needs_kernels
@pytest.mark.usefixtures("_collects_soon")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_while_launches_are_recorded(
    fails: bool, collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph and the page-locked memory of a search that is over: freed meanwhile, they would end the recording."""
    import torch

    if PLACE == "cpu":
        for name in ("CUDAGraph", "Stream", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, mock.Mock())
        for name in ("device", "graph"):
            monkeypatch.setattr(torch.cuda, name, mock.MagicMock(return_value=contextlib.nullcontext()))
    device = torch.device("cpu" if PLACE == "cpu" else "cuda:0")
    value = torch.zeros(1, device=device)
    held: list[list[Any]] = [[], []]
    for older in held if PLACE != "cpu" else []:
        older += [recorded(lambda: value.mul_(1), device), torch.zeros(1, pin_memory=True)]
        older[1].copy_(value, non_blocking=True)
        del older
    was_there: list[bool] = []

    def launches() -> None:
        rubbish = weakref.ref(Rubbish(held.pop()))
        [[] for _ in range(100)]
        value.add_(1)
        was_there.append(rubbish() is not None)
        if fails and not held:
            raise MemoryError

    if not collects:
        gc.disable()
    if fails:
        with pytest.raises(MemoryError):
            recorded(launches, device)
    else:
        recorded(launches, device)
    assert was_there == [not collects, True]
    assert gc.isenabled() == collects
