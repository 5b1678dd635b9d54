"""Having a file written to the disk while it still grows.

Left alone, the system gathers gigabytes in memory before it begins: a file would first be made and then be written,
in the sum of both times instead of the longer one.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO

_STEP_BYTES = 32 << 20

# Stay in memory in any case: others may still write there, and would have to read the page that they write a part of.
_RECENT_BYTES = 128 << 20


class EarlyFlush:
    """Flushes a file from a thread of its own whenever enough has been written to it.

    What the disk refuses is raised at the next :meth:`wrote`, or at the end of the block, which waits for what is being
    flushed. The file itself may be closed before.

    Args:
        file: open for writing in binary.
        step_bytes: how much is to be flushed at a time.
        keep: whether the system keeps in memory what is flushed. A file that is larger than memory would push out all
            that other programs have there, and taking memory anew for every page takes longer than the disk does.
    """

    def __init__(self, file: IO[bytes], step_bytes: int = _STEP_BYTES, *, keep: bool = True) -> None:
        self._descriptor = os.dup(file.fileno())
        self._drops = not keep and hasattr(os, "posix_fadvise")  # not on every system
        self._step = step_bytes
        self._written = 0
        self._waiting = 0
        self._flushes: list[Future[None]] = []  # the last, and one before that may not be done yet
        # One flushes; the other drops what was flushed, which takes its time, too, while the disk goes on.
        self._flusher, self._dropper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def wrote(self, count: int) -> None:
        """Tell that ``count`` bytes more were written."""
        self._written += count
        self._waiting += count
        if self._waiting >= self._step and all(flush.done() for flush in self._flushes):
            self._begin()

    def finish(self) -> None:
        """Have the rest flushed; returns at once."""
        if self._waiting:
            self._begin()

    def _begin(self) -> None:
        for flush in [flush for flush in self._flushes if flush.done()]:
            self._flushes.remove(flush)
            flush.result()
        self._waiting = 0
        self._flushes.append(self._flusher.submit(self._flush_now, self._written - _RECENT_BYTES))

    def _flush_now(self, unneeded: int) -> None:
        os.fsync(self._descriptor)
        if self._drops and unneeded > 0:
            self._dropper.submit(os.posix_fadvise, self._descriptor, 0, unneeded, os.POSIX_FADV_DONTNEED)

    def __enter__(self) -> EarlyFlush:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._flusher.shutdown()
        self._dropper.shutdown()
        os.close(self._descriptor)
        if kind is None:
            for flush in self._flushes:
                flush.result()
