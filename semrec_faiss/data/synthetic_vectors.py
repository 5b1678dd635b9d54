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

from semrec_faiss.data.halves import store_as_float16
from semrec_faiss.data.synthetic_world import (
    BLOCK_TITLES,
    GENRE_SETS,
    GENRES,
    THEMES_PER_GENRE,
    TitleBlock,
    stream,
)

# How the squared length of a title's vector is shared out before its own spread is added.
_COMMON_SHARE, _GENRE_SHARE, _THEME_SHARE, _WORK_SHARE = 0.12, 0.22, 0.32, 0.34
_GENRE_WEIGHTS = (1.0, 0.6, 0.4)  # of a work's first, second and third genre

_WORLD_STREAM, _VECTORS_STREAM = 0, 2

_DIRECTIONS = (1, len(GENRES), len(GENRES) * THEMES_PER_GENRE)  # in common, of genres, of themes
_NOISE_DEVIATION = ((65536**2 - 1) / 12) ** 0.5  # the standard deviation of uniform 16-bit integers

# A block is made a tile of titles at a time: the arrays of a tile stay in a core's cache from one step to the next, and
# are still so large that the steps themselves cost more than calling them.
_TILE_BYTES = 800 << 10
_LEAST_TILE, _MOST_TILE = 24, 1032

# numpy copies operands into buffers where the runs that lie in one piece are under a quarter of this, 8192 unless told:
# for sums and differences of a tile's rows that takes longer than the sums.
_BUFFERED_NUMBERS = 1024


def tile_titles(dim: int) -> int:
    """Tell how many titles of ``dim`` dimensions a tile has.

    An odd number of eights: where the rows of an array are a power of two apart, a column of it falls on the same few
    places of the cache, and turning the array takes nine times as long.
    """
    eights = _TILE_BYTES // (32 * dim) - 1
    return max(_LEAST_TILE, min(_MOST_TILE, 8 * (eights | 1)))


class _WorkSpace:
    """Arrays that one thread uses again for every tile."""

    def __init__(self, dim: int) -> None:
        size = dim * tile_titles(dim)
        self.of_work = np.empty(size, np.int16)
        self.columns, self.spare = (np.empty(size, np.float32) for _ in range(2))
        self.rows, self.shared = (np.empty((tile_titles(dim), dim), np.float32) for _ in range(2))
        self.squares = np.empty((tile_titles(dim), dim), np.float64)


