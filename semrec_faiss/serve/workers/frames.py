"""What workers and the owner of the device say over a Unix socket: a length, and a message of that many bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec
import numpy as np

from semrec_faiss import errors
from semrec_faiss.arrays import Vectors
from semrec_faiss.deadline import TooLateError
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.batching import asked as batching
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish

_LENGTH = struct.Struct("<Q")


class Asked(msgspec.Struct, tag="search", array_like=True):
    """A batch to search for.

    Attributes:
        number: by which the reply is known.
        generation: what is asked.
        dim: of the queries; 0 where they are users.
        queries: float32 (queries, dim), or the users' rows, int64.
        include_seen: keep titles that those users have seen.
        offsets, excluded: rows that single queries must not return; see `Exclusions`.
        wish, due, callers: see `Asked` of search/batching.
    """

    number: int
    generation: str
    dim: int
    queries: bytes
    include_seen: bool
    offsets: bytes | None
    excluded: bytes | None
    wish: Wish
    due: float | None
    callers: int

    @classmethod
    def of(cls, number: int, generation: str, asked: batching.Asked) -> Asked:
        """Pack arrays."""
        exclusions = asked.exclusions
        offsets = None if exclusions is None else np.asarray(exclusions.offsets, np.int64).tobytes()
        excluded = None if exclusions is None else np.asarray(exclusions.rows, np.int64).tobytes()
        if isinstance(asked.queries, UserRows):
            dim, queries = 0, np.asarray(asked.queries.rows, np.int64).tobytes()
            include_seen = asked.queries.include_seen
        else:
            dim, queries = asked.queries.shape[1], np.asarray(asked.queries, np.float32).tobytes()
            include_seen = False
        return cls(
            number, generation, dim, queries, include_seen, offsets, excluded, asked.wish, asked.due, asked.callers
        )

    def queries_of(self, recommender: Recommender) -> Vectors | UserRows:
        """Unpack the queries, of the recommender that is asked."""
        if not self.dim:
            return UserRows(recommender.users, np.frombuffer(self.queries, np.int64), self.include_seen)
        return np.frombuffer(self.queries, np.float32).reshape(-1, self.dim)

    @property
    def exclusions(self) -> Exclusions | None:
        """What single queries exclude."""
        if self.offsets is None or self.excluded is None:
            return None
        return Exclusions(np.frombuffer(self.offsets, np.int64), np.frombuffer(self.excluded, np.int64))


class Open(msgspec.Struct, tag="open", array_like=True):
    """A generation to hold on the device for this worker."""

    number: int
    generation: str


class Leave(msgspec.Struct, tag="leave", array_like=True):
    """A generation that this worker asks no more."""

    number: int
    generation: str


class Done(msgspec.Struct, tag="done", array_like=True):
    """What was opened, or left."""

    number: int


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """Why it could not be done, by the name of the error."""

    number: int
    kind: str
    message: str
    fix: str | None

    def error(self) -> Exception:
        """Return it as it was raised."""
        kind = TooLateError if self.kind == "TooLateError" else getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, SemrecError):
            return kind(self.message, fix=self.fix)
        return RuntimeError(f"{self.kind}: {self.message}")


class Found(msgspec.Struct, tag="found", array_like=True):
    """What a search found; see `TopK`."""

    number: int
    k: int
    rows: bytearray  # and not bytes: what is found may be added to
    scores: bytearray
    matching: bytearray
    exact: bool | str
    strategy: str
    stages: list[Stage]

    @classmethod
    def of(cls, number: int, found: TopK) -> Found:
        """Pack arrays."""
        rows = np.ascontiguousarray(found.rows, np.int64)
        scores = np.ascontiguousarray(found.scores, np.float32)
        matching = np.ascontiguousarray(found.matching, np.int64)
        arrays = bytearray(rows), bytearray(scores), bytearray(matching)
        return cls(number, rows.shape[1], *arrays, found.exact, found.strategy, list(found.stages))

    def top_k(self) -> TopK:
        """Unpack them."""
        rows = np.frombuffer(self.rows, np.int64).reshape(-1, self.k)
        scores = np.frombuffer(self.scores, np.float32).reshape(-1, self.k)
        exact: Any = self.exact
        return TopK(rows, scores, np.frombuffer(self.matching, np.int64), exact, self.strategy, self.stages)


ToOwner = Asked | Open | Leave
ToWorker = Done | Failed | Found
_ENCODER = msgspec.msgpack.Encoder()
_FOR_OWNER: msgspec.msgpack.Decoder[ToOwner] = msgspec.msgpack.Decoder(ToOwner)
_FOR_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


def packed(message: msgspec.Struct) -> bytes:
    """Return a message as it is sent."""
    data = _ENCODER.encode(message)
    return _LENGTH.pack(len(data)) + data


def send(connection: socket.socket, message: msgspec.Struct) -> None:
    """Send a message; one thread at a time."""
    connection.sendall(packed(message))


def message_for_owner(connection: socket.socket) -> ToOwner | None:
    """Wait for a worker's message; None when the worker is gone."""
    data = _received(connection)
    return None if data is None else _FOR_OWNER.decode(data)


def message_for_worker(connection: socket.socket) -> ToWorker | None:
    """Wait for the owner's message; None when the owner is gone."""
    data = _received(connection)
    return None if data is None else _FOR_WORKER.decode(data)


def _received(connection: socket.socket) -> bytearray | None:
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, start = memoryview(data), 0
    while start < size:
        try:
            count = connection.recv_into(view[start:])
        except OSError:
            return None
        if not count:
            return None
        start += count
    return data
