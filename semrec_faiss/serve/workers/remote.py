"""A worker's side of the device's owner: what is to be searched goes there in a batch, and comes back as a future."""

from __future__ import annotations

import socket
import threading
import weakref
from concurrent.futures import Future
from itertools import count
from queue import SimpleQueue

from semrec_faiss.errors import DeviceError
from semrec_faiss.search.batching.asked import Asked
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.serve.workers import frames


class RemoteDevice:
    """A connection to the owner; safe from many threads."""

    def __init__(self, connection: socket.socket) -> None:
        """Ask over a connection that the owner has the other end of."""
        self._connection = connection
        self._lock = threading.Lock()
        self._left: SimpleQueue[str] = SimpleQueue()  # which takes what is let go of in whatever thread
        self._numbers = count()
        self._waiting: dict[int, Future[frames.ToWorker]] = {}
        self._is_gone = False
        threading.Thread(target=self._receive, name="device-replies", daemon=True).start()
        threading.Thread(target=self._leave, name="device-leaving", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many messages have no reply yet."""
        return len(self._waiting)

    def open(self, generation: str) -> RemoteBatcher:
        """Have the owner hold a generation for as long as what is returned lives; raises what opening it does."""
        self._told(frames.Open(self._number(), generation)).result()
        batcher = RemoteBatcher(self, generation)
        weakref.finalize(batcher, self._left.put, generation)
        return batcher

    def _leave(self) -> None:
        """Tell of each generation that is asked no more; nobody waits for that."""
        while True:
            self._told(frames.Leave(self._number(), self._left.get()))

    def search(self, generation: str, asked: Asked) -> Future[TopK]:
        """Have a batch searched."""
        found: Future[TopK] = Future()
        message = frames.Asked.of(self._number(), generation, asked)
        self._told(message).add_done_callback(lambda reply: _pass_on(reply, found))
        return found

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _number(self) -> int:
        return next(self._numbers)

    def _told(self, message: frames.ToOwner) -> Future[frames.ToWorker]:
        reply: Future[frames.ToWorker] = Future()
        self._waiting[message.number] = reply
        try:
            with self._lock:
                if self._is_gone:
                    raise OSError("gone")
                frames.send(self._connection, message)
        except OSError:
            self._fail(message.number)
        return reply

    def _receive(self) -> None:
        while (message := frames.message_for_worker(self._connection)) is not None:
            reply = self._waiting.pop(message.number, None)
            if reply is None:
                continue
            if isinstance(message, frames.Failed):
                reply.set_exception(message.error())
            else:
                reply.set_result(message)
        self._is_gone = True
        for number in list(self._waiting):
            self._fail(number)

    def _fail(self, number: int) -> None:
        reply = self._waiting.pop(number, None)
        if reply is not None:
            reply.set_exception(DeviceError("the process that owns the device is gone", fix="start it again"))


def _pass_on(reply: Future[frames.ToWorker], found: Future[TopK]) -> None:
    if not found.set_running_or_notify_cancel():
        return
    error = reply.exception()
    if error is not None:
        found.set_exception(error)
        return
    message = reply.result()
    assert isinstance(message, frames.Found)
    found.set_result(message.top_k())


class RemoteBatcher:
    """Makes the searches of one generation at the owner's, as a `Batcher` does here."""

    def __init__(self, device: RemoteDevice, generation: str) -> None:
        self._device = device
        self._generation = generation

    def submit(self, asked: Asked) -> Future[TopK]:
        """Have queries searched together with those of other workers."""
        return self._device.search(self._generation, asked)

    def run(self, asked: Asked) -> TopK:
        """Have queries searched, and wait."""
        return self.submit(asked).result()
