"""The trials that no other one beats: no less recall and no more cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from semrec_faiss.measure.trials.record import Measured


def p50_of(record: Measured) -> float:
    """Return a measured trial's median latency in milliseconds."""
    return record.latency.p50_ms


def frontier(records: Iterable[Measured], cost: Callable[[Measured], float] = p50_of) -> list[Measured]:
    """Return the records for which no other finds as much at less cost, or more at the same; the cheapest first.

    Args:
        records: of trials that can be compared: of one data folder, filter, k and batch size. Those of a filter that
            no title matches have no recall, and are left out.
        cost: what less of is better; the median latency by default.
    """
    known = [
        (cost(one), -recall, place, one)
        for place, one in enumerate(records)
        if (recall := one.quality.recall) is not None
    ]
    best: list[Measured] = []
    most = -1.0
    for _, less, _, record in sorted(known, key=lambda row: row[:3]):
        if -less > most:
            best.append(record)
            most = -less
    return best
