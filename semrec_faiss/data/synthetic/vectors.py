"""The vectors of made-up titles, which behave like text embeddings.

Titles of one franchise lie close together, works of one theme and genre in the same region, and the spread has a
decaying spectrum. Nearest neighbours have cosines of about 0.55 to 0.95, random pairs of about 0 to 0.3.

A vector is the centre of its themes and genres, a part that a work's titles share and a part of its own. Both parts are
sums of a few directions drawn from a pool that is made once, so that a vector costs a few sums of short integers: what
is to be written at a disk's speed cannot take a normal variate a number.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic.world import (
    BLOCK_TITLES,
    GENRE_SETS,
    GENRES,
    SPREADS,
    THEMES_PER_GENRE,
    TitleBlock,
    stream,
)

# How the squared length of a title's vector is shared out before its own spread is added.
_COMMON_SHARE, _GENRE_SHARE, _THEME_SHARE, _WORK_SHARE = 0.12, 0.22, 0.32, 0.34
_GENRE_WEIGHTS = (1.0, 0.6, 0.4)  # of a work's first, second and third genre

_WORLD_STREAM, VECTORS_STREAM = 0, 2

_POOL = 1024  # directions that parts are sums of; more than there are dimensions of most embeddings
_SUMMED = 4  # of them a part: of 8,000 pairs of works one shares more than one (16/1,024 is the mean, Poisson)

# A length of 1 in the integers that are summed up. The longest sum that can be, where all that it is made of points in
# one direction, fits 16 bits.
UNIT = 6000

_CENTRES = len(GENRE_SETS) * THEMES_PER_GENRE
_DIRECTIONS = (1, len(GENRES), len(GENRES) * THEMES_PER_GENRE, _POOL)  # in common, of genres, of themes, of the pool

# A block is made a tile of titles at a time: the arrays of a tile stay in a core's cache from one step to the next, and
# are still so large that the steps themselves cost more than calling them.
TILE_BYTES = 2 << 20
_TILE_NUMBER_BYTES = 2 + 2 + 4 + 4 + 8  # of the arrays of a work space
_LEAST_TILE, _MOST_TILE = 16, 1024


def tile_titles(dim: int) -> int:
    """Tell how many titles of ``dim`` dimensions a tile has."""
    return max(_LEAST_TILE, min(_MOST_TILE, TILE_BYTES // (_TILE_NUMBER_BYTES * dim)))


class _WorkSpace:
    """Arrays that one thread uses again for every tile."""

    def __init__(self, dim: int) -> None:
        shape = (tile_titles(dim), dim)
        self.works = np.empty((BLOCK_TITLES, dim), np.int16)
        self.sums, self.part = np.empty(shape, np.int16), np.empty(shape, np.int16)
        self.rows, self.spare = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.exact = np.empty(shape, np.float64)


def work_bytes(dim: int) -> int:
    """Tell about how many bytes a thread works in while it makes vectors, those not counted that it makes."""
    return BLOCK_TITLES * dim * 2 + tile_titles(dim) * dim * _TILE_NUMBER_BYTES


def directions_bytes(dim: int) -> int:
    """Tell how many bytes the directions of a world take."""
    return (_CENTRES + (len(SPREADS) + 1) * _POOL) * dim * 2


def drawing_bytes(dim: int) -> int:
    """Tell about how many bytes it takes for a while to draw a world, beside what it keeps."""
    return 24_000 * dim


def draw_directions(dim: int, seed: int) -> NDArray[np.int16]:
    """Draw what all vectors are sums of, (centres + pool, dim), a length of 1 being UNIT.

    First a centre for each of GENRE_SETS × THEMES_PER_GENRE. Then the pool: _POOL directions for each of SPREADS, so
    long that a sum of _SUMMED is as long as the spread, and the same directions for what a work's titles share.
    """
    random = stream(seed, _WORLD_STREAM, 0)
    variance = (np.arange(dim) + 8.0) ** -1.1
    # Shuffled, because a rotation begins with the first coordinates: they should not have all the large ones.
    scale = random.permutation(np.sqrt(variance / variance.sum())).astype(np.float32)
    rotation = Rotation.draw(random, dim)
    common, genres, themes, pool = (_directions(random, scale, rotation, count) for count in _DIRECTIONS)
    drawn = np.empty((_CENTRES + (len(SPREADS) + 1) * _POOL, dim), np.int16)
    _put_centres(drawn[:_CENTRES], common, genres, themes)
    _put_pool(drawn[_CENTRES:], pool)
    return drawn


class World:
    """What all blocks of vectors of one dimension and seed have in common.

    Args:
        dim: dimensions of a vector.
        seed: another seed makes another world.
        directions: as :func:`draw_directions` draws them, where they are at hand.

    Attributes:
        centres: int16 (centres, dim), of each of GENRE_SETS × THEMES_PER_GENRE.
        pool: int16 (some, dim), what parts are sums of.
    """

    def __init__(self, dim: int, seed: int, directions: NDArray[np.int16] | None = None) -> None:
        self._dim = dim
        self._seed = seed
        directions = draw_directions(dim, seed) if directions is None else directions
        self.centres, self.pool = directions[:_CENTRES], directions[_CENTRES:]
        self._spaces = threading.local()

    def vectors(self, block: TitleBlock, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Make the unit vectors (BLOCK_TITLES, dim) of a block, in ``out`` where it is given, else in float32."""
        made: NDArray[Any] = np.empty((BLOCK_TITLES, self._dim), np.float32) if out is None else out
        space = self._space()
        random = stream(self._seed, VECTORS_STREAM, block.number)
        works = space.works[: len(block.sizes)]
        of_works = random.integers(0, _POOL, (_SUMMED, len(works))) + len(SPREADS) * _POOL
        of_titles = random.integers(0, _POOL, (_SUMMED, BLOCK_TITLES)) + block.spread[block.work] * _POOL
        centre = block.centre_numbers()
        for here in _tiles(len(works), self._dim):
            self._sum(self.centres, centre[here], of_works[:, here], works[here], space)
        for here in _tiles(BLOCK_TITLES, self._dim):
            rows = slice(0, here.stop - here.start)
            self._sum(works, block.work[here], of_titles[:, here], space.sums[rows], space)
            _store_unit_vectors(space, rows, made[here])
        return made

    def _sum(
        self,
        bases: NDArray[np.int16],
        base: NDArray[np.int64],
        parts: NDArray[np.int64],
        out: NDArray[np.int16],
        space: _WorkSpace,
    ) -> None:
        """Put ``bases[base]`` plus the directions of the pool in the columns of ``parts`` into ``out``."""
        # Indices are in range; "clip" only keeps numpy from writing through a buffer of its own.
        np.take(bases, base, axis=0, out=out, mode="clip")
        part = space.part[: len(out)]
        for directions in parts:
            np.take(self.pool, directions, axis=0, out=part, mode="clip")
            out += part

    def _space(self) -> _WorkSpace:
        """Give this thread's work space: memory that is asked of the system anew costs more than what is done in it."""
        space: _WorkSpace | None = getattr(self._spaces, "space", None)
        if space is None:
            space = self._spaces.space = _WorkSpace(self._dim)
        return space


