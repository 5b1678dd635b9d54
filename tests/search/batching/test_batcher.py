"""Threads that ask at the same moment are searched together, each answered as if it were alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss import deadline
from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.index.cpu.exact import wide_products
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.batching.asked import Asked, BatchedSearcher
from semrec_faiss.search.batching.batcher import Batch, Batcher
from semrec_faiss.search.batching.joined import search_together
from semrec_faiss.search.batching.turn import Turn
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

POISON = np.float32(1e30)
"""In a query it makes the search of its batch fail, as a device may."""


class Held:
    """Holds the device's owner in a search until it is let go, so that what is asked meanwhile has to wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self.held = threading.Event()
        self.batches: list[int] = []
        run = Searcher.run

        def slow(searcher: Searcher, queries: Any, wish: Wish, exclusions: Any = None) -> Any:
            self.batches.append(len(queries))
            self.held.set()
            assert self.let_go.wait(HANG_SECONDS)
            if isinstance(queries, np.ndarray) and (np.abs(queries) > POISON / 2).any():
                raise DataError("a score is larger than a float32 can hold")
            return run(searcher, queries, wish, exclusions)

        monkeypatch.setattr(Searcher, "run", slow)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def told(answer: Any) -> tuple[Any, ...]:
    return answer.query, answer.matching, answer.requested, answer.exact, answer.rows.tolist(), answer.scores.tolist()


QUESTIONS: list[Callable[[Recommender], Any]] = [
    *[lambda one, row=row: one.similar(f"m{row:05d}", 5) for row in range(12)],
    *[lambda one, row=row: one.recommend(f"user '{row:03d}'", 5) for row in range(25)],
    *[lambda one, row=row: one.recommend(f"user '{row:03d}'", 9, where="year > 1990") for row in range(6)],
    *[lambda one, row=row: one.recommend(f"user '{row:03d}'", 4, where=Filter(genres=("Drama",))) for row in range(4)],
    *[lambda one, row=row: one.similar(f"m{row:05d}", 4, exclude=["m00003"], diversity=0.3) for row in range(4)],
    *[lambda one, row=row: one.similar(f"m{row:05d}", 4, max_per={"franchise": 1}) for row in range(4)],
]


@pytest.mark.slow
def test_many_threads_are_answered_as_if_each_were_alone(library: Any) -> None:
    alone = [told(ask(Recommender.open(library.output))) for ask in QUESTIONS[::3]]
    batches: list[Batch] = []
    with Batcher(batches.append) as batcher, ThreadPoolExecutor(16) as threads:
        together = Recommender.open(library.output, batcher=batcher)
        for _ in range(2):
            asked = [threads.submit(ask, together) for ask in QUESTIONS]
            assert [told(one.result()) for one in asked][::3] == alone
    assert sum(batch.callers for batch in batches) == sum(len(batch.waited_seconds) for batch in batches)
    assert sum(batch.queries for batch in batches) >= 2 * len(QUESTIONS)


def test_what_comes_while_the_device_is_busy_goes_together_by_kind(library: Any, held: Held) -> None:
    with Batcher() as batcher, ThreadPoolExecutor(16) as threads:
        together = Recommender.open(library.output, batcher=batcher)
        first = threads.submit(together.similar, "m00000", 5)
        assert held.held.wait(HANG_SECONDS)
        assert batcher.waiting == 0, "an idle device is asked at once"
        fives = [threads.submit(together.similar, f"m{row:05d}", 5) for row in range(1, 8)]
        sixes = [threads.submit(together.similar, f"m{row:05d}", 6) for row in range(3)]
        until(lambda: batcher.waiting == 10)
        held.let_go.set()
        for future in [first, *fives, *sixes]:
            future.result(HANG_SECONDS)
    assert sorted(held.batches) == [1, 3, 7]


