"""The certificate and the key of HTTPS, looked at before anything is opened."""

from __future__ import annotations

import contextlib
import ssl

from semrec_faiss.errors import UsageError
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.storage import read_small


class _EncryptedError(Exception):
    """A key is encrypted."""


def _encrypted() -> str:
    raise _EncryptedError


def check_tls(config: ServeConfig) -> None:
    """Refuse files that no HTTPS can be spoken with, but for a key that is encrypted, which uvicorn asks about.

    Raises:
        UsageError: one cannot be read, or they are no certificate and its key.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return
    fix = "give the certificate with --tls-certificate and its private key with --tls-key, both as PEM"
    for path in (config.tls_certificate, config.tls_key):
        try:
            read_small(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}", fix=fix) from error
    try:
        with contextlib.suppress(_EncryptedError):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(config.tls_certificate, config.tls_key, _encrypted)
    except ssl.SSLError as error:
        why = f": {error.reason}" if error.reason else ""
        raise UsageError(
            f"{config.tls_certificate} and {config.tls_key} are no certificate and its key{why}", fix=fix
        ) from error
