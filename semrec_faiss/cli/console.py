"""What every command shares: errors to exit codes, results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from semrec_faiss.errors import DeviceError, SemrecError, UsageError
from semrec_faiss.progress import Progress, silent

PLAIN_WIDTH = 160
"""Columns of a table that does not go to a terminal: wide enough that nothing is cut."""

BUSY = 0.1
"""The cores that other programs kept busy from which their work shows in the times."""


def open_closed_streams() -> None:
    """Open to nowhere what this process was started without: ``semrec … >&-`` works, and prints nothing."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def exit_code_of(work: Callable[[], object], *, debug: bool) -> int:
    """Run a command and turn whatever it raises into a message on stderr and an exit code."""
    warnings.showwarning = _show_warning
    try:
        result = work()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is quiet
        return 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted", err=True)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Show an error to a person and return its exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    ours = _as_ours(error)
    if ours is not None:
        _say_error(ours.message, ours.fix)
        return ours.exit_code
    _say_error(
        f"{type(error).__name__}: {error}",
        "this is a mistake in semrec; run it again with --debug and report what it shows",
    )
    return 1


def _as_ours(error: Exception) -> SemrecError | None:
    """Turn what the system refuses, wherever it comes up, into an error that a person can mend; None for a mistake."""
    if isinstance(error, SemrecError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{str(error.filename)[:60]}… is too long for a name")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:  # how Python hands on such arguments
        return UsageError("an argument or a name of a file holds bytes that are no UTF-8", fix="give it in UTF-8")
    if isinstance(error, MemoryError):
        said = str(error) or "this machine's memory does not suffice"
        return DeviceError(f"out of memory: {said}", fix="ask for less at once: a smaller --batch, k or data set")
    return None


def _say_error(message: str, fix: str | None) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if fix:
        click.echo(click.style("  fix: ", fg="green") + fix, err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RuntimeWarning):
        click.echo(click.style("note: ", fg="yellow") + str(message), err=True)


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    click.echo(text, err=True)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def print_table(columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = (), header: bool = True) -> None:
    """Print a table to stdout; the columns numbered in ``right`` are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=header, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)  # titles may hold [brackets], which are not markup


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress on stderr, one bar a step, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield silent
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
            bars.update(tasks[what], completed=done, total=total)

        yield show


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
    """Print a score as the guide does: a cosine as ``94.0% similar``, any other inner product as a number."""
    return f"{score * 100:.1f}% similar" if normalized else f"{score:.4g}"


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
