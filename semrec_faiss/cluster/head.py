"""The head of a cluster: a thread looks at it, so that who asks is told that it is lost, and not ended by Ray."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta
from typing import Any

from semrec_faiss.errors import UnavailableError
from semrec_faiss.forking import OWN_THREADS, renewed_after_fork

log = logging.getLogger("semrec.cluster")

LOOK_SECONDS = 3.0
"""How often the head is looked at, and how long it may take to answer."""

SILENT_SECONDS = 2 * LOOK_SECONDS
"""How long it may be silent before nothing is begun that needs it: one slow answer is no silence."""

LOST_SECONDS = 20.0
"""How long it may be silent, as while it starts again with what it knew, before questions are refused."""

FIX = "start it and the other machines again, then open the index, or give the command, again"


class HeadWatch:
    """Looks at the head of the cluster that this process has joined, until it leaves.

    Attributes:
        address: the head's.
    """

    def __init__(self, ray: Any) -> None:
        """Begin to look; ``ray`` is Ray, joined by itself and not by a proxy."""
        self.address: str = ray.get_runtime_context().gcs_address
        self._ray = ray
        self._worker = ray._private.worker.global_worker
        self._client = self._worker.gcs_client
        self._silent_since: float | None = None  # of a clock that nobody sets
        self._is_another = False
        threading.Thread(target=self._keep_looking, name=f"{OWN_THREADS}head", daemon=True).start()

    @property
    def is_current(self) -> bool:
        """Whether this process still belongs to the cluster."""
        return bool(self._ray.is_initialized()) and getattr(self._worker, "gcs_client", None) is self._client

    def look(self) -> bool:
        """Tell whether the head answers now; it knows this process, or is another one at the same address."""
        try:
            self._client.internal_kv_get(b"session_name", b"session", timeout=LOOK_SECONDS)
        except self._ray.exceptions.AuthenticationError:
            self._is_another = True
        except Exception:
            self._silent_since = self._silent_since or time.monotonic()
        else:
            self._silent_since = None
        return not self._is_another and self._silent_since is None

    def error(self, patience_s: float | None = None) -> UnavailableError | None:
        """Return what to say where the head is lost, else None.

        Args:
            patience_s: how many seconds it may have been silent; None: `LOST_SECONDS`.
        """
        if self._is_another:
            return UnavailableError(
                f"the head of the cluster is lost: that at {self.address} was started after this process had joined",
                fix="join the other machines to it, then open the index, or give the command, again",
            )
        since = self._silent_since
        silent_s = 0.0 if since is None else time.monotonic() - since
        if since is None or silent_s < (LOST_SECONDS if patience_s is None else patience_s):
            return None
        return UnavailableError(
            f"the head of the cluster does not answer any more: at {self.address}, since"
            f" {datetime.now() - timedelta(seconds=silent_s):%H:%M:%S}",
            fix=FIX,
        )

    def check(self, patience_s: float | None = None) -> None:
        """Raise what `error` returns."""
        error = self.error(patience_s)
        if error is not None:
            raise error

    def _keep_looking(self) -> None:
        is_told = False
        while self.is_current:
            self.look()
            error = self.error()
            if error is not None and not is_told:
                log.error("%s; %s", error.message, error.fix)
            is_told = error is not None
            time.sleep(LOOK_SECONDS)


_watches: list[HeadWatch] = []  # the one of the cluster that this process belongs to, or belonged to
renewed_after_fork(_watches.clear)


def watched(ray: Any) -> HeadWatch | None:
    """Return what looks at the head of the cluster that this process has joined; None where it has joined none itself.

    Of a cluster that is asked by a proxy, ``ray://HOST:PORT``, the proxy says when it loses the head.
    """
    if not (_watches and _watches[0].is_current):
        _watches[:] = [HeadWatch(ray)] if ray.is_initialized() and not ray.util.client.ray.is_connected() else []
    return _watches[0] if _watches else None
