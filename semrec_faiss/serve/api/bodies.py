"""A request's body, read to its end: not more of it than may be, and not for longer than the request has time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from semrec_faiss.serve.wire.messages import Request
from semrec_faiss.serve.wire.problems import Refused

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LINGER_SECONDS = 2.0
"""So long the rest of a body that is too large is dropped: who writes on after the door closed sees no reply."""

_SMALLER = (
    "send fewer queries a request, or vectors as vectors_base64 or Arrow, or have whoever runs the service raise"
    " max_body_mb"
)


async def read_body(request: Request, receive: Receive, most: int) -> bytes:
    """Return the body.

    Raises:
        Refused: it has more than ``most`` bytes (413), has not come when the request's time is up (504), or never will
            (400).
    """
    length = request.headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        raise Refused(413, f"the body has {int(length)} bytes; this service takes at most {most}", fix=_SMALLER)
    task = asyncio.current_task()
    assert task is not None
    slow = _Slow(task)  # asyncio.timeout does the same, at the price of a twentieth of a request
    left = request.due - time.monotonic()
    timer = asyncio.get_running_loop().call_later(left, slow.end)
    try:
        return await _read(receive, most)
    except asyncio.CancelledError:
        if not slow.is_over or task.uncancel():  # somebody else ends it as well
            raise
        fix = "send it at once, with a longer deadline-ms if one was given"
        detail = f"the body had not come when the request's time was up, after {left:.2g} s"
        raise Refused(504, detail, fix=fix, headers={"connection": "close"}) from None
    finally:
        timer.cancel()


class _Slow:
    """Whether a body's time is up."""

    __slots__ = ("is_over", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.is_over = False

    def end(self) -> None:
        self.is_over = True
        self.task.cancel()


async def _read(receive: Receive, most: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body if len(body) <= most else _too_large(len(body), most)
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return _too_large(size, most)
    if message["type"] == "http.disconnect":
        raise Refused(400, "the caller went before the body was read", fix="send all of it")
    return b"".join(parts)


def _too_large(size: int, most: int) -> bytes:
    raise Refused(413, f"the body has {size} bytes or more; this service takes at most {most}", fix=_SMALLER)


async def drop_body(receive: Receive) -> None:
    """Read a body to its end, for a while, and forget it."""
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass
