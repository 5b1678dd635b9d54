"""A caller's connection: uvicorn's, which also bears callers that go early, hang, write on or ask for HTTP/2."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from pathlib import Path
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from semrec_faiss.serve.api.bodies import LINGER_SECONDS
from semrec_faiss.serve.wire.problems import Refused, reply_to

log = logging.getLogger("semrec.serve")

IDLE_SECONDS = 75
"""So long a connection may ask nothing, a request's head may take to come, and a reply may lie there unread."""

HEAD_BYTES = 1 << 16
"""The longest head of a request: its first line and its headers."""


class Connection(HttpToolsProtocol):
    """One connection, whose requests are answered in turn."""

    _answering: RequestResponseCycle | None = None  # where others wait behind it: uvicorn knows the last that came
    _head_bytes = 0  # of a head that is not whole
    _head_due: float | None = None
    _is_declining = False  # another protocol, which the head before asked for
    _is_over = False
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; who asks nothing does not stay."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._wait_until(self.loop.time() + IDLE_SECONDS)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer still what was asked whole by who says that nothing more comes, as `nc` does; by HTTPS nobody can."""
        is_secured = self.transport.get_extra_info("sslcontext") is not None
        if is_secured or self._is_over or not self._is_busy or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what is being answered is answered to nobody."""
        if self._answering is not None:
            self._answering.disconnected = True
        if self._unread is not None:
            self._unread.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._is_over:
            return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        left = memoryview(data)
        try:
            while (declined_at := self._read(left)) is not None:
                left = left[declined_at:]
                self.parser.feed_data(self._head_without_upgrade())
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._end(cause if isinstance(cause, Refused) else _no_http(cause or error))
        else:
            self._watch_head()

    def _read(self, data: memoryview) -> int | None:
        """Parse; return where a head ends that asks for another protocol, and None where all is read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0]) if self._is_declining else None
        return None

    def _head_without_upgrade(self) -> bytes:
        """Write the head once more; behind one that asks for another protocol the parser expects that, and no body.

        Java's own client asks for HTTP/2 so, and goes on by HTTP/1.1.
        """
        self._is_declining = False
        version = self.parser.get_http_version().encode()
        kept = b"".join(b"%s: %s\r\n" % line for line in self.headers if line[0] != b"upgrade")
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, kept)

    def on_headers_complete(self) -> None:
        """Have a request answered, or wait until those before it are."""
        if self._head_bytes > HEAD_BYTES and self._size_of_head() > HEAD_BYTES:
            raise _long_head()
        self._head_bytes = 0
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_declining = True
            return
        before = self.cycle
        super().on_headers_complete()
        if self._answering is None and before is not None and not before.response_complete:
            self._answering = before

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def on_message_complete(self) -> None:
        """Tell who answers that all has come."""
        self._head_bytes = 0
        if not self._is_declining:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Have the next one answered."""
        if self._answering is not None:
            self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_in_head(self) -> bool:
        return self.scope is not None and "query_string" not in self.scope  # with which uvicorn has taken it apart

    def _watch_head(self) -> None:
        """See to it that a head which has begun comes to an end."""
        if not self._is_in_head:
            self._head_bytes, self._head_due = 0, None
            if not self._is_busy:
                self._wait_until(self.loop.time() + IDLE_SECONDS)
            return
        if self._head_due is None:
            self._head_due = self.loop.time() + IDLE_SECONDS
        if self._head_bytes > HEAD_BYTES:
            self._end(_long_head())
        elif not self._is_busy:
            self._wait_until(self._head_due)

    def _wait_until(self, due: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(due, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close what nobody asks by any more, and what is not read."""
        if self._is_in_head:
            self._end(_late_head())
        else:
            super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.pause_writing()

    def _end(self, refused: Refused) -> None:
        """Say what is wrong and close; where requests before are being answered, close behind their answers."""
        if self._is_busy and self._is_in_head:
            self.cycle.keep_alive = False
            return
        self._is_over = True
        if self._is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._is_busy and (self.cycle.response_started or self._answering is not None):
            self.transport.close()
        else:
            self._write(refused)
            self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _write(self, refused: Refused) -> None:
        log.info("refused what %s sent: %s", self.client[0] if self.client else "somebody", refused.detail)
        reply = reply_to(refused, None, Path())
        headers = [
            *self.server_state.default_headers,
            (b"content-type", reply.kind.encode()),
            (b"content-length", b"%d" % len(reply.body)),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % line for line in headers)
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[reply.status], head, reply.body))

    def pause_writing(self) -> None:
        """Write no more before what is written is read; who reads nothing is let go."""
        super().pause_writing()
        if self._unread is not None:
            self._unread.cancel()
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(IDLE_SECONDS, self._let_go_who_reads_nothing, left)

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def shutdown(self) -> None:
        """Close, when what is asked is answered; by HTTPS an idle caller need not say that it has closed as well."""
        super().shutdown()
        self.loop.call_later(LINGER_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        if self.transport.is_closing() and not self.flow.write_paused:
            self.transport.abort()

    def _let_go_who_reads_nothing(self, left: int) -> None:
        if self.transport.get_write_buffer_size() >= left:
            self.transport.abort()
        else:
            self.pause_writing()


class _Flow(FlowControl):
    """Reads on once no request waits: with each that was answered another piece came in, of thousands of others."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


def _no_http(error: BaseException) -> Refused:
    return Refused(400, f"this is no HTTP/1.1: {error}", fix="see /openapi.json for what may be asked")


def _long_head() -> Refused:
    fix = "send fewer and shorter headers, and what is long in the body"
    return Refused(431, f"the request's head has more than {HEAD_BYTES} bytes, the most that it may have", fix=fix)


def _late_head() -> Refused:
    return Refused(408, f"the request's head had not come after {IDLE_SECONDS} seconds", fix="send it at once")
