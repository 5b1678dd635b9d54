"""Timings made by hand: medians, percentiles, ratios and turns; nothing here depends on how fast the machine is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from semrec_faiss.measure.instruments import timing
from semrec_faiss.measure.instruments.timing import PairedTimings, Timing, measure, measure_paired, measure_steady


class Clock:
    """A clock that work moves forward by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def takes(self, *durations_ms: float) -> Callable[[], None]:
        """Return work whose calls take these times, one after the other."""
        left = iter(durations_ms)

        def work() -> None:
            self.now_s += next(left) / 1e3

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=made))
    return made


def test_statistics_of_an_odd_number_of_times() -> None:
    known = Timing((5.0, 1.0, 3.0))
    assert (known.median_ms, known.min_ms) == (3.0, 1.0)
    assert known.p95_ms == pytest.approx(4.8)  # 95 % of the way: 1.9 steps along 1, 3, 5


def test_median_of_an_even_number_of_times_is_between_the_middle_two() -> None:
    assert Timing((4.0, 1.0, 2.0, 100.0)).median_ms == 3.0


def test_as_dict_keeps_every_time_in_the_order_run() -> None:
    assert Timing((2.00004, 1.0)).told().as_json() == {
        "median_ms": 1.5,
        "p95_ms": 1.95,
        "min_ms": 1.0,
        "times_ms": [2.0, 1.0],
    }


def test_measure_leaves_warm_up_out(clock: Clock) -> None:
    measured = measure(clock.takes(900, 700, 2, 4, 3), warmup=2, repeats=3)
    assert measured.times_ms == pytest.approx((2, 4, 3))


def test_steady_work_is_warmed_up_as_often_as_two_medians_take(clock: Clock) -> None:
    measured = measure_steady(clock.takes(10, 10, 10, 10, 10, 10, 7, 8), warmup=2, repeats=2)
    assert (measured.warmups, measured.times_ms) == (6, pytest.approx((7, 8)))


def test_warm_up_goes_on_while_the_median_falls_by_more_than_a_twentieth(clock: Clock) -> None:
    # Medians of three: 90, then 20 after 30, 12 after 20, 10 after 12, 10 after 10.
    early = (900, 90, 30, 20, 20, 12, 12, 10, 10, 10, 10, 10)
    measured = measure_steady(clock.takes(*early, 10, 10), warmup=0, repeats=2)
    assert 8 < measured.warmups <= len(early), "none of the falling times is a repeat"
    assert measured.times_ms == pytest.approx((10, 10))
    slightly = (100, 100, 100, 96, 96, 96)
    assert measure_steady(clock.takes(*slightly, 1), warmup=0, repeats=1).warmups == 6


def test_what_is_done_at_the_second_call_of_its_kind_is_no_repeat(clock: Clock) -> None:
    measured = measure_steady(clock.takes(5, 400, *[1] * 30), warmup=0, repeats=5)
    assert measured.times_ms == pytest.approx((1,) * 5)


def test_warm_up_ends_with_its_time_but_never_before_what_was_asked_for(clock: Clock) -> None:
    slow = measure_steady(clock.takes(3000, 2900, 2800, 9, 9), warmup=3, repeats=2, within_s=2.0)
    assert (slow.warmups, slow.times_ms) == (3, pytest.approx((9, 9)))
    falling = measure_steady(clock.takes(1000, 500, 250, 125, 60, 30, 15, 7), warmup=0, repeats=1, within_s=1.9)
    assert (falling.warmups, falling.times_ms) == (5, pytest.approx((30,)))


def test_ratio_is_the_median_of_each_rounds_own_ratio() -> None:
    # The machine slows down fourfold over the run: the medians' ratio would be 6 / 4, every pair says 1.5 or 2.
    drifting = PairedTimings({"raw": Timing((2.0, 4.0, 8.0)), "ours": Timing((4.0, 6.0, 12.0))})
    assert drifting.ratios("ours", "raw") == (2.0, 1.5, 1.5)
    assert drifting.median_ratio("ours", "raw") == 1.5


def test_added_time_is_the_median_of_each_rounds_own_difference() -> None:
    paired = PairedTimings({"raw": Timing((2.0, 4.0, 8.0)), "ours": Timing((2.5, 3.0, 9.0))})
    assert paired.added_ms("ours", "raw") == (0.5, -1.0, 1.0)
    assert paired.median_added_ms("ours", "raw") == 0.5


def test_paired_work_takes_turns_and_changes_who_is_first() -> None:
    calls: list[str] = []
    work = {name: (lambda name=name: calls.append(name)) for name in "ABC"}
    paired = measure_paired(work, warmup=1, repeats=3)
    assert "".join(calls) == "ABC" + "BCA" + "CAB" + "ABC"
    assert {name: len(known.times_ms) for name, known in paired.timings.items()} == {"A": 3, "B": 3, "C": 3}


def test_paired_times_stay_with_their_round_whoever_was_first(clock: Clock) -> None:
    paired = measure_paired({"A": clock.takes(9, 1, 2), "B": clock.takes(9, 10, 20)}, warmup=1, repeats=2)
    assert paired.timings["A"].times_ms == pytest.approx((1, 2))
    assert paired.timings["B"].times_ms == pytest.approx((10, 20))
    assert paired.ratios("B", "A") == pytest.approx((10, 10))


def test_progress_counts_warm_up_and_repeats() -> None:
    told: list[tuple[str, int, int]] = []
    measure_paired(
        {"A": int},
        warmup=1,
        repeats=2,
        what="adding",
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert told == [("adding", 1, 3), ("adding", 2, 3), ("adding", 3, 3)]


def test_freeing_a_result_is_not_timed(clock: Clock) -> None:
    class Costly:
        def __del__(self) -> None:
            clock.now_s += 50

    assert measure(Costly, warmup=0, repeats=2).times_ms == pytest.approx((0, 0))
