"""One process at a time writes a place; another is told which one does."""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from semrec_faiss.errors import UsageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks say."""

_MOST_BYTES = 4096


@contextmanager
def only_writer(place: Path, lock_file: Path | None = None, *, wait: float = 0) -> Iterator[None]:
    """Keep other processes from writing ``place``, by a lock that goes with this process.

    On a file system without locks this warns and goes on.

    Args:
        place: a file or folder, as messages name it.
        lock_file: stays; None takes one beside ``place`` that is removed afterwards.
        wait: seconds for another process to end.

    Raises:
        UsageError: another process holds it still; the message names it.
        OSError: the disk refuses.
    """
    from filelock import FileLock, Timeout

    path = lock_file or lock_beside(place)
    holder = _holder(path)  # older versions of filelock empty the file when they try
    lock = FileLock(path, timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        waited = f", waited {wait:g} seconds" if wait else ""
        told = _holder(path) or holder  # while this one waited, others may have come and gone
        raise UsageError(
            f"another process is writing {place}{told}{waited}", fix="wait until it has finished"
        ) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _warn_of_no_locks(place)
    try:
        _write(path, json.dumps(_this_process()))
        yield
    finally:
        if lock_file is None:
            with suppress(OSError):
                path.unlink()
        else:
            _write(path, "")
        lock.release()


def lock_beside(place: Path) -> Path:
    """Name the lock file of ``place``; where one lies there, somebody writes, or was killed while writing."""
    return place.with_name(f".{place.name}.lock")


def _this_process() -> dict[str, int | str]:
    since = datetime.now(UTC).isoformat(" ", timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _write(path: Path, text: str) -> None:
    """Write who holds the lock; what filelock itself keeps there, where it stands in for missing locks, stays."""
    with suppress(OSError), path.open("r+", encoding="utf-8") as file:
        if not (written := file.read(_MOST_BYTES)) or written.startswith("{"):
            file.seek(0)
            file.truncate()
            file.write(text)


def _holder(path: Path) -> str:
    """Name the process that holds a lock, or held it when it was killed; nothing where that is not known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                told = json.loads(file.read(_MOST_BYTES))
            return f": process {told['pid']} on {told['host']}, since {told['since']}"
    return ""


def _warn_of_no_locks(place: Path) -> None:
    warnings.warn(
        f"{place} lies on a file system without locks: let no two commands write it at once",
        RuntimeWarning,
        stacklevel=4,
    )
