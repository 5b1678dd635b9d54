"""What searches cost: a million of them, a month's load, and from which load on a GPU is the cheaper machine.

All from throughput that was measured and from prices that a file gives; nothing is guessed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.config import Prices
from semrec_faiss.measure.guide.details import BreakEven, Cost, MachineCost

MILLION = 1e6
SECONDS_AN_HOUR = 3600.0
MOST_MACHINES = 10_000
"""With more GPUs than this nobody asks whether one pays."""


@dataclass(frozen=True)
class Machine:
    """A machine with its price and what it does.

    Attributes:
        name: ``A100 on demand``, say.
        an_hour: its price.
        qps: queries per second, measured.
        hours_a_month: hours that a month is reckoned with.
    """

    name: str
    an_hour: float
    qps: float
    hours_a_month: float

    @property
    def a_month(self) -> float:
        """The price of having it all month."""
        return self.an_hour * self.hours_a_month

    @property
    def queries_a_month(self) -> float:
        """What it answers in a month when it is always busy."""
        return self.qps * SECONDS_AN_HOUR * self.hours_a_month

    @property
    def a_million(self) -> float:
        """The cost of a million queries while it is busy."""
        return self.an_hour * MILLION / (self.qps * SECONDS_AN_HOUR)

    def machines(self, queries: float) -> int:
        """How many are needed for so many queries per month, evenly spread; at least one."""
        return max(1, math.ceil(queries / self.queries_a_month))

    def month_of(self, queries: float) -> float:
        """The cost of a month's queries with machines that are always there."""
        return self.machines(queries) * self.a_month

    def told(self, monthly_queries: float) -> MachineCost:
        """Return prices and costs as a results file holds them."""
        return MachineCost(
            name=self.name,
            price_an_hour=round(self.an_hour, 4),
            price_a_month=round(self.a_month, 2),
            throughput_qps=round(self.qps, 1),
            cost_a_million=self.a_million,
            busy_hours_a_month=monthly_queries / (self.qps * SECONDS_AN_HOUR),
            machines_for_the_month=self.machines(monthly_queries),
            cost_of_the_month=round(self.month_of(monthly_queries), 2),
            cost_of_busy_hours=self.a_million * monthly_queries / MILLION,
        )


def break_even_queries(gpu: Machine, cpu: Machine) -> float:
    """Return the month's queries from which machines with a GPU cost no more than those without.

    Whole machines are rented for the whole month. Beside n GPU machines stand m = ⌈n · GPU price / CPU price⌉ CPU
    machines that cost no less. So many are needed beyond (m - 1) months of one CPU machine's queries, which n GPU
    machines must be able to answer; else it is n + 1's turn.

    Returns:
        Queries a month; 0 where one GPU machine costs no more than one CPU machine, infinity where a GPU never pays.
    """
    if gpu.a_million >= cpu.a_million and gpu.a_month > cpu.a_month:
        return math.inf
    for machines in range(1, MOST_MACHINES):
        needed = math.ceil(machines * gpu.a_month / cpu.a_month - 1e-9)
        volume = (needed - 1) * cpu.queries_a_month
        if volume < machines * gpu.queries_a_month:
            return max(volume, (machines - 1) * gpu.queries_a_month)
    return math.inf


def costs_of(
    batch: int, gpu_name: str | None, gpu_qps: float | None, cpu_qps: float | None, cores: int, prices: Prices
) -> Cost:
    """Work out all costs.

    Args:
        batch: queries at once that these speeds are of.
        gpu_name: the GPU's short name; None without one.
        gpu_qps: its queries per second, measured; None where they were not.
        cpu_qps: the CPU's.
        cores: that these were measured on; the price is that of as many.
        prices: of machines.
    """
    cpu = _cpu_machine(cpu_qps, cores, prices)
    gpus = _gpu_machines(gpu_name, gpu_qps, prices)
    machines = ([] if isinstance(cpu, NotMeasured) else [cpu]) + ([] if isinstance(gpus, NotMeasured) else gpus)
    return Cost.of(
        batch=batch,
        currency=prices.currency,
        monthly_queries=prices.monthly_queries,
        hours_a_month=prices.hours_a_month,
        prices_of=gpus if isinstance(gpus, NotMeasured) else _priced_as(gpu_name or "", prices),
        cpu=cpu if isinstance(cpu, NotMeasured) else cpu.name,
        machines=[machine.told(prices.monthly_queries) for machine in machines],
        break_even=_break_evens(gpus, cpu),
    )


def _cpu_machine(qps: float | None, cores: int, prices: Prices) -> Machine | NotMeasured:
    if not qps:
        return NotMeasured("the CPU's throughput was not measured")
    share = cores / prices.cpu.cores
    an_hour = prices.cpu.month * share / prices.hours_a_month
    return Machine(f"CPU, {cores} cores", an_hour, qps, prices.hours_a_month)


def _gpu_machines(name: str | None, qps: float | None, prices: Prices) -> list[Machine] | NotMeasured:
    if name is None or not qps:
        return NotMeasured("no GPU's throughput was measured")
    priced = _priced_as(name, prices)
    if priced is None:
        return NotMeasured(f"the costs file has no price for {name!r}, and no gpu_otherwise")
    offers = prices.gpu[priced]
    number = _gpus_in(name)
    return [
        Machine(f"{name.upper()} {kind.replace('_', ' ')}", number * price, qps, prices.hours_a_month)
        for kind, price in offers.model_dump().items()
        if price is not None
    ]


def _gpus_in(name: str) -> int:
    found = re.search(r"-x(\d+)$", name)
    return int(found.group(1)) if found else 1


def _priced_as(name: str, prices: Prices) -> str | None:
    alone = re.sub(r"-x\d+$", "", name)
    return alone if alone in prices.gpu else prices.gpu_otherwise


def _break_evens(gpus: list[Machine] | NotMeasured, cpu: Machine | NotMeasured) -> list[BreakEven] | NotMeasured:
    if isinstance(gpus, NotMeasured):
        return gpus
    if isinstance(cpu, NotMeasured):
        return cpu
    found = []
    for gpu in gpus:
        volume = break_even_queries(gpu, cpu)
        pays = math.isfinite(volume)
        reason = NotMeasured("at these prices the GPU never costs less")
        found.append(BreakEven.of(name=gpu.name, monthly_queries=round(volume) if pays else reason))
    return found
