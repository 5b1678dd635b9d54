"""Costs from prices and throughput, worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.errors import ConfigError
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.guide.config import Prices, load_settings
from semrec_faiss.measure.guide.cost import Machine, break_even_queries, costs_of


def machine(an_hour: float, qps: float, hours: float = 100.0) -> Machine:
    return Machine("one", an_hour, qps, hours)


def test_a_million_and_a_month() -> None:
    one = machine(3.6, 1000.0)  # 3.6 million queries an hour, 360 million a month of 100 hours
    assert one.a_million == pytest.approx(1.0)
    assert one.a_month == pytest.approx(360.0)
    assert one.queries_a_month == pytest.approx(360e6)
    assert (one.machines(0), one.machines(360e6), one.machines(360e6 + 1)) == (1, 1, 2)
    assert one.month_of(400e6) == pytest.approx(720.0)


def test_break_even_is_where_the_next_cpu_machine_is_needed() -> None:
    cpu, gpu = machine(1.0, 100.0), machine(2.5, 10_000.0)
    volume = break_even_queries(gpu, cpu)
    assert volume == pytest.approx(2 * cpu.queries_a_month)  # three CPU machines cost more than the GPU, two do not
    assert cpu.month_of(volume) < gpu.month_of(volume)
    assert cpu.month_of(volume + 1) >= gpu.month_of(volume + 1)


def test_a_gpu_that_is_cheaper_pays_at_once_and_a_dearer_one_never() -> None:
    assert break_even_queries(machine(1.0, 1000.0), machine(1.0, 100.0)) == 0.0
    assert math.isinf(break_even_queries(machine(20.0, 1000.0), machine(1.0, 100.0)))


def test_one_gpu_that_does_not_suffice_makes_room_for_two() -> None:
    cpu, gpu = machine(1.0, 100.0), machine(2.5, 260.0)
    volume = break_even_queries(gpu, cpu)
    assert gpu.machines(volume + 1) * gpu.a_month <= cpu.month_of(volume + 1)


@given(price=st.floats(0.1, 50), speed=st.floats(2, 1e4))
def test_beyond_the_break_even_a_gpu_costs_no_more(price: float, speed: float) -> None:
    cpu, gpu = machine(1.0, 100.0), machine(price, 100.0 * speed)
    volume = break_even_queries(gpu, cpu)
    if math.isfinite(volume):
        assert gpu.month_of(volume + 1) <= cpu.month_of(volume + 1) * (1 + 1e-9)


def test_the_guides_prices() -> None:
    found = costs_of(1000, "a100", 100_000.0, 1000.0, 16, Prices())
    names = [one.name for one in found.machines]
    assert names == ["CPU, 16 cores", "A100 on demand", "A100 preemptible", "A100 committed"]
    cpu, on_demand = found.machines[:2]
    assert cpu.price_a_month == 1408.0
    assert cpu.cost_a_million == pytest.approx(1408 / 730 / 3.6)
    assert on_demand.cost_a_million == pytest.approx(3.67 / 360)
    assert on_demand.busy_hours_a_month == pytest.approx(100e6 / 360e6)
    assert on_demand.cost_of_busy_hours == pytest.approx(3.67 / 3.6)
    assert on_demand.cost_of_the_month == pytest.approx(3.67 * 730)
    assert found.prices_of == "a100"
    # 2,679.10 a month is more than one CPU machine's 1,408 and less than two's: from the second on.
    assert found.break_even
    assert found.break_even[0].as_json() == {"name": "A100 on demand", "monthly_queries": (1000 * 3600 * 730)}
    assert found.break_even[1].monthly_queries == 0  # preemptible: 803 a month


def test_fewer_cores_cost_their_share_and_an_unlisted_gpu_another_ones_price() -> None:
    found = costs_of(1000, "h200-x2", 100_000.0, 1000.0, 2, Prices())
    assert found.machines[0].price_a_month == 176.0
    assert found.prices_of == "a100"
    assert found.machines[1].price_an_hour == 2 * 3.67
    unpriced = costs_of(1000, "h200", 100_000.0, 1000.0, 2, Prices(gpu_otherwise=None))
    assert unpriced.why("prices_of") == "the costs file has no price for 'h200', and no gpu_otherwise"
    assert len(unpriced.machines) == 1


def test_what_was_not_measured_costs_nothing_known() -> None:
    found = costs_of(1000, None, None, None, 2, Prices())
    assert found.machines == []
    assert found.why("break_even") == "no GPU's throughput was measured"
    assert found.why("cpu") == "the CPU's throughput was not measured"


def test_a_price_that_stands_for_others_must_be_there() -> None:
    with pytest.raises(ConfigError, match="'h300' has no price; gpu lists a100"):
        load_settings(Prices, None, ["gpu_otherwise=h300"])


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(1.0, True, True), (0.99, True, False), (1.0, False, True), (1.01, False, False), (None, True, None)],
)
def test_criteria_at_their_limit(measured: float | None, at_least: bool, met: bool | None) -> None:
    one = Criterion.judge(1, "name", "what", measured, 1.0, "ms", at_least=at_least)
    assert one.met is met
    assert one.as_json()["met"] is met