def test_who_excludes_titles_is_searched_with_the_others(library: Any, held: Held) -> None:
    asks: list[Callable[[Recommender], Any]] = [
        lambda one: one.similar("m00001", 5),
        lambda one: one.similar("m00002", 5, exclude=["m00009", "m00010"]),
        lambda one: one.similar("m00003", 5, exclude="m00011"),
        lambda one: one.recommend(library.user_ids[30], 5),
        lambda one: one.recommend(library.user_ids[31], 5, exclude=["m00009", "m00010"]),
    ]
    with Batcher() as batcher, ThreadPoolExecutor(8) as threads:
        together = Recommender.open(library.output, batcher=batcher)
        first = threads.submit(together.similar, "m00000", 5)
        assert held.held.wait(HANG_SECONDS)
        asked = [threads.submit(ask, together) for ask in asks]
        until(lambda: batcher.waiting == len(asks))
        held.let_go.set()
        first.result(HANG_SECONDS)
        answers = [one.result(HANG_SECONDS) for one in asked]
    assert sorted(held.batches) == [1, 2, 3], "titles, and users"
    alone = Recommender.open(library.output)
    assert [told(answer) for answer in answers] == [told(ask(alone)) for ask in asks]


def test_a_mistake_is_the_callers_own(library: Any, held: Held) -> None:
    """One query makes the batch fail: its mates have their answers, and only it has the mistake."""
    recommender = Recommender.open(library.output)
    vectors = recommender.index.vectors([0, 1, 2])
    poison = np.full_like(vectors[:1], POISON)
    with Batcher() as batcher:
        searcher = BatchedSearcher(recommender.index, recommender.titles, batcher)
        asked = [Asked(searcher, one, Wish(3)) for one in (vectors[:1], vectors[1:2], poison, vectors[2:])]
        futures = [batcher.submit(one) for one in asked]
        held.let_go.set()
        with pytest.raises(DataError, match="larger than a float32"):
            futures[2].result(HANG_SECONDS)
        for row, future in ((0, futures[0]), (1, futures[1]), (2, futures[3])):
            assert row in future.result(HANG_SECONDS).rows[0]
            np.testing.assert_allclose(future.result(HANG_SECONDS).scores[0, 0], 1.0, atol=1e-6)


def test_what_can_be_said_to_a_caller_at_once_is(library: Any) -> None:
    batches: list[Batch] = []
    with Batcher(batches.append) as batcher:
        together = Recommender.open(library.output, batcher=batcher)
        with pytest.raises(UsageError, match="not one SQL"):
            together.similar("m00000", where="year >")
        with pytest.raises(NotFoundError):
            together.similar("m00000", exclude=["no such title anywhere"])
        with pytest.raises(UsageError, match="no field"):
            together.similar("m00000", max_per={"colour": 1})
    assert batches == []


def test_a_question_whose_time_is_up_is_not_searched(library: Any, held: Held) -> None:
    with Batcher() as batcher, ThreadPoolExecutor(4) as threads:
        together = Recommender.open(library.output, batcher=batcher)
        first = threads.submit(together.similar, "m00000", 5)
        assert held.held.wait(HANG_SECONDS)

        def late() -> Any:
            with due_at(time.monotonic() + 0.01):
                return together.similar("m00001", 5)

        second = threads.submit(late)
        cancelled = batcher.submit(Asked(together.searcher, together.index.vectors([3]), Wish(5)))
        until(lambda: batcher.waiting == 2)
        time.sleep(0.02)
        assert cancelled.cancel()
        held.let_go.set()
        assert first.result(HANG_SECONDS).returned == 5
        with pytest.raises(TooLateError, match="had not begun"):
            second.result(HANG_SECONDS)
    assert held.batches == [1]


