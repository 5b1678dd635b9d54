"""The process: listens, opens the index, looks for new generations, and ends when it is told to, losing nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.cors import CORSMiddleware

from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.serve.api.app import App, Rules
from semrec_faiss.serve.api.handlers import Handlers
from semrec_faiss.serve.api.openapi import openapi_document
from semrec_faiss.serve.asking.serving import Serving
from semrec_faiss.serve.connection import IDLE_SECONDS, Connection
from semrec_faiss.serve.keys import Keys
from semrec_faiss.serve.log import end_stderr, set_up_log
from semrec_faiss.serve.metrics import Metrics
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.serve.tallies import Tallies
from semrec_faiss.serve.tls import Certificate

log = logging.getLogger("semrec.serve")

SWITCH_SECONDS = 0.0001
"""How long a thread of Python runs before another may: a search takes the interpreter's lock some ten times."""

QUIET_SECONDS = 0.3
"""A shutdown closes the door when nobody has asked for so long …"""

HEAD_SECONDS = 1.0
"""How often is asked whether the head of a cluster is lost."""

CLOSING_SHARE = 0.5
"""… or this part of the grace is over; what is left of it is for what was accepted."""


class Service:
    """Everything that one process serves with."""

    def __init__(self, config: ServeConfig, metrics: Metrics | None = None, serving: Serving | None = None) -> None:
        """Put the parts together; nothing is opened, and no socket.

        Args:
            config: what the service is told.
            metrics: counts in a place of its own; None counts alone.
            serving: owns the generation in use, and says itself what is wrong with the index; None makes it.

        Raises:
            NotFoundError: there is no file of keys.
            ConfigError: the file of keys has mistakes.
            SemrecError: the index cannot be served with these settings; see `Serving.check`.
        """
        self.config = config
        self.metrics = metrics or Metrics(Tallies())
        self.serving = serving or _checked(config, self.metrics)
        self.handlers = Handlers(self.serving, config.limits, self.metrics, config.threads)
        self.metrics.watch(self.serving, lambda: self.handlers.waiting)
        rules = Rules(
            self._keys(),
            config.limits.max_body_mb << 20,
            config.limits.deadline_ms,
            sys.stderr if config.access_log else None,
        )
        openapi = openapi_document(config.limits, has_keys=rules.keys is not None)
        self.app = App(self.handlers, rules, self.metrics.tallies, openapi, config.fixed_body)
        self.certificate: Certificate | None = None  # once there is a door
        self.handlers.after_reload = self.reread

    def _keys(self) -> Keys | None:
        return None if self.config.keys is None else Keys.read(self.config.keys)

    def reread(self) -> None:
        """Read the keys and the certificate again; those read before stay where that does not go."""
        if self.certificate is not None:
            self.certificate.reread()
        try:
            self.app.reread_keys(self._keys())
        except SemrecError as error:
            log.error("those keys that were read before stay: %s", error)

    @property
    def asgi(self) -> App | CORSMiddleware:
        """The app, behind what tells browsers of other origins that they may ask."""
        if not self.config.cors:
            return self.app
        return CORSMiddleware(
            self.app,
            allow_origins=self.config.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "deadline-ms", "x-request-id"],
            expose_headers=["semrec-generation", "x-request-id", "retry-after"],
        )

    def close(self) -> None:
        """End all threads; what was accepted is answered."""
        self.app.write_log()
        self.handlers.close()
        self.serving.batcher.close()


def _checked(config: ServeConfig, metrics: Metrics) -> Serving:
    """Return what serves the index, once it is known that its settings can be."""
    serving = Serving(config.index, config.settings, Batcher(metrics.batch), _cluster_of(config))
    serving.check()
    return serving


def _cluster_of(config: ServeConfig) -> dict[str, Any] | None:
    """Return how an index in shards is opened; a lost shard is given up with half of the deadline left."""
    if config.ray is None:
        return None
    patience_s = 1.0 if config.partial else config.limits.deadline_ms / 2e3
    return {
        "address": config.ray,
        "replicas": config.replicas,
        "partial": config.partial,
        "patience_s": patience_s,
    }


