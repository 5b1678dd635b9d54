"""How a command ends: an error becomes a message on stderr and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from semrec_faiss.cli.printing import print_json
from semrec_faiss.cli.process.signals import Terminated, ended_cleanly
from semrec_faiss.cli.usage import fix_of
from semrec_faiss.errors import DeviceError, NotFoundError, SemrecError, StorageError, UsageError, quoted, told_shortly
from semrec_faiss.storage import too_many_open

INTERRUPTED = 128 + signal.SIGINT
"""What a command returns that Ctrl-C has ended."""


def exit_code_of(
    work: Callable[[], object], arguments: Sequence[str] = (), *, debug: bool, as_json: bool = False
) -> int:
    """Run a command and turn whatever it raises into a message on stderr and an exit code.

    Args:
        work: the command.
        arguments: what it was given, of which errors quote the beginning alone where it is long.
        debug: show where an error was raised.
        as_json: tell an error on stdout, too, as one JSON document.
    """
    try:
        with _shown_warnings(), ended_cleanly():
            result = work()
            sys.stdout.flush()
    except BrokenPipeError:
        return end_of_pipe()
    except Terminated:
        click.echo("\nterminated", err=True)
        return 128 + signal.SIGTERM
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of any file for Ctrl-D
            return _explained(error.__cause__, arguments, debug=debug, as_json=as_json)
        click.echo("\ninterrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        return _explained(error, arguments, debug=debug, as_json=as_json)
    return result if isinstance(result, int) else 0


def _explained(error: Exception, arguments: Sequence[str], *, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exception(error)
    with suppress(BrokenPipeError):
        return _explain(error, arguments, as_json)
    return end_of_pipe()


def end_of_pipe() -> int:
    """Have what is still to be printed go nowhere, and return 0: whoever reads has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def end_at_once_if_interrupted(code: int) -> None:
    """End the process after Ctrl-C, where a thread is still at work that the interpreter would wait for."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if code == INTERRUPTED and any(not thread.daemon for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Show warnings as notes in the block."""
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        warnings.showwarning = before


def _explain(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    """Show an error to a person, and to a program that asks for JSON, and return its exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        click.echo(told_shortly(_with_short_values(shown.getvalue(), arguments)), nl=False, err=True)
        fix = fix_of(error)
        _say_fix(fix)
        told: SemrecError = UsageError(_with_short_values(error.format_message(), arguments), fix=fix)
        told.exit_code = error.exit_code
    else:
        told = _as_ours(error) or _mistake(error)
        _say_error(told.message, told.fix)
    if as_json:
        try:
            print_json(_document(told))
        except OSError:  # nobody reads stdout, or its disk is full: stderr has told of the error
            end_of_pipe()
    return told.exit_code


def _with_short_values(text: str, arguments: Sequence[str]) -> str:
    """Return what click says of arguments, which it repeats whole, with the long ones as our own errors quote them."""
    values = {value for argument in arguments for value in (argument, *argument.partition("=")[::2])}
    for value in sorted(values, key=len, reverse=True):
        if (short := quoted(value)) != repr(value):
            text = text.replace(repr(value), short).replace(value, short)
    return text


def _mistake(error: Exception) -> SemrecError:
    return SemrecError(
        f"{type(error).__name__}: {error}",
        fix="this is a mistake in semrec; run it again with --debug and report what it shows",
    )


def _document(error: SemrecError) -> dict[str, Any]:
    """Return what a service's problem document says of an error, with the exit code in the place of the status."""
    media_ids = error.media_ids if isinstance(error, NotFoundError) else ()
    detail, fix = (None if text is None else _readable(text) for text in (error.message, error.fix))
    told = {"detail": detail, "fix": fix, "candidates": error.candidates, "media_ids": media_ids}
    return {"exit_code": error.exit_code} | {name: value for name, value in told.items() if value}


def _readable(text: str) -> str:
    """Return a text with question marks for bytes that are none, as names of files may have: JSON is text alone."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _as_ours(error: Exception) -> SemrecError | None:
    """Turn what the system refuses, wherever it comes up, into an error that a person can mend; None for a mistake."""
    if isinstance(error, SemrecError):
        return error
    return _about_a_path(error) or _about_this_machine(error)


def _about_a_path(error: Exception) -> SemrecError | None:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{quoted(str(error.filename))} is too long for a name")
    if isinstance(error, PermissionError):
        named = f" {error.filename}" if error.filename else ""
        return StorageError(
            f"permission denied:{named or ' a file'}", fix="run as a user who may, or change the permissions"
        )
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UsageError("a path holds a NUL character, which no path has", fix="give another path")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:  # how Python hands on such arguments
        return UsageError("an argument or a name of a file holds bytes that are no UTF-8", fix="give it in UTF-8")
    return None


def _about_this_machine(error: Exception) -> SemrecError | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        named = error.filename or "what was to be written"  # writing to an open file names none
        return StorageError(f"the disk would not take {named}: {error.strerror}", fix="free room on the disk")
    if isinstance(error, MemoryError):
        said = str(error) or "this machine's memory does not suffice"
        return DeviceError(f"out of memory: {said}", fix="ask for less at once: a smaller --batch, k or data set")
    return too_many_open(error) if isinstance(error, OSError) else None


def _say_error(message: str, fix: str | None) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    _say_fix(fix)


def _say_fix(fix: str | None) -> None:
    if fix:
        click.echo(click.style("  fix: ", fg="green") + fix, err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RuntimeWarning):
        click.echo(click.style("note: ", fg="yellow") + str(message), err=True)
