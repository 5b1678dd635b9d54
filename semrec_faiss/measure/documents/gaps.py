"""Records in which a number may be missing: null in the file, and the reason told at the document's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import PrivateAttr

from semrec_faiss.measure.documents.fields import Part
from semrec_faiss.measure.documents.results import NotMeasured, gaps_apart

if TYPE_CHECKING:
    from typing import Self


class WithGaps(Part):
    """A part in which a number may be missing for a reason; made by `of`."""

    _reasons: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, **values: object) -> Self:
        """Make it of its fields; one that is `NotMeasured` becomes None, and its reason is kept.

        Raises:
            ValidationError: a value is of another type than its field.
        """
        settled, reasons = gaps_apart(values)
        made = cls.model_validate(settled)
        made._reasons = reasons
        return made

    def why(self, name: str) -> str | None:
        """Return the reason why a field of one just made is None; None of one that is not."""
        return self._reasons.get(name)

    @classmethod
    def missing(cls, reason: NotMeasured) -> Self:
        """Make one of which nothing was measured."""
        return cls.of(**dict.fromkeys(cls.model_fields, reason))


class Document(WithGaps):
    """A whole document, whose last field is ``not_measured``: dotted place → reason; made by `whole`."""

    @classmethod
    def whole(cls, **values: object) -> Self:
        """Make it of its fields, and collect the reasons of all gaps in it; raises as `of` does."""
        return cls.of(**values, not_measured=dict(_reasons_in(values)))


def _reasons_in(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted places of gaps and their reasons."""
    if isinstance(value, NotMeasured):
        yield place.removesuffix("."), value.reason
    elif isinstance(value, Part):
        if isinstance(value, WithGaps):
            yield from ((f"{place}{name}", reason) for name, reason in value._reasons.items())
        yield from _reasons_in(dict(value), place)
    elif isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in inside:
            yield from _reasons_in(inner, f"{place}{name}.")
