"""What a measurement is held against: the target, what was measured, and whether it was met."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from semrec_faiss.measure.documents.fields import Count, Part

Unit = Literal["ms", "s", "share", "qps", "gb", "bytes", "x", "count", "score"]


class Criterion(Part):
    """A criterion, of the guide's tests or of a benchmark.

    Attributes:
        test: 1 to 5 of the guide's tests, or 0 for what is about none of them.
        name: for programs.
        what: for people.
        measured: None where it was not.
        target: what must be reached, or not exceeded; None where that hangs on something that was not measured.
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
        target: float | None,
        unit: Unit,
        *,
        at_least: bool = False,
        reason: str | None = None,
    ) -> Criterion:
        """Hold a measurement against its target; see the attributes."""
        told = {"measured": measured, "target": target, "unit": unit, "at_least": at_least, "reason": reason}
        met = None
        if measured is not None and target is not None:
            met = measured >= target if at_least else measured <= target
        return cls.model_validate({"test": test, "name": name, "what": what, **told, "met": met})


def _as_promise(criterion: Criterion) -> dict[str, Any]:
    whole = criterion.model_dump(mode="json", exclude={"test", "at_least"})
    return {("limit" if name == "target" else name): value for name, value in whole.items()}


def _of_promise(document: Any) -> Any:
    if not isinstance(document, dict) or "limit" not in document:
        return document
    return {
        "test": 0,
        "at_least": False,
        **{("target" if name == "limit" else name): document[name] for name in document},
    }


Promise = Annotated[Criterion, BeforeValidator(_of_promise), PlainSerializer(_as_promise)]
"""A criterion as the files of `semrec bench search` have it: about none of the tests, and what must not be exceeded."""
