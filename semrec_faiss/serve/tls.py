"""The certificate and the key of HTTPS: looked at before anything is opened, and read again while it is spoken."""

from __future__ import annotations

import logging
import ssl
import sys

from semrec_faiss.errors import UsageError
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.storage import read_small

log = logging.getLogger("semrec.serve")

_FIX = "give the certificate with --tls-certificate and its private key with --tls-key, both as PEM"


class _EncryptedError(Exception):
    """A key is encrypted."""


def _encrypted() -> str:
    raise _EncryptedError


def check_tls(config: ServeConfig) -> None:
    """Refuse files that no HTTPS can be spoken with; uvicorn asks for the pass phrase of a key that is encrypted.

    Raises:
        UsageError: one cannot be read, they are no certificate and its key, or nobody can be asked for a pass phrase.
    """
    if config.tls_certificate is None:
        return
    try:
        _read(config)
    except _EncryptedError:
        if config.workers > 1 or not (sys.stdin and sys.stdin.isatty()):
            raise _nobody_to_ask(config) from None


def _read(config: ServeConfig) -> ssl.SSLContext:
    """Return what shows the certificate as the files have it now; raises UsageError, or that the key is encrypted."""
    assert config.tls_certificate is not None and config.tls_key is not None
    for path in (config.tls_certificate, config.tls_key):
        try:
            read_small(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}", fix=_FIX) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key, _encrypted)
    except ssl.SSLError as error:
        why = f": {error.reason}" if error.reason else ""
        raise UsageError(
            f"{config.tls_certificate} and {config.tls_key} are no certificate and its key{why}", fix=_FIX
        ) from error
    return context


def _nobody_to_ask(config: ServeConfig) -> UsageError:
    return UsageError(
        f"the key {config.tls_key} is encrypted, and nobody can be asked for its pass phrase here",
        fix=f"give a key that is not: `openssl pkey -in {config.tls_key} -out PLAIN.pem`",
    )


class Certificate:
    """What is shown to those who connect."""

    def __init__(self, config: ServeConfig, context: ssl.SSLContext) -> None:
        """Show by ``context``, which connections are accepted with, what it has, or what was read since."""
        self._config = config
        self._newer: ssl.SSLContext | None = None
        context.sni_callback = self._show  # also asked where a caller names no server

    def _show(self, connection: ssl.SSLObject, _: str, __: ssl.SSLContext) -> None:
        if self._newer is not None:
            connection.context = self._newer

    def reread(self) -> None:
        """Show from now on what the files have; where that is nothing to show, what was shown before, and say so."""
        try:
            self._newer = _read(self._config)
        except UsageError as error:
            log.error("the certificate that was read before stays: %s", error)
        except _EncryptedError:
            log.error("the certificate that was read before stays: %s", _nobody_to_ask(self._config))
        else:
            log.info("the certificate was read again")
