"""The log of a service, which a thread writes to stderr: no caller waits for whoever reads it, or does not."""

from __future__ import annotations

import atexit
import io
import logging
import os
import select
import sys
import threading
from typing import TYPE_CHECKING

from semrec_faiss.serve.settings import ServeConfig

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_BYTES = 1 << 20
"""From so many on that wait to be written lines are counted instead of kept."""

PIECE_BYTES = getattr(select, "PIPE_BUF", 512)
"""What a pipe takes in one piece, whoever else writes to it."""

LAST_SECONDS = 1.0
"""So long a process that ends waits for what is left to be written."""

log = logging.getLogger("semrec.serve")


def set_up_log(config: ServeConfig) -> None:
    """Write the log to stderr, from the level on that the config says."""
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s", stream=sys.stderr)
    log.setLevel(config.log_level.upper())


def write_stderr_in_a_thread() -> None:
    """Have whatever this process prints to stderr from now on be written by a thread; not what libraries in C print."""
    before = sys.stderr
    try:
        file = before.fileno()
    except (AttributeError, OSError):  # it is closed, or none of the system's files
        return
    told = _Told(file)
    sys.stderr = io.TextIOWrapper(told, before.encoding, before.errors, line_buffering=True)
    atexit.register(told.end)


def end_stderr() -> None:
    """Wait until stderr is written, for as long as a process that ends does; for who leaves out what `atexit` does."""
    told = getattr(sys.stderr, "buffer", None)
    if isinstance(told, _Told):
        told.end()


class _Told(io.RawIOBase):
    """A file that takes everything at once, and forgets what is not read in time, or refused as by a full disk."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._is_writing = False
        self._changed = threading.Condition()  # reentrant: a signal's handler may print, too
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def write(self, data: Buffer, /) -> int:
        line = bytes(data)
        with self._changed:
            if self._size < MOST_BYTES:
                self._waiting.append(line)
                self._size += len(line)
                self._changed.notify_all()
            else:
                self._lost += line.count(b"\n")
        return len(line)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file

    def isatty(self) -> bool:
        return os.isatty(self._file)

    def end(self) -> None:
        """Wait until everything is written, while somebody reads."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._is_writing), LAST_SECONDS)

    def _write_on(self) -> None:
        while True:
            _write(self._file, self._taken())

    def _taken(self) -> bytes:
        """Wait for something to write."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting)
            self._is_writing = True
            taken, self._waiting, self._size = self._waiting, [], 0
            if self._lost:
                taken.append(b"WARNING: %d lines of this log are lost: they were not read in time\n" % self._lost)
                self._lost = 0
        return b"".join(taken)


def _write(file: int, data: bytes) -> None:
    """Write whole lines at a time, as many as a pipe takes at once: other workers write to it, too."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + PIECE_BYTES) + 1 or data.find(b"\n", start) + 1 or len(data)
        try:
            start += os.write(file, memoryview(data)[start:end])
        except BlockingIOError:  # who began this process has it so
            select.select((), (file,), ())
        except OSError:
            return
