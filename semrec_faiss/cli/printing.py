"""What every command prints with: results to stdout, everything else to stderr."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cores import BUSY
from semrec_faiss.progress import Progress

if TYPE_CHECKING:
    from semrec_faiss.data.times import Times

UNBOUNDED = 1 << 20
"""Columns of a table that does not go to a terminal, where what reads it takes a row for a line."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

LINE_SECONDS = 30.0
"""Between two lines about long work, where stderr is no terminal."""


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    click.echo(text, err=True)


def say_what_was_guessed(notes: Sequence[str], times: Times | None) -> None:
    """Tell how a table of what people did was read: its columns, and in which unit its times are."""
    for note in notes:
        say(f"note: {note}")
    if times is not None:
        say(f"note: times are {times.unit}: {times.first} to {times.last}")


def say_if_disturbed(cores: float | None, what: str, again: str = "measure again when nothing else runs") -> None:
    """Tell of the cores that other programs kept busy during ``what``, where that shows in its times."""
    if cores is not None and cores > BUSY:
        say(f"note: other programs kept {cores:.1f} cores busy during {what}, whose times are longer for it; {again}")


def print_json(document: Any) -> None:
    """Print one JSON document to stdout; where its encoding is not UTF-8, all but ASCII is escaped."""
    other = codecs.lookup(sys.stdout.encoding or "utf-8").name not in ("utf-8", "utf-16", "utf-32")
    click.echo(json.dumps(document, ensure_ascii=other, indent=2, default=str))


def on_one_line(text: str) -> str:
    """Return a text with a space for each run of control characters: ends of lines, tabs, what colours a terminal."""
    return _CONTROLS.sub(" ", text)


def print_table(columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = (), header: bool = True) -> None:
    """Print a table to stdout; the columns numbered in ``right`` are aligned to the right.

    A terminal's are as wide as it is, and cells are wrapped; elsewhere a row is a line.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=header, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left", overflow="fold")
    is_terminal = sys.stdout.isatty()  # else it is text alone, whatever FORCE_COLOR says to rich
    for row in rows:
        table.add_row(*(_plain(cell if is_terminal else on_one_line(cell)) for cell in row))
    console = Console(width=None if is_terminal else UNBOUNDED, highlight=False, force_terminal=is_terminal)
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def print_listing(heading: str, rows: list[list[str]]) -> None:
    """Print a heading and under it what it tells of, each with its reason; nothing where there is nothing."""
    if rows:
        click.echo(f"{heading}:")
        print_table(["", ""], [[f"  {what}", reason] for what, reason in rows], header=False)


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)  # titles may hold [brackets], which are not markup


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress on stderr: a bar for each step that is not done on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        yield now_and_then()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int, /) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

        yield show


def now_and_then() -> Progress:
    """Return what says on stderr how far long work is, a line every `LINE_SECONDS`: none for what is soon done."""
    last = time.monotonic()

    def tell(what: str, done: int, total: int, /) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    return tell


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show on stderr, where it is a terminal, that something of unknown length goes on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def as_similarity(score: float, *, normalized: bool) -> str:
    """Print a score: a cosine as ``94.0% similar``, as the guide does, any other inner product as a number.

    Below 0 there is no percentage of similarity, so that a cosine is told as what it is.
    """
    if not normalized:
        return f"{score:#.4g}"
    return f"{score * 100:.1f}% similar" if score >= 0 else f"cosine {score:.4f}"


def as_liked(score: float) -> str:
    """Print the score of a popular title, which counts those who like it."""
    return f"liked by {score:,.0f}"


def as_size(count: int) -> str:
    """Print a number of bytes."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_ms(value: float) -> str:
    """Print milliseconds with three digits that matter."""
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def as_duration(seconds: float) -> str:
    """Print a time as a person estimates it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
