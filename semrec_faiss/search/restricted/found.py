"""What a restricted search finds, and the account of how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.index.search_result import Exactness


@dataclass(frozen=True)
class Stage:
    """One step of a restricted search.

    Attributes:
        name: what was done.
        queries: how many queries it was done for.
        fetched: titles looked at or returned per query.
        elapsed_ms: how long it took.
    """

    name: str
    queries: int
    fetched: int
    elapsed_ms: float


@dataclass
class TopK:
    """The best titles that each query may return.

    Attributes:
        rows: int64 (queries, k); -1 after the last where fewer than k match.
        scores: float32 (queries, k); -inf where there is no title.
        matching: int64 (queries,), how many titles each query might have returned.
        exact: whether a brute-force scan of the matching titles would give the same, ties aside; ``proven`` where
            the search itself has shown so.
        strategy: what was done, ``+``-joined where a batch needed several.
        stages: the steps in order.
        titles_seen: the share of the index's titles that was looked at: less than 1 where a shard is lost, and partial
            answers are wanted.
    """

    rows: Rows
    scores: Scores
    matching: Rows
    exact: Exactness
    strategy: str
    stages: list[Stage] = field(default_factory=list)
    titles_seen: float = 1.0

    @classmethod
    def empty(cls, queries: int, k: int, exact: Exactness = False) -> TopK:
        """Make the result that nothing has been found for yet."""
        rows, scores = np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)
        return cls(rows, scores, np.zeros(queries, np.int64), exact, "index")

    @property
    def returned(self) -> Rows:
        """How many titles each query returned: int64 (queries,)."""
        return np.asarray((self.rows >= 0).sum(axis=1), dtype=np.int64)


@dataclass
class CountedLater(TopK):
    """A `TopK` whose matching titles are counted by ``count`` when they are first asked for: many never are."""

    count: Callable[[], Rows] | None = None

    def __post_init__(self) -> None:
        """Forget ``matching`` where it can be counted."""
        if self.count is not None:
            del self.__dict__["matching"]

    def __getattr__(self, name: str) -> Rows:
        """Count, once; everything else is there already."""
        if name != "matching" or self.count is None:
            raise AttributeError(name)
        self.matching = self.count()
        return self.matching


def summed(stages: list[Stage]) -> list[Stage]:
    """Add up the stages of all blocks that did the same."""
    totals: dict[tuple[str, int], Stage] = {}
    for stage in stages:
        before = totals.get((stage.name, stage.fetched), Stage(stage.name, 0, stage.fetched, 0.0))
        totals[stage.name, stage.fetched] = Stage(
            stage.name, before.queries + stage.queries, stage.fetched, before.elapsed_ms + stage.elapsed_ms
        )
    return list(totals.values())
