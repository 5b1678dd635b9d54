"""What shards found for the same queries, as one answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semrec_faiss.index.search_result import Exactness, best_of_parts
from semrec_faiss.search.restricted.found import Stage, TopK


def merged(parts: Sequence[TopK], k: int, elapsed_ms: float, titles_seen: float = 1.0) -> TopK:
    """Merge the best titles of each shard exactly: the best of all, ties by row.

    Args:
        parts: what each shard found, in row order; rows of the whole.
        k: how many to keep.
        elapsed_ms: how long the slowest shard took to answer.
        titles_seen: the share of all titles that these shards have.
    """
    scores, rows = best_of_parts([part.scores for part in parts], [part.rows for part in parts], k)
    matching = np.stack([part.matching for part in parts]).sum(axis=0)
    strategy = "+".join(dict.fromkeys(name for part in parts for name in part.strategy.split("+")))
    slowest = max(parts, key=lambda part: sum(stage.elapsed_ms for stage in part.stages))
    stages = [*slowest.stages, Stage("shards", len(rows), len(parts), elapsed_ms)]
    exact = titles_seen == 1 and exactness([part.exact for part in parts])
    return TopK(rows, scores, matching, exact, strategy, stages, titles_seen)


def exactness(parts: Sequence[Exactness]) -> Exactness:
    """Return what is true of all parts."""
    if all(part == "proven" for part in parts):
        return "proven"
    return all(bool(part) for part in parts)
