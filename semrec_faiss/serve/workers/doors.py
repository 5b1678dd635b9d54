"""Where the owner of the device listens to the workers: a socket in a folder of their own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from semrec_faiss.errors import StorageError

LONGEST_BYTES = 100
"""Of a socket's path: systems take 104 to 108, and the folder for temporary files may have a long one."""


def make_door_folder() -> Path:
    """Make an empty folder that only this user may enter, where the path of a socket is short enough.

    Raises:
        StorageError: no folder for temporary files can be written to.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="semrec-"))
        if len(os.fsencode(door_in(folder))) > LONGEST_BYTES:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="semrec-", dir="/tmp"))
    except OSError as error:
        raise StorageError(
            f"the workers' socket needs a folder for temporary files: {error.strerror or error}",
            fix="set TMPDIR to a folder that can be written to",
        ) from error
    return folder


def door_in(folder: Path) -> Path:
    """Return the path of the socket in such a folder."""
    return folder / "device"
