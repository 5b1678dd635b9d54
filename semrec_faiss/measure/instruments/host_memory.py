"""The most memory that this process holds while something runs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from pathlib import Path

from semrec_faiss.measure.documents.results import NotMeasured

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"

UNTOLD = NotMeasured("this system does not let a process reset its own peak memory (/proc/self/clear_refs)")


class HostPeak:
    """Counts from a starting point how much more memory than then the process has held; Linux only.

    Mapped files that were touched count, as they do for the system. What earlier work left is given back first.
    """

    def __init__(self) -> None:
        """Note what is held now."""
        self._can_reset = True
        gc.collect()
        self.reset()
        self._before = status_bytes("VmRSS")

    def reset(self) -> None:
        """Forget the peak so far, not the starting point."""
        with contextlib.suppress(OSError, AttributeError):  # another C library, which has no such function
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            self._can_reset = False

    def added_bytes(self) -> int | NotMeasured:
        """Return how much more than at the start was held at the peak since the last `reset`; never negative."""
        peak = status_bytes("VmHWM")
        if peak is None or self._before is None or not self._can_reset:
            return UNTOLD
        return max(0, peak - self._before)


def held_at_most() -> int | NotMeasured:
    """Return the most memory that this process has ever held, mapped files that it touched included; Linux only."""
    peak = status_bytes("VmHWM")
    return NotMeasured("only Linux tells a process its peak memory (/proc/self/status)") if peak is None else peak


def status_bytes(name: str) -> int | None:
    """Return a size that Linux tells of this process, such as ``VmRSS``; None on another system."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def machine_bytes() -> int | None:
    """Return the machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
