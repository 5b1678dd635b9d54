"""How long work tells its caller how far it is, without knowing about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by anything that may take over a second."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Report that ``done`` of ``total`` units of the step named ``what`` are finished."""


def within(outer: str, progress: Progress) -> Progress:
    """Return what tells of steps with the work that they are part of: "searching, part 7 of 20"."""

    def tell(what: str, done: int, total: int, /) -> None:
        progress(f"{what}, {outer}", done, total)

    return tell


def silent(what: str, done: int, total: int, /) -> None:
    """Report nothing: the default."""
