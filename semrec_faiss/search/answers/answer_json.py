"""Answers as JSON text: the titles' records are stored as JSON and joined as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from semrec_faiss.search.answers.result import OURS, record_of, shown_names

if TYPE_CHECKING:
    from semrec_faiss.search.answers.answer import Answers


def answers_json(answers: Answers) -> list[bytes]:
    """Return each answer as one JSON object, what `Answer.as_dict` holds."""
    kept = answers.rows >= 0
    lines = _lines(answers)
    ends = np.cumsum(kept.sum(axis=1)).tolist()
    scores = answers.scores[kept].tolist()
    written, start = [], 0
    for answer, end in zip(answers, ends, strict=True):
        head = json.dumps(answer.head(), ensure_ascii=False)[:-1].encode("utf-8", "backslashreplace")
        results = b",".join(
            b'{"rank":%d,"score":%s,%s' % (place - start + 1, repr(scores[place]).encode(), lines[place][1:])
            for place in range(start, end)
        )
        written.append(b'%s,"results":[%s]}' % (head, results))
        start = end
    return written


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
