"""Scales and ticks of charts: logarithmic ones say so, and none is left with a single tick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from semrec_faiss.report.page.charts import load_altair

FEWEST_TICKS = 3
LABEL_ROOM = 1.12
_STEPS = ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0))


def decades(values: Iterable[float]) -> list[float]:
    """Return the powers of ten around positive values: the ticks of a logarithmic axis, whose ends are its domain."""
    exponents = [math.log10(value) for value in values if value > 0] or [0.0]
    first, last = math.floor(min(exponents)), math.ceil(max(exponents))
    return [10.0**exponent for exponent in range(first, max(last, first + 1) + 1)]


def log_ticks(values: Iterable[float]) -> list[float]:
    """Return ticks that enclose positive values: 1, 2 and 5 times powers of ten, the powers alone over two of them."""
    known = [value for value in values if value > 0] or [1.0]
    steps = [factor * power for power in decades(known) for factor in (1.0, 2.0, 5.0)]
    first = max(step for step in steps if step <= min(known) * 1.0001)
    last = min((step for step in steps if step >= max(known) * 0.9999 and step > first), default=2 * first)
    within = [step for step in steps if first <= step <= last]
    return within if last / first <= 100 else decades(known)


def log_domain(values: Iterable[float], *, shares: bool = False) -> tuple[float, float]:
    """Return the ends of a logarithmic axis with some room on both sides of the values; shares end at 1."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = min(known), max(known)
    room = max(1.12, (high / low) ** 0.08, math.sqrt(1.6 * low / high))  # a factor of 1.6 in all, at least
    return low / room, min(high * room, 1.0) if shares else high * room


def log_scale(values: Iterable[float], *, shares: bool = False) -> Any:
    """Return the logarithmic scale over `log_domain`."""
    return load_altair().Scale(type="log", domain=list(log_domain(values, shares=shares)), nice=False)


def log_axis(values: Iterable[float], *, shares: bool = False) -> Any:
    """Return an axis over `log_domain` with three ticks or more; where they get too narrow the page leaves some out.

    Args:
        values: that are drawn.
        shares: whether they are shares, written in percent.
    """
    known = [value for value in values if value > 0] or [1.0]
    ticks = ticks_between(*log_domain(known, shares=shares))
    spec = "~%" if shares else "~s" if max(known) >= 1e4 else ",~g"
    return load_altair().Axis(values=ticks, format=spec, grid=True, labelOverlap="greedy", labelSeparation=5)


def ticks_between(low: float, high: float) -> list[float]:
    """Return the roundest ticks of which at least three lie from ``low`` to ``high``."""
    powers = [10.0**exponent for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for steps in _STEPS:
        ticks = [step * power for power in powers for step in steps if low <= step * power <= high]
        if len(ticks) >= FEWEST_TICKS:
            return ticks
    return next(ticks for most in (6, 9, 14, 30) if len(ticks := even_ticks(low, high, most)) >= FEWEST_TICKS)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return evenly spaced round ticks from ``low`` to ``high``, ``most`` at the most."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def recall_domain(recalls: Sequence[float | None]) -> tuple[float, float]:
    """Return the ends of a recall axis; it goes a little beyond 1, so that labels have room above the best points."""
    low = min((value for value in recalls if value is not None), default=0.0)
    low = max(0.0, math.floor((low - 0.02) * 20) / 20)
    return low, 1.0 + 0.14 * (1.0 - low)


def recall_axis(alt: Any, recalls: Sequence[float | None], title: str) -> Any:
    """Return the y axis of a recall, whose ticks end at 1."""
    low, high = recall_domain(recalls)
    axis = alt.Axis(values=even_ticks(low, 1.0), format="~g")
    return alt.Y("recall:Q", scale=alt.Scale(domain=[low, high], nice=False, zero=False), axis=axis, title=title)


def bar_ends(values: Iterable[float]) -> list[float]:
    """Return the ends of an axis of bars from 0 on, with room for a number after the longest."""
    return [0.0, LABEL_ROOM * max(values, default=1.0)]


def bar_axis() -> Any:
    """Return an axis over `bar_ends`, of whose numbers a narrow page leaves some out."""
    return load_altair().Axis(grid=True, tickCount=6, format=",~f", labelSeparation=5)  # "~g" writes 10 as 1e+1
