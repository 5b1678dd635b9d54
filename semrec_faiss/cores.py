"""How many processor cores there are for this process, and how many others may take."""

from __future__ import annotations

import os

BUSY = 0.1
"""The cores that other programs kept busy from which their work shows in the times."""


def usable_cores() -> int:
    """Return on how many cores this process may run; a container is often given fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
