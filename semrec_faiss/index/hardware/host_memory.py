"""The host's memory."""

from __future__ import annotations

import re
from pathlib import Path


def available_bytes() -> int | None:
    """Return what Linux could give to a program without swapping; None where that is not known."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
