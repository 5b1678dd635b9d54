"""One generation, open: what a question is asked of from its beginning to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import NotFoundError, UsageError, quoted
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.hardware.ahead import beside
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.search.answers.notes import notes_on
from semrec_faiss.search.batching.asked import BatchedSearcher, Searches
from semrec_faiss.search.explanation import rank_among
from semrec_faiss.search.likeness import Likeness, VectorPart
from semrec_faiss.search.profile.profile_search import ProfileSearch, Served, changed_profile
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.text import TextQueries, TextTimes
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish

TITLES_REMEMBERED = 4096
"""Titles whose row and name are kept, so that asking for one again costs no look-up."""


def not_open(value: object) -> UsageError:
    """Say that a path, or whatever was given, is no open index."""
    return UsageError(
        f"the index is {quoted(value)} ({type(value).__name__}); an open one is expected", fix="Recommender.open(path)"
    )


class Opened:
    """A generation and what answers its questions; safe to use from many threads.

    Attributes:
        saved: the generation on disk.
        index: the searchable vectors.
        titles: records by row and rows by name.
        searcher: runs the questions.
        texts: turns texts into query vectors.
        row_of: finds a title's row, and keeps it.
        named: finds a title's row, media_id and title, and keeps them.
    """

    def __init__(
        self,
        saved: SavedIndex,
        batcher: Searches | None = None,
        before: Opened | None = None,
        *,
        with_users: bool = False,
    ) -> None:
        """Load what every search needs.

        Args:
            saved: nothing of it need be read.
            batcher: makes the searches; None makes each at once.
            before: what this takes the place of: the text model that it has loaded is kept.
            with_users: read users beside the titles; they are read when the first is asked for otherwise.
        """
        self.saved = saved
        with beside(saved.users.read if with_users and saved.users is not None else None):
            self.index, self.titles = saved.vectors, saved.titles
        self.searcher = self.searcher_by(batcher)
        self.row_of = lru_cache(TITLES_REMEMBERED)(self.titles.find)
        self.named = lru_cache(TITLES_REMEMBERED)(partial(_named, self.titles))
        self._users_lock = threading.Lock()
        on_cpu = "cpu" if saved.config.device.kind == "cpu" else None
        self.texts = TextQueries(self.index, saved.generation.manifest.embedding, self.titles.records, on_cpu)
        if before is not None:
            self.texts.share_models(before.texts)

    def searcher_by(self, batcher: Searches | None) -> Searcher:
        """Return what runs the questions."""
        if batcher is None:
            return Searcher(self.index, self.titles)
        return BatchedSearcher(self.index, self.titles, batcher)

    @property
    def parts(self) -> tuple[bool, bool]:
        """Whether users and the titles' database have been read, which only some questions need."""
        return "users" in vars(self.saved), self.titles.has_catalog

    def read(self, parts: tuple[bool, bool]) -> None:
        """Read these parts, so that no question waits for them."""
        with_users, with_catalog = parts
        if with_users and self.saved.users is not None:
            self.saved.users.read()
        if with_catalog:
            _ = self.titles.catalog

    @cached_property
    def users(self) -> SavedUsers:
        """The users; raises NotFoundError where the index was built without."""
        with self._users_lock:
            if self.saved.users is None:
                raise NotFoundError(
                    "the index holds no users",
                    fix="recommend for titles that somebody likes; or add users/seen.parquet, what users have seen, to"
                    " the data folder, or users/user_ids.json and users/preference_vectors.npy, and build it again",
                )
            return self.saved.users

    @cached_property
    def profile_search(self) -> ProfileSearch:
        """Searches by what users have seen."""
        return ProfileSearch(self.searcher, self.users)

    @cached_property
    def likeness(self) -> Likeness:
        """Compares titles by their cosines, or by a part of their vectors."""
        return Likeness(self.searcher, self.saved.transformation)

    def alike(self, row: int, by: VectorPart, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the titles whose cosine to one is the greatest; see `Likeness.run`."""
        return self.likeness.run(row, by, wish, exclusions)

    def rank(self, query: Vectors, row: int, left_out: Rows) -> int:
        """Return the place of a title among all but some; see `rank_among`."""
        return rank_among(self.index, query, row, left_out)

    def served(self, user_row: int, row: int, left_out: Rows) -> Served | None:
        """Find a title in a user's list where that is not by the user's vector alone; None where it is.

        None, too, where the index is not exact: a place then hangs on how much is asked for.
        """
        profile = self.saved.config.profile
        if profile is None or not self.users.has_seen or not self.index.exact:
            return None
        if profile.is_one_search and user_row not in self.users.without_likes:
            return None
        return self.profile_search.served(user_row, row, profile, left_out)

    def seen(self, user_rows: Rows) -> Exclusions | None:
        """Return what users have seen, as rows not to return; None where the index does not know."""
        return UserRows(self.users, user_rows).exclusions

    def lists_for(
        self, rows: Rows, wish: Wish, *, include_seen: bool, profile: Mapping[str, Any] | None = None
    ) -> tuple[TopK, Mask]:
        """Find the lists of users, and tell for whom they are popular titles; see `Recommender.lists_for`."""
        served = self.saved.config.profile
        asked = UserRows(self.users, rows, include_seen)
        wanted = changed_profile(served, profile)
        # Without a profile users' vectors are their own, and whoever asks for settings asks for their histories.
        if not wanted.is_one_search or (profile and wanted != served):
            return self.profile_search.run(rows, wanted, wish, asked.exclusions)
        found = self.searcher.run(asked, wish)
        if not len(self.users.without_likes):
            return found, np.zeros(len(rows), np.bool_)
        popular = np.isin(rows, self.users.without_likes)
        if popular.any():
            self.profile_search.fill_popular(found, np.flatnonzero(popular), wanted.liked, wish, asked.exclusions)
        return found, popular

    def answers(
        self,
        found: TopK,
        wish: Wish,
        asked: Mapping[str, Sequence[Any]],
        started: float,
        text: TextTimes | None = None,
    ) -> Answers:
        """Tell what was found, by a search that began when `time.perf_counter` was ``started``."""
        elapsed_ms = (time.perf_counter() - started) * 1e3
        return Answers(found, wish.k, asked, self.titles, elapsed_ms, text, notes_on(found, wish.filter, self.searcher))


def _named(titles: Titles, text: str) -> tuple[int, str, str]:
    row, record = titles.found(text)
    return row, record["media_id"], record["title"]
