"""What an actor serves: an ordinary index of a range of titles; rows that come and go are those of the whole."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.finder import Answering
from semrec_faiss.data.titles.near_misses import Called, Near
from semrec_faiss.data.titles.type_ahead import Hit, TypeAhead
from semrec_faiss.deadline import due_at
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.search.diversity import Groups
from semrec_faiss.search.explanation import count_before, score_of
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.filters.missing import Condition, Instead, instead_of
from semrec_faiss.search.likeness import LikenessQuery
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.restricted.topk import Strategy
from semrec_faiss.search.wish import Wish


@dataclass(frozen=True)
class Compiled(Filter):
    """A filter as clauses: made at the front, where it is known what all titles hold, and run where titles lie."""

    compiled: tuple[str, ...] = ()

    def clauses(self, catalog: Catalog) -> tuple[str, ...]:
        """Return the clauses as they were made."""
        return self.compiled


@dataclass(frozen=True)
class Allowed:
    """What may be returned.

    Attributes:
        clauses: of a filter.
        left_out: rows of the whole that nobody is given.
        seconds: how long anybody waits for the filter; None for as long as it may take.
    """

    clauses: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    seconds: float | None = None

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """Give up what is done inside when nobody waits any more."""
        with due_at(None if self.seconds is None else time.monotonic() + self.seconds):
            yield


@dataclass(frozen=True)
class About:
    """What a shard says of itself.

    Attributes:
        titles: how many it has.
        exact: whether it finds what a brute-force scan would.
        k_limit: the most titles that it gives for one query; None for all.
        pid: the process that serves it.
        node: the machine that it runs on, as Ray names it.
        rss_bytes: memory of the process.
    """

    titles: int
    exact: Exactness
    k_limit: int | None
    pid: int
    node: str
    rss_bytes: int


@dataclass(frozen=True)
class Named:
    """What the sorted table of a shard's titles has for a name.

    Attributes:
        answering: the titles.
        media_id, title: of the title, where it is one.
        vector: its vector, float32 (dim,).
    """

    answering: Answering
    media_id: str = ""
    title: str = ""
    vector: Vectors | None = None


class ShardServer:
    """Answers for one shard; a method a question, safe from many threads. It is opened by the first question."""

    def __init__(self, folder: str, ref: dict[str, Any], first: int, settings: Sequence[str], cores: int = 1) -> None:
        """Serve the index in ``folder`` if it is the generation ``ref``; its titles are the rows from ``first`` on."""
        self._cores = cores
        self._folder = Path(folder)
        self._ref = GenerationRef.model_validate(ref)
        self._first = first
        self._settings = tuple(settings)
        self._lock = threading.Lock()
        self._open: Recommender | None = None
        self._typing = threading.Lock()
        self._type_ahead: TypeAhead | None = None

    @property
    def _asked(self) -> Recommender:
        load_faiss().omp_set_num_threads(self._cores)  # of this thread: Ray gives every process one core
        with self._lock:
            if self._open is None:
                generation = IndexDirectory(self._folder).current()
                if generation.ref != self._ref:
                    raise DamagedIndexError(
                        f"{self._folder} holds {generation.name} with another manifest than the index lists",
                        fix="build the index again",
                    )
                self._open = Recommender(SavedIndex.of(generation, self._settings))
            return self._open

    def about(self) -> About:
        """Open the shard if need be, and say what it is."""
        import ray

        index = self._asked.index
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        return About(index.count, index.exact, index.k_limit, os.getpid(), node, rss_bytes())

    def ping(self) -> int:
        """Return the number of titles, as fast as anything can be answered."""
        return self._asked.index.count

    def same(self, value: Any) -> Any:
        """Return what was given: what a hop costs."""
        return value

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of ``rows``: float32 (rows, dim)."""
        return self._asked.index.vectors(rows - self._first)

    def lines(self, rows: Rows) -> list[bytes]:
        """Return the records of ``rows`` as JSON."""
        return self._asked.titles.lines(rows - self._first)

    def top(
        self, queries: Vectors, k: int, allowed: Allowed, exclusions: Exclusions | None, strategy: Strategy
    ) -> TopK:
        """Find the k best of this shard's titles; ``exclusions`` are of its own rows."""
        with allowed.in_time():
            found = self._asked.searcher.run(queries, self._wish(allowed, k, strategy), exclusions)
        return self._of_whole(found)

    def alike(self, asked: LikenessQuery, k: int, allowed: Allowed, exclusions: Exclusions) -> TopK:
        """Find the titles whose vectors, or parts of them, point most the same way as the one asked about."""
        with allowed.in_time():
            return self._of_whole(self._asked.likeness.pool(asked, self._wish(allowed, k), exclusions))

    def asked_of(self, row: int, by: Any) -> LikenessQuery:
        """Return what `alike` compares with, of one of this shard's titles."""
        return self._asked.likeness.asked(row - self._first, by)

    def mask(self, allowed: Allowed) -> NDArray[np.uint8]:
        """Tell which titles are allowed, eight in a byte."""
        with allowed.in_time():
            restriction = self._asked.searcher.restriction(self._wish(allowed, 1))
        return np.packbits(restriction.allows(np.arange(restriction.titles)[None])[0])

    def instead_of(self, asked: Sequence[Condition], seconds: float | None) -> list[Instead | None]:
        """Return what this shard's titles have where none satisfies a condition, None where one does."""
        with Allowed(seconds=seconds).in_time():
            return [instead_of(self._asked.catalog, one) for one in asked]

    def before(self, query: Vectors, row: int, score: np.float32, left_out: Rows) -> int:
        """Count this shard's titles, but for its own ``left_out``, that come before one with this row and score."""
        return count_before(self._asked.index, query, row - self._first, score, left_out)

    def score(self, query: Vectors, row: int) -> np.float32:
        """Score one of this shard's titles as `before` does."""
        return score_of(self._asked.index, query, row - self._first)

    def looked_up(self, text: str) -> Answering:
        """Return what the sorted table of titles has for a text."""
        return self._of_all(self._asked.titles.looked_up(text))

    def by_name(self, texts: Sequence[str]) -> list[Named]:
        """Return what the sorted table of titles has for each of several texts, and what is asked of these titles."""
        titles = self._asked.titles
        found = [titles.looked_up(text) for text in texts]
        at = [place for place, one in enumerate(found) if len(one.rows) == 1]
        rows = [found[place].rows[0] for place in at]
        told = [Named(self._of_all(one)) for one in found]
        for place, record, vector in zip(at, titles.records(rows), self._asked.index.vectors(rows), strict=True):
            told[place] = Named(told[place].answering, record["media_id"], record["title"], vector)
        return told

    def answering(self, text: str, ids: bool) -> Answering:
        """Return what answers best to a text, however it is spelled."""
        return self._of_all(self._asked.catalog.finder.answering(text, ids=ids))

    def near(self, text: str) -> list[Near]:
        """Return what looks like a text."""
        return [replace(one, row=one.row + self._first) for one in self._asked.catalog.finder.near(text)]

    def named(self, rows: Rows) -> list[Called]:
        """Return what messages call ``rows``."""
        return self._asked.catalog.finder.named((rows - self._first).tolist())

    def known_rows(self, media_ids: Sequence[str]) -> Rows:
        """Return the rows of ids, -1 where this shard has no such title."""
        rows = self._asked.titles.known_rows(media_ids)
        return np.where(rows < 0, -1, rows + self._first)

    def is_title_of_another(self, media_id: str) -> bool:
        """Tell whether a title with another id is called so."""
        return self._asked.titles.is_title_of_another(media_id)

    def typed(self, text: str, count: int) -> list[Hit]:
        """Return what answers to a text that is typed; the titles are read for the first one."""
        with self._typing:
            if self._type_ahead is None:
                self._type_ahead = self._asked.titles.type_ahead()
        return [hit._replace(row=hit.row + self._first) for hit in self._type_ahead.hits(text, count)]

    def genres(self) -> list[str]:
        """Return the genres that titles have."""
        found = self._asked.catalog.cursor().execute("SELECT DISTINCT unnest(genres) FROM titles").fetchall()
        return [genre for (genre,) in found if genre is not None]

    def group(self, name: str) -> tuple[Rows, list[str]]:
        """Return the values of a field as numbers, int64 (titles,), -1 for none, and as texts by their number."""
        groups = Groups.of(self._asked.catalog, name)
        return groups.codes, groups.texts()

    def _wish(self, allowed: Allowed, k: int, strategy: Strategy = "auto") -> Wish:
        titles = self._asked.titles
        mine = [row - self._first for row in allowed.left_out if 0 <= row - self._first < titles.count]
        exclude = tuple(record["media_id"] for record in titles.records(mine)) if mine else ()
        chosen = Compiled(compiled=allowed.clauses) if allowed.clauses else Filter()
        return Wish(k, chosen, exclude, strategy=strategy)

    def _of_whole(self, found: TopK) -> TopK:
        return replace(found, rows=np.where(found.rows < 0, -1, found.rows + self._first))

    def _of_all(self, found: Answering) -> Answering:
        return Answering(found.rank, [row + self._first for row in found.rows])


def rss_bytes() -> int:
    """Return the memory of this process, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
