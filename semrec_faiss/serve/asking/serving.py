"""The generation in use: opened, held against its digests, warmed, and put in the place of the one before."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.errors import DeviceError, NotFoundError, SemrecError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.manifest import unreadable
from semrec_faiss.index.hardware.device import choose_device
from semrec_faiss.index.memory.room import lacking_room
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify_opened
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.search.living.in_a_cluster import cluster_recommender
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.warming import warm
from semrec_faiss.serve.asking.measuring import INLINE_SECONDS, JOINED, LOOP_SECONDS, joined_from, queries_within
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.storage import CURRENT_NAME, read_small

log = logging.getLogger("semrec.serve")

OBJECTS_A_COLLECTION = 50_000
"""How many objects may be made before cycles are looked for: a batch of requests alone makes more than Python's 700."""


AGAIN_SECONDS = 30.0
"""After which a generation whose files could not be read is tried again."""


@dataclass(frozen=True)
class Refusal:
    """A published generation that was not taken.

    Attributes:
        current: what CURRENT says.
        reason: why.
        at: when, in seconds since 1970.
        may_pass: whether it is because of files that could not be read: they may be back.
    """

    current: str
    reason: str
    at: float
    may_pass: bool = False

    @property
    def stands(self) -> bool:
        """Whether the same need not be tried again yet."""
        return not self.may_pass or time.time() < self.at + AGAIN_SECONDS

    @property
    def generation(self) -> str:
        """Its name, as far as CURRENT tells it."""
        return self.current.partition("\n")[0] or "unknown"


class Serving:
    """Owns the generation in use and takes a new one in its place; safe from many threads.

    Attributes:
        batcher: makes all searches, of the old generation and of the new.
        current: what is asked now; None until the first one is ready.
        refused: what was published last and not taken.
        loads: how many generations were taken.
        after_taking: called with the name of each.
    """

    def __init__(
        self,
        index: Path,
        settings: tuple[str, ...],
        batcher: Batcher,
        cluster: Mapping[str, Any] | None = None,
    ) -> None:
        self.index = index
        self.batcher = batcher
        self.current: Served | None = None
        self.refused: Refusal | None = None
        self.loads = 0
        self.after_taking: Callable[[str], None] = lambda _: None
        self._settings = settings
        self._cluster = cluster
        self._taken: str | None = None
        self._before: weakref.ref[VectorIndex] | None = None
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many callers wait in threads for a search that has not begun."""
        return self.batcher.waiting

    def check(self) -> None:
        """Refuse settings that the index, or this machine, cannot be served with; titles and vectors are not opened.

        Raises:
            NotFoundError: there is no index.
            DamagedIndexError: its manifest is not as it was written.
            ConfigError: a setting is unknown or out of range.
            UsageError: a setting cannot be set again; a cluster is named for an index of one piece, or none for shards.
            DeviceError: a GPU is asked for and there is none.
        """
        if self._cluster is not None:
            cluster_recommender().check(self.index, self._settings)
            return
        config = SavedIndex(self.index, self._settings).config
        choose_device(config.device, config.index)

    def has_news(self) -> bool:
        """Tell whether CURRENT names another generation than that in use or that refused."""
        told = self._told()
        if told is not None and told == self._taken:
            self.refused = None  # it was away, or was taken back
        known = {self._taken} | ({self.refused.current} if self.refused and self.refused.stands else set())
        return told is not None and told not in known

    def _told(self) -> str | None:
        try:
            return read_small(self.index / CURRENT_NAME)[:1000].decode("utf-8", "replace")
        except OSError:
            return None  # between two builds, or a disk that is away: what is in use stays

    def load(self) -> Served:
        """Open the generation that CURRENT names, prove and warm it, and answer from it from now on.

        What is in use goes on answering meanwhile, and stays where the new one is refused.

        Raises:
            SemrecError: it is refused: damaged, too large beside the one in use, or not there.
        """
        with self._lock:
            told = self._told() or ""
            if self.current is not None and told == self._taken:
                self.refused = None
                return self.current
            started = time.monotonic()
            self.let_go()
            try:
                served = self._opened()
            except OSError as error:
                refusal = unreadable(self.index, error)
                self._refuse(told, refusal, error)
                raise refusal from error
            except Exception as error:  # a mistake of ours is no reason to try the same again every second
                self._refuse(told, error, error)
                raise
            settle()
            self._before = None if self.current is None else weakref.ref(self.current.recommender.index)
            self.refused = None  # before the new one is seen: /readyz, in another thread, would name both
            self._take(served, told, started)
        return served

    def join(self, name: str) -> None:
        """Answer from a generation that others of the service answer from, where what is published is refused.

        Raises:
            SemrecError: it is not there any more, damaged, or cannot be read.
        """
        with self._lock:
            started = time.monotonic()
            try:
                served = self._open(SavedIndex.of(IndexDirectory(self.index).named(name), self._settings))
            except OSError as error:
                raise unreadable(self.index, error) from error
            settle()
            self._take(served, None, started)

    def _refuse(self, told: str, error: Exception, cause: BaseException | None) -> None:
        reason = error.message if isinstance(error, SemrecError) else f"{type(error).__name__}: {error}"
        while cause is not None and not isinstance(cause, OSError | NotFoundError):
            cause = cause.__cause__
        self.refused = Refusal(told, reason, time.time(), may_pass=cause is not None)

    def _take(self, served: Served, told: str | None, started: float) -> None:
        self.current, self._taken = served, told
        self.loads += 1
        log.info("serving %s, ready after %.1f s", served.name, time.monotonic() - started)
        self.after_taking(served.name)

    def let_go(self) -> None:
        """Free the index before where a cycle of objects still holds it."""
        free(self._before)

    def shards(self) -> list[dict[str, Any]] | None:
        """Say which shards answer, after half a second at most; None for an index of one piece."""
        if self._cluster is None or self.current is None:
            return None
        states: list[dict[str, Any]] = self.current.recommender.shards.states()  # type: ignore[attr-defined]
        return states

    def lost_head(self) -> SemrecError | None:
        """Return what to say where the head of the shards' cluster is lost, and with it every answer; else None."""
        if self._cluster is None or self.current is None:
            return None
        head = self.current.recommender.shards.head  # type: ignore[attr-defined]
        error: SemrecError | None = None if head is None else head.error()
        return error

    @property
    def is_partial(self) -> bool:
        """Whether questions are answered without shards that are lost."""
        return self._cluster is not None and bool(self._cluster["partial"])

    def _opened(self) -> Served:
        if self._cluster is not None:
            recommender = self._asks_a_cluster(self._cluster)
            with recommender.shards.patient():  # type: ignore[attr-defined]
                _warm_from_afar(recommender)
            return Served(recommender, 0, in_cluster=True)
        return self._open(SavedIndex(self.index, self._settings))

    def _open(self, saved: SavedIndex) -> Served:
        """Open a generation, hold it against its digests, and warm it."""
        check_room(saved, None if self.current is None else self.current.recommender.saved)
        verify_opened(saved)
        recommender = Recommender(saved, self.batcher)
        warm_and_log(recommender, is_first=self.current is None)
        loop_queries = 0 if recommender.index.device.gpus else queries_within(recommender, LOOP_SECONDS)
        inline_queries = queries_within(recommender, INLINE_SECONDS)
        joined = joined_from(recommender) if 0 < inline_queries < min(JOINED) else 0
        return Served(recommender, inline_queries, loop_queries, joined)

    def _asks_a_cluster(self, cluster: Mapping[str, Any]) -> Recommender:
        """Start actors for shards; those of the generation in use stay for shards that have not changed."""
        if self.current is None:
            opened: Recommender = cluster_recommender().open(self.index, self._settings, **cluster)
            return opened
        later = self.current.recommender.pinned()
        later.refresh()
        return later


