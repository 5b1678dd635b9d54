"""Whether the machine did anything else while it was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

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
