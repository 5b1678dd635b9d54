"""Those who wait are woken one by the other, and all of them, whatever becomes of one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from conftest import HANG_SECONDS

from semrec_faiss.search.batching import turn
from semrec_faiss.search.batching.turn import Turn, wake
from semrec_faiss.search.restricted.found import TopK


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as pool:
        yield pool


def answered(count: int) -> list[Turn]:
    turns = [Turn() for _ in range(count)]
    for number, one in enumerate(turns):
        found = TopK.empty(1, 1)
        found.rows[0, 0] = number
        one.set_result(found)
    return turns


def waiting(threads: ThreadPoolExecutor, turns: list[Turn]) -> list[Future[TopK]]:
    return [threads.submit(one.result) for one in turns]


def rows(asked: list[Future[TopK]]) -> list[int]:
    return [int(one.result(HANG_SECONDS).rows[0, 0]) for one in asked]


def test_each_wakes_the_next_and_the_last_tells_who_woke_the_first(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "WAKING_SECONDS", 60.0)
    turns = answered(6)
    asked = waiting(threads, turns)
    wake(turns)
    assert [one.following for one in turns] == [None] * 6
    assert not any(one.wait(0) for one in turns), "each was awake when the waking ended"
    assert rows(asked) == list(range(6))


def test_many_who_wake_slowly_are_not_woken_together(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is up each time when one more has woken the next."""
    woken: list[Turn] = []
    wakes, waits = Turn.wake, Turn.wait

    def slowly(one: Turn) -> None:
        time.sleep(0.01)
        woken.append(one)
        wakes(one)

    def asleep() -> int:
        return sum(one.following is not None for one in turns)

    def until_one_less_is_asleep(one: Turn, _: float) -> bool:
        before, end = asleep(), time.monotonic() + HANG_SECONDS
        while before and asleep() == before and time.monotonic() < end:
            time.sleep(0.001)
        return waits(one, 0 if before else HANG_SECONDS)

    monkeypatch.setattr(Turn, "wake", slowly)
    monkeypatch.setattr(Turn, "wait", until_one_less_is_asleep)
    turns = answered(6)
    asked = waiting(threads, turns)
    wake(turns)
    assert woken[:-1] == turns, "each once, and whoever woke the first last"
    assert rows(asked) == list(range(6))


def test_one_that_nobody_waits_for_any_more_holds_nobody_up(threads: ThreadPoolExecutor) -> None:
    turns = answered(6)
    asked = waiting(threads, [*turns[:2], *turns[3:]])
    wake(turns)
    assert rows(asked) == [0, 1, 3, 4, 5]


def test_an_error_is_raised_by_who_waits_for_it_and_ends_nothing_else(threads: ThreadPoolExecutor) -> None:
    turns = answered(3)
    turns[1].set_exception(np.linalg.LinAlgError("its own"))
    asked = waiting(threads, turns)
    wake(turns)
    with pytest.raises(np.linalg.LinAlgError, match="its own"):
        asked[1].result(HANG_SECONDS)
    assert rows([asked[0], asked[2]]) == [0, 2]


def test_who_was_woken_already_may_be_woken_again() -> None:
    one = answered(1)[0]
    wake([one])
    wake([one])
    assert one.result().rows.tolist() == [[0]]
    assert not one.wait(0)
