"""Files that stay readable for as long as somebody holds them, even when their folder is removed meanwhile."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


class HeldFiles:
    """Open descriptors of a folder's files; they are closed with the last reference to this object.

    On Linux what is open has a path of its own, which every library can read, and which a fork inherits. On other
    systems nothing is held, and files are read by their names.

    Attributes:
        all_there: whether every file could be opened when it was looked for; True where nothing is held.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        """Open the files ``names`` of ``folder``; those that cannot be opened are not held."""
        self._descriptors: dict[str, int] = {}
        self.all_there = True
        weakref.finalize(self, _close, self._descriptors).atexit = False
        if not _OPEN_FILES.is_dir():
            return
        for name in names:
            try:
                self._descriptors[name] = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                self.all_there = False

    @staticmethod
    def can_create() -> bool:
        """Whether this system has anonymous memory that is read and written like files."""
        return hasattr(os, "memfd_create") and _OPEN_FILES.is_dir()

    def create(self, name: str) -> Path:
        """Make an empty file of anonymous memory, where `can_create`, and hold it; return the path that it has here."""
        self._descriptors[name] = os.memfd_create(name)
        return _OPEN_FILES / str(self._descriptors[name])

    def path(self, name: str) -> Path | None:
        """Return the path under which a held file is read, None for one that is not held."""
        descriptor = self._descriptors.get(name)
        return None if descriptor is None else _OPEN_FILES / str(descriptor)

    def is_same(self, name: str, other: HeldFiles) -> bool:
        """Tell whether two folders have one file of this name: a hard link, held by both."""
        ours, theirs = self._descriptors.get(name), other._descriptors.get(name)
        if ours is None or theirs is None:
            return False
        return os.path.samestat(os.fstat(ours), os.fstat(theirs))


def _close(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
