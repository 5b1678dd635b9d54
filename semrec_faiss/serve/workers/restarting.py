"""When workers that have fallen are started again: at once, and ever later those that fall before they answer."""

from __future__ import annotations

import time

FIRST_SECONDS = 1.0
"""Between the fall of a worker and the start of another in its place; twice that where the other falls as well, …"""

LONGEST_SECONDS = 60.0
"""… and so on, up to this: to open an index that is damaged, or too large, costs those that answer time and memory."""


class Restarts:
    """The workers that are to be started again, by their numbers."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}  # by time.monotonic
        self._falls: dict[int, int] = {}  # since it answered last
        self._reasons: dict[int, str] = {}

    def fell(self, number: int, reason: str) -> bool:
        """Note that one fell, or could not be started; tell whether it was for the same reason before."""
        falls = self._falls.get(number, 0)
        self._falls[number] = falls + 1
        self._due[number] = time.monotonic() + min(FIRST_SECONDS * 2**falls, LONGEST_SECONDS)
        before, self._reasons[number] = self._reasons.get(number), reason
        return before == reason

    def answers(self, number: int) -> None:
        """Note that one answers: when it falls again, it is started again soon."""
        self._falls.pop(number, None)
        self._reasons.pop(number, None)

    def all_now(self) -> None:
        """Have all be started at once: what kept them from it may have been mended."""
        self._falls.clear()
        self._due = dict.fromkeys(self._due, 0.0)

    def seconds_left(self) -> float | None:
        """Return how long nobody is to be started yet; None where nobody is."""
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def take_due(self) -> list[int]:
        """Return who is to be started now, and forget it."""
        now = time.monotonic()
        due = [number for number, at in self._due.items() if at <= now]
        for number in due:
            del self._due[number]
        return due

    def take_all(self) -> list[int]:
        """Return who would be started later, and forget it."""
        waiting, self._due = list(self._due), {}
        return waiting
