"""HTTPS: a certificate that is renewed is shown from SIGHUP on, and one that is none never."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss.errors import UsageError
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.serve.tls import check_tls
from tests.serve.test_server import Process

OPENSSL = shutil.which("openssl") or ""
pytestmark = pytest.mark.skipif(not OPENSSL, reason="no openssl to make certificates with")

Make = Callable[..., bytes]
PAIR = ("cert.pem", "key.pem")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a certificate and its key to files of these names; return the certificate as it is sent."""

    def made(certificate: str, key: str, *more: str) -> bytes:
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1"]
        files = ["-keyout", str(tmp_path / key), "-out", str(tmp_path / certificate)]
        subprocess.run(
            [OPENSSL, *words, "-subj", "/CN=localhost", *(more or ["-nodes"]), *files], check=True, capture_output=True
        )
        return ssl.PEM_cert_to_DER_cert((tmp_path / certificate).read_text())

    return made


def _shown(port: int, name: str | None) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), HANG_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def _all_shown(port: int) -> set[bytes | None]:
    """Return what several connections are shown, so that each worker is asked, by its name and without one."""
    return {_shown(port, name) for name in ("localhost", None) for _ in range(8)}


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_renewed_certificate_is_shown_from_sighup_on(workers: str, index: Path, tmp_path: Path, make: Make) -> None:
    """Once a fault: it was read at the start alone, and shown beyond its end unless the service was started again."""
    first, flags = make(*PAIR), ("--tls-certificate", str(tmp_path / PAIR[0]), "--tls-key", str(tmp_path / PAIR[1]))
    context = ssl.create_default_context(cadata=first)
    process = Process(index, *flags, "--workers", workers, "--owner", "never", context=context)
    try:
        with contextlib.closing(socket.create_connection(("127.0.0.1", process.port), HANG_SECONDS)) as plain:
            kept = context.wrap_socket(plain, server_hostname="localhost")
            second = make(*PAIR)
            assert _all_shown(process.port) == {first}
            process.process.send_signal(signal.SIGHUP)
            process.until(lambda: _all_shown(process.port) == {second})
            make("other.pem", PAIR[1])  # as while the two are written one after the other
            process.process.send_signal(signal.SIGHUP)
            process.until(lambda: "".join(process.said).count("that was read before stays: ") == int(workers))
            assert _all_shown(process.port) == {second}
            kept.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200 ")
        third = make(*PAIR)
        process.process.send_signal(signal.SIGHUP)
        process.until(lambda: _all_shown(process.port) == {third})
        assert "Traceback" not in "".join(process.said)
    finally:
        assert process.end() == 0, "".join(process.said)


@pytest.mark.slow
def test_an_end_waits_for_no_idle_caller(index: Path, tmp_path: Path, make: Make) -> None:
    """Once a fault: it took half of the grace, and an error was logged, where one had kept its connection."""
    first, flags = make(*PAIR), ("--tls-certificate", str(tmp_path / PAIR[0]), "--tls-key", str(tmp_path / PAIR[1]))
    context = ssl.create_default_context(cadata=first)
    process = Process(index, *flags, "--grace-seconds", "40", context=context)
    with (
        socket.create_connection(("127.0.0.1", process.port), HANG_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as idle,
    ):
        idle.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200 ")
        assert process.end() == 0
    process._reader.join(HANG_SECONDS)
    assert not any("timeout graceful shutdown exceeded" in line for line in process.said), process.said


@pytest.mark.parametrize("workers", [1, 2])
def test_an_encrypted_key_is_refused_where_nobody_can_be_asked(
    workers: int, index: Path, tmp_path: Path, make: Make
) -> None:
    """Once a fault: workers asked, and the service hung; without a terminal it was "a mistake in semrec"."""
    make(*PAIR, "-passout", "pass:secret")
    config = ServeConfig(index=index, tls_certificate=tmp_path / PAIR[0], tls_key=tmp_path / PAIR[1], workers=workers)
    with pytest.raises(UsageError, match=r"key.pem is encrypted, and nobody .*\ngive a key that is not: `openssl pkey"):
        check_tls(config)


@pytest.mark.slow
def test_an_encrypted_key_does_not_replace_one_that_is_not(index: Path, tmp_path: Path, make: Make) -> None:
    first, flags = make(*PAIR), ("--tls-certificate", str(tmp_path / PAIR[0]), "--tls-key", str(tmp_path / PAIR[1]))
    process = Process(index, *flags, context=ssl.create_default_context(cadata=first))
    try:
        make(*PAIR, "-passout", "pass:secret")
        process.process.send_signal(signal.SIGHUP)
        until(lambda: any("key.pem is encrypted" in line for line in process.said))
        assert _all_shown(process.port) == {first}
    finally:
        assert process.end() == 0, "".join(process.said)
