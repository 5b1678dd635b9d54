"""What a worker is told, without waiting for one that does not read: who searches for all would wait with it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from semrec_faiss.serve.workers import frames


class Replies:
    """Sends messages over a worker's connection, in their order; safe from many threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._left: deque[memoryview] = deque()  # what the connection did not take at once; a thread sends it
        self._is_gone = False

    def send(self, message: frames.ToWorker) -> None:
        """Send a message, or have it sent as soon as those before it are."""
        data = memoryview(frames.packed(message))
        with self._lock:
            if not self._left:
                data = data[self._sent(data) :]
            if self._is_gone or not data:
                return
            self._left.append(data)
            if len(self._left) == 1:
                threading.Thread(target=self._send_left, daemon=True).start()

    def _sent(self, data: memoryview) -> int:
        """Send what the connection takes at once; return how many bytes that is."""
        try:
            return self._connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:  # the worker is gone
            self._is_gone = True
            return 0

    def _send_left(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self._connection.sendall(self._left[0])
            with self._lock:
                self._left.popleft()
                if not self._left:
                    return