def free(before: weakref.ref[VectorIndex] | None) -> None:
    """Free an index that was let go of, and its GPU's memory, where a cycle of objects still holds it.

    To look for that among all objects there are holds up requests, by 0.1 s beside torch.
    """
    if before is not None and before() is not None:
        gc.unfreeze()
        settle()


def settle() -> None:
    """Look for cycles among the objects made by now, and never again, which would hold up requests."""
    gc.set_threshold(OBJECTS_A_COLLECTION, *gc.get_threshold()[1:])
    gc.collect()
    gc.freeze()


def check_room(saved: SavedIndex, in_use: SavedIndex | None) -> None:
    """Raise DeviceError where a generation does not fit beside the one in use; the first one just tries."""
    lacking = None if in_use is None else lacking_room(saved, in_use)
    if lacking is not None:
        raise DeviceError(
            f"{saved.generation.name} takes, beside the generation in use, {lacking}",
            fix="restart the service, which then loads the new generation alone",
        )


def warm_and_log(recommender: Recommender, *, is_first: bool = True) -> None:
    """Ask what will be asked, of the first generation also what needs kernels; tell which kinds took longest."""
    told = warm(recommender, kernels=is_first)
    longest = sorted(told, key=lambda one: one.first_ms, reverse=True)[:3]
    log.info(
        "warmed %s by %d kinds of questions; longest: %s",
        recommender.saved.generation.name,
        len(told),
        ", ".join(f"{one.queries} × {one.what} {one.first_ms:.0f} ms" for one in longest),
    )


def _warm_from_afar(recommender: Recommender) -> None:
    """Ask a cluster what will be asked, so that every shard has read what that needs."""
    first = recommender.titles.records([0])[0]["media_id"]
    recommender.similar(first, 10).as_json_bytes()
    recommender.similar(first, 10, where="media_id IS NOT NULL")
    recommender.titles.type_ahead().find("a", 10)
    if recommender.saved.users is not None:
        recommender.recommend(recommender.users.ids[0], 10)
