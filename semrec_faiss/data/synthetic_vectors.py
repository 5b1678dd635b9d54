"""The vectors of made-up titles, which behave like text embeddings.

Titles of one franchise lie close together, works of one theme and genre in the same region, and the spread has a
decaying spectrum. Nearest neighbours have cosines of about 0.55 to 0.95, random pairs of about 0 to 0.3.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic_world import BLOCK_TITLES, GENRES, THEMES_PER_GENRE, TitleBlock, stream

# How the squared length of a title's vector is shared out before its own spread is added.
_COMMON_SHARE, _GENRE_SHARE, _THEME_SHARE, _WORK_SHARE = 0.12, 0.22, 0.32, 0.34
_GENRE_WEIGHTS = (1.0, 0.6, 0.4)  # of a work's first, second and third genre

_WORLD_STREAM, _VECTORS_STREAM = 0, 2

_DIRECTIONS = (1, len(GENRES), len(GENRES) * THEMES_PER_GENRE)  # in common, of genres, of themes
_NOISE_DEVIATION = ((65536**2 - 1) / 12) ** 0.5  # the standard deviation of uniform 16-bit integers
_TILE = 64  # columns whose values stay in a core's cache while they are moved


WORK_ARRAYS = 8
"""Arrays of a block's size, in float32, that a thread holds while it makes vectors, the result included."""


class _WorkSpace:
    """Arrays that one thread uses again for every block."""

    def __init__(self, dim: int) -> None:
        self.own = np.empty(dim * BLOCK_TITLES, np.float32)
        self.columns, self.spare = (np.empty((dim, BLOCK_TITLES), np.float32) for _ in range(2))
        self.rows, self.shared, self.centres, self.genre = (np.empty((BLOCK_TITLES, dim), np.float32) for _ in range(4))


class World:
    """What all blocks share: the directions of genres and themes, and the spectrum of the spread."""

    def __init__(self, dim: int, seed: int) -> None:
        random = stream(seed, _WORLD_STREAM, 0)
        self._dim = dim
        self._seed = seed
        variance = (np.arange(dim) + 8.0) ** -1.1
        # Shuffled, because a rotation begins with the first coordinates: they should not have all the large ones.
        scale = random.permutation(np.sqrt(variance / variance.sum())).astype(np.float32)
        self._scale = scale / np.float32(_NOISE_DEVIATION)
        self._rotation = Rotation.draw(random, dim)
        self._spaces = threading.local()
        common, genres, themes = (self._directions(random, count) for count in _DIRECTIONS)
        self._common = np.float32(_COMMON_SHARE**0.5) * common
        self._genres = genres
        self._themes = np.float32(_THEME_SHARE**0.5) * themes

    def vectors(self, block: TitleBlock, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Make the unit vectors (BLOCK_TITLES, dim) of a block, in ``out`` where it is given, else in float32.

        What titles share is rotated once for the whole world; only what is their own is rotated here.
        """
        random = stream(self._seed, _VECTORS_STREAM, block.number)
        space = self._space()
        works = len(block.sizes)
        own = self._noise(random, works, space.own[: self._dim * works].reshape(self._dim, works))
        own *= np.float32(_WORK_SHARE**0.5)
        columns = self._noise(random, BLOCK_TITLES, space.columns)
        columns *= block.spread[block.work]
        # Indices are in range; "clip" only keeps numpy from writing through a buffer of its own.
        columns += np.take(own, block.work, axis=1, out=space.spare, mode="clip")
        rows = transposed(self._rotation.apply(columns, space.spare), space.rows)
        rows += np.take(self._centres(block, space), block.work, axis=0, out=space.shared, mode="clip")
        made: NDArray[Any] = np.empty(rows.shape, np.float32) if out is None else out
        np.multiply(rows, _inverse_lengths(rows)[:, None], out=made, casting="same_kind")
        return made

    def _space(self) -> _WorkSpace:
        """Give this thread's work space: memory that is asked of the system anew costs more than what is done in it."""
        space: _WorkSpace | None = getattr(self._spaces, "space", None)
        if space is None:
            space = self._spaces.space = _WorkSpace(self._dim)
        return space

    def _centres(self, block: TitleBlock, space: _WorkSpace) -> NDArray[np.float32]:
        """Make (works, dim): the common direction, and those of a work's genres and theme."""
        works = len(block.sizes)
        centres, one = space.centres[:works], space.genre[:works]
        np.take(self._themes, block.theme, axis=0, out=centres, mode="clip")
        centres += self._common
        weights = np.where(block.genres >= 0, np.array(_GENRE_WEIGHTS, dtype=np.float32), np.float32(0))
        weights *= (np.float32(_GENRE_SHARE**0.5) / np.sqrt((weights**2).sum(axis=1)))[:, None]
        for genre, weight in zip(block.genres.T, weights.T, strict=True):
            np.take(self._genres, genre, axis=0, out=one, mode="clip")  # of -1 the first, whose weight is 0
            one *= weight[:, None]
            centres += one
        return centres

    def _noise(self, random: np.random.Generator, count: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draw (dim, count), of length about one a column, into ``out``.

        Uniform 16-bit integers, many times cheaper than normal variates: the rotation makes every coordinate a sum of
        hundreds of them, which is as good as normal.
        """
        noise = np.frombuffer(random.bytes(2 * self._dim * count), dtype="<i2").reshape(self._dim, count)
        np.multiply(noise, self._scale[:, None], out=out)
        return out

    def _directions(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw (count, dim) rotated unit vectors."""
        columns = random.standard_normal((self._dim, count), dtype=np.float32)
        columns *= self._scale[:, None]
        rows = transposed(self._rotation.apply(columns, np.empty_like(columns)))
        rows *= _inverse_lengths(rows)[:, None]
        return rows


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

    def apply(self, columns: NDArray[np.float32], spare: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``columns`` (dim, count) rotated; they and ``spare``, of the same shape, serve as work space."""
        size = _power_of_two(len(columns))
        _hadamard(columns[:size], spare[:size])
        rotated = np.take(columns, self.order, axis=0, out=spare, mode="clip")
        rotated *= self.signs
        _hadamard(rotated[-size:], columns[-size:])
        return rotated


def _power_of_two(dim: int) -> int:
    return 1 << (dim.bit_length() - 1)


def _hadamard(columns: NDArray[np.float32], spare: NDArray[np.float32]) -> None:
    """Transform ``columns`` (a power of two, count) in place; both are contiguous."""
    size, count = columns.shape
    source, target = columns, spare
    half = 1
    while half < size:
        pairs, into = (array.reshape(size // (2 * half), 2, half, count) for array in (source, target))
        np.add(pairs[:, 0], pairs[:, 1], out=into[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=into[:, 1])
        source, target = target, source
        half *= 2
    np.multiply(source, np.float32(size**-0.5), out=columns)


def transposed(columns: NDArray[np.float32], rows: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the contiguous transpose, in ``rows`` where they are given, tile by tile to stay in the cache."""
    made = np.empty(columns.shape[::-1], dtype=columns.dtype) if rows is None else rows
    for first in range(0, len(made), _TILE):
        made[first : first + _TILE] = columns[:, first : first + _TILE].T
    return made


def _inverse_lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / length of each row; summed in float64, so that rounding hides the order of the sum."""
    inverse: NDArray[np.float64] = 1.0 / np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return inverse.astype(np.float32)
