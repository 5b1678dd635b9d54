"""What a measurement is held against: the limit, what was measured, and whether it was met."""

from __future__ import annotations

from typing import Literal

from semrec_faiss.measure.documents.fields import Count, Part

Unit = Literal["ms", "s", "share", "qps", "gb", "bytes", "x", "count", "score"]


class Criterion(Part):
    """A criterion of the guide's tests.

    Attributes:
        test: 1 to 5 of the guide's, or 0 for what is about none of them.
        name: for programs.
        what: for people.
        measured: None where it was not.
        target: what must be reached, or not exceeded.
        at_least: which of the two.
        unit: of what is measured and of the target.
        reason: why it was not measured.
        met: None where it was not measured.
    """

    test: Count
    name: str
    what: str
    measured: float | None
    target: float | None
    at_least: bool
    unit: Unit
    reason: str | None
    met: bool | None

    @classmethod
    def judge(
        cls,
        test: int,
        name: str,
        what: str,
        measured: float | None,
        target: float,
        unit: Unit,
        *,
        at_least: bool = False,
        reason: str | None = None,
    ) -> Criterion:
        """Hold a measurement against its target; see the attributes."""
        told = {"measured": measured, "target": target, "unit": unit, "at_least": at_least, "reason": reason}
        met = None if measured is None else measured >= target if at_least else measured <= target
        return cls.model_validate({"test": test, "name": name, "what": what, **told, "met": met})


class Promise(Part):
    """What a benchmark must stay under; see `Criterion`.

    Attributes:
        limit: None where that hangs on something that was not measured.
    """

    name: str
    what: str
    measured: float | None
    limit: float | None
    unit: Unit
    reason: str | None
    met: bool | None

    @classmethod
    def judge(
        cls, name: str, what: str, measured: float | None, limit: float | None, unit: Unit, reason: str | None
    ) -> Promise:
        """Hold a measurement against its limit; the reason is told only of one that is missing."""
        return cls(
            name=name,
            what=what,
            measured=measured,
            unit=unit,
            reason=reason if measured is None else None,
            met=None if measured is None or limit is None else measured <= limit,
            limit=limit,
        )
