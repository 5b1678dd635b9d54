"""What type fused does with the few queries that no proof was found for: every title is compared in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.fused.one_pass import GpuTitles, as_tensor, load_torch
from semrec_faiss.index.fused.plan import bitmap_words

SCAN_TITLES = 65_536
SCAN_BYTES = 64 << 20
"""Titles, and bytes of scores, that a full comparison holds at once."""


def scan_titles(titles: GpuTitles, queries: Vectors, k: int, allowed_of: Callable[[slice], Any]) -> tuple[Rows, Scores]:
    """Find the k best titles of each query among all.

    Args:
        titles: with their originals.
        queries: float32 (queries, dim).
        k: titles a query.
        allowed_of: the bitmap of allowed rows of some of the queries, on the GPU, or None.

    Returns:
        int64 and float32 (queries, k), by descending score, ties by row; -1 and -inf where no more are allowed.
    """
    step = max(1, SCAN_BYTES // (4 * SCAN_TITLES))
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(queries), step):
        part = slice(start, min(start + step, len(queries)))
        given = as_tensor(queries[part]).to(titles.halves.device)
        found_scores, found_rows = (value.cpu().numpy() for value in _best(titles, given, k, allowed_of(part)))
        order = np.lexsort((found_rows, -found_scores), axis=1)
        scores[part] = np.take_along_axis(found_scores, order, axis=1)
        rows[part] = np.take_along_axis(found_rows, order, axis=1)
    rows[np.isneginf(scores)] = -1
    return rows, scores


def _best(titles: GpuTitles, queries: Any, k: int, allowed: Any) -> tuple[Any, Any]:
    torch = load_torch()
    device = queries.device
    best_scores = torch.full((len(queries), k), -torch.inf, device=device)
    best_rows = torch.zeros((len(queries), k), dtype=torch.int64, device=device)
    bits = torch.arange(32, dtype=torch.int32, device=device)
    for first in range(0, titles.count, SCAN_TITLES):
        last = min(first + SCAN_TITLES, titles.count)
        scores = _float32_product(torch, queries, titles.originals[first:last])
        if allowed is not None:
            words = allowed.view(-1, bitmap_words(titles.count))[:, first // 32 : -(-last // 32)]
            may = ((words[:, :, None] >> bits) & 1).bool().flatten(1)[:, : last - first]
            scores.masked_fill_(~may, -torch.inf)
        best_scores, at = torch.cat([best_scores, scores], dim=1).topk(k, dim=1)
        best_rows = torch.where(at < k, best_rows.gather(1, at.clamp(max=k - 1)), at + (first - k))
    return best_scores, best_rows


def _float32_product(torch: Any, queries: Any, titles: Any) -> Any:
    # torch 2.9 has a setting of another name, and refuses to have both in use.
    settings = torch.backends.cuda.matmul
    is_new = hasattr(settings, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if is_new else ("allow_tf32", False)
    before = getattr(settings, name)
    setattr(settings, name, exact)
    try:
        return queries @ titles.T
    finally:
        setattr(settings, name, before)
