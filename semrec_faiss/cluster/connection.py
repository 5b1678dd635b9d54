"""Ray: imported when it is first needed, joined at an address, and its errors told as ours."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from semrec_faiss.errors import DeviceError, MissingPackageError, SemrecError, UnavailableError, UsageError

SCHEME = "ray://"

OWN = "auto"
"""The address that stands for the cluster that this machine belongs to."""

LOOK_SECONDS = 3.0
"""How often the head is looked at, and how long it may take to answer."""


def load_ray() -> Any:
    """Import Ray; raises MissingPackageError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            f"Ray is not installed ({error})", fix="pip install 'semrec-faiss[ray]' on every machine of the cluster"
        ) from error
    return ray


def connect(address: str) -> Any:
    """Join the cluster at ``address``, unless this process belongs to it already, and return Ray.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, ``HOST:PORT`` of its head, or ``ray://HOST:PORT``
            of its client server.

    Raises:
        MissingPackageError: Ray is not installed.
        UsageError: this process belongs to another cluster.
        UnavailableError: there is no cluster.
    """
    ray = load_ray()
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (OWN, joined) and not address.startswith(SCHEME):
            raise UsageError(
                f"this process belongs to the cluster at {joined}, not to {address}",
                fix=f"--ray {joined}, or --ray auto",
            )
        return ray
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        ray._private.worker._worker_logs_enabled = False  # of lost workers it would tell stdout, amidst our JSON
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(
            f"no cluster answers at {address}: {said[0]}",
            fix="start one: `ray start --head` on one machine, `ray start --address HOST:6379` on the others",
        ) from error
    return ray


def split_address(path: str) -> tuple[str, str]:
    """Split ``ray://HOST:PORT/INDEX`` into the cluster's address and the index, an absolute path as in other addresses.

    The host ``auto``, or none, stands for the cluster that this machine belongs to.

    Raises:
        UsageError: no index is named.
    """
    host, slash, index = path.removeprefix(SCHEME).partition("/")
    if not slash or not index:
        raise UsageError(f"{path!r} names no index", fix="ray://HOST:PORT/INDEX, or ray://auto/INDEX")
    return OWN if host in ("", OWN) else f"{SCHEME}{host}", f"/{index}"


def finished(references: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Wait until one of several results is there; return those that are, and the others.

    Raises:
        UnavailableError: the head of the cluster is lost. Ray would end this process a minute later, without an error.
    """
    ray = load_ray()
    while True:
        done, left = ray.wait(references, timeout=LOOK_SECONDS)
        check_head()
        if done:
            return done, left


def check_head() -> None:
    """Raise UnavailableError where the head of the cluster takes no connections; looked at every few seconds."""
    if not _answered(int(time.monotonic() // LOOK_SECONDS)):
        raise UnavailableError(
            "the head of the cluster does not answer any more",
            fix="start it again, and give the same command: what was there before is unchanged",
        )


@lru_cache(maxsize=1)
def _answered(at: int) -> bool:
    return head_answers()


def head_answers() -> bool:
    """Tell whether this process belongs to a cluster whose head takes connections."""
    ray = load_ray()
    if not ray.is_initialized():
        return False
    if ray.util.client.ray.is_connected():  # by a proxy, which says itself when it loses the head
        return True
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def told_as_ours() -> Iterator[None]:
    """Raise what a task or an actor has raised of ours as itself, and what Ray says of lost processes as lost."""
    ray = load_ray()
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SemrecError):
            raise cause from None
        raise DeviceError(f"a worker failed: {_last_line(error)}", fix="--debug shows where") from error
    except ray.exceptions.RayError as error:
        raise UnavailableError(
            f"a worker of the cluster is lost: {_last_line(error)}", fix="`ray status` tells which machines are there"
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def alive_nodes() -> list[dict[str, Any]]:
    """Return what Ray says of the machines that are there, the head first."""
    nodes = [node for node in load_ray().nodes() if node["Alive"]]
    return sorted(nodes, key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