class _Server(uvicorn.Server):
    """Uvicorn, which on SIGTERM is told off gently: not ready, then no new connections, then the end."""

    def __init__(self, config: uvicorn.Config, service: Service, listening: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service = service
        self._listening = listening
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: BaseException | None = None
        self.ends_at = math.inf  # by time.monotonic

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        self._loop = loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError, AttributeError):  # Windows has no SIGHUP
            loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(loop, self._reload()))
        port = self.servers[0].sockets[0].getsockname()[1]
        config = self._service.config
        scheme = "http" if config.tls_certificate is None else "https"
        host = f"[{config.host}]" if ":" in config.host else config.host
        self._listening(f"{scheme}://{host}:{port}")
        self._begin(loop, self._open())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second signal does not wait, nor does one before anybody could ask."""
        if self._loop is None:
            self.should_exit = True
            return
        if self._service.handlers.is_draining:
            self.should_exit = self.force_exit = True
            self.ends_at = 0.0
            return
        self._service.handlers.is_draining = True
        loop = self._loop
        loop.call_soon_threadsafe(lambda: self._begin(loop, self._drain()))

    def _begin(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        """Open the index, and look for others from then on; where none is answered from, a refusal ends the process."""
        service = self._service
        try:
            await service.handlers.load()
        except Exception as error:
            if service.serving.current is None:
                self.failure = error
                self.should_exit = True
                return
        if service.config.watch_seconds:
            self._begin(asyncio.get_running_loop(), service.handlers.watch(service.config.watch_seconds))
        if service.config.ray is not None:
            self._begin(asyncio.get_running_loop(), self._end_with_the_head())

    async def _end_with_the_head(self) -> None:
        """End as on SIGTERM, but with an error, when the head of the cluster is lost: a new start joins the next."""
        while (error := self._service.serving.lost_head()) is None:
            await asyncio.sleep(HEAD_SECONDS)
        self.failure = error
        if not self._service.handlers.is_draining:
            self._service.handlers.is_draining = True
            await self._drain()

    async def _reload(self) -> None:
        """Take what is published, and the keys and the certificate as their files have them now."""
        service = self._service
        with contextlib.suppress(Exception):  # which is told, by the log, /readyz and a metric
            await service.handlers.load()
        service.reread()

    async def _drain(self) -> None:
        """Answer on, each answer closing its connection, until nobody asks any more; then close the door."""
        log.info("draining")
        began = time.monotonic()
        self.ends_at = began + self._service.config.grace_seconds
        limit = CLOSING_SHARE * self._service.config.grace_seconds
        while time.monotonic() - began < limit:
            last = max(began, self._service.app.last_request)
            if time.monotonic() - last >= QUIET_SECONDS and not self._service.handlers.in_flight:
                break
            await asyncio.sleep(0.02)
        self.should_exit = True


def run(config: ServeConfig, listening: Callable[[str], None], service: Service | None = None) -> None:
    """Serve with one process until a signal ends it.

    Args:
        config: what the service is told.
        listening: is told the address once the door is open; questions are answered when ``/readyz`` says so.
        service: what serves; None puts it together.

    Raises:
        UsageError: the address cannot be listened at.
        SemrecError: the first generation is refused; see `Service` too.
    """
    set_up_log(config)
    with contextlib.suppress(AttributeError, ValueError):  # nothing is open yet that could be reloaded
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service = service or Service(config)
    sys.setswitchinterval(SWITCH_SECONDS)
    _take_all_open_files()
    opened = door(config)
    server = _Server(_for_uvicorn(config, service), service, listening)
    try:
        server.run(sockets=[opened])
    finally:
        opened.close()
        has_closed = _closed_in_time(service, server.ends_at)
    if server.failure is not None:
        raise server.failure
    if not has_closed:
        log.warning("ending with work that nobody waits for, such as opening a generation")
        end_stderr()
        os._exit(0)  # or Python would wait for the thread


def _for_uvicorn(config: ServeConfig, service: Service) -> uvicorn.Config:
    told = uvicorn.Config(
        service.asgi,
        http=Connection,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round((1 - CLOSING_SHARE) * config.grace_seconds)),
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
    told.load()
    if told.ssl is not None:
        service.certificate = Certificate(config, told.ssl)
    return told


def _closed_in_time(service: Service, ends_at: float) -> bool:
    """Close the service; tell whether all its threads have ended by then, none of which anybody waits for."""
    closing = threading.Thread(target=service.close, name="closing", daemon=True)
    closing.start()
    closing.join(None if ends_at == math.inf else max(QUIET_SECONDS, ends_at - time.monotonic()))
    return not closing.is_alive()


def _take_all_open_files() -> None:
    """Open as many files as the system lets this user: a thousand, the habit, are soon taken by idle connections."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def door(config: ServeConfig) -> socket.socket:
    """Take the address, which several workers share; raises UsageError where that does not go."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.workers > 1:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((config.host, config.port))
    except OSError as error:
        raise UsageError(
            f"cannot listen at {config.host}:{config.port}: {error.strerror or error}",
            fix="give another --port or --host",
        ) from error
    return opened
