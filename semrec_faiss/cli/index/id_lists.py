"""Lists of ids, one a line: of a file, of what another command writes (`<(…)`), or of /dev/stdin."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

from semrec_faiss.errors import UsageError
from semrec_faiss.paths import special_kind

MOST_BYTES = 1 << 30
"""More than the ids of 50 million titles take; a pipe that goes on is taken to have no end."""

_CHUNK = 1 << 16


def ids_in(file: Path) -> tuple[str, ...]:
    """Read ids as they are: blanks around one are its own; empty lines count for nothing.

    Raises:
        UsageError: it cannot be read, is not UTF-8, is JSON, or has no end.
    """
    try:
        text = _content(file).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file {file}", fix=f"give a file of one id a line; of a single id, in bash: <(echo {file})"
        ) from error
    except OSError as error:
        told = error.strerror or error
        raise UsageError(f"{file} cannot be read: {told}", fix="give a file of one id a line") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} cannot be read: {error}", fix="write one id a line, in UTF-8") from error
    if text.lstrip().startswith(("[", "{")) and _is_json(text):
        raise UsageError(f"{file} holds JSON; one id a line is expected", fix=f"<(jq -r '.[]' {file}), in bash")
    lines = text.split("\n")
    return tuple(each for each in (line.removesuffix("\r") for line in lines) if each)


def _is_json(text: str) -> bool:
    """Tell whether a text is a list or an object, which no id is meant to be."""
    try:
        return isinstance(json.loads(text), list | dict)
    except (ValueError, RecursionError):
        return False


def _content(path: Path) -> bytes:
    if (kind := special_kind(path)) == "a socket":
        raise OSError(errno.EINVAL, f"it is {kind}")
    # Opened for waiting, a pipe is not there before somebody writes into it.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as file:
        begin = b""
        if kind is not None:
            if stat.S_ISCHR(os.fstat(number).st_mode) and not (file.isatty() or path.samefile(os.devnull)):
                raise OSError(errno.EINVAL, "it is a device, which has no end")
            begin = _begin_of_pipe(number) if Path(os.path.realpath(path)).is_fifo() else b""
            os.set_blocking(number, True)
        content = begin + file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES:,} bytes, the limit")
    return content


def _begin_of_pipe(number: int) -> bytes:
    """Read what there is of a pipe with a name, which anybody may write into, or nobody."""
    try:
        begin = os.read(number, _CHUNK)
    except BlockingIOError:  # who writes has not yet begun
        return b""
    if not begin:
        raise OSError(errno.EPIPE, "it is a pipe that nobody writes into")
    return begin
