"""The ASGI app: takes a request apart, finds its route, lets in who may ask, and counts and logs what came of it."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, TextIO

import msgspec

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.errors import SemrecError, quoted
from semrec_faiss.serve.api.bodies import Receive, drop_body, read_body
from semrec_faiss.serve.api.handlers import Handlers
from semrec_faiss.serve.api.page import PAGE_HEADERS, page
from semrec_faiss.serve.keys import Key, Keys, Role
from semrec_faiss.serve.tallies import Tallies
from semrec_faiss.serve.wire.messages import JSON, Reply, Request
from semrec_faiss.serve.wire.problems import Refused, reply_to

log = logging.getLogger("semrec.serve")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Reply]]

LOG_SECONDS = 0.1
"""The access log is written so often, not for each request."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Route:
    """A path: its method, what answers it, and what a key must allow; None for everybody."""

    method: str
    path: str
    handler: Handler
    role: Role | None = None


@dataclass(frozen=True)
class Rules:
    """How requests are taken.

    Attributes:
        keys: who may ask; None: this machine, and nobody may reload.
        max_body: the largest body, in bytes.
        deadline_ms: how long an answer is waited for; a request may ask for less by the header ``deadline-ms``.
        log_to: where each request's line of JSON goes; None writes none.
    """

    keys: Keys | None
    max_body: int
    deadline_ms: float
    log_to: TextIO | None = sys.stderr


class App:
    """The service as an ASGI callable.

    Attributes:
        last_request: when the last one came, by `time.monotonic`.
    """

    def __init__(self, handlers: Handlers, rules: Rules, tallies: Tallies, openapi: bytes, fixed_body: int = 0) -> None:
        self.handlers = handlers
        self.rules = rules
        self.last_request = 0.0
        self._tallies = tallies
        self._lines: list[tuple[float, Request, Reply, Key | None, float]] = []
        self._routes: dict[str, dict[str, Route]] = {}
        for route in (*routes_of(handlers, openapi), *fixed_routes(fixed_body)):
            self._routes.setdefault(route.path, {})[route.method] = route
        self._count = count(1)
        self._start = secrets.token_hex(4).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        self.last_request = started = time.monotonic()
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            _join_accept(headers, scope["headers"])
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"],
            headers,
            self._id(headers),
            started + self.rules.deadline_ms / 1e3,
        )
        key: Key | None = None
        route: Route | None = None
        try:
            route = self._route(request)
            key = self._let_in(request, route)
            request.due = self._due(request)
            request.body = await read_body(request, receive, self.rules.max_body)
            reply = await route.handler(request)
        except asyncio.CancelledError:
            if not self.handlers.is_draining:
                raise
            ended = Refused(503, "the service has ended before this was answered", fix="ask again, or ask another")
            reply = reply_to(ended, request.name, self.handlers.serving.index)
        except Exception as error:
            if not isinstance(error, Refused | SemrecError):
                log.exception("request %s failed", request.name)
            reply = reply_to(error, request.name, self.handlers.serving.index)
        is_unread = reply.status == 413
        try:
            await _send(reply, request, send, closing=is_unread or self.handlers.is_draining, more=is_unread)
            if is_unread:
                await drop_body(receive)
                await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:  # the caller does not read what is written, and the service ends
            if not self.handlers.is_draining:
                raise
        self._note(request, route, reply, key, time.monotonic() - started)

    def reread_keys(self, keys: Keys | None) -> None:
        """Let in who holds one of these keys from now on."""
        self.rules = replace(self.rules, keys=keys)

    def _id(self, headers: Mapping[bytes, bytes]) -> bytes:
        given = headers.get(b"x-request-id")
        return given if given and _ID.fullmatch(given) else b"%s-%d" % (self._start, next(self._count))

    def _route(self, request: Request) -> Route:
        by_method = self._routes.get(request.path)
        if by_method is None:
            offer = did_you_mean(request.path[:200], list(self._routes))
            raise Refused(404, f"there is nothing at {request.path}", fix=f"{offer}see /openapi.json")
        route = by_method.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(by_method)
            detail = f"{request.path} takes {allowed}, not {request.method}"
            raise Refused(405, detail, fix=f"send {allowed}", headers={"allow": allowed})
        return route

    def _let_in(self, request: Request, route: Route) -> Key | None:
        """Return whose key allows the request; raises Refused where none is shown (401) or it is not enough (403)."""
        keys = self.rules.keys
        if keys is None:
            if not _is_local(request.headers.get(b"host", b"")):  # a page that calls this machine by its name
                raise Refused(
                    403,
                    "without keys this service answers to localhost only",
                    fix="ask on its own machine, at localhost, or have whoever runs the service give it keys",
                )
            if route.role == "admin":
                raise Refused(
                    403,
                    "without keys nobody may do this over HTTP",
                    fix="have whoever runs the service send its process SIGHUP, or give it keys",
                )
            return None
        if route.role is None:
            return None
        given = request.header("authorization")
        kind, _, shown = given.partition(" ")
        key = keys.holder(shown.strip()) if kind.lower() == "bearer" else None
        if key is None:
            raise _no_key(given)
        if not key.may(route.role):
            raise Refused(403, f"the key of {key.name} does not allow this", fix="take a key of the role admin")
        return key

    def _due(self, request: Request) -> float:
        if b"deadline-ms" not in request.headers:
            return request.due
        text = request.header("deadline-ms")
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
            raise Refused(
                422, f"deadline-ms is {quoted(text)}; a whole number of milliseconds is expected", fix="deadline-ms: 50"
            )
        return min(request.due, time.monotonic() + int(text) / 1e3)

    def _note(self, request: Request, route: Route | None, reply: Reply, key: Key | None, seconds: float) -> None:
        name = route.path if route else "unknown"
        tallies = self._tallies
        tallies.add(tallies.requests[name, reply.status])
        tallies.observe(tallies.seconds[name], seconds)
        if reply.short:
            tallies.add(tallies.short, reply.short)
        if self.rules.log_to is not None:
            self._lines.append((time.time(), request, reply, key, seconds))
            if len(self._lines) == 1:
                asyncio.get_running_loop().call_later(LOG_SECONDS, self.write_log)

    def write_log(self) -> None:
        """Write the lines of what was answered since this was done last."""
        lines, self._lines = self._lines, []
        if self.rules.log_to is not None and lines:
            self.rules.log_to.write("".join(_log_line(*line) for line in lines))
            self.rules.log_to.flush()


