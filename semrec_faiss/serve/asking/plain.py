"""Plain questions: one search of a few queries and no filter, looked up in microseconds between two requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.serve.wire.questions import Recommend, Search, Similar

MOST_QUERIES = 8
"""Of so many queries an answer is made between two requests; of more it takes long enough for a thread of its own."""


@dataclass(frozen=True)
class Names:
    """Titles as they were asked for."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


class Plain(msgspec.Struct, eq=False):
    """A question that is one plain search of a few queries, looked up already.

    Attributes:
        served: what it is asked of.
        k: how many titles each.
        asked: what was asked, by name: a value a query each; of titles' rows their records tell it.
        is_single: whether one answer is wanted, or a list.
        queries: rows of titles, which are not among their own answers, or names that a cluster looks up; users; or
            vectors, float32 (queries, dim), prepared.
        told: what `members_json` makes of each query, where it is at hand.
        size: how many queries.
        kind: what must be the same for two to be searched and written together.
    """

    served: Served
    k: int
    asked: dict[str, Sequence[Any]]
    is_single: bool
    queries: tuple[int, ...] | Names | UserRows | Vectors
    told: tuple[bytes, ...] = ()
    size: int = 0
    kind: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        queries = self.queries
        of = queries.kind if isinstance(queries, UserRows) else type(queries)
        self.size, self.kind = len(queries), (id(self.served), self.k, of)


def joined(plains: Sequence[Plain]) -> tuple[Vectors | UserRows, Exclusions | None]:
    """Return the queries of questions of one kind as a search takes them, and the rows that single ones exclude."""
    served, first = plains[0].served, plains[0].queries
    if isinstance(first, tuple):
        rows = list(chain.from_iterable(one.queries for one in plains))  # type: ignore[misc]
        return served.recommender.index.vectors(rows), Exclusions.one_each(rows)
    if isinstance(first, UserRows):
        return UserRows.joined([one.queries for one in plains]), None  # type: ignore[misc]
    return np.concatenate([one.queries for one in plains]), None


class LookedUp(msgspec.Struct, eq=False):
    """A question as a request has it, its vectors where it brings some, and how it is answered.

    Attributes:
        plain: what is searched; None where `ask` is needed.
    """

    question: msgspec.Struct
    vectors: NDArray[Any] | None
    as_arrow: bool
    plain: Plain | None


def plain(served: Served, question: msgspec.Struct, vectors: NDArray[Any] | None) -> Plain | None:
    """Look a question up; None where `ask` is needed, be it only to say what is wrong with it."""
    try:
        if isinstance(question, Similar):
            asks_by_direction = question.is_plain and question.by == "whole" and served.normalizes
            return _similar(served, question) if asks_by_direction else None
        if isinstance(question, Recommend):
            return _recommend(served, question) if question.is_plain else None
        if isinstance(question, Search) and question.is_plain and vectors is not None:
            return _search(served, question, vectors)
    except SemrecError:
        return None
    return None


def _similar(served: Served, question: Similar) -> Plain | None:
    if served.in_cluster:
        return _by_name(served, question)
    if isinstance(question.titles, UnsetType):
        one = served.known(str(question.title))
        if one is None:
            return None
        return Plain(served, question.k, {}, True, one[:1], one[1:])
    if len(question.titles) > MOST_QUERIES:
        return None
    found = [title for title in map(served.known, map(str, question.titles)) if title is not None]
    if len(found) < len(question.titles):
        return None
    rows, told = zip(*found, strict=True)
    return Plain(served, question.k, {}, False, rows, told)


def _by_name(served: Served, question: Similar) -> Plain | None:
    is_single = isinstance(question.titles, UnsetType)
    names = (question.title,) if isinstance(question.titles, UnsetType) else question.titles
    if len(names) > MOST_QUERIES:
        return None
    return Plain(served, question.k, {"media_id": (), "title": ()}, is_single, Names(tuple(map(str, names))))


def _recommend(served: Served, question: Recommend) -> Plain | None:
    recommender = served.recommender
    is_single = isinstance(question.users, UnsetType)
    users = [question.user] if isinstance(question.users, UnsetType) else question.users
    profile = recommender.saved.config.profile
    is_one_search = profile is None or profile.is_one_search
    if isinstance(users[0], UnsetType) or len(users) > MOST_QUERIES or question.profile or not is_one_search:
        return None
    ids = tuple(map(str, users))
    rows = recommender.users.known_rows(ids)
    if rows.min() < 0:  # to look for what was meant takes longer than may pass between two requests
        return None
    if np.isin(rows, recommender.users.without_likes).any():
        return None
    return Plain(
        served, question.k, {"user_id": ids}, is_single, UserRows(recommender.users, rows, question.include_seen)
    )


def _search(served: Served, question: Search, vectors: NDArray[Any]) -> Plain | None:
    if len(vectors) > MOST_QUERIES:
        return None
    queries = served.recommender.index.prepare(vectors)
    return Plain(served, question.k, {"position": range(len(queries))}, False, queries)
