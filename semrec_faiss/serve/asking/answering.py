"""A question, asked of the index: in a thread where it may take long, and straight to the device where it cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.answers.answer import Answer, Answers
from semrec_faiss.search.answers.answer_json import answers_json
from semrec_faiss.search.explanation import Explanation
from semrec_faiss.search.profile.taste import Taste
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.asking.serving import Served
from semrec_faiss.serve.wire.arrow import arrow_stream
from semrec_faiss.serve.wire.messages import ARROW, Reply
from semrec_faiss.serve.wire.questions import Explain, Recommend, Search, Similar

QUICK_QUERIES = 8
"""Of so many queries an answer is made between two requests; of more it takes long enough for a thread of its own."""

Found = Answer | Answers | Explanation


def ask(served: Served, question: msgspec.Struct, vectors: NDArray[Any] | None) -> Found:
    """Ask anything; may load a catalogue or a model, and waits for the device. Raises what a Recommender does."""
    recommender = served.recommender
    if isinstance(question, Similar):
        return _similar(recommender, question)
    if isinstance(question, Recommend):
        return _recommend(recommender, question)
    if isinstance(question, Search):
        if vectors is not None:
            return recommender.search(vectors, question.k, **question.wish())
        texts = question.text if isinstance(question.text, str) else question.texts
        return recommender.search_text(texts, question.k, **question.wish())  # type: ignore[arg-type]
    if isinstance(question, Explain):
        return recommender.explain(question.user, question.title, question.k)
    raise TypeError(type(question).__name__)


def _similar(recommender: Recommender, question: Similar) -> Answer | Answers:
    if not isinstance(question.title, UnsetType):
        return recommender.similar(question.title, question.k, by=question.by, **question.wish())
    titles = [] if isinstance(question.titles, UnsetType) else question.titles
    if question.by != "whole" or not recommender.index.config.normalize:
        raise UsageError(
            "several titles at once are compared by whole vectors of an index that normalises", fix="ask title by title"
        )
    rows = [recommender.titles.find(str(title)) for title in titles]
    wish = Wish.of(question.k, **question.wish())
    started = time.perf_counter()
    found = recommender.searcher.run(recommender.index.vectors(rows), wish, Exclusions.of([[row] for row in rows]))
    elapsed_ms = (time.perf_counter() - started) * 1e3
    return Answers(found, wish.k, _names(recommender, rows), recommender.titles, elapsed_ms)


def _recommend(recommender: Recommender, question: Recommend) -> Answer | Answers:
    profile = question.profile or None
    if not isinstance(question.user, UnsetType):
        return recommender.recommend(
            question.user, question.k, include_seen=question.include_seen, profile=profile, **question.wish()
        )
    if not isinstance(question.users, UnsetType):
        return recommender.recommend(
            question.users, question.k, include_seen=question.include_seen, profile=profile, **question.wish()
        )
    if profile:
        raise UsageError("the profile of a taste is that of the index", fix="leave profile out")
    taste = Taste(tuple(question.likes), tuple(question.dislikes), question.ratings)
    return recommender.recommend_for(taste, question.k, **question.wish())


@dataclass(frozen=True)
class Quick:
    """A question that is one plain search of a few queries, looked up already.

    Attributes:
        served: what it is asked of.
        queries: float32 (queries, dim), prepared.
        wish: nothing but k.
        asked: what was asked, by name.
        exclusions: rows that single queries must not return.
        is_single: whether one answer is wanted, or a list.
    """

    served: Served
    queries: Vectors
    wish: Wish
    asked: dict[str, Sequence[Any]]
    exclusions: Exclusions | None
    is_single: bool

    def answers(self, found: TopK, elapsed_ms: float) -> Answers:
        """Return what the search found as a Recommender does."""
        return Answers(found, self.wish.k, self.asked, self.served.recommender.titles, elapsed_ms)


def quick(served: Served, question: msgspec.Struct, vectors: NDArray[Any] | None) -> Quick | None:
    """Look a question up in microseconds; None where `ask` is needed, be it only to say what is wrong with it."""
    try:
        if isinstance(question, Similar) and question.is_plain:
            return _quick_similar(served, question)
        if isinstance(question, Recommend) and question.is_plain:
            return _quick_recommend(served, question)
        if isinstance(question, Search) and question.is_plain and vectors is not None:
            return _quick_search(served, question, vectors)
    except SemrecError:
        return None
    return None


def _quick_similar(served: Served, question: Similar) -> Quick | None:
    recommender = served.recommender
    is_single = isinstance(question.titles, UnsetType)
    titles = [question.title] if isinstance(question.titles, UnsetType) else question.titles
    if question.by != "whole" or not recommender.index.config.normalize or len(titles) > QUICK_QUERIES:
        return None
    found = [title for title in map(served.known, map(str, titles)) if title is not None]
    if len(found) < len(titles):
        return None
    rows, ids, names = zip(*found, strict=True)
    exclusions = Exclusions(np.arange(len(rows) + 1), np.array(rows))
    asked: dict[str, Sequence[Any]] = {"media_id": ids, "title": names}
    return Quick(served, recommender.index.vectors(list(rows)), Wish(question.k), asked, exclusions, is_single)


def _quick_recommend(served: Served, question: Recommend) -> Quick | None:
    recommender = served.recommender
    is_single = isinstance(question.users, UnsetType)
    users = [question.user] if isinstance(question.users, UnsetType) else question.users
    profile = recommender.saved.config.profile
    if (
        isinstance(users[0], UnsetType)
        or len(users) > QUICK_QUERIES
        or question.profile
        or not (profile is None or profile.is_one_search)
    ):
        return None
    ids = tuple(map(str, users))
    rows = recommender.users.rows_of(ids)
    if np.isin(rows, recommender.users.without_likes).any():
        return None
    vectors = np.ascontiguousarray(recommender.users.vectors[rows])
    exclusions = None if question.include_seen else recommender.seen(rows)
    return Quick(served, vectors, Wish(question.k), {"user_id": ids}, exclusions, is_single)


def _quick_search(served: Served, question: Search, vectors: NDArray[Any]) -> Quick | None:
    if len(vectors) > QUICK_QUERIES:
        return None
    queries = served.recommender.index.prepare(vectors)
    return Quick(served, queries, Wish(question.k), {"position": range(len(queries))}, None, is_single=False)


def _names(recommender: Recommender, rows: Sequence[int]) -> dict[str, Sequence[Any]]:
    records = recommender.titles.records(rows)
    return {name: [record[name] for record in records] for name in ("media_id", "title")}


def rendered(found: Found, *, as_arrow: bool, is_single: bool = False) -> Reply:
    """Return what was found as JSON, the same as that of `--json`, or as an Arrow stream."""
    if isinstance(found, Explanation):
        return Reply(msgspec.json.encode(found.as_dict()))
    short = _short(found)
    if as_arrow:
        return Reply(arrow_stream(found), kind=ARROW, short=short)
    if isinstance(found, Answers) and is_single:
        return Reply(answers_json(found)[0], short=short)
    return Reply(found.as_json_bytes(), short=short)


def _short(found: Answer | Answers) -> int:
    """Count the answers of fewer titles than were asked for."""
    if isinstance(found, Answer):
        return int(found.returned < found.requested)
    if found.rows.shape[1] < found.requested:
        return len(found.rows)
    return int(np.count_nonzero(found.rows[:, -1] < 0))
