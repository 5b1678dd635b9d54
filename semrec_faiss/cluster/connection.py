"""Ray: imported when it is first needed, joined at an address, and its errors told as ours."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from semrec_faiss.cluster.head import LOOK_SECONDS, SILENT_SECONDS, watched
from semrec_faiss.errors import DeviceError, MissingPackageError, SemrecError, UnavailableError, UsageError

SCHEME = "ray://"

OWN = "auto"
"""The address that stands for the cluster that this machine belongs to."""

RAY_ENDS_AFTER = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""The variable that says after how many seconds without a head Ray ends a process."""

ENDS_AFTER_SECONDS = 600
"""What stands there, in place of 60, where nobody has set it: who asks has time to be told, and to open it again."""


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

    From then on its head is looked at; a cluster whose head is lost is left, and the one at ``address`` joined.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, ``HOST:PORT`` of its head, or ``ray://HOST:PORT``
            of its client server.

    Raises:
        MissingPackageError: Ray is not installed.
        UsageError: this process belongs to another cluster.
        UnavailableError: there is no cluster, or its head does not answer now.
    """
    ray = load_ray()
    watch = watched(ray)
    if watch is not None and not watch.look():
        if watch.error() is not None:
            ray.shutdown()
        else:
            watch.check(SILENT_SECONDS)  # it may come back: others of this process still ask the actors
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (OWN, joined) and not address.startswith(SCHEME):
            raise UsageError(
                f"this process belongs to the cluster at {joined}, not to {address}",
                fix=f"--ray {joined}, or --ray auto",
            )
        return ray
    try:
        with _ended_later():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        ray._private.worker._worker_logs_enabled = False  # of lost workers it would tell stdout, amidst our JSON
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(
            f"no cluster answers at {address}: {said[0]}",
            fix="start one: `ray start --head` on one machine, `ray start --address HOST:6379` on the others",
        ) from error
    watched(ray)
    return ray


@contextlib.contextmanager
def _ended_later() -> Iterator[None]:
    """Have Ray read `ENDS_AFTER_SECONDS` in the block, and what this process starts later not."""
    if RAY_ENDS_AFTER in os.environ:
        yield
        return
    os.environ[RAY_ENDS_AFTER] = str(ENDS_AFTER_SECONDS)
    try:
        yield
    finally:
        del os.environ[RAY_ENDS_AFTER]


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
        UnavailableError: the head of the cluster does not answer: without it nothing new can begin.
    """
    ray = load_ray()
    watch = watched(ray)
    while True:
        done, left = ray.wait(references, timeout=LOOK_SECONDS)
        if watch is not None:
            watch.check(SILENT_SECONDS)
        if done:
            return done, left


def head_answers() -> bool:
    """Tell whether this process belongs to a cluster whose head answers now."""
    ray = load_ray()
    watch = watched(ray)
    return bool(ray.is_initialized()) if watch is None else watch.look()


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