@pytest.mark.parametrize("callers", [1, 2])
def test_varied_lists_are_chosen_for_nobody_who_has_gone(
    callers: int, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: one question for 250 diverse lists of a thousand titles held up all others for minutes."""
    dues: list[float | None] = []

    def gone(*vectors: Any) -> Any:
        dues.append(deadline.due())
        deadline._due.set(0.0)
        return wide_products(*vectors)

    monkeypatch.setattr("semrec_faiss.search.diversity.wide_products", gone)
    searcher = Recommender.open(library.output).searcher
    vectors = searcher.index.vectors([3])
    asked = [Asked(searcher, vectors, Wish.of(5, diversity=0.5), None, 1e12 + caller) for caller in range(callers)]
    for one in asked:
        one.found = Future()
    search_together(asked)
    for one in asked:
        with pytest.raises(TooLateError, match="the lists were not chosen"):
            one.found.result(0)
    assert dues == [1e12 + callers - 1], "when the last of them goes"


def test_closed_it_answers_what_waits_and_takes_no_more(library: Any, held: Held) -> None:
    batcher = Batcher()
    together = Recommender.open(library.output, batcher=batcher)
    waiting = [batcher.submit(Asked(together.searcher, together.index.vectors([row]), Wish(2))) for row in range(5)]
    held.let_go.set()
    batcher.close()
    assert [future.result(0).rows.shape for future in waiting] == [(1, 2)] * 5
    with pytest.raises(RuntimeError, match="closed"):
        together.similar("m00000")


def test_an_observer_that_fails_costs_nobody_an_answer(library: Any, held: Held) -> None:
    told: list[int] = []

    def fails(batch: Batch) -> None:
        told.append(batch.queries)
        raise ZeroDivisionError("an observer's mistake")

    held.let_go.set()
    recommender = Recommender.open(library.output)
    with Batcher(fails) as batcher:
        searcher = BatchedSearcher(recommender.index, recommender.titles, batcher)
        vectors = recommender.index.vectors([3, 4])
        expected = Searcher.run(recommender.searcher, vectors, Wish(2)).rows.tolist()
        assert batcher.run(Asked(searcher, vectors, Wish(2))).rows.tolist() == expected  # by this thread
        for _ in range(2):  # by the owner, who is there for the next one too
            assert batcher.submit(Asked(searcher, vectors, Wish(2))).result(HANG_SECONDS).rows.tolist() == expected
    assert told == [2, 2, 2]


def test_callers_with_and_without_exclusions_share_a_batch(library: Any, held: Held) -> None:
    recommender = Recommender.open(library.output)
    vectors = recommender.index.vectors([7, 8, 9])
    with Batcher() as batcher:
        searcher = BatchedSearcher(recommender.index, recommender.titles, batcher)
        batcher.submit(Asked(searcher, vectors[:1], Wish(2)))
        assert held.held.wait(HANG_SECONDS)
        one = batcher.submit(Asked(searcher, vectors[1:2], Wish(3)))
        two = batcher.submit(Asked(searcher, vectors[2:], Wish(3), Exclusions.of([[9, 10]])))
        held.let_go.set()
        alone = recommender.searcher
        for future, expected in (
            (one, alone.run(vectors[1:2], Wish(3))),
            (two, alone.run(vectors[2:], Wish(3), Exclusions.of([[9, 10]]))),
        ):
            assert future.result(HANG_SECONDS).rows.tolist() == expected.rows.tolist()
            assert future.result(HANG_SECONDS).matching.tolist() == expected.matching.tolist()
    assert sorted(held.batches) == [1, 1, 1, 2], "two callers in one batch; the others are asked here, alone"


def test_a_caller_who_was_interrupted_keeps_no_other_waiting(
    library: Any, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: each that had its answer woke the next, and where one was interrupted all waited for ever."""
    waits, interrupts = Turn.result, iter([KeyboardInterrupt()])

    def result(turn: Turn) -> Any:
        for interrupt in interrupts:
            raise interrupt
        return waits(turn)

    monkeypatch.setattr(Turn, "result", result)
    told: SimpleQueue[Any] = SimpleQueue()

    def ask(row: int) -> None:
        try:
            told.put(together.similar(f"m{row:05d}", 5).returned)
        except KeyboardInterrupt:
            told.put("interrupted")

    with Batcher() as batcher:
        together = Recommender.open(library.output, batcher=batcher)
        threads = [threading.Thread(target=ask, args=(row,), daemon=True) for row in range(4)]
        threads[0].start()
        assert held.held.wait(HANG_SECONDS)
        for thread in threads[1:]:
            thread.start()
        until(lambda: batcher.waiting == 3)
        held.let_go.set()
        assert sorted(str(told.get(timeout=HANG_SECONDS)) for _ in threads) == ["5", "5", "5", "interrupted"]
