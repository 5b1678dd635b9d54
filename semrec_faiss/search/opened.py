"""OpenIndex: an index on disk, opened for questions, in this process and in the children it forks."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from typing_extensions import Self

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import NotFoundError, UsageError
from semrec_faiss.forking import HoldsHandles
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.arguments import names_of
from semrec_faiss.search.batching import BatchedSearcher, Batcher
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.text import TextQueries

TITLES_REMEMBERED = 4096
"""Titles whose row is kept, so that asking for one again costs no look-up."""

IN_A_CLUSTER = "ray://"
CLUSTER_RECOMMENDER = ("semrec_faiss.cluster.recommender", "ClusterRecommender")
"""What opens addresses that begin so."""


class OpenIndex(HoldsHandles):
    """What questions are asked of: an index's vectors, titles and users; safe to use from many threads.

    In a forked child it opens itself anew when it is first asked; pickled, it is its path and settings.

    Attributes:
        saved: the index on disk that it was opened from.
        searcher: runs the questions; the owner of the index and the titles.
        texts: turns texts into query vectors.
        row_of: the row of the title that a person means; see `Titles.find`.
    """

    def __init__(self, saved: SavedIndex, batcher: Batcher | None = None) -> None:
        """Load what every search needs, made by ``batcher`` if given; users are read when the first is asked for."""
        self.saved = saved
        index, titles = saved.vectors, saved.titles
        self.searcher = Searcher(index, titles) if batcher is None else BatchedSearcher(index, titles, batcher)
        self.row_of = lru_cache(TITLES_REMEMBERED)(self.titles.find)
        self._users_lock = threading.Lock()
        on_cpu = "cpu" if saved.config.device.kind == "cpu" else None
        self.texts = TextQueries(self.index, saved.generation.manifest.embedding, self.titles.records, on_cpu)

    @classmethod
    def open(
        cls, path: str | PathLike[str], settings: str | Iterable[str] = (), batcher: Batcher | None = None
    ) -> Self:
        """Open the index in ``path``.

        Args:
            path: an index directory; or ``ray://HOST:PORT/INDEX`` for one in shards, which that cluster serves.
            settings: search and device settings for this session, such as ``index.search.nprobe=32``.
            batcher: searches together what several threads ask at the same moment; None searches for each at once.

        Raises:
            NotFoundError: there is no index at ``path``.
            DamagedIndexError: a file is not as it was written.
            UsageError: a setting that is fixed when the index is built, or an argument of another type.
            MissingPackageError: FAISS is missing.
            DeviceError: a GPU is asked for and there is none.
        """
        if not isinstance(path, str | PathLike):
            raise UsageError(f"the index is {path!r}; the path of a directory is expected")
        if isinstance(path, str) and path.startswith(IN_A_CLUSTER):
            # By its name, as a plug-in: that room stands on this one, and needs a package of its own.
            module, name = CLUSTER_RECOMMENDER
            opened: Self = getattr(import_module(module), name).open(path, settings)
            return opened
        return cls(SavedIndex(Path(path), names_of(settings, "settings")), batcher)

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
        """Build an index for as long as this object lives, for notebooks and tests; see `semrec_faiss.build`.

        Its files lie in a temporary folder that goes with the object.

        Example:
            >>> import numpy as np
            >>> from semrec_faiss import Recommender
            >>> [title.title for title in Recommender.from_arrays(np.eye(3, dtype="float32") + 1).similar("row_0", k=2)]
            ['Vector 1', 'Vector 2']
        """
        from semrec_faiss.index.build.from_tables import build_from_tables, goes_with

        folder = Path(tempfile.mkdtemp(prefix="semrec-"))
        try:
            build_from_tables(
                vectors,
                metadata,
                users=users,
                interactions=interactions,
                columns=columns,
                config=config,
                output=folder / "index",
            )
            opened = cls.open(folder / "index")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        goes_with(opened, folder)
        return opened

    @property
    def index(self) -> VectorIndex:
        """The searchable vectors."""
        return self.searcher.index

    @property
    def titles(self) -> Titles:
        """The titles: records by row and rows by name, without a database."""
        return self.searcher.titles

    @property
    def catalog(self) -> Catalog:
        """The titles in DuckDB, loaded when this is first used."""
        return self.titles.catalog

    def __reduce__(self) -> tuple[type[Self], tuple[SavedIndex]]:
        saved = self.saved  # opens an object anew that a fork has lost, which is of another type until then
        return type(self), (saved,)

    @classmethod
    def opened_anew(cls, lost: dict[str, Any]) -> Self:
        """Open the same generation for a process that was forked since; raises what `open` does."""
        return cls(lost["saved"].opened_anew())

    @property
    def users(self) -> SavedUsers:
        """The users of the index.

        Raises:
            NotFoundError: it was built without.
        """
        with self._users_lock:
            if self.saved.users is None:
                raise NotFoundError(
                    f"index {self.saved.generation.folder.parent} holds no users",
                    fix="add users/preference_vectors.npy and users/user_ids.json to the data folder; build it again",
                )
            return self.saved.users
