"""How workers reach the owner of the device: by pairs of sockets without a name, of which the owner is handed one end.

Nothing of them is on a disk, where it would stay after a supervisor that was killed, and nobody else can connect.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


class Doors:
    """The supervisor's side."""

    def __init__(self) -> None:
        self._ours, self._owners = socket.socketpair()

    def for_owner(self) -> socket.socket:
        """Return by what the owner is handed its connections, to be closed here once it has it."""
        return self._owners

    def for_worker(self) -> socket.socket:
        """Return a worker's end of a new connection, to be closed here once it has it; the owner gets the other."""
        workers, owners = socket.socketpair()
        with owners, contextlib.suppress(OSError):  # the owner is gone, which the worker will see
            socket.send_fds(self._ours, [b"."], [owners.fileno()])
        return workers

    def close(self) -> None:
        """Hand over no more."""
        self._ours.close()
        self._owners.close()


def handed_over(door: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that the owner is handed, until the supervisor is gone."""
    while True:
        told, files, *_ = socket.recv_fds(door, 1, 1)
        if not told:
            return
        yield from (socket.socket(fileno=file) for file in files)
