"""Answers as JSON text: the titles' records are stored as JSON and joined as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from semrec_faiss.search.answers.result import OURS, record_of, shown_names

if TYPE_CHECKING:
    from semrec_faiss.search.answers.answer import Answers


OWN = ("query", "requested", "matching", "returned")
"""What is written answer by answer, before what is the same for a batch."""


def answers_json(answers: Answers) -> list[bytes]:
    """Return each answer as one JSON object, what `Answer.as_dict` holds."""
    kept = answers.rows >= 0
    lines = _lines(answers)
    ends = np.cumsum(kept.sum(axis=1)).tolist()
    scores = answers.scores[kept].tolist()
    facts = {name: value for name, value in answers[0].head().items() if name not in OWN} if len(answers) else {}
    same_for_all = _json(facts)[1:-1]
    written, start = [], 0
    for position, (matching, end) in enumerate(zip(answers.matching.tolist(), ends, strict=True)):
        query = _json({name: values[position] for name, values in answers.asked.items()})
        counts = (answers.requested, matching, end - start)
        own = b'{"query":%s,"requested":%d,"matching":%d,"returned":%d,' % (query, *counts)
        results = b",".join(
            b'{"rank":%d,"score":%s,%s' % (place - start + 1, repr(scores[place]).encode(), lines[place][1:])
            for place in range(start, end)
        )
        written.append(b'%s%s,"results":[%s]}' % (own, same_for_all, results))
        start = end
    return written


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


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
