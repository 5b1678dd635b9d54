"""Recommender: a title, users or vectors in, ranked titles out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.catalog import Catalog
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.saved import SavedIndex
from semrec_faiss.index.saved_users import SavedUsers
from semrec_faiss.index.vector_index import SearchResult, VectorIndex
from semrec_faiss.search.answer import Answer, Answers, Record
from semrec_faiss.search.records import RecordCache

TITLES_REMEMBERED = 4096
"""Titles whose row is kept, so that asking for one again costs no look-up."""


class Recommender:
    """Answers questions from a saved index; safe to use from many threads.

    Attributes:
        saved: the index on disk that it was opened from.
        index: the searchable vectors.
        catalog: the titles.
    """

    def __init__(self, saved: SavedIndex) -> None:
        """Load what every search needs; users are read when the first one is asked for."""
        self.saved = saved
        self.index: VectorIndex = saved.vectors
        self.catalog: Catalog = saved.catalog
        self._records = RecordCache(self.catalog)
        self._row_of_title = lru_cache(TITLES_REMEMBERED)(self.catalog.find)
        self._users_lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, settings: Sequence[str] = ()) -> Recommender:
        """Open the index in ``path``.

        Args:
            path: an index directory.
            settings: search and device settings for this session, such as ``index.search.nprobe=32``.

        Raises:
            NotFoundError: there is no index at ``path``.
            DamagedIndexError: a file is not as it was written.
            UsageError: a setting that is fixed when the index is built.
            DeviceError: FAISS is missing, or a GPU is asked for and there is none.
        """
        return cls(SavedIndex(path, settings))

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

    def similar(self, title_or_id: str, k: int = 10) -> Answer:
        """Find the titles most similar to one; it is not among its own results.

        Args:
            title_or_id: a media_id or a title; case, accents, punctuation and the article's place do not matter, and
                the year only where several titles share the rest.
            k: how many.

        Raises:
            NotFoundError: no such title; ``candidates`` names the nearest.
            AmbiguousTitleError: several; ``candidates`` lists them.
            UsageError: k is out of range.
        """
        row = self._row_of_title(title_or_id)
        started = time.perf_counter()
        found = self.index.search(self.index.vectors([row]), k + 1 if isinstance(k, int) else k, prepared=True)
        kept = np.flatnonzero(found.rows[0] != row)[:k]
        elapsed_ms = (time.perf_counter() - started) * 1e3
        record = self._records([row])[0]
        query = {"media_id": record["media_id"], "title": record["title"]}
        rows, scores = found.rows[0][kept], found.scores[0][kept]
        return self._answer(query, k, self.index.count - 1, found, rows, scores, elapsed_ms)

    @overload
    def recommend(self, user_ids: str, k: int = 10) -> Answer: ...
    @overload
    def recommend(self, user_ids: list[str] | tuple[str, ...], k: int = 10) -> Answers: ...
    def recommend(self, user_ids: str | list[str] | tuple[str, ...], k: int = 10) -> Answer | Answers:
        """Recommend titles to users, all in one batch.

        Args:
            user_ids: one user id, or several.
            k: how many titles each.

        Returns:
            One answer for one id; the answers in the order asked for several.

        Raises:
            NotFoundError: an unknown user, or an index without users.
            UsageError: k is out of range.
        """
        asked = [user_ids] if isinstance(user_ids, str) else list(user_ids)
        users = self.users
        vectors = np.ascontiguousarray(users.vectors[users.rows_of(asked)])
        answers = self._batch(vectors, k, prepared=True, queries=[{"user_id": user_id} for user_id in asked])
        return answers[0] if isinstance(user_ids, str) else answers

    def search(self, vectors: NDArray[Any], k: int = 10) -> Answers:
        """Find the titles nearest to vectors of one's own.

        Args:
            vectors: float (queries, dim), or (dim,) for a single one.
            k: how many titles each.

        Raises:
            UsageError: another dimension, or k out of range.
            DataError: NaN, infinite or all-zero vectors.
        """
        given = np.asarray(vectors)
        return self._batch(given[None, :] if given.ndim == 1 else given, k, prepared=False)

    def _batch(
        self, vectors: NDArray[Any], k: int, *, prepared: bool, queries: Sequence[Record] | None = None
    ) -> Answers:
        started = time.perf_counter()
        found = self.index.search(vectors, k, prepared=prepared)
        elapsed_ms = (time.perf_counter() - started) * 1e3

        def make(position: int) -> Answer:
            query = {"position": position} if queries is None else queries[position]
            return self._answer(
                query, k, self.index.count, found, found.rows[position], found.scores[position], elapsed_ms
            )

        return Answers(make, len(found.rows))

    def _answer(
        self,
        query: Record,
        k: int,
        matching: int,
        found: SearchResult,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        elapsed_ms: float,
    ) -> Answer:
        return Answer(query, int(k), matching, found.strategy, found.exact, elapsed_ms, rows, scores, self._records)
