"""Answers as JSON text: the titles' records are stored as JSON and joined as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from semrec_faiss.arrays import Rows
from semrec_faiss.search.answers.result import OURS, Lines, record_of, shown_names

if TYPE_CHECKING:
    from semrec_faiss.search.answers.batch import Answers


def numbers_json(numbers: list[float]) -> list[bytes]:
    """Return each number as `json` writes it; one repr of all takes a fraction of the time."""
    return repr(numbers)[1:-1].encode().split(b", ")


def answers_json(
    answers: Answers,
    written: Callable[[list[float]], list[bytes]] = numbers_json,
    records: Callable[[Rows], list[bytes]] | None = None,
    queries: Sequence[bytes] | None = None,
) -> list[bytes]:
    """Return each answer as one JSON object, what `Answer.as_dict` holds.

    Args:
        answers: finite scores, as every search's are.
        written: does what `numbers_json` does.
        records: does what `shown_records` does for rows of the answers' titles, which None reads.
        queries: what `members_json` makes of each query, where the caller has it.
    """
    rows, scores = answers.rows, answers.scores
    size, width = rows.shape
    is_full = size > 0 and width > 0 and int(rows[:, -1].min()) >= 0
    counts = [width] * size if is_full else (rows >= 0).sum(axis=1).tolist()
    kept = slice(None) if is_full else rows >= 0
    rows, scores = rows[kept].ravel(), scores[kept].ravel()
    # All at once, and slices put together: a Python loop over all titles would take most of the time.
    results = [b""] * (3 * len(rows))
    heads = _heads(width)
    results[0::3] = heads * size if is_full else chain.from_iterable(heads[:count] for count in counts)
    results[1::3] = written(scores.tolist()) if len(rows) else []
    results[2::3] = shown_records(answers.titles, rows) if records is None else records(rows)
    facts = _json(answers.facts)[1:-1]
    facts_of = {
        (matching, count): b'},"requested":%d,"matching":%d,"returned":%d,%s,"results":['
        % (answers.requested, matching, count, facts)
        for matching, count in {*zip(answers.matching.tolist(), counts, strict=True)}
    }
    lines, start = [], 0
    told = _queries_json(answers.asked) if queries is None else queries
    for query, matching, count in zip(told, answers.matching.tolist(), counts, strict=True):
        stop = start + 3 * count
        lines.append(b"".join((b'{"query":{', query, facts_of[matching, count], *results[start:stop], b"]}")))
        start = stop
    return lines


def members_json(query: Mapping[str, Any]) -> bytes:
    """Return the members of a query's JSON object."""
    return b", ".join(_json(name) + b": " + _json(value) for name, value in query.items())


def _queries_json(asked: Mapping[str, Sequence[Any]]) -> Iterable[bytes]:
    """Return the members of each query's JSON object."""
    columns = [_members(name, values) for name, values in asked.items()]
    return map(b", ".join, zip(*columns, strict=True))


def _members(name: str, values: Sequence[Any]) -> list[bytes]:
    head = _json(name) + b": "
    return [head + _json(value) for value in values]


@lru_cache(64)
def _heads(count: int) -> list[bytes]:
    """Return how each result of a list begins, up to its score."""
    return [b'%s{"rank":%d,"score":' % (b"," if rank > 1 else b"", rank) for rank in range(1, count + 1)]


_ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps makes one each time


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


def shown_records(titles: Lines, rows: Rows | list[int]) -> list[bytes]:
    """Return what each title's record says behind rank and score, as a result goes on: ``,"media_id": …}``."""
    lines = titles.lines(rows)
    names = shown_names(titles.fields, OURS)
    if all(name == shown for name, shown in names.items()):
        return [b"," + line[1:] for line in lines]
    records = (record_of(line) for line in lines)
    shown = ({names.get(name, name): value for name, value in record.items()} for record in records)
    return [b"," + json.dumps(record, ensure_ascii=False).encode()[1:] for record in shown]
