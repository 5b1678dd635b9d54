"""The questions of several callers as one search, and its answer in parts again."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.deadline import TooLateError, due_at, raise_if_late
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.batching.asked import Asked
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows

MOST_TOGETHER = 4096
"""Queries in one batch; what waits beyond that is the next one."""


def search_together(asked: Sequence[Asked]) -> None:
    """Search for callers of one kind in one batch, and give each its own; a batch that fails is asked one by one."""
    first = asked[0]
    if len(asked) == 1:
        _search_alone(first)
        return
    try:
        queries = _queries_of(asked)
        with due_at(_last_due(asked)):
            found = Searcher.run(first.searcher, queries, first.wish, exclusions_of(asked))
    except TooLateError as error:
        for one in asked:
            one.found.set_exception(error)
        return
    except Exception:  # whose mistake it was shows when they are asked alone
        for one in asked:
            _search_alone(one)
        return
    start = 0
    for one in asked:
        stop = start + len(one.queries)
        one.found.set_result(part_of(found, start, stop))
        start = stop


def _search_alone(asked: Asked) -> None:
    try:
        with due_at(asked.due):
            raise_if_late("the search had not begun when its time was up")
            found = Searcher.run(asked.searcher, asked.queries, asked.wish, asked.exclusions)
        asked.found.set_result(found)
    except BaseException as error:
        asked.found.set_exception(error)


def _last_due(asked: Sequence[Asked]) -> float | None:
    """Return when nobody waits any more; None where one waits for ever."""
    dues = [one.due for one in asked if one.due is not None]
    return max(dues) if len(dues) == len(asked) else None


def _queries_of(asked: Sequence[Asked]) -> Vectors | UserRows:
    users = [one.queries for one in asked if isinstance(one.queries, UserRows)]
    if users:
        return UserRows.joined(users)
    return np.concatenate([one.queries for one in asked if not isinstance(one.queries, UserRows)])


class Excluding(Protocol):
    """Queries, and what each of them must not return."""

    @property
    def queries(self) -> Sized:
        """Float32 (queries, dim), or users."""
        ...

    @property
    def exclusions(self) -> Exclusions | None:
        """What single queries must not return."""
        ...


def exclusions_of(asked: Sequence[Excluding]) -> Exclusions | None:
    """Join what callers exclude, query by query."""
    if all(one.exclusions is None for one in asked):
        return None
    counts: list[Rows] = [
        np.zeros(len(one.queries), np.int64) if one.exclusions is None else one.exclusions.counts for one in asked
    ]
    offsets = np.concatenate(([0], np.cumsum(np.concatenate(counts)))).astype(np.int64)
    rows = [one.exclusions.rows for one in asked if one.exclusions is not None]
    return Exclusions(offsets, np.concatenate(rows))


def part_of(found: TopK, start: int, stop: int) -> TopK:
    """Return one caller's own of a batch; how it was found is the batch's."""
    own = slice(start, stop)
    lists = (found.rows[own], found.scores[own], found.matching[own])
    return TopK(*lists, found.exact, found.strategy, list(found.stages), found.titles_seen)
