"""Numbers as options take them: what is none, or outside its limits, is told with these."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from semrec_faiss.errors import quoted


class UnfitNumber(click.BadParameter):
    """What is no number, or lies outside the limits of an option; ``fix`` is what to give, where that is known."""

    def __init__(
        self, message: str, param: click.Parameter | None, ctx: click.Context | None, instead: float | None = None
    ) -> None:
        super().__init__(message, ctx, param)
        named = "" if not isinstance(param, click.Option) else f"{param.opts[0]} "
        self.fix = None if instead is None else f"{named}{instead}"


class WholeNumber(click.IntRange):
    """A whole number, in a range or any, in digits; of 1,000,000 or 1e6 the fix is what to type."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        try:
            number = int(value)
        except ValueError as error:
            meant = _in_digits(value)
            told = f"{quoted(value)} is not a whole number{_told_range(self)}."
            raise UnfitNumber(told, param, ctx, None if meant is None else _nearest(self, meant)) from error
        if (nearest := _nearest(self, number)) != number:
            raise UnfitNumber(f"{number} is not a whole number{_told_range(self)}.", param, ctx, nearest)
        return number

    def _describe_range(self) -> str:
        """Say nothing in --help of a range without limits; see `FiniteRange`."""
        return "" if self.min is None and self.max is None else super()._describe_range()


def _nearest(limits: click.IntRange | click.FloatRange, number: float) -> float | None:
    """Return the number within limits that is nearest to one, itself if it is; None where none is, as above 0."""
    least, most = limits.min, limits.max
    if least is not None and (number < least or (limits.min_open and number == least)):
        return None if limits.min_open else least
    return most if most is not None and number > most else number


def _told_range(limits: click.IntRange | click.FloatRange) -> str:
    """Return what a number must be, as it goes on behind the word: `` from 0 to 1``; nothing where it may be any."""
    if limits.min is None:
        return "" if limits.max is None else f" up to {limits.max}"
    if limits.min_open:
        return f" above {limits.min}" + ("" if limits.max is None else f", up to {limits.max}")
    return f" from {limits.min} " + ("on" if limits.max is None else f"to {limits.max}")


def _in_digits(text: str) -> int | None:
    """Return the whole number that a text writes with commas or as a power of ten, up to 18 digits; None for others."""
    try:
        number = Decimal(text.replace(",", "") if _WITH_COMMAS.fullmatch(text) else text)
    except InvalidOperation:
        return None
    is_whole = number.is_finite() and number.adjusted() < 18 and number == number.to_integral_value()
    return int(number) if is_whole else None


_WITH_COMMAS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")


class FiniteRange(click.FloatRange):
    """A number, in a range or any; ``nan`` and ``inf``, which compare with no limit as numbers do, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        try:
            number = float(value)
        except ValueError as error:
            raise UnfitNumber(f"{quoted(value)} is not a number{_told_range(self)}.", param, ctx) from error
        if not math.isfinite(number):
            raise UnfitNumber(f"{quoted(value)} is not a finite number.", param, ctx)
        if (nearest := _nearest(self, number)) != number:
            raise UnfitNumber(f"{value} is not a number{_told_range(self)}.", param, ctx, nearest)
        return number

    def _describe_range(self) -> str:
        """Say nothing in --help of a range without limits, which click calls x<=None."""
        return "" if self.min is None and self.max is None else super()._describe_range()
