"""A parity certificate: do CPU and GPU give the same answers, and are these what arithmetic in float64 gives?

Overlap credits ties: a title counts when its exact score is above the last one of the other list, or ties with it.
"""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.search_result import SearchResult
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.guide.batches import batch_queries
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.details import Agreement, Certificate, NearTie
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Sides
from semrec_faiss.measure.quality.metrics import TIE_TOLERANCE, exact_scores, recall_at_k
from semrec_faiss.progress import Progress

REFERENCE_ROWS = 16_384
"""Titles compared in float64 at once."""

LISTED = 20
"""Differences that are listed one by one."""


def parity_certificate(sides: Sides, settings: CompareSettings, progress: Progress) -> Outcome:
    """Ask both sides the same, and the first of it of plain float64 arithmetic."""
    wanted, k = settings.parity, min(settings.batch.k, sides.cpu.recommender.index.count)
    progress("parity", 0, 3)
    queries, made_by = batch_queries(sides.cpu.recommender, wanted.queries, settings.seed)
    found = {side.kind: side.recommender.index.search(queries, k, prepared=True) for side in sides}
    progress("parity", 1, 3)
    index = sides.cpu.recommender.index
    asked = min(wanted.reference_queries, len(queries))
    reference = float64_search(index, queries[:asked], k)
    progress("parity", 2, 3)
    against = {
        kind: agreement(index, queries[:asked], _first(result, asked), reference) for kind, result in found.items()
    }
    both: Agreement | None = None
    if "gpu" in found:
        both = agreement(index, queries, found["gpu"], found["cpu"])
        both.differences = differences(sides, found["gpu"], found["cpu"])
    progress("parity", 3, 3)
    certificate = Certificate.of(
        queries=len(queries),
        queries_are=made_by,
        k=k,
        exact_index=index.exact,
        tie_tolerance=TIE_TOLERANCE,
        gpu_to_cpu=both or sides.no_gpu,
        reference_queries=asked,
        **{f"{kind}_to_float64": one for kind, one in against.items()},
    )
    return Outcome(None, certificate, _criteria(both, against[sides.main.kind], sides, settings))


def float64_search(index: VectorIndex, queries: Vectors, k: int) -> SearchResult:
    """Rank all titles by inner products in float64, ties by row: what an exact search must give.

    Args:
        index: the titles.
        queries: float32 (queries, dim).
        k: how many titles.

    Returns:
        Rows and float32 scores, (queries, k) each.
    """
    wide = queries.astype(np.float64)
    scores = np.empty((len(queries), 0))
    rows = np.empty((len(queries), 0), np.int64)
    for first in range(0, index.count, REFERENCE_ROWS):
        block = np.arange(first, min(first + REFERENCE_ROWS, index.count))
        products = wide @ index.vectors(block).astype(np.float64).T
        scores = np.concatenate([scores, products], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(block, products.shape)], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return SearchResult(rows, scores.astype(np.float32), True, "float64")


def agreement(index: VectorIndex, queries: Vectors, ours: SearchResult, theirs: SearchResult) -> Agreement:
    """Say how far two answers to the same queries, float32 (queries, dim), are the same."""
    own = exact_scores(queries, ours.rows, index.vectors)
    other = exact_scores(queries, theirs.rows, index.vectors)
    overlap = recall_at_k(ours.rows, own, -np.sort(-other, axis=1))
    return Agreement(
        overlap=float(overlap.mean()),
        queries_with_all=float((overlap == 1.0).mean()),
        same_place=float((ours.rows == theirs.rows).mean()),
        largest_score_difference=float(np.abs(ours.scores - theirs.scores).max()),
        largest_score_error=float(np.abs(ours.scores - own).max()),
    )


def differences(sides: Sides, ours: SearchResult, theirs: SearchResult) -> list[NearTie]:
    """List the first places where the GPU has another title than the CPU, with both scores: near-ties, as a rule."""
    catalog = sides.cpu.recommender.catalog
    listed = []
    for query, place in np.argwhere(ours.rows != theirs.rows)[:LISTED].tolist():
        rows = [int(ours.rows[query, place]), int(theirs.rows[query, place])]
        gpu, cpu = (record["title"] for record in catalog.records(rows))
        scores = float(ours.scores[query, place]), float(theirs.scores[query, place])
        listed.append(
            NearTie(
                query=query,
                rank=place + 1,
                gpu_title=gpu,
                cpu_title=cpu,
                gpu_score=scores[0],
                cpu_score=scores[1],
                score_difference=scores[0] - scores[1],
            )
        )
    return listed


def _first(result: SearchResult, count: int) -> SearchResult:
    return SearchResult(result.rows[:count], result.scores[:count], result.exact, result.strategy)


def _criteria(both: Agreement | None, against: Agreement, sides: Sides, settings: CompareSettings) -> list[Criterion]:
    target = settings.parity.target_overlap
    is_exact, found = sides.main.recommender.index.exact, against.overlap
    return [
        Criterion.judge(
            0,
            "parity",
            "results that CPU and GPU share",
            both.overlap if both else None,
            target,
            "share",
            at_least=True,
            reason=sides.why_no_gpu,
        ),
        Criterion.judge(
            0,
            "reference",
            "results that float64 arithmetic gives too",
            found if is_exact else None,
            target,
            "share",
            at_least=True,
            reason=None if is_exact else f"the index is approximate; its recall is {found:.4f}",
        ),
    ]