def _log_line(at: float, request: Request, reply: Reply, key: Key | None, seconds: float) -> str:
    line = {
        "at": at,
        "id": request.name,
        "method": request.method[:20],
        "path": request.path[:200],
        "status": reply.status,
        "ms": round(seconds * 1e3, 3),
        "bytes": len(reply.body),
        "generation": reply.generation,
        "key": key.name if key else None,
    }
    return msgspec.json.encode(line).decode() + "\n"


def routes_of(handlers: Handlers, openapi: bytes) -> Iterable[Route]:
    """Return every route of the service."""

    async def document(_: Request) -> Reply:
        return Reply(openapi)

    async def first_page(_: Request) -> Reply:
        return Reply(page(), kind="text/html; charset=utf-8", headers=dict(PAGE_HEADERS))

    return (
        Route("POST", "/v1/similar", handlers.similar, "read"),
        Route("POST", "/v1/recommend", handlers.recommend, "read"),
        Route("POST", "/v1/search", handlers.search, "read"),
        Route("POST", "/v1/explain", handlers.explain, "read"),
        Route("GET", "/v1/titles", handlers.titles, "read"),
        Route("GET", "/v1/index", handlers.index, "read"),
        Route("POST", "/v1/reload", handlers.reload, "admin"),
        Route("GET", "/livez", handlers.live),
        Route("GET", "/readyz", handlers.ready),
        Route("GET", "/metrics", handlers.metrics, "read"),
        Route("GET", "/openapi.json", document),
        Route("GET", "/", first_page),
    )


def fixed_routes(size: int) -> Iterable[Route]:
    """Return a route whose reply is ``size`` bytes that are there already, what the server itself takes; none for 0."""
    body = b'"%s"' % (b"." * (size - 2))

    async def fixed(_: Request) -> Reply:
        return Reply(body)

    return [Route("POST", "/fixed", fixed, "read")] if size else []


def _no_key(given: str) -> Refused:
    """Return what is said to who shows no key, one in another form, or one that nobody holds; never the key itself."""
    detail, fix = "a key is needed", "send the header Authorization: Bearer KEY"
    if given[:7].lower() == "bearer ":
        detail = "the key is none that this service knows"
        fix = "ask whoever runs the service for one; a new one counts from its next SIGHUP or /v1/reload on"
    elif given:
        detail = "the header Authorization is not of the form Bearer KEY"
    return Refused(401, detail, fix=fix, headers={"www-authenticate": "Bearer"})


def _join_accept(headers: dict[bytes, bytes], lines: Iterable[tuple[bytes, bytes]]) -> None:
    """Make one header of several lines of Accept, which are one list."""
    if b"accept" in headers:
        headers[b"accept"] = b", ".join(value for name, value in lines if name == b"accept")


@lru_cache(1024)
def _is_local(host: bytes) -> bool:
    return _LOCAL.fullmatch(host or b"localhost") is not None


_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_JSON_HEADERS = [(b"content-type", JSON.encode()), *_HEADERS]


async def _send(reply: Reply, request: Request, send: Send, *, closing: bool, more: bool) -> None:
    headers = [
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-request-id", request.id),
        *(_JSON_HEADERS if reply.kind is JSON else [(b"content-type", reply.kind.encode()), *_HEADERS]),
    ]
    if reply.generation is not None:
        headers.append((b"semrec-generation", reply.generation.encode()))
    if reply.headers:
        headers += ((name.encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items())
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": more})
