"""Where a pass leaves its answers: one buffer of bytes, so that a single copy moves them."""

from __future__ import annotations

from typing import Any

from semrec_faiss.index.fused.titles.gpu_titles import load_torch


def answers_in(buffer: Any, queries: int, k: int) -> tuple[Any, Any, Any]:
    """Lay rows, scores and what proves them over one buffer of bytes, so that a single copy moves them.

    Returns:
        Views: int64 (queries, k), float32 (queries, k), float32 (queries,), see `kernels.ranking.rank_rows`.
    """
    torch = load_torch()
    rows, scores, needed = buffer.split(answer_bytes(queries, k))
    return (
        rows[: 8 * queries * k].view(torch.int64).view(queries, k),
        scores[: 4 * queries * k].view(torch.float32).view(queries, k),
        needed[: 4 * queries].view(torch.float32),
    )


def answer_bytes(queries: int, k: int) -> list[int]:
    """Return the bytes of rows, scores and what proves them, each of them up to a multiple of 16.

    For pointers that are no multiples of 16 Triton compiles a kernel anew: for every other number of queries, once.
    """
    return [-(-size // 16) * 16 for size in (8 * queries * k, 4 * queries * k, 4 * queries)]
