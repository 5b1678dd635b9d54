"""Vectors made on a GPU for benchmarks: titles around random centres, and users who like a few of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semrec_faiss.index.fused.gpu_titles import load_torch

CLUSTERS = 2000
SPREAD = 0.7
DECAY = 0.15
"""After so many of all directions, what one holds of the squared length has fallen to 1/e."""

MADE_AT_ONCE = 500_000


def clustered(count: int, dim: int, seed: int, device: Any) -> Any:
    """Draw unit vectors around random centres: float32 (count, dim) on the GPU."""
    torch = load_torch()
    random = torch.Generator(device=device).manual_seed(seed)

    def unit(rows: int) -> Any:
        drawn = torch.randn((rows, dim), device=device, generator=random)
        return drawn / drawn.norm(dim=1, keepdim=True)

    centres = unit(CLUSTERS)
    vectors = torch.empty((count, dim), device=device)
    for part in _slices(count, MADE_AT_ONCE):
        rows = len(vectors[part])
        near = centres[torch.randint(CLUSTERS, (rows,), device=device, generator=random)] + SPREAD * unit(rows)
        vectors[part] = near / near.norm(dim=1, keepdim=True)
    return vectors


def texts(count: int, dim: int, seed: int, device: Any) -> Any:
    """Draw unit vectors around random centres with a text model's spectrum: float32 (count, dim) on the GPU.

    Of the squared length, the first third, half and two thirds of the directions hold 0.89, 0.96 and 0.99, as they do
    for film titles and descriptions by all-MiniLM-L6-v2 in 384 dimensions.
    """
    torch = load_torch()
    random = torch.Generator(device=device).manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn((dim, dim), device=device, generator=random))[0]
    weights = torch.exp(-torch.arange(dim, device=device) / (2 * DECAY * dim))

    def drawn(rows: int) -> Any:
        made = torch.randn((rows, dim), device=device, generator=random) * weights
        return made / made.norm(dim=1, keepdim=True)

    centres = drawn(CLUSTERS)
    vectors = torch.empty((count, dim), device=device)
    for part in _slices(count, MADE_AT_ONCE):
        rows = len(vectors[part])
        near = centres[torch.randint(CLUSTERS, (rows,), device=device, generator=random)] + SPREAD * drawn(rows)
        vectors[part] = (near / near.norm(dim=1, keepdim=True)) @ rotation
    return vectors


def users_of(vectors: Any, count: int, seed: int) -> Any:
    """Make users, means of three of ``vectors`` each, of unit length: float32 (count, dim) on their GPU."""
    torch = load_torch()
    random = torch.Generator(device=vectors.device).manual_seed(seed)
    made = torch.zeros((count, vectors.shape[1]), device=vectors.device)
    for _ in range(3):
        made += vectors[torch.randint(len(vectors), (count,), device=vectors.device, generator=random)]
    return (made / made.norm(dim=1, keepdim=True)).contiguous()


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))
