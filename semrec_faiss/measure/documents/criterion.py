"""The guide's success criteria: what was measured, the target, and whether it was met."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Unit = Literal["ms", "share", "qps", "gb", "x", "count", "score"]


@dataclass(frozen=True)
class Criterion:
    """One criterion of one test.

    Attributes:
        test: 1 to 5, or 0 for what is about the whole comparison.
        name: for programs.
        what: for people.
        measured: None where it was not.
        target: what it must reach, or stay under.
        at_least: whether ``measured`` must reach the target; otherwise it must not exceed it.
        unit: of both.
        reason: why it was not measured.
    """

    test: int
    name: str
    what: str
    measured: float | None
    target: float
    at_least: bool
    unit: Unit
    reason: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether it was met; None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return it as a results file holds it."""
        return asdict(self) | {"met": self.met}
