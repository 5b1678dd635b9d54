"""What a measurement is held against: the target, what was measured, and whether it was met."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Unit = Literal["ms", "s", "share", "qps", "gb", "bytes", "x", "count", "score"]


@dataclass(frozen=True)
class Criterion:
    """One criterion: of one of the guide's tests, or what a search is promised to cost.

    Attributes:
        test: 1 to 5 of the guide's, or 0 for what is about none of them.
        name: for programs.
        what: for people.
        measured: None where it was not.
        target: what it must reach, or stay under; None where that hangs on something that was not measured.
        at_least: whether ``measured`` must reach the target; otherwise it must not exceed it.
        unit: of both.
        reason: why it was not measured.
    """

    test: int
    name: str
    what: str
    measured: float | None
    target: float | None
    at_least: bool
    unit: Unit
    reason: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether it was met; None where it was not measured."""
        if self.measured is None or self.target is None:
            return None
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return it as a results file of the guide's tests holds it."""
        return asdict(self) | {"met": self.met}

    def as_limit(self) -> dict[str, Any]:
        """Return it as a results file of a benchmark holds it: the target is a limit, and there are no tests."""
        told = {"name": self.name, "what": self.what, "measured": self.measured, "limit": self.target}
        return told | {"unit": self.unit, "reason": self.reason, "met": self.met}
