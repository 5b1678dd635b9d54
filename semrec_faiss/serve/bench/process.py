"""A server that a benchmark starts, asks and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semrec_faiss.errors import DeviceError

READY_SECONDS = 600
END_SECONDS = 60


class Server:
    """``semrec serve`` on a free port of this machine."""

    def __init__(self, index: Path, flags: Sequence[str]) -> None:
        """Start it; raises DeviceError where it does not."""
        command = [sys.executable, "-m", "semrec_faiss", "serve", str(index), "--port", "0", "--no-access-log"]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error", *flags], stderr=subprocess.PIPE, encoding="utf-8"
        )
        assert self._process.stderr is not None
        said, found = "", None
        while found is None:
            line = self._process.stderr.readline()
            if not line:
                raise DeviceError(f"the server did not start: {said.strip()}")
            said, found = said + line, re.search(r"listening at .*:(\d+)$", line.strip())
        self.port = int(found[1])

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and JSON of a path."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def wait_for(self, generation: str | None = None) -> None:
        """Wait until it is ready, and has taken a generation; raises DeviceError where it never is."""
        stop = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError):
                status, told = self.get("/readyz")
                if status == 200 and generation in (None, told["generation"]):
                    return
            if self._process.poll() is not None or time.monotonic() > stop:
                raise DeviceError("the server did not become ready", fix="semrec serve INDEX says why")
            time.sleep(0.05)

    def end(self) -> int:
        """Tell it to end, and return its exit code."""
        self._process.terminate()
        return self._process.wait(END_SECONDS)

    def kill(self) -> None:
        """End it, however far it is."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


@contextlib.contextmanager
def server(index: Path, flags: Sequence[str]) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end it afterwards."""
    started = Server(index, flags)
    try:
        started.wait_for()
        yield started
    finally:
        started.kill()


def post(path: str, question: dict[str, Any], accept: str = "application/json") -> bytes:
    """Return a whole request."""
    body = json.dumps(question).encode()
    length = f"content-type: application/json\r\ncontent-length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n{length}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """Return a whole request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
