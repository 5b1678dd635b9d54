"""Callers that go, hang, write on and on, break HTTP or ask for HTTP/2: nobody else notices, and nothing is logged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from conftest import HANG_SECONDS, until

from semrec_faiss.serve import connection
from semrec_faiss.serve.connection import HEAD_BYTES, Connection


class Server:
    """Answers with a request's path and body; what is asked at ``/wait`` waits until it may go on."""

    def __init__(self, loop: str) -> None:
        self.begun: Counter[str] = Counter()
        self.cycles = 0
        config = uvicorn.Config(
            self._answer, port=0, http=Connection, loop=loop, lifespan="off", log_config=None, interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self._loop = self._server.servers[0].get_loop()
        self._may_go_on = asyncio.Event()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        path, body = scope["path"], b""
        self.begun[path] += 1
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if path == "/wait":
            await self._may_go_on.wait()
        answer = b"x" * (1 << 24) if path == "/much" else f"{path} {body.decode()}".encode()
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._may_go_on.set)

    def end(self) -> None:
        self.go_on()
        self._server.should_exit = True
        self._thread.join(HANG_SECONDS)


@pytest.fixture(params=["uvloop", "asyncio"])
def server(request: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    caplog.set_level(logging.WARNING)
    made = Server(request.param)
    yield made
    with calling(made) as call:
        assert call(post("/last")) == ["/last "], "it goes on"
    made.end()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def post(path: str, body: str = "", *headers: str, version: str = "1.1") -> bytes:
    lines = (f"POST {path} HTTP/{version}", "host: localhost", f"content-length: {len(body)}", *headers, "", body)
    return "\r\n".join(lines).encode()


@contextlib.contextmanager
def calling(server: Server) -> Iterator[Callable[..., list[str]]]:
    """Connect; what is made sends bytes in pieces, and returns the bodies of all replies until so many have come."""
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        file = caller.makefile("rb")

        def call(*pieces: bytes, replies: int | None = None) -> list[str]:
            for piece in pieces:
                caller.sendall(piece)
            return [_reply(file) for _ in range(len(pieces) if replies is None else replies)]

        yield call


def _reply(file: Any) -> str:
    length = 0
    while (line := file.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return str(file.read(length).decode())


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("before", [post("/much"), b""], ids=["is noticed", "is not noticed"])
def test_who_goes_while_several_are_answered_is_answered_no_more(server: Server, before: bytes, how: str) -> None:
    """Once a fault: a traceback for each answer, as only the last request was known to be asked by nobody."""
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        caller.sendall(before + post("/wait") + post("/behind") + post("/end"))
        until(lambda: server.begun["/wait"])
        if how == "resets":
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if before:
        until(lambda: not server.connections)
    server.go_on()
    until(lambda: not server.connections)


@pytest.mark.parametrize("asked", [post("/wait"), post("/first") + post("/wait", "body") + b"POST /half HT"])
def test_who_says_that_nothing_more_comes_is_answered(server: Server, asked: bytes) -> None:
    """Once a fault: the connection was closed before the answer."""
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        caller.sendall(asked)
        caller.shutdown(socket.SHUT_WR)
        until(lambda: server.begun["/wait"])
        server.go_on()
        file = caller.makefile("rb")
        expected = ["/first ", "/wait body"] if b"/first" in asked else ["/wait "]
        assert [_reply(file) for _ in expected] == expected
        assert file.read() == b""
    until(lambda: not server.connections)


@pytest.mark.parametrize("asked", [b"", b"POST / HT", post("/a", "body")[:-1]])
def test_who_says_that_nothing_more_comes_amid_a_request_is_let_go(server: Server, asked: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        caller.sendall(asked)
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""
    until(lambda: not server.connections)


def test_requests_in_a_row_are_answered_in_their_order(server: Server) -> None:
    with calling(server) as call:
        rows = [post("/one", "1") + post("/two", "2" * 100_000) + post("/three", "3"), post("/four", "4" * 300_000)]
        told = call(*rows, replies=4)
    assert [(one.split()[0], len(one)) for one in told] == [
        ("/one", 6),
        ("/two", 100_005),
        ("/three", 8),
        ("/four", 300_006),
    ]


def test_no_more_is_read_than_one_piece_of_requests_that_wait(server: Server) -> None:
    """Once a fault: with each that was answered another piece was read, by one caller 1 GB in a few seconds."""
    one, most = post("/some"), 40_000
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        sender = threading.Thread(target=lambda: caller.sendall(post("/wait") + one * most), daemon=True)
        sender.start()
        until(lambda: server.begun["/wait"])
        server.go_on()
        file = caller.makefile("rb")
        longest = 0
        for _ in range(most + 1):
            _reply(file)
            (held,) = server._server.server_state.connections
            longest = max(longest, len(held.pipeline))  # type: ignore[union-attr]
        sender.join(HANG_SECONDS)
    assert 0 < longest <= (1 << 18) / len(one) + 1, "uvloop's largest piece"
    assert server.begun["/some"] == most


UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQ")
WEBSOCKET = ("connection: upgrade", "upgrade: websocket", "sec-websocket-key: eA==", "sec-websocket-version: 13")


@pytest.mark.parametrize("headers", [UPGRADE, WEBSOCKET], ids=["HTTP/2", "a WebSocket"])
@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_who_asks_for_another_protocol_is_answered_by_this_one(
    server: Server, headers: tuple[str, ...], size: int
) -> None:
    """Once a fault: Java's client, which does it by default, was told that it sent no body, and then no HTTP."""
    asked, answer = post("/a", "x" * size, *headers), "/a " + "x" * size
    with calling(server) as call:
        assert call(asked, post("/b", "y"), asked) == [answer, "/b y", answer]
        assert call(asked + asked + post("/b", "y"), replies=3) == [answer, answer, "/b y"]
        at = asked.index(b"pgrade: ")
        assert call(asked[:at], asked[at : at + 30], asked[at + 30 : -2], asked[-2:], replies=1) == [answer]
        chunked = b"POST /c HTTP/1.1\r\n%s\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        assert call(chunked % "\r\n".join(headers).encode()) == ["/c ab"]


GARBAGE = [
    b"\x16\x03\x01\x02\x00",
    b"NOTHING LIKE IT\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    b"CONNECT nowhere:1 HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_http_is_told_as_a_problem(server: Server, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semrec.serve")
    with calling(server) as call:
        problem = json.loads(call(garbage)[0])
        assert (problem["status"], problem["detail"][:20]) == (400, "this is no HTTP/1.1:")
        assert "callback" not in problem["detail"]
        assert call(replies=1) == [""], "closed"
    assert f"refused what 127.0.0.1 sent: {problem['detail']}" in caplog.messages


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_http_takes_no_answer_from_those_before_it(server: Server, garbage: bytes) -> None:
    """Once a fault: the first of them got the 400."""
    with calling(server) as call:
        call(post("/wait") + post("/behind") + garbage, replies=0)
        until(lambda: server.begun["/wait"])
        server.go_on()
        assert call(replies=3) == ["/wait ", "/behind ", ""]


def test_a_body_that_breaks_off_is_told_and_ends(server: Server) -> None:
    broken = b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX\r\n"
    with calling(server) as call:
        assert "this is no HTTP/1.1" in json.loads(call(broken)[0])["detail"]
    with calling(server) as call:
        call(post("/wait") + broken, replies=0)
        assert call(replies=1) == [""], "closed: what is answered first is not known yet"
    until(lambda: not server.connections)


@pytest.mark.parametrize("where", ["in a header", "in the path", "in many headers"])
@pytest.mark.parametrize("size", [HEAD_BYTES + 1, 1 << 20])
def test_a_head_that_is_too_long_is_told(server: Server, where: str, size: int) -> None:
    long = "a" * size
    head = {
        "in a header": f"POST / HTTP/1.1\r\nx: {long}\r\n\r\n",
        "in the path": f"POST /{long} HTTP/1.1\r\n\r\n",
        "in many headers": "POST / HTTP/1.1\r\n" + "name: value\r\n" * (size // 9) + "\r\n",
    }[where].encode()
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        with contextlib.suppress(ConnectionError):
            caller.sendall(head)
        problem = json.loads(_reply(caller.makefile("rb")))
    assert (problem["status"], problem["detail"]) == (
        431,
        f"the request's head has more than {HEAD_BYTES} bytes, the most that it may have",
    )
    with calling(server) as call:
        several = post("/a", "b" * 100_000, "x: " + "y" * (HEAD_BYTES - 200))
        assert [len(told) for told in call(several * 3, replies=3)] == [100_003] * 3


def test_who_asks_nothing_or_never_to_an_end_is_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.5)
    with calling(server) as call:
        assert call(replies=1) == [""], "closed"
    with calling(server) as call:
        assert call(b"\r\n", replies=1) == [""]
    for before in ((), (post("/a"),)):
        with calling(server) as call, contextlib.suppress(ConnectionError):
            call(*before)
            told = call(*(piece.to_bytes() for piece in post("/a")[:-3]), replies=1)
            assert json.loads(told[0])["detail"] == "the request's head had not come after 0.5 seconds"
            assert call(replies=1) == [""]


def test_who_reads_nothing_is_let_go_and_who_reads_slowly_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: what was not read lay there for good."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 1.0)
    with calling(server) as call:
        call(post("/much"), replies=0)
        until(lambda: server.begun["/much"] and not server.connections)
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as caller:
        caller.sendall(post("/much"))
        read = 0
        until(lambda: server.begun["/much"] == 2)
        for _ in range(12):
            read += len(caller.recv(1 << 20))
            threading.Event().wait(0.3)
        while piece := caller.recv(1 << 20):
            read += len(piece)
    assert read > 1 << 24
