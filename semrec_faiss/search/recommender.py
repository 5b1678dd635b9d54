"""Recommender: a title, users, a taste or vectors in, ranked titles out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.saved import SavedIndex
from semrec_faiss.index.saved_users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.answer import Answer, Answers, Record
from semrec_faiss.search.explanation import Explanation, SimilarUser, explain, similar_users
from semrec_faiss.search.filter import Filter
from semrec_faiss.search.record_cache import RecordCache
from semrec_faiss.search.restriction import Exclusions
from semrec_faiss.search.searcher import Searcher, Wish
from semrec_faiss.search.taste import Taste, taste_vector
from semrec_faiss.search.text import TextQueries, TextTimes
from semrec_faiss.search.topk import Strategy

TITLES_REMEMBERED = 4096
"""Titles whose row is kept, so that asking for one again costs no look-up."""


class Recommender:
    """Answers questions from a saved index; safe to use from many threads.

    Every question takes, besides k: ``where``, a SQL expression over the titles' fields or a `Filter`; ``exclude``,
    titles never to return; ``diversity`` from 0 to 1, by maximal marginal relevance; ``max_per``, the most titles that
    may share a value of a field, such as ``{"franchise": 1}``; ``strategy``, how a restricted search runs. All of them
    may raise UsageError for what is out of range or not understood, and NotFoundError for titles that do not exist.

    Attributes:
        saved: the index on disk that it was opened from.
        index: the searchable vectors.
        catalog: the titles.
        texts: turns texts into query vectors.
    """

    def __init__(self, saved: SavedIndex) -> None:
        """Load what every search needs; users are read when the first one is asked for."""
        self.saved = saved
        self.index: VectorIndex = saved.vectors
        self.catalog: Catalog = saved.catalog
        self.searcher = Searcher(self.index, self.catalog)
        self._records = RecordCache(self.catalog)
        self._row_of_title = lru_cache(TITLES_REMEMBERED)(self.catalog.find)
        self._users_lock = threading.Lock()
        on_cpu = "cpu" if saved.config.device.kind == "cpu" else None
        self.texts = TextQueries(self.index, saved.generation.manifest.embedding, self._records, on_cpu)

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

    def similar(
        self,
        title_or_id: str,
        k: int = 10,
        *,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer:
        """Find the titles most similar to one; it is not among its own results.

        Args:
            title_or_id: a media_id or a title; case, accents, punctuation and the article's place do not matter, and
                the year only where several titles share the rest.
            k: how many.
            where, exclude, diversity, max_per, strategy: see `Recommender`.

        Raises:
            NotFoundError: no such title; ``candidates`` names the nearest.
            AmbiguousTitleError: several; ``candidates`` lists them.
        """
        row = self._row_of_title(title_or_id)
        record = self._records([row])[0]
        query = {"media_id": record["media_id"], "title": record["title"]}
        wish = Wish.of(k, where, exclude, diversity, max_per, strategy)
        return self._ask(self.index.vectors([row]), wish, [query], Exclusions.of([[row]]))[0]

    @overload
    def recommend(
        self,
        user_ids: str,
        k: int = 10,
        *,
        include_seen: bool = False,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer: ...
    @overload
    def recommend(
        self,
        user_ids: list[str] | tuple[str, ...],
        k: int = 10,
        *,
        include_seen: bool = False,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answers: ...
    def recommend(
        self,
        user_ids: str | list[str] | tuple[str, ...],
        k: int = 10,
        *,
        include_seen: bool = False,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer | Answers:
        """Recommend titles to users, all in one batch; what a user has seen is left out where the index knows it.

        Args:
            user_ids: one user id, or several.
            k: how many titles each.
            include_seen: keep titles that the user has seen.
            where, exclude, diversity, max_per, strategy: see `Recommender`.

        Returns:
            One answer for one id; the answers in the order asked for several.

        Raises:
            NotFoundError: an unknown user, or an index without users.
        """
        asked = [user_ids] if isinstance(user_ids, str) else list(user_ids)
        rows = self.users.rows_of(asked)
        queries = [{"user_id": user_id} for user_id in asked]
        wish = Wish.of(k, where, exclude, diversity, max_per, strategy)
        vectors = np.ascontiguousarray(self.users.vectors[rows])
        answers = self._ask(vectors, wish, queries, None if include_seen else self.seen(rows))
        return answers[0] if isinstance(user_ids, str) else answers

    def recommend_for(
        self,
        taste: Taste,
        k: int = 10,
        *,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer:
        """Recommend titles to somebody who is no user of the index; what they named is left out.

        Args:
            taste: titles they like, dislike or have rated.
            k: how many titles.
            where, exclude, diversity, max_per, strategy: see `Recommender`.

        Raises:
            UsageError: nothing is said, a rating is out of range, or likes and dislikes cancel out.
            NotFoundError: a title that does not exist.
        """
        weights = taste.weights()
        rows = [self._row_of_title(title) for title, _ in weights]
        titles = [record["title"] for record in self._records(rows)]
        query = {"taste": dict(zip(titles, (weight for _, weight in weights), strict=True))}
        wish = Wish.of(k, where, exclude, diversity, max_per, strategy)
        vector = taste_vector(self.index, rows, [weight for _, weight in weights])
        return self._ask(vector, wish, [query], Exclusions.of([rows]))[0]

    def search(
        self,
        vectors: NDArray[Any],
        k: int = 10,
        *,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answers:
        """Find the titles nearest to vectors of one's own.

        Args:
            vectors: float (queries, dim), or (dim,) for a single one.
            k: how many titles each.
            where, exclude, diversity, max_per, strategy: see `Recommender`.

        Raises:
            UsageError: another dimension.
            DataError: NaN, infinite or all-zero vectors.
        """
        queries = self.index.prepare(vectors)
        return self._ask(queries, Wish.of(k, where, exclude, diversity, max_per, strategy))

    @overload
    def search_text(
        self,
        texts: str,
        k: int = 10,
        *,
        model: str | None = None,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer: ...
    @overload
    def search_text(
        self,
        texts: list[str] | tuple[str, ...],
        k: int = 10,
        *,
        model: str | None = None,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answers: ...
    def search_text(
        self,
        texts: str | list[str] | tuple[str, ...],
        k: int = 10,
        *,
        model: str | None = None,
        where: str | Filter | None = None,
        exclude: Sequence[str] = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Answer | Answers:
        """Find the titles nearest to what a text says, by the model that made the index's vectors.

        The model is loaded by the first text and kept; ``text`` of the answer holds what that and the encoding took,
        which ``elapsed_ms`` leaves out.

        Args:
            texts: one text, or several.
            k: how many titles each.
            model: where to find the model, as for `semrec dataset embed`; the recorded name by default.
            where, exclude, diversity, max_per, strategy: see `Recommender`.

        Returns:
            One answer for one text; the answers in the order asked for several.

        Raises:
            UsageError: a blank text, an index whose model is not known, or another model than the index's.
            NotFoundError: the model cannot be found.
            DeviceError: sentence-transformers is missing.
        """
        asked = [texts] if isinstance(texts, str) else list(texts)
        wish = Wish.of(k, where, exclude, diversity, max_per, strategy)
        self.searcher.check(wish)  # a mistake in the wish should not wait for the model
        vectors, times = self.texts.vectors(asked, model)
        answers = self._ask(vectors, wish, [{"text": text} for text in asked], text=times)
        return answers[0] if isinstance(texts, str) else answers

    def similar_users(self, user_id: str, k: int = 10) -> list[SimilarUser]:
        """Find the users whose preference vectors are nearest to one user's, exactly; see `similar_users`."""
        return similar_users(self.users, user_id, k)

    def explain(self, user_id: str, title_or_id: str, k: int = 5) -> Explanation:
        """Say why a title is recommended to a user: its rank and the seen titles nearest to it; see `explain`."""
        row = self._row_of_title(title_or_id)
        user_row = int(self.users.rows_of([user_id])[0])
        return explain(self.index, self.users, self._records, user_row, row, k)

    def seen(self, user_rows: NDArray[np.int64]) -> Exclusions | None:
        """Return what users have seen, as rows not to return; None where the index does not know."""
        return Exclusions(*self.users.seen).take(user_rows) if self.users.has_seen else None

    def _ask(
        self,
        queries: NDArray[np.float32],
        wish: Wish,
        asked: Sequence[Record] | None = None,
        exclusions: Exclusions | None = None,
        *,
        text: TextTimes | None = None,
    ) -> Answers:
        started = time.perf_counter()
        found = self.searcher.run(queries, wish, exclusions)
        elapsed_ms = (time.perf_counter() - started) * 1e3

        def make(position: int) -> Answer:
            kept = found.rows[position] >= 0
            return Answer(
                query={"position": position} if asked is None else asked[position],
                requested=int(wish.k),
                matching=int(found.matching[position]),
                strategy=found.strategy,
                exact=found.exact,
                elapsed_ms=elapsed_ms,
                stages=tuple(found.stages),
                rows=found.rows[position][kept],
                scores=found.scores[position][kept],
                _records_of=self._records,
                text=text,
            )

        return Answers(make, len(queries))
