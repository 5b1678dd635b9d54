"""Paths as people write them: one rule for the command line, config files and Python."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from semrec_faiss.errors import UsageError, quoted

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path_from(written: str | os.PathLike[str]) -> Path:
    """Read a path; ``~`` or ``~name`` at the beginning of a text is a home folder, as shells have it, ``./~`` is none.

    Raises:
        ValueError: it is empty, an address, or holds what no path has here.
    """
    text = os.fspath(written)
    if text == "":
        raise ValueError("the path is empty; write . for the present folder")
    if "\0" in text:
        raise ValueError(f"{quoted(text)} holds a NUL character, which no path has")
    if _ADDRESS.match(text):
        raise ValueError(f"{text} is an address; a path on this machine is expected")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python hands on other bytes, which DuckDB takes for no name
        raise ValueError(f"{text!a} holds bytes that are no UTF-8; rename the file or folder") from error
    return _unmistakable(_at_home(Path(text)) if isinstance(written, str) and text.startswith("~") else Path(text))


def as_typed(path: str | os.PathLike[str]) -> str:
    """Return a path as a shell takes it, in quotes where it holds blanks."""
    return shlex.quote(os.fspath(path))


def special_kind(path: Path) -> str | None:
    """Say what lies at a path that is neither a file nor a folder; None where it is one of these, or nothing is there.

    A pipe that nobody writes into would be waited for, and a device such as /dev/zero read without end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISSOCK: "a socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), None)


def refuse_special(path: Path, expected: str) -> None:
    """Refuse what is neither a file nor a folder, where ``expected`` must be a whole file; raises UsageError."""
    if (kind := special_kind(path)) is not None:
        raise UsageError(f"{path} is {kind}; {expected} is expected", fix="write it to a file, and give that")


def _at_home(path: Path) -> Path:
    """Return where a path is that begins with a home folder; as it stands where nobody is of that name."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _unmistakable(path: Path) -> Path:
    """Give the whole of a path that DuckDB or Arrow would read their own way: as a home folder or as an address."""
    first = path.parts[0] if path.parts else ""
    return path.absolute() if first.startswith("~") or ":" in first else path
