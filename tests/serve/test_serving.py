"""The generation in use, and what is left of the one before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.serve.asking import measuring
from tests.serve.conftest import build


@pytest.fixture
def swapping(data: Path, tmp_path: Path, new_asker: Callable[..., Any]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A service that was asked by every route, and what swaps its generation; nobody looks for cycles meanwhile."""
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    title = asker.service.serving.current.recommender.titles.records([0])[0]["media_id"]
    user = asker.service.serving.current.recommender.users.ids[0]
    for path, question in {
        "/v1/similar": {"title": title, "where": "media_id IS NOT NULL"},
        "/v1/recommend": {"user": user},
        "/v1/explain": {"user": user, "title": title},
    }.items():
        assert asker.post(path, question).status_code == 200
    assert asker.post("/v1/similar", {"title": title}).status_code == asker.get("/v1/titles?q=a").status_code == 200

    def swap() -> None:
        build(data, tmp_path / "index")
        asker.load()

    gc.disable()
    yield asker, swap
    gc.enable()
    gc.unfreeze()


def test_the_generation_before_is_gone_at_once(swapping: tuple[Any, Callable[[], None]]) -> None:
    asker, swap = swapping
    before = weakref.ref(asker.service.serving.current.recommender.index)
    swap()
    assert before() is None


def test_what_a_cycle_keeps_of_it_goes_when_requests_are_over_or_room_is_needed(
    swapping: tuple[Any, Callable[[], None]],
) -> None:
    asker, swap = swapping
    serving = asker.service.serving
    for ends in (serving.let_go, swap):
        index = serving.current.recommender.index
        index.itself = index
        before = weakref.ref(index)
        del index
        swap()
        assert before() is not None
        ends()
        assert before() is None


def test_objects_there_when_a_generation_is_ready_are_not_looked_through_again(
    swapping: tuple[Any, Callable[[], None]],
) -> None:
    _, swap = swapping
    swap()
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())


@pytest.mark.parametrize(
    ("taken_ms", "is_quick"),
    [((1,), True), ((20, 20, 7), True), ((900, 20, 7), True), ((30,) * 14, False), ((900, 900, 900), False)],
)
def test_a_batch_is_quick_that_was_quick_once(
    taken_ms: tuple[int, ...], is_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    left = list(taken_ms)

    def search() -> None:
        now[0] += left.pop(0) / 1e3

    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert measuring.is_quick(search, 0.008) is is_quick
    assert not left, "it is searched for as often as it takes, and no more"
