"""A question, asked of the index, and its answer as bytes; what is one plain search goes another way, see `plain`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from semrec_faiss.deadline import raise_if_late
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.search.answers.notes import notes_on
from semrec_faiss.search.explanation import Explanation
from semrec_faiss.search.profile.taste import Taste
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.serve.wire.arrow import arrow_stream
from semrec_faiss.serve.wire.messages import ARROW, Reply
from semrec_faiss.serve.wire.questions import Explain, Recommend, Search, Similar, whole

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
        return _one_by_one(recommender, question, [recommender.titles.find(str(title)) for title in titles])
    rows = [recommender.titles.find(str(title)) for title in titles]
    wish = Wish.of(question.k, **question.wish())
    started = time.perf_counter()
    found = recommender.searcher.run(recommender.index.vectors(rows), wish, Exclusions.of([[row] for row in rows]))
    elapsed_ms = (time.perf_counter() - started) * 1e3
    notes = notes_on(found, wish.filter, recommender.searcher)
    return Answers(found, wish.k, titles_asked(recommender, rows), recommender.titles, elapsed_ms, notes=notes)


def _one_by_one(recommender: Recommender, question: Similar, rows: Sequence[int]) -> Answers:
    """Compare by cosine, by a scan for each title; raises TooLateError where nobody waits for the rest of them."""
    asked, started = titles_asked(recommender, rows), time.perf_counter()
    answers = []
    for media_id in asked["media_id"]:
        raise_if_late("the titles that are left were not asked about")
        answers.append(recommender.similar(media_id, question.k, by=question.by, **question.wish()))
    found = TopK.empty(len(rows), max(one.returned for one in answers), all(one.exact for one in answers))
    for at, one in enumerate(answers):
        found.rows[at, : one.returned], found.scores[at, : one.returned] = one.rows, one.scores
        found.matching[at] = one.matching
    found.strategy = "+".join(dict.fromkeys(one.strategy for one in answers))
    found.titles_seen = min(one.titles_seen for one in answers)
    found.stages = [stage for one in answers for stage in one.stages]
    elapsed_ms = (time.perf_counter() - started) * 1e3
    return Answers(found, question.k, asked, recommender.titles, elapsed_ms, notes=answers[0].notes)


def _recommend(recommender: Recommender, question: Recommend) -> Answer | Answers:
    profile = whole(question.profile) or None
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
    taste = Taste(question.likes, question.dislikes, question.ratings)
    return recommender.recommend_for(taste, question.k, **question.wish())


def titles_asked(recommender: Recommender, rows: Sequence[int]) -> dict[str, Sequence[Any]]:
    """Return what is asked of titles' rows, by name: a value per title."""
    records = recommender.titles.records(rows)
    return {name: [record[name] for record in records] for name in ("media_id", "title")}


def seconds_of(found: Found) -> dict[str, float]:
    """Tell how many seconds a filter took, where there was one, and the search besides; nothing of an explanation."""
    if isinstance(found, Explanation):
        return {}
    filters = [stage.elapsed_ms / 1e3 for stage in found.stages if stage.name == "filter"]
    search = {"search": max(0.0, found.elapsed_ms / 1e3 - sum(filters))}
    return search | {"filter": sum(filters)} if filters else search


def rendered(found: Found, *, as_arrow: bool) -> Reply:
    """Return what was found as JSON, the same as that of `--json`, or as an Arrow stream."""
    if isinstance(found, Explanation):
        return Reply(msgspec.json.encode(found.as_dict()))
    short = _short(found)
    if as_arrow:
        return Reply(arrow_stream(found), kind=ARROW, short=short)
    return Reply(found.as_json_bytes(), short=short)


def _short(found: Answer | Answers) -> int:
    """Count the answers of fewer titles than were asked for."""
    if isinstance(found, Answer):
        return int(found.returned < found.requested)
    if found.rows.shape[1] < found.requested:
        return len(found.rows)
    return int(np.count_nonzero(found.rows[:, -1] < 0))
