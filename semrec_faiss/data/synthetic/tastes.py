"""What made-up users like and have seen, drawn a block of users at a time, each from a random stream of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic.world import BLOCK_TITLES, GENRES, TitleBlock, stream

BLOCK_USERS = 4096
LIKED_TITLES = 16  # at most, of those that make a user's vector

# Titles that users choose among: in a larger catalogue only the better known ones, so that memory stays bounded.
KNOWN_TITLES = 2_000_000

_LIKED_STREAM, _SEEN_STREAM = 3, 4


def user_id(row: int) -> str:
    """Name the user at ``row``."""
    return f"user_{row + 1:08d}"


@dataclass(frozen=True)
class KnownTitles:
    """Titles that users may choose; all (some,).

    Attributes:
        rows: int64, rising.
        genres: int8, the first one's position in GENRES.
        popularity: float32.
    """

    rows: NDArray[np.int64]
    genres: NDArray[np.int8]
    popularity: NDArray[np.float32]


def best_known(block: TitleBlock, count: int, share: float) -> KnownTitles:
    """Choose the best known ``share`` of the first ``count`` titles of a block."""
    popularity = block.popularity[:count].astype(np.float32)
    kept = np.sort(np.argsort(-popularity, kind="stable")[: share_of(count, share)])
    return KnownTitles(block.number * BLOCK_TITLES + kept, block.genres[block.work[kept], 0], popularity[kept])


def share_of(count: int, share: float) -> int:
    """Return how many titles of ``count`` a ``share`` is."""
    return int(np.ceil(count * share))


class TitlePool:
    """The titles that users choose among, by first genre and popularity.

    Attributes:
        share: what part of each block's titles they are.
        size: how many they are when all are there.
    """

    def __init__(self, titles: int) -> None:
        self.share = min(1.0, KNOWN_TITLES / titles)
        whole, rest = divmod(titles, BLOCK_TITLES)
        self.size = whole * share_of(BLOCK_TITLES, self.share) + share_of(rest, self.share)
        # Room for all at once: an array a block would take more memory than what it holds.
        self._rows = np.empty(self.size, np.int64)
        self._genres = np.empty(self.size, np.int8)
        self._popularity = np.empty(self.size, np.float32)
        self._count = 0
        self._by_genre: list[NDArray[np.int64]] = []

    @property
    def has_all(self) -> bool:
        """Whether users choose among all titles."""
        return self.share == 1

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tell how many titles were taken in before those at ``rows``: int64 of their shape, (any,) or (any, any)."""
        places: NDArray[np.int64] = np.searchsorted(self._rows[: self._count], rows)  # blocks come in order
        return places

    @property
    def nbytes(self) -> int:
        """Bytes of what it keeps of all titles."""
        return self._rows.nbytes + self._genres.nbytes + self._popularity.nbytes

    def add(self, known: KnownTitles) -> None:
        """Take in what a block's ``share`` of best known titles is."""
        place = slice(self._count, self._count + len(known.rows))
        self._rows[place] = known.rows
        self._genres[place] = known.genres
        self._popularity[place] = known.popularity
        self._count += len(known.rows)

    def close(self) -> None:
        """Sort what was taken in, once all of it is there."""
        taken = slice(0, self._count)
        rows, genres = self._rows[taken], self._genres[taken]
        order = np.lexsort((rows, -self._popularity[taken], genres))
        bounds = np.searchsorted(genres[order], np.arange(len(GENRES) + 1))
        self._by_genre = [rows[order[low:high]] for low, high in pairwise(bounds.tolist())]

    def favourite_genres(self, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Draw genres that have titles, as often as they are common: int64, in ``shape``, positions in GENRES."""
        share = np.array([len(rows) for rows in self._by_genre], dtype=np.float64)
        return random.choice(len(GENRES), shape, p=share / share.sum())

    def choose(self, random: np.random.Generator, genres: NDArray[np.int64], skew: float) -> NDArray[np.int64]:
        """Draw a title's row for each of ``genres``, int64 of their shape; the larger ``skew``, the better known."""
        place = random.random(genres.shape) ** skew
        chosen = np.empty(genres.shape, dtype=np.int64)
        for genre, rows in enumerate(self._by_genre):
            wanted = genres == genre
            chosen[wanted] = rows[(place[wanted] * len(rows)).astype(np.int64)]
        return chosen


@dataclass(frozen=True)
class Liked:
    """What a block of users likes: rows int64 and weights float64, both (BLOCK_USERS, LIKED_TITLES).

    A weight is (rating - 1) / 4 as in the guide, for ratings of 2 to 5; 0 where a user likes fewer titles.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]


def _tastes(pool: TitlePool, seed: int, number: int) -> NDArray[np.int64]:
    """Draw (BLOCK_USERS, 4) favourite genres, the first ones repeated for users of narrow taste."""
    random = stream(seed, _LIKED_STREAM, 2 * number)
    genres = pool.favourite_genres(random, (BLOCK_USERS, 3))
    breadth = random.choice(3, (BLOCK_USERS, 1), p=(0.35, 0.4, 0.25))
    return np.take_along_axis(genres, np.minimum(np.arange(4)[None, :] % 3, breadth), axis=1)


def draw_liked(pool: TitlePool, seed: int, number: int) -> Liked:
    """Draw what the ``number``-th block of users likes."""
    tastes = _tastes(pool, seed, number)
    random = stream(seed, _LIKED_STREAM, 2 * number + 1)
    genres = np.take_along_axis(tastes, random.integers(0, 4, (BLOCK_USERS, LIKED_TITLES)), axis=1)
    rows = pool.choose(random, genres, skew=2.5)
    weights = random.choice((0.25, 0.5, 0.75, 1.0), rows.shape, p=(0.1, 0.2, 0.4, 0.3))
    how_many = random.integers(4, LIKED_TITLES + 1, (BLOCK_USERS, 1))
    weights[np.arange(LIKED_TITLES)[None, :] >= how_many] = 0.0
    return Liked(rows, weights)


def draw_seen(
    pool: TitlePool, seed: int, number: int, mean: int, titles: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw (user in the block, title row) pairs, ordered, without repeats: liked titles first, then more of the kind.

    Counts follow a log-normal of about ``mean``: many users have seen little, a few very much.
    """
    random = stream(seed, _SEEN_STREAM, number)
    spread = 0.9
    counts = mean * np.exp(spread * random.standard_normal(BLOCK_USERS) - spread**2 / 2)
    counts = np.clip(np.rint(counts), 1, min(titles, 20 * mean)).astype(np.int64)
    users = np.repeat(np.arange(BLOCK_USERS), counts)
    nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    tastes = _tastes(pool, seed, number)
    genres = tastes[users, random.integers(0, 4, len(users))]
    stray = random.random(len(users)) < 0.15  # now and then something of another genre
    genres[stray] = pool.favourite_genres(random, (int(stray.sum()),))
    rows = pool.choose(random, genres, skew=1.6)
    liked = draw_liked(pool, seed, number)
    from_liked = nth < np.minimum((liked.weights > 0).sum(axis=1), LIKED_TITLES)[users]
    rows[from_liked] = liked.rows[users[from_liked], nth[from_liked]]
    order = np.lexsort((rows, users))
    users, rows = users[order], rows[order]
    fresh = np.ones(len(users), dtype=bool)
    fresh[1:] = (np.diff(users) != 0) | (np.diff(rows) != 0)
    return users[fresh], rows[fresh]
