"""Vectors made on a GPU for benchmarks: titles around random centres, and users who like a few of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from semrec_faiss.arrays import Rows, StoredRows, Vectors
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.fused.titles.uploading import rows_at_once

Spectrum: TypeAlias = Literal["round", "text"]

CLUSTERS = 2000
SPREAD = 0.7
DECAY = 0.15
"""After so many of all directions, what one holds of the squared length has fallen to 1/e."""

MADE_AT_ONCE = 500_000

SEEN = 100
"""Titles that each user has seen; of a catalogue of fewer than ten times as many, a tenth of it."""


def clustered(count: int, dim: int, seed: int, device: Any) -> Any:
    """Draw unit vectors around random centres: float32 (count, dim) on the GPU."""
    torch = load_torch()
    random = torch.Generator(device=device).manual_seed(seed)
    centres = _unit(CLUSTERS, dim, device, random)
    vectors = torch.empty((count, dim), device=device)
    for part in _slices(count, MADE_AT_ONCE):
        rows = len(vectors[part])
        near = centres[torch.randint(CLUSTERS, (rows,), device=device, generator=random)] + SPREAD * _unit(
            rows, dim, device, random
        )
        vectors[part] = near / near.norm(dim=1, keepdim=True)
    return vectors


def texts(count: int, dim: int, seed: int, device: Any) -> Any:
    """Draw unit vectors around random centres with a text model's spectrum: float32 (count, dim) on the GPU.

    Of the squared length, the first third, half and two thirds of the directions hold 0.89, 0.96 and 0.99, as they do
    for film titles and descriptions by all-MiniLM-L6-v2 in 384 dimensions.
    """
    torch = load_torch()
    random = torch.Generator(device=device).manual_seed(seed)
    rotation, weights = _text_spectrum(dim, device, random)
    centres = _unit(CLUSTERS, dim, device, random, weights)
    vectors = torch.empty((count, dim), device=device)
    for part in _slices(count, MADE_AT_ONCE):
        rows = len(vectors[part])
        of = torch.randint(CLUSTERS, (rows,), device=device, generator=random)
        near = centres[of] + SPREAD * _unit(rows, dim, device, random, weights)
        vectors[part] = (near / near.norm(dim=1, keepdim=True)) @ rotation
    return vectors


def _text_spectrum(dim: int, device: Any, random: Any) -> tuple[Any, Any]:
    """Return a rotation, (dim, dim), and the weights, (dim,), that directions have before it."""
    torch = load_torch()
    rotation = torch.linalg.qr(torch.randn((dim, dim), device=device, generator=random))[0]
    return rotation, torch.exp(-torch.arange(dim, device=device) / (2 * DECAY * dim))


def users_of(vectors: Any, count: int, seed: int) -> Any:
    """Make users, means of three of ``vectors`` each, of unit length: float32 (count, dim) on their GPU."""
    torch = load_torch()
    random = torch.Generator(device=vectors.device).manual_seed(seed)
    made = torch.zeros((count, vectors.shape[1]), device=vectors.device)
    for _ in range(3):
        made += vectors[torch.randint(len(vectors), (count,), device=vectors.device, generator=random)]
    return (made / made.norm(dim=1, keepdim=True)).contiguous()


@dataclass(frozen=True)
class SeeingUsers:
    """Users in the host's memory, as `HostUsers` are, who have all seen as many titles.

    Attributes:
        vectors: float32 (users, dim).
        seen: int64 (users + 1,) and int32, see `HostUsers.seen`.
    """

    vectors: Vectors
    seen: tuple[Rows, StoredRows]
    has_seen: bool = True

    @property
    def count(self) -> int:
        """The number of users."""
        return len(self.vectors)


def seeing_users(vectors: Any, count: int, seed: int) -> SeeingUsers:
    """Make `users_of` ``vectors``, float32 (titles, dim) on a GPU, who have seen `SEEN` titles each.

    One at random of each of as many parts of the catalogue: none twice.
    """
    titles = len(vectors)
    each = min(SEEN, titles // 10)
    cuts = np.arange(each + 1) * titles // each
    rows = np.random.default_rng(seed).integers(cuts[:-1], cuts[1:], size=(count, each), dtype=np.int32)
    return SeeingUsers(users_of(vectors, count, seed).cpu().numpy(), (np.arange(count + 1) * each, rows.reshape(-1)))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


class Float16Titles:
    """Titles that came as float16, made part by part on a GPU whenever they are read: more than a host would hold.

    Each part is made of its own seed, so that the same slice is the same titles again: `part_rows` of them at once.
    """

    def __init__(self, count: int, dim: int, seed: int, device: Any, spectrum: Spectrum = "round") -> None:
        """Make nothing yet; see `clustered` and, of the ``spectrum`` of texts, `texts`."""
        self.shape, self._seed, self._device = (count, dim), seed, device
        random = load_torch().Generator(device=device).manual_seed(seed)
        self._rotation: Any = None
        self._weights: Any = None
        if spectrum == "text":
            self._rotation, self._weights = _text_spectrum(dim, device, random)
        self._centres = _unit(CLUSTERS, dim, device, random, self._weights)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def part_rows(self) -> int:
        """Titles to a part, as uploading reads them."""
        return rows_at_once(self.shape[1])

    @property
    def size(self) -> int:
        """Components of all titles."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, part: slice) -> Any:
        """Return float32 (titles, dim) on the GPU: float16, brought to unit length and rounded once."""
        first, last, _ = part.indices(len(self))
        random = load_torch().Generator(device=self._device).manual_seed(self._seed + 1 + first)
        of = load_torch().randint(CLUSTERS, (last - first,), device=self._device, generator=random)
        near = self._centres[of] + SPREAD * _unit(last - first, self.shape[1], self._device, random, self._weights)
        near /= near.norm(dim=1, keepdim=True)
        halves = (near if self._rotation is None else near @ self._rotation).half().double()
        return (halves * (1.0 / halves.norm(dim=1, keepdim=True))).float()


def _unit(rows: int, dim: int, device: Any, random: Any, weights: Any = None) -> Any:
    drawn = load_torch().randn((rows, dim), device=device, generator=random)
    if weights is not None:
        drawn *= weights
    return drawn / drawn.norm(dim=1, keepdim=True)
