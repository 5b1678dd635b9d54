"""How good one index's answers to a sweep's questions are, and a few of them written out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows
from semrec_faiss.measure.documents.results import NotMeasured, Unsettled
from semrec_faiss.measure.quality.coverage import coverage, found_of_truth, recall_by_decile, recall_by_slice
from semrec_faiss.measure.quality.metrics import (
    confidence_interval,
    descending,
    exact_scores,
    fill_rate,
    mean_of,
    ndcg_at_k,
    recall_at_k,
)
from semrec_faiss.measure.quality.truth import Truth
from semrec_faiss.measure.trials.questions import SweepData
from semrec_faiss.measure.trials.record_parts import Asked, ExactTitle, Example

EXAMPLES_OF_EACH = 2
"""Titles, and users, whose answers are written out: those that most is missed of."""

NO_TITLES = NotMeasured("no titles are asked")
NO_USERS = NotMeasured("no users are asked")
NO_MATCH = NotMeasured("no title matches the filter")


def quality_of(rows: Rows, data: SweepData, truth: Truth, *, field: str | None) -> Unsettled:
    """Judge the answers to all questions.

    Args:
        rows: int64 (queries, k), what was found; -1 where there is none.
        data: what was asked.
        truth: the exact answers.
        field: a metadata field by whose values recall is told apart; None for none.
    """
    k = truth.rows.shape[1]
    rows = _widened(rows, k)
    scores = exact_scores(data.questions.vectors, rows, data.vectors_of)
    exact = exact_scores(data.questions.vectors, truth.rows, data.vectors_of)  # summed as the found ones are
    ordered = descending(exact)
    recalls = recall_at_k(rows, scores, ordered)
    titles = data.questions.are_titles
    interval = confidence_interval(recalls)
    found = found_of_truth(rows, scores, truth.rows, exact)
    deciles = data.deciles
    return {
        "recall": _rounded(mean_of(recalls)),
        "recall_interval": NO_MATCH if interval is None else interval.as_dict(),
        "recall_titles": _rounded(mean_of(recalls[titles])) if titles.any() else NO_TITLES,
        "recall_users": _rounded(mean_of(recalls[~titles])) if (~titles).any() else NO_USERS,
        "ndcg": _rounded(mean_of(ndcg_at_k(rows, scores, ordered))),
        "fill_rate": _rounded(mean_of(fill_rate(rows, truth.matching))),
        "matching": truth.matching,
        "selectivity": round(truth.matching / data.count, 6),
        "coverage": round(coverage(rows, data.count), 6),
        "coverage_exact": round(coverage(truth.rows, data.count), 6),
        "by_popularity": deciles if isinstance(deciles, NotMeasured) else recall_by_decile(found, truth.rows, deciles),
        "by_slice": NotMeasured("no slice was asked for")
        if field is None
        else {"field": field, "values": recall_by_slice(found, truth.rows, data.slices(field))},
    }


def examples_of(rows: Rows, data: SweepData, truth: Truth) -> list[Example]:
    """Write out the answers of which most is missed: what the exact index gives, and what stands there instead.

    Args:
        rows: int64 (queries, k), the answers.
        data: what was searched.
        truth: the exact answers.
    """
    rows = _widened(rows, truth.rows.shape[1])
    scores = exact_scores(data.questions.vectors, rows, data.vectors_of)
    found = found_of_truth(rows, scores, truth.rows, exact_scores(data.questions.vectors, truth.rows, data.vectors_of))
    missed = ((truth.rows >= 0) & ~found).sum(axis=1)
    titles = len(data.questions.title_rows)
    chosen = [*_worst(missed[:titles], 0), *_worst(missed[titles:], titles)]
    return [_example(query, rows[query], found[query], data, truth) for query in chosen]


def _worst(missed: Rows, first: int) -> list[int]:
    order = np.lexsort((np.arange(len(missed)), -missed))[:EXAMPLES_OF_EACH]
    return [first + int(query) for query in order]


def _example(query: int, rows: Rows, found: NDArray[np.bool_], data: SweepData, truth: Truth) -> Example:
    titles = len(data.questions.title_rows)
    exact = truth.rows[query][truth.rows[query] >= 0]
    instead = [row for row in rows.tolist() if row >= 0 and row not in set(exact.tolist())]
    names = _names(data, [*exact.tolist(), *instead])
    if query < titles:
        asked = Asked(title=data.catalog.records([int(data.questions.title_rows[query])])[0]["title"])
    else:
        asked = Asked(user=data.user_ids[int(data.questions.user_rows[query - titles])])
    told = [ExactTitle(title=name, found=bool(was)) for name, was in zip(names, found[: len(exact)], strict=False)]
    return Example(query=asked, exact=told, instead=names[len(exact) :])


def _names(data: SweepData, rows: list[int]) -> list[str]:
    return [record["title"] for record in data.catalog.records(data.kept[np.asarray(rows, dtype=np.int64)])]


def _widened(rows: Rows, k: int) -> Rows:
    """Fill answers up to k places with -1: an index of fewer than k titles returns as many as it has."""
    if rows.shape[1] == k:
        return rows
    wide = np.full((len(rows), k), -1, np.int64)
    wide[:, : rows.shape[1]] = rows
    return wide


def _rounded(value: float | None) -> float | NotMeasured:
    return NO_MATCH if value is None else round(value, 6)
