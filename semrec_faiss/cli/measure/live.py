"""The live picture of a long run on a terminal: what is done now, the best so far, the time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from semrec_faiss.cli.printing import as_duration, now_and_then


class RunState(Protocol):
    """How far a run is; see `semrec_faiss.measure.sweep.run.State`."""

    total: int
    done: int
    now: str
    step: tuple[str, int, int]
    seconds_left: float | None


State = TypeVar("State", bound=RunState)


@dataclass(frozen=True)
class Picture:
    """What one kind of run shows of itself.

    Attributes:
        unit: what is counted: a trial, a profile.
        title: over the table of the best.
        columns: of the table; numbers stand in all but the first.
        best: its rows.
    """

    unit: str
    title: str
    columns: list[str]
    best: list[list[str]]


@contextlib.contextmanager
def live(picture_of: Callable[[State], Picture]) -> Iterator[Callable[[State], None]]:
    """Show on stderr each state that the run tells: a picture on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        tell = now_and_then()
        yield lambda state: tell(
            f"{picture_of(state).unit}s done, now {state.now}{_step(state)}", state.done, state.total
        )
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as screen:
        yield lambda state: screen.update(drawn(state, picture_of(state)))


def drawn(state: RunState, picture: Picture) -> Any:
    """Draw a state and its picture for a terminal, with rich."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    left = "" if state.seconds_left is None else f", about {as_duration(state.seconds_left)} left"
    head = Text(f"{picture.unit} {min(state.done + 1, state.total)} of {state.total}{left}\n{state.now}{_step(state)}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=picture.title, title_justify="left")
    for number, name in enumerate(picture.columns):
        table.add_column(name, justify="right" if number else "left")
    for row in picture.best:
        table.add_row(*row)
    return Group(head, ProgressBar(total=state.total, completed=state.done, width=60), table)


def _step(state: RunState) -> str:
    what, done, total = state.step
    return f" · {what} {done:,}/{total:,}" if what else ""
