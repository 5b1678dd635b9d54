"""Answers as JSON text: the titles' records are stored as JSON and joined as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.search.answers.result import OURS, record_of, shown_names

if TYPE_CHECKING:
    from semrec_faiss.search.answers.batch import Answers


OWN = ("query", "requested", "matching", "returned")
"""What is written answer by answer, before what is the same for a batch."""


def numbers_json(numbers: list[float]) -> list[bytes]:
    """Return each number as `json` writes it; one repr of all takes a fraction of the time."""
    return repr(numbers)[1:-1].encode().split(b", ")


def answers_json(answers: Answers, written: Callable[[list[float]], list[bytes]] = numbers_json) -> list[bytes]:
    """Return each answer as one JSON object, what `Answer.as_dict` holds.

    Args:
        answers: finite scores, as every search's are.
        written: does what `numbers_json` does.
    """
    kept = answers.rows >= 0
    ends = np.cumsum(kept.sum(axis=1)).tolist()
    # All scores at once, and slices put together: a Python loop over all titles would take most of the time.
    scores = written(answers.scores[kept].tolist())
    records = [b"," + line[1:] for line in _lines(answers)]
    heads = _heads(answers.rows.shape[1])
    facts = {name: value for name, value in answers[0].head().items() if name not in OWN} if len(answers) else {}
    same_for_all = _json(facts)[1:-1]
    lines, start = [], 0
    for query, matching, end in zip(_queries_json(answers.asked), answers.matching.tolist(), ends, strict=True):
        count = end - start
        results = [b""] * (3 * count)
        results[0::3], results[1::3], results[2::3] = heads[:count], scores[start:end], records[start:end]
        own = b'{"query":{%s},"requested":%d,"matching":%d,"returned":%d,' % (query, answers.requested, matching, count)
        lines.append(b'%s%s,"results":[%s]}' % (own, same_for_all, b"".join(results)))
        start = end
    return lines


def _queries_json(asked: Mapping[str, Sequence[Any]]) -> Iterable[bytes]:
    """Return the members of each query's JSON object."""
    columns = [_members(name, values) for name, values in asked.items()]
    return map(b", ".join, zip(*columns, strict=True))


def _members(name: str, values: Sequence[Any]) -> list[bytes]:
    head = _json(name) + b": "
    if len(values) and all(
        type(value) is str for value in values
    ):  # as most are: encoded in one go, and no text has a raw newline
        texts = _LINES.encode(list(values))[1:-1].encode("utf-8", "backslashreplace").split(b"\n")
        return [head + text for text in texts]
    return [head + _json(value) for value in values]


@lru_cache(64)
def _heads(count: int) -> list[bytes]:
    """Return how each result of a list begins, up to its score."""
    return [b'%s{"rank":%d,"score":' % (b"," if rank > 1 else b"", rank) for rank in range(1, count + 1)]


_ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps makes one each time
_LINES = json.JSONEncoder(ensure_ascii=False, separators=("\n", ": "))


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


def _lines(answers: Answers) -> list[bytes]:
    """Return the record of every title of every answer, one after the other."""
    rows = answers.rows[answers.rows >= 0]
    lines = answers.titles.lines(rows)
    names = shown_names(answers.titles.fields, OURS)
    if all(name == shown for name, shown in names.items()):
        return lines
    records = (record_of(line) for line in lines)
    return [
        json.dumps({names.get(name, name): value for name, value in record.items()}, ensure_ascii=False).encode()
        for record in records
    ]
