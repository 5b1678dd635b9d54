"""A living index: the generation that is open, and the way from one to the next between two questions."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from semrec_faiss.arguments import Name, flag_of, names_of, path_of
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import UsageError
from semrec_faiss.forking import HoldsHandles
from semrec_faiss.index.memory.room import lacking_room
from semrec_faiss.index.saved.saved_index import ON_DISK, SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.batching.asked import Searches
from semrec_faiss.search.likeness import Likeness
from semrec_faiss.search.living.following import Following
from semrec_faiss.search.living.in_a_cluster import IN_A_CLUSTER, cluster_recommender
from semrec_faiss.search.living.opened import Opened, not_open
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.text import TextQueries

if TYPE_CHECKING:
    from semrec_faiss.index.update.plan import Change
    from semrec_faiss.index.update.updating import UpdateSummary

LET_GO_SECONDS = 60
"""How long running questions are waited for, where their generation's memory is needed for the next."""


class LivingIndex(HoldsHandles):
    """What a `Recommender` does besides answering: it is opened, refreshed, updated, followed, pickled and forked."""

    opens: type[Opened] = Opened
    """What answers the questions of one generation."""

    def __init__(
        self,
        saved: SavedIndex,
        batcher: Searches | None = None,
        follow: bool = False,
        with_users: bool = False,
    ) -> None:
        """Load what every search needs; see `open`."""
        if not isinstance(saved, SavedIndex):
            raise not_open(saved)
        self._batcher = batcher
        self._refreshing = threading.RLock()
        self._opened: Opened | None = self.opens(saved, batcher, with_users=with_users)
        self._known = saved.opened_anew()  # of which nothing is read: it says what is open, and keeps none of it
        self._follows = follow
        self._following: Following | None = None
        self.go_on()

    def go_on(self) -> None:
        """Begin to follow the index, where that is wanted; also in a forked child."""
        if self._follows:
            self._following = Following(self)

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        settings: str | Iterable[str] = (),
        batcher: Searches | None = None,
        *,
        follow: bool = False,
        with_users: bool = False,
    ) -> Self:
        """Open the index in ``path``.

        Args:
            path: an index directory; or ``ray://HOST:PORT/INDEX`` for one in shards, which that cluster serves.
            settings: search and device settings for this session, such as ``index.search.nprobe=32``.
            batcher: searches together what several threads ask at the same moment; None searches for each at once.
            follow: go to each newer generation within a second of its publication, as `refresh` does. One that cannot
                be opened is warned of, and the one that is open stays.
            with_users: read users at once, beside the titles, rather than when the first one is asked for.

        Raises:
            NotFoundError: there is no index at ``path``.
            DamagedIndexError: a file is not as it was written.
            UsageError: a setting that is fixed when the index is built, or an argument of another type.
            MissingPackageError: FAISS is missing.
            DeviceError: a GPU is asked for and there is none.

        Example:
            >>> from semrec_faiss import Recommender
            >>> Recommender.open("indexes/demo", "device.kind=cpu").index.count
            1519
        """
        if isinstance(path, str) and path.startswith(IN_A_CLUSTER):
            opened: Self = cluster_recommender().open(path, settings, follow=follow, with_users=with_users)
            return opened
        if not (batcher is None or isinstance(batcher, Searches)):
            raise UsageError(f"the batcher is {type(batcher).__name__}", fix="give a Batcher, or leave it out")
        saved = SavedIndex(path_of(path, "the index"), names_of(settings, "settings"))
        return cls(saved, batcher, flag_of(follow, "follow"), flag_of(with_users, "with_users"))

    @classmethod
    def from_arrays(
        cls,
        vectors: Any = None,
        metadata: Any = None,
        *,
        users: Any = None,
        interactions: Any = None,
        columns: Mapping[str, str] | None = None,
        config: Any = None,
    ) -> Self:
        """Build an index in memory for as long as this object lives, for notebooks and tests; see `semrec_faiss.build`.

        On Linux nothing is written to any disk; other systems have no memory that FAISS and DuckDB read like files, and
        there a temporary folder goes with the object. It is neither updated nor pickled.

        Example:
            >>> import numpy as np
            >>> from semrec_faiss import Recommender
            >>> [title.title for title in Recommender.from_arrays(np.eye(3, dtype="float32") + 1).similar("row_0", k=2)]
            ['Vector 1', 'Vector 2']
        """
        from semrec_faiss.index.build.for_now import build_for_now
        from semrec_faiss.index.build.from_tables import config_of, source_of_tables

        settings = config_of(config)
        source = source_of_tables(settings, vectors, metadata, users, interactions, columns)
        return cls(SavedIndex.of(build_for_now(settings, source)))

    def refresh(self) -> bool:
        """Go to the generation in use; return whether that is another than the one that was open.

        It is opened beside the one that is open, and takes its place between two questions: one that is being answered
        is finished by the generation it was asked of. Where memory is predicted not to suffice for both, the open one
        is closed first; a warning says so, and questions wait meanwhile.

        Raises:
            SemrecError: it cannot be opened; the one that was open stays.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> demo.refresh()  # nothing was published since
            False
        """
        with self._refreshing:
            newer = self._known.newest()
            if newer is None and self._opened is not None:
                return False
            newer = newer or self._known.opened_anew()
            parts = (False, False) if self._opened is None else self._opened.parts
            self._make_room(newer)
            try:
                self._take(newer, parts)
            except BaseException:
                if self._opened is None:  # it was let go: back to it
                    self._take(self._known.opened_anew(), parts)
                raise
            return True

    def _take(self, saved: SavedIndex, parts: tuple[bool, bool]) -> None:
        opened = self.opens(saved, self._batcher, self._opened)
        opened.read(parts)
        self._known, self._opened = saved.opened_anew(), opened

    def _make_room(self, newer: SavedIndex) -> None:
        """Let the open generation go where the next does not fit beside it, after the questions that it answers."""
        lacking = None if self._opened is None else lacking_room(newer, self._known)
        if lacking is not None:
            self._let_go(newer, str(lacking))

    def _let_go(self, newer: SavedIndex, lacking: str) -> None:
        before = self._known.generation
        warnings.warn(
            f"{before.folder.parent}: {newer.generation.name} takes, beside {before.name}, {lacking}:"
            f" {before.name} is let go first, and questions wait until {newer.generation.name} is open",
            RuntimeWarning,
            stacklevel=4,
        )
        assert self._opened is not None
        gone, self._opened = weakref.ref(self._opened), None
        until = time.monotonic() + LET_GO_SECONDS
        while gc.collect() >= 0 and gone() is not None and time.monotonic() < until:
            time.sleep(0.01)

    @property
    def _now(self) -> Opened:
        """What a question is asked of; taken once a question, so that it stays with one generation."""
        return self._opened or self._awaited()

    def _awaited(self) -> Opened:
        with self._refreshing:
            if self._opened is None:
                self.refresh()
            assert self._opened is not None
            return self._opened

    def pinned(self) -> Self:
        """Return a Recommender that stays with the generation that is open, for questions that belong together.

        Example:
            >>> from semrec_faiss import Recommender
            >>> with Recommender.open("indexes/demo", follow=True) as demo:
            ...     now = demo.pinned()
            >>> now.similar("Toy Story", k=1)[0].title
            'Toy Story 3 (2010)'
        """
        pinned = type(self).__new__(type(self))
        vars(pinned).update(
            vars(self), _refreshing=threading.RLock(), _follows=False, _following=None, _opened=self._now
        )
        return pinned

    def update(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        remove_titles: Name | Iterable[Name] = (),
        remove_users: Name | Iterable[Name] = (),
        where: str | None = None,
        seen: str | PathLike[str] | None = None,
        **options: Any,
    ) -> UpdateSummary:
        """Change the index on disk as `semrec update` does, and go to the generation that this makes.

        Args:
            folder: new and changed titles and users, laid out as a data folder.
            remove_titles: media_ids to remove.
            remove_users: user ids to remove.
            where: titles for which this SQL expression holds are removed, too.
            seen: a Parquet file of what users have seen since.
            options: ``strict``, ``dry_run``, ``compact_at``, ``wait`` and ``progress``, as `update_index` takes them.

        Returns:
            What was new, changed, removed and unknown.

        Raises:
            SemrecError: as `update_index`, and as `refresh`.

        Example:
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open(index)
            >>> done = demo.update(remove_titles="film_0001", where="year < 1930")
            >>> done.titles.removed, demo.index.count
            (8, 1511)
        """
        from semrec_faiss.index.update.plan import Change

        if self._known.generation.for_now:
            raise UsageError("an index in memory cannot be updated", fix=ON_DISK)
        change = Change(
            folder,
            names_of(remove_titles, "remove_titles"),
            names_of(remove_users, "remove_users"),
            where,
            seen,
        )
        summary = self._change(change, **options)
        self.refresh()
        return summary

    def _change(self, change: Change, **options: Any) -> UpdateSummary:
        from semrec_faiss.index.update.updating import update_index

        return update_index(self._known.generation.folder.parent, change, **options)

    def close(self) -> None:
        """Follow the index no more; what is open stays, and goes with this object.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo", follow=True)
            >>> demo.close()
            >>> demo.index.count
            1519
        """
        self._follows = False
        if self._following is not None:
            self._following.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[SavedIndex, None, bool]]:
        saved = self.saved  # opens an object anew that a fork has lost, which is of another type until then
        return type(self), (saved, None, self._follows)

    @classmethod
    def opened_anew(cls, lost: dict[str, Any]) -> Self:
        """Return one that is open at the same generation, for a process that was forked; raises what `open` does."""
        opened = cls(lost["_known"].opened_anew())
        opened._follows = lost["_follows"]
        return opened

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._known.generation.in_short}>"

    @property
    def saved(self) -> SavedIndex:
        """The generation that is open."""
        return self._now.saved

    @property
    def searcher(self) -> Searcher:
        """Runs the questions."""
        return self._now.searcher

    @property
    def texts(self) -> TextQueries:
        """Turns texts into query vectors."""
        return self._now.texts

    @property
    def likeness(self) -> Likeness:
        """Compares titles by cosine, whatever the index does."""
        return self._now.likeness

    @property
    def index(self) -> VectorIndex:
        """The searchable vectors."""
        return self._now.index

    @property
    def titles(self) -> Titles:
        """The titles: records by row and rows by name, without a database."""
        return self._now.titles

    @property
    def catalog(self) -> Catalog:
        """The titles in DuckDB, loaded when this is first used."""
        return self._now.titles.catalog

    @property
    def users(self) -> SavedUsers:
        """The users of the index; raises NotFoundError where it was built without."""
        return self._now.users
