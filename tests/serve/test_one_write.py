"""A reply's head and body are written at once, whatever was asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from semrec_faiss.serve.wire.one_write import OneWriteProtocol

BODY = b"HTTP/1.1 is what this body begins with\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"


class Transport(asyncio.Transport):
    """Keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-length", b"%d" % len(BODY))]
    if scope["path"] == "/last":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def told(*parts: bytes) -> Transport:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    protocol = OneWriteProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Transport()
    protocol.connection_made(transport)
    for data in parts:
        protocol.data_received(data)
        for _ in range(20):
            await asyncio.sleep(0)
    assert protocol.timeout_keep_alive_task is not None or transport.closed
    protocol.connection_lost(None)
    return transport


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        (POST + b"\r\n{}", [BODY]),
        (2 * (POST + b"\r\n{}"), [BODY, BODY]),
        (b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n", [b""]),
        (b"HEAD /last HTTP/1.1\r\nhost: localhost\r\n\r\n", [b""]),
        (b"GET /last HTTP/1.1\r\nhost: localhost\r\n\r\n", [BODY]),
    ],
)
def test_a_reply_is_one_write(data: bytes, bodies: list[bytes]) -> None:
    transport = asyncio.run(told(data))
    parts = [write.partition(b"\r\n\r\n") for write in transport.writes]
    assert [body for _, _, body in parts] == bodies
    assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head, _, _ in parts)
    assert transport.closed


def test_who_waits_to_be_told_to_go_on_is_told_before_the_reply() -> None:
    transport = asyncio.run(told(POST + b"expect: 100-continue\r\n\r\n", b"{}"))
    interim, reply = transport.writes
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert reply.endswith(b"\r\n\r\n" + BODY)


def test_what_is_no_http_is_told_so_and_closed() -> None:
    transport = asyncio.run(told(b"\x16\x03\x01 no HTTP\r\n\r\n"))
    assert len(transport.writes) == 1
    assert transport.writes[0].startswith(b"HTTP/1.1 400")
    assert transport.closed