def _tiles(count: int, dim: int) -> list[slice]:
    step = tile_titles(dim)
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def _store_unit_vectors(space: _WorkSpace, chosen: slice, out: NDArray[Any]) -> None:
    """Scale the sums of ``chosen`` rows of a work space to unit length, into ``out``."""
    sums, rows, exact = space.sums[chosen], space.rows[chosen], space.exact[chosen]
    sums |= 1  # none is 0, so no vector is either
    rows[:] = sums
    exact[:] = sums
    # Of whole numbers, exact in whatever order a machine adds them up: the bits are the same on all.
    squares = np.matmul(exact[:, None, :], exact[:, :, None]).reshape(-1)
    inverse = (1.0 / np.sqrt(squares)).astype(np.float32)[:, None]
    if out.dtype == np.float16:
        rows *= inverse
        out[:] = rows
    else:
        np.multiply(rows, inverse, out=out)


def _put_pool(out: NDArray[np.int16], pool: NDArray[np.float32]) -> None:
    lengths = np.array([*SPREADS, _WORK_SHARE**0.5], dtype=np.float32) / np.float32(_SUMMED**0.5)
    for length, into in zip(lengths, out.reshape(len(lengths), *pool.shape), strict=True):
        into[:] = _as_integers(pool * length)


def _put_centres(
    out: NDArray[np.int16], common: NDArray[np.float32], genres: NDArray[np.float32], themes: NDArray[np.float32]
) -> None:
    """Add up the common direction, and those of a theme and of its genres."""
    weights = np.where(GENRE_SETS >= 0, np.array(_GENRE_WEIGHTS, dtype=np.float32), np.float32(0))
    weights *= (np.float32(_GENRE_SHARE**0.5) / np.sqrt((weights**2).sum(axis=1)))[:, None]
    common = common * np.float32(_COMMON_SHARE**0.5)
    themes = (themes * np.float32(_THEME_SHARE**0.5)).reshape(len(GENRES), THEMES_PER_GENRE, -1)
    for into, chosen, weight in zip(out.reshape(len(GENRE_SETS), *themes.shape[1:]), GENRE_SETS, weights, strict=True):
        of_genres = (weight[:, None] * genres[chosen]).sum(axis=0)  # of -1 the last, whose weight is 0
        into[:] = _as_integers(common + of_genres + themes[chosen[0]])


def _as_integers(vectors: NDArray[np.float32]) -> NDArray[np.int16]:
    integers: NDArray[np.int16] = np.rint(vectors * np.float32(UNIT)).astype(np.int16)
    return integers


def _directions(
    random: np.random.Generator, scale: NDArray[np.float32], rotation: Rotation, count: int
) -> NDArray[np.float32]:
    """Draw (count, dim) rotated unit vectors; ``scale`` (dim,) is the spectrum of their spread."""
    columns = random.standard_normal((len(scale), count), dtype=np.float32)
    columns *= scale[:, None]
    rows = np.ascontiguousarray(rotation.apply(columns, np.empty_like(columns)).T)
    # numpy adds up what lies in a row in one order on every machine, as it does not where it multiplies in one go.
    lengths = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    rows *= (1.0 / lengths).astype(np.float32)[:, None]
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
