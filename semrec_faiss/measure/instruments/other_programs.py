"""Whether the machine did anything else while it was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

from semrec_faiss.measure.documents.results import NotMeasured

SHORTEST_S = 0.2
"""The system counts in ticks of a hundredth of a second: in less time than this they say little about one trial."""

UNTOLD = NotMeasured("this system does not tell")
TOO_SHORT = NotMeasured(f"it took under {SHORTEST_S} s, too short for the system's counters")

_STAT = Path("/proc/stat")


class OtherPrograms:
    """Counts the processor time that other programs take from now on; Linux only."""

    def __init__(self) -> None:
        """Begin to count."""
        self._started = time.perf_counter()
        self._foreign = _foreign_seconds()

    def cores_used(self) -> float | None:
        """Return how many cores they kept busy on average; None where the system does not tell."""
        foreign = _foreign_seconds()
        if foreign is None or self._foreign is None:
            return None
        return round(max(0.0, foreign - self._foreign) / (time.perf_counter() - self._started), 3)

    def cores_used_by_them(self) -> float | NotMeasured:
        """Return the same for something that may be short, with the reason where it cannot be told."""
        if time.perf_counter() - self._started < SHORTEST_S:
            return TOO_SHORT
        cores = self.cores_used()
        return UNTOLD if cores is None else cores


def _foreign_seconds() -> float | None:
    """Return the seconds that all cores have been busy, less those of this process and its children."""
    try:
        fields = _STAT.read_text(encoding="ascii").splitlines()[0].split()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields[1:9])  # what follows is part of user and nice
    own = os.times()
    return (user + nice + system + sum(interrupts)) / ticks - sum(own[:4])