def work_bytes(dim: int) -> int:
    """Tell about how many bytes a thread works in while it makes vectors, those not counted that it makes."""
    return BLOCK_TITLES * dim * 2 * 2 + 7 * _TILE_BYTES  # noise of works and of titles, of 2 bytes each, and tiles


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
        common *= np.float32(_COMMON_SHARE**0.5)
        themes *= np.float32(_THEME_SHARE**0.5)
        self._centres = _centres(common, genres, themes)

    def vectors(self, block: TitleBlock, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Make the unit vectors (BLOCK_TITLES, dim) of a block, in ``out`` where it is given, else in float32.

        What titles share is rotated once for the whole world; only what is their own is rotated here.
        """
        made: NDArray[Any] = np.empty((BLOCK_TITLES, self._dim), np.float32) if out is None else out
        buffered = np.setbufsize(_BUFFERED_NUMBERS)  # of this thread alone
        try:
            self._fill(block, made, self._space())
        finally:
            np.setbufsize(buffered)
        return made

    def _fill(self, block: TitleBlock, made: NDArray[Any], space: _WorkSpace) -> None:
        random = stream(self._seed, _VECTORS_STREAM, block.number)
        of_works, of_titles = _noise(random, self._dim, (len(block.sizes), BLOCK_TITLES))
        centre = block.centre_numbers()
        step = tile_titles(self._dim)
        for first in range(0, BLOCK_TITLES, step):
            here = slice(first, min(first + step, BLOCK_TITLES))
            work = block.work[here]
            shared = space.of_work[: self._dim * len(work)].reshape(self._dim, len(work))
            # Indices are in range; "clip" only keeps numpy from writing through a buffer of its own.
            np.take(of_works, work, axis=1, out=shared, mode="clip")
            columns = self._own_parts(shared, of_titles[:, here], block.spread[work], space)
            rows = space.rows[: len(work)]
            rows[:] = columns.T
            rows += np.take(self._centres, centre[work], axis=0, out=space.shared[: len(work)], mode="clip")
            inverse = _inverse_lengths(rows, space.squares[: len(work)])
            if made.dtype == np.float16:
                rows *= inverse[:, None]
                store_as_float16(rows, made[here], space.shared[: len(work)])
            else:
                np.multiply(rows, inverse[:, None], out=made[here])

    def _own_parts(
        self,
        of_works: NDArray[np.int16],
        of_titles: NDArray[np.int16],
        spread: NDArray[np.float32],
        space: _WorkSpace,
    ) -> NDArray[np.float32]:
        """Make (dim, titles of a tile), rotated: what their works share and what is their own, both (dim, titles)."""
        columns, spare = (array[: of_titles.size].reshape(of_titles.shape) for array in (space.columns, space.spare))
        scale = self._scale[:, None]
        np.multiply(of_works, scale, out=spare)
        spare *= np.float32(_WORK_SHARE**0.5)
        np.multiply(of_titles, scale, out=columns)
        columns *= spread
        columns += spare
        return self._rotation.apply(columns, spare)

    def _space(self) -> _WorkSpace:
        """Give this thread's work space: memory that is asked of the system anew costs more than what is done in it."""
        space: _WorkSpace | None = getattr(self._spaces, "space", None)
        if space is None:
            space = self._spaces.space = _WorkSpace(self._dim)
        return space

    def _directions(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw (count, dim) rotated unit vectors."""
        columns = random.standard_normal((self._dim, count), dtype=np.float32)
        columns *= self._scale[:, None]
        rows = np.ascontiguousarray(self._rotation.apply(columns, np.empty_like(columns)).T)
        rows *= _inverse_lengths(rows, np.empty(rows.shape))[:, None]
        return rows


def _centres(
    common: NDArray[np.float32], genres: NDArray[np.float32], themes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Make (GENRE_SETS × THEMES_PER_GENRE, dim): the common direction, and those of a theme and of its genres."""
    weights = np.where(GENRE_SETS >= 0, np.array(_GENRE_WEIGHTS, dtype=np.float32), np.float32(0))
    weights *= (np.float32(_GENRE_SHARE**0.5) / np.sqrt((weights**2).sum(axis=1)))[:, None]
    dim = themes.shape[1]
    centres = themes.reshape(len(GENRES), THEMES_PER_GENRE, dim)[GENRE_SETS[:, 0]]
    centres += common
    for nth in range(GENRE_SETS.shape[1]):
        centres += (weights[:, nth, None] * genres[GENRE_SETS[:, nth]])[:, None]  # of -1 the last, whose weight is 0
    return centres.reshape(-1, dim)


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


def _noise(random: np.random.Generator, dim: int, counts: tuple[int, int]) -> list[NDArray[np.int16]]:
    """Draw (dim, count) uniform 16-bit integers, many times cheaper than normal variates, for both ``counts``.

    The rotation makes every coordinate a sum of hundreds of them, which is as good as normal. They are drawn as 64-bit
    integers, in a quarter of the time that Generator.bytes takes for the same bytes.
    """
    words = [-(-dim * count // 2) for count in counts]  # of 32 bits; each array begins with a word of its own
    drawn = random.integers(0, 2**64 - 1, -(-sum(words) // 2), dtype=np.uint64, endpoint=True)
    halves = np.split(drawn.astype("<u8", copy=False).view("<u4")[: sum(words)], words[:1])
    return [half.view("<i2")[: dim * count].reshape(dim, count) for half, count in zip(halves, counts, strict=True)]


def _inverse_lengths(rows: NDArray[np.float32], squares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return 1 / length of each row; ``squares``, of the shape of ``rows``, serves as work space.

    Squares are exact in float64, and numpy adds up numbers that lie in a row in one order on every machine, as it does
    not where it multiplies and adds in one go.
    """
    squares[:] = rows
    squares *= squares
    inverse: NDArray[np.float64] = 1.0 / np.sqrt(squares.sum(axis=1))
    return inverse.astype(np.float32)
