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
) -> list[bytes]:
    """Return each answer as one JSON object, what `Answer.as_dict` holds.

    Args:
        answers: finite scores, as every search's are.
        written: does what `numbers_json` does.
        records: does what `shown_records` does for rows of the answers' titles, which None reads.
    """
    kept = answers.rows >= 0
    counts = kept.sum(axis=1).tolist()
    rows = answers.rows[kept]
    heads = _heads(answers.rows.shape[1])
    # All at once, and slices put together: a Python loop over all titles would take most of the time.
    results = [b""] * (3 * len(rows))
    results[0::3] = list(chain.from_iterable(heads[:count] for count in counts))
    results[1::3] = written(answers.scores[kept].tolist()) if len(rows) else []
    results[2::3] = shown_records(answers.titles, rows) if records is None else records(rows)
    same_for_all = _json(answers.facts)[1:-1]
    lines, start = [], 0
    for query, matching, count in zip(_queries_json(answers.asked), answers.matching.tolist(), counts, strict=True):
        own = b'{"query":{%s},"requested":%d,"matching":%d,"returned":%d,' % (query, answers.requested, matching, count)
        stop = start + 3 * count
        lines.append(b"".join((own, same_for_all, b',"results":[', *results[start:stop], b"]}")))
        start = stop
    return lines


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
