"""What type fused does with the few queries that no proof was found for: every title is compared in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, as_tensor, load_torch

SCAN_TITLES = 16_384
SCAN_BYTES = 32 << 20
"""Titles, and bytes of scores, that a full comparison holds at once."""

NOTHING = -(2**63)
"""Less than the key of any title."""


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
    step = max(1, SCAN_BYTES // (8 * SCAN_TITLES))
    keys = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), step):
        part = slice(start, min(start + step, len(queries)))
        given = as_tensor(queries[part]).to(titles.halves.device)
        keys[part] = _best_keys(titles, given, k, allowed_of(part)).cpu().numpy()
    top = (keys >> 32).astype(np.int32)
    scores = (top ^ ((top >> 31) & 0x7FFFFFFF)).view(np.float32)
    scores[keys == NOTHING] = -np.inf
    return np.where(np.isneginf(scores), -1, 0x7FFFFFFF - (keys & 0x7FFFFFFF)), scores


def _best_keys(titles: GpuTitles, queries: Any, k: int, allowed: Any) -> Any:
    """Return int64 (queries, k) that sort by score, ties by row, as `kernels.ranking` makes them; best first."""
    torch = load_torch()
    device = queries.device
    best = torch.full((len(queries), k), NOTHING, dtype=torch.int64, device=device)
    bits = torch.arange(32, dtype=torch.int32, device=device)
    for first in range(0, titles.count, SCAN_TITLES):
        last = min(first + SCAN_TITLES, titles.count)
        scores = (queries.double() @ titles.exact_vectors(slice(first, last)).double().T).float()
        keys = _keys(torch, scores, _origins(torch, titles, first, last))
        if allowed is not None:
            words = allowed.view(-1, bitmap_words(titles.count))[:, first // 32 : -(-last // 32)]
            may = ((words[:, :, None] >> bits) & 1).bool().flatten(1)[:, : last - first]
            keys.masked_fill_(~may, NOTHING)
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    return best


def _keys(torch: Any, scores: Any, rows: Any) -> Any:
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    return (ordered << 32) | (0x7FFFFFFF - rows)


def _origins(torch: Any, titles: GpuTitles, first: int, last: int) -> Any:
    if titles.origins is not None:
        return titles.origins[first:last].long()
    return torch.arange(first, last, dtype=torch.int64, device=titles.halves.device)
