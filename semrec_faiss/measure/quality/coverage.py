"""What a recommender is judged by beside recall: how much of the catalogue it shows, and whose titles it misses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.measure.quality.metrics import TIE_TOLERANCE


def coverage(rows: Rows, titles: int) -> float:
    """Return the share of all titles that at least one query was given.

    Args:
        rows: int64 (queries, k); -1 where there is none.
        titles: how many there are.
    """
    return len(np.unique(rows[rows >= 0])) / titles


def found_of_truth(rows: Rows, scores: Scores, truth_rows: Rows, truth_scores: Scores) -> NDArray[np.bool_]:
    """Tell for each title of the exact lists whether it was found; one that a found title ties with counts as found.

    Args:
        rows: int64 (queries, k), what was found; -1 where there is none.
        scores: float (queries, k), its exact scores.
        truth_rows: int64 (queries, k'), the exact lists; -1 where there is none.
        truth_scores: float (queries, k'), their scores, descending.

    Returns:
        bool (queries, k').
    """
    same = (truth_rows[:, :, None] == rows[:, None, :]).any(axis=2)
    found: NDArray[np.bool_] = same & (truth_rows >= 0)
    for query in np.flatnonzero(((truth_rows >= 0) & ~found).any(axis=1)):
        strangers = (rows[query] >= 0) & ~np.isin(rows[query], truth_rows[query])
        spare = sorted(scores[query][strangers].tolist(), reverse=True)
        for place in np.flatnonzero((truth_rows[query] >= 0) & ~found[query]):
            score = float(truth_scores[query, place])
            slack = TIE_TOLERANCE * max(1.0, abs(score))
            match = next((other for other in spare if abs(other - score) <= slack), None)
            if match is not None:
                spare.remove(match)
                found[query, place] = True
    return found


def recall_by_decile(found: NDArray[np.bool_], truth_rows: Rows, deciles: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the recall of each tenth of the catalogue by popularity, the most popular first.

    Args:
        found: bool (queries, k), see `found_of_truth`.
        truth_rows: int64 (queries, k); -1 where there is none.
        deciles: int64 (titles,), from 1 to 10.

    Returns:
        A row a decile: how many places of exact lists its titles have, and the share found, None where it has none.
    """
    there = truth_rows >= 0
    of = deciles[np.maximum(truth_rows, 0)]
    return [{"decile": decile, **_share(found, there & (of == decile))} for decile in range(1, 11)]


def recall_by_slice(
    found: NDArray[np.bool_], truth_rows: Rows, slices: Mapping[str, NDArray[np.bool_]]
) -> list[dict[str, Any]]:
    """Return the recall of the titles of each slice; see `recall_by_decile`.

    Args:
        found: bool (queries, k).
        truth_rows: int64 (queries, k); -1 where there is none.
        slices: bool (titles,) by name; a title may be in several.
    """
    there = truth_rows >= 0
    safe = np.maximum(truth_rows, 0)
    return [{"value": name, **_share(found, there & mask[safe])} for name, mask in slices.items()]


def _share(found: NDArray[np.bool_], places: NDArray[np.bool_]) -> dict[str, Any]:
    count = int(places.sum())
    return {"places": count, "recall": round(float(found[places].mean()), 6) if count else None}
