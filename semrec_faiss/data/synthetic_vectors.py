"""The vectors of made-up titles, which behave like text embeddings.

Titles of one franchise lie close together, works of one theme and genre in the same region, and the spread has a
decaying spectrum. Nearest neighbours have cosines of about 0.55 to 0.95, random pairs of about 0 to 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic_world import BLOCK_TITLES, GENRES, THEMES_PER_GENRE, TitleBlock, stream

# How the squared length of a title's vector is shared out before its own spread is added.
_COMMON_SHARE, _GENRE_SHARE, _THEME_SHARE, _WORK_SHARE = 0.12, 0.22, 0.32, 0.34
_GENRE_WEIGHTS = (1.0, 0.6, 0.4)  # of a work's first, second and third genre

_WORLD_STREAM, _VECTORS_STREAM = 0, 2


class World:
    """What all blocks share: the centres of genres and themes, and the spectrum of the spread."""

    def __init__(self, dim: int, seed: int) -> None:
        random = stream(seed, _WORLD_STREAM, 0)
        self._dim = dim
        self._seed = seed
        variance = (np.arange(dim) + 8.0) ** -1.1
        # Shuffled, because a rotation begins with the first coordinates: they should not have all the large ones.
        self._scale = random.permutation(np.sqrt(variance / variance.sum())).astype(np.float32)
        self._rotation = Rotation.draw(random, dim)
        self._common = _unit_columns(self._noise(random, 1))
        self._genres = _unit_columns(self._noise(random, len(GENRES)))
        self._themes = _unit_columns(self._noise(random, len(GENRES) * THEMES_PER_GENRE))

    def vectors(self, block: TitleBlock) -> NDArray[np.float32]:
        """Make the unit vectors (BLOCK_TITLES, dim) of a block."""
        random = stream(self._seed, _VECTORS_STREAM, block.number)
        columns = np.take(self._centres(random, block), block.work, axis=1)
        spread = self._noise(random, BLOCK_TITLES)
        spread *= block.spread[block.work]
        columns += spread
        rows = np.ascontiguousarray(self._rotation.apply(columns).T)
        rows *= _inverse_lengths(rows)[:, None]
        return rows

    def _centres(self, random: np.random.Generator, block: TitleBlock) -> NDArray[np.float32]:
        """Make (dim, works): the common direction, those of the genres and the theme, and the work's own."""
        weights = np.zeros((len(GENRES), len(block.genres)), dtype=np.float32)
        for column, weight in zip(block.genres.T, _GENRE_WEIGHTS, strict=True):
            present = np.flatnonzero(column >= 0)
            weights[column[present], present] = weight
        weights *= np.float32(_GENRE_SHARE**0.5) / np.sqrt((weights**2).sum(axis=0))
        centres = self._noise(random, len(block.genres))
        centres *= np.float32(_WORK_SHARE**0.5)
        centres += np.float32(_COMMON_SHARE**0.5) * self._common
        centres += np.float32(_THEME_SHARE**0.5) * self._themes[:, block.theme]
        # Not a matrix product: its bits would depend on the linear algebra library and the processor.
        for genre in range(len(GENRES)):
            members = np.flatnonzero(weights[genre])
            centres[:, members] += self._genres[:, genre, None] * weights[genre, members]
        return centres

    def _noise(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw (dim, count), of length about one a column."""
        noise = random.standard_normal((self._dim, count), dtype=np.float32)
        noise *= self._scale[:, None]
        return noise


@dataclass(frozen=True)
class Rotation:
    """A rotation that gives every coordinate a share of every direction.

    A Hadamard transform of the largest power of two that fits, on the first coordinates, and another one on the last.
    In between come another ``order`` (dim,) of those that the first one mixed, and ``signs`` (dim, 1): without these,
    two transforms would undo one another. All are sums and differences, so the bits are the same on every machine.
    """

    order: NDArray[np.int64]
    signs: NDArray[np.float32]

    @classmethod
    def draw(cls, random: np.random.Generator, dim: int) -> Rotation:
        """Draw a rotation of ``dim`` dimensions."""
        order = np.arange(dim)
        random.shuffle(order[: _power_of_two(dim)])
        return cls(order, random.choice(np.array((-1, 1), dtype=np.float32), (dim, 1)))

    def apply(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``columns`` (dim, count) rotated; they serve as work space."""
        size = _power_of_two(len(columns))
        _hadamard(columns[:size])
        rotated = columns[self.order]
        rotated *= self.signs
        _hadamard(rotated[-size:])
        return rotated


def _power_of_two(dim: int) -> int:
    return 1 << (dim.bit_length() - 1)


def _hadamard(columns: NDArray[np.float32]) -> None:
    """Transform ``columns`` (a power of two, count) in place."""
    size, count = columns.shape
    half = 1
    while half < size:
        pairs = columns.reshape(size // (2 * half), 2, half, count)
        difference = pairs[:, 0] - pairs[:, 1]
        pairs[:, 0] += pairs[:, 1]
        pairs[:, 1] = difference
        half *= 2
    columns *= np.float32(size**-0.5)


def _inverse_lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / length of each row; summed in float64, so that rounding hides the order of the sum."""
    inverse: NDArray[np.float64] = 1.0 / np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return inverse.astype(np.float32)


def _unit_columns(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    return columns * _inverse_lengths(columns.T)
