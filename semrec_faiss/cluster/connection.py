"""Ray: imported when it is first needed, joined at an address, and its errors told as ours."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from semrec_faiss.cluster.head import FIX, LOOK_SECONDS, SILENT_SECONDS, watched
from semrec_faiss.errors import DeviceError, MissingPackageError, SemrecError, UnavailableError, UsageError, quoted

SCHEME = "ray://"

OWN = "auto"
"""The address that stands for the cluster that this machine belongs to."""

JOINED_WITH = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_gcs_server_port_wait_time_s": "1",
}
"""What Ray reads from the environment, where nobody has set it, while it joins a cluster.

After how many seconds without a head it ends the process, in place of 60: who asks has time to be told, and to open it
again. And how often it looks for a head that is not there, some 40 s each time, in place of 20 times.
"""


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
        MissingPackageError: Ray is not installed, or its client where that is needed.
        UsageError: ``address`` is none, or this process belongs to another cluster.
        UnavailableError: there is no cluster, or its head does not answer now.
    """
    if address != OWN and not re.fullmatch(rf"({SCHEME})?[^/\s]+:\d+", address):
        raise UsageError(f"{quoted(address)} is no address of a cluster", fix="auto, HOST:PORT or ray://HOST:PORT")
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
    if address.startswith(SCHEME) and importlib.util.find_spec("grpc") is None:
        raise MissingPackageError(
            f"Ray's client, which joins {address}, is not installed",
            fix="pip install 'ray[client]'; on a machine of the cluster ray://auto/INDEX, and --ray auto, do without",
        )
    began = time.monotonic()
    try:
        with _environment(JOINED_WITH):
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        ray._private.worker._worker_logs_enabled = False  # of lost workers it would tell stdout, amidst our JSON
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        waited = time.monotonic() - began
        in_time = f" within {waited:.0f} s" if waited >= 1 else ""
        raise UnavailableError(
            f"no cluster answers at {address}{in_time}: {said[0]}",
            fix="start one: `ray start --head` on one machine, `ray start --address HOST:6379` on the others",
        ) from error
    watched(ray)
    return ray


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, in the block: what this process starts later does not read them."""
    missing = values.keys() - os.environ.keys()
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def split_address(path: str) -> tuple[str, str]:
    """Split ``ray://HOST:PORT/INDEX`` into the cluster's address and the index, an absolute path as in other addresses.

    The host ``auto``, or none, stands for the cluster that this machine belongs to.

    Raises:
        UsageError: no index is named.
    """
    host, slash, index = path.removeprefix(SCHEME).partition("/")
    if not slash or not index:
        raise UsageError(f"{quoted(path)} names no index", fix="ray://HOST:PORT/INDEX, or ray://auto/INDEX")
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
    except ConnectionError as error:
        raise left_by_proxy() from error


def left_by_proxy() -> UnavailableError:
    """Return the error for a cluster whose proxy, ``ray://HOST:PORT``, is lost: it ends a minute after the head."""
    return UnavailableError("the cluster, or its proxy, does not answer any more", fix=FIX)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def alive_nodes() -> list[dict[str, Any]]:
    """Return what Ray says of the machines that are there, the head first."""
    nodes = [node for node in load_ray().nodes() if node["Alive"]]
    return sorted(nodes, key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
