"""The trials that no other one beats: no less recall and no more cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]


def recall_of(record: Record) -> float | None:
    """Return a measured trial's recall; None where no title matches its filter."""
    value: float | None = record["quality"]["recall"]
    return value


def p50_of(record: Record) -> float:
    """Return a measured trial's median latency in milliseconds."""
    return float(record["latency"]["p50_ms"])


def frontier(records: Iterable[Record], cost: Callable[[Record], float] = p50_of) -> list[Record]:
    """Return the records for which no other finds as much at less cost, or more at the same; the cheapest first.

    Args:
        records: measured trials that can be compared: of one data folder, filter, k and batch size.
        cost: what less of is better; the median latency by default.
    """
    known = [record for record in records if recall_of(record) is not None]
    best: list[Record] = []
    for record in sorted(known, key=lambda one: (cost(one), -float(one["quality"]["recall"]))):
        if not best or record["quality"]["recall"] > best[-1]["quality"]["recall"]:
            best.append(record)
    return best
