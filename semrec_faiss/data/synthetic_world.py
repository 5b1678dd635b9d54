"""A made-up world of titles and tastes, drawn a block at a time.

Each block has its own random stream, keyed by the seed and the block's number: any block can be made alone, and a
larger world begins with the titles of a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic_names import WORDINGS

BLOCK_TITLES = 2048
BLOCK_USERS = 4096
LIKED_TITLES = 16  # at most, of those that make a user's vector
THEMES_PER_GENRE = 60

# Titles that users choose among: in a larger catalogue only the better known ones, so that memory stays bounded.
KNOWN_TITLES = 2_000_000

THIS_YEAR = 2025
FIRST_YEAR = 1921

# How common a genre is as a title's first one, and what it goes with; in the order of a film catalogue.
_GENRE_TABLE: dict[str, tuple[float, tuple[str, ...]]] = {
    "Drama": (25, ("Romance", "Crime", "Thriller", "History", "War")),
    "Comedy": (20, ("Romance", "Drama", "Family", "Crime")),
    "Action": (10, ("Adventure", "Thriller", "Sci-Fi", "Crime")),
    "Thriller": (7, ("Crime", "Mystery", "Drama", "Horror")),
    "Horror": (7, ("Thriller", "Mystery", "Sci-Fi")),
    "Documentary": (6, ("Music", "History", "Biography", "Sport")),
    "Adventure": (4, ("Fantasy", "Family", "Action", "Sci-Fi")),
    "Animation": (4, ("Family", "Comedy", "Fantasy", "Adventure")),
    "Crime": (4, ("Thriller", "Drama", "Mystery")),
    "Romance": (3, ("Drama", "Comedy", "Music")),
    "Sci-Fi": (3, ("Action", "Thriller", "Adventure", "Horror")),
    "Fantasy": (1.5, ("Adventure", "Romance", "Family")),
    "Family": (1.2, ("Comedy", "Adventure", "Animation")),
    "Mystery": (1, ("Thriller", "Crime", "Drama")),
    "Western": (1, ("Action", "Drama", "Adventure")),
    "War": (1, ("Drama", "History", "Action")),
    "Music": (0.8, ("Romance", "Comedy", "Drama")),
    "Biography": (0.7, ("Drama", "History", "Sport")),
    "History": (0.5, ("Drama", "War", "Biography")),
    "Sport": (0.3, ("Drama", "Comedy", "Biography")),
}
GENRES = tuple(_GENRE_TABLE)
_GENRE_SHARE = np.array([share for share, _ in _GENRE_TABLE.values()]) / sum(s for s, _ in _GENRE_TABLE.values())
_COMPANIONS = [np.array([GENRES.index(name) for name in names]) for _, names in _GENRE_TABLE.values()]


def _genre_sets() -> NDArray[np.int8]:
    """List every (first, second, third) that a work's genres can be; -1 for none."""
    sets = []
    for first, companions in enumerate(_COMPANIONS):
        sets.append((first, -1, -1))
        for second, third in zip(companions, np.roll(companions, -1), strict=True):
            sets += [(first, second, -1), (first, second, third)]
    return np.array(sets, dtype=np.int8)


GENRE_SETS = _genre_sets()
"""int8 (s, 3): every choice of genres that a work can have, the first one first; -1 for none."""

# Where a choice stands in GENRE_SETS, by its three genres; none counts as the last.
_SET_NUMBERS = np.full((len(GENRES) + 1,) * 3, -1)
_SET_NUMBERS[tuple(GENRE_SETS.T)] = np.arange(len(GENRE_SETS))

MOST_FILMS = 12  # of a franchise

_TITLES_STREAM, _LIKED_STREAM, _SEEN_STREAM = 1, 3, 4


def stream(seed: int, kind: int, number: int) -> np.random.Generator:
    """Open the random stream of one block of one kind."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(kind, number))))


@dataclass(frozen=True)
class TitleBlock:
    """The facts of BLOCK_TITLES titles; f is the number of franchises and single titles in the block.

    Attributes:
        number: which block.
        work: int (BLOCK_TITLES,), which of the block's f works a title belongs to.
        part: int (BLOCK_TITLES,), 0 for the first film of a work.
        year: int (BLOCK_TITLES,).
        popularity: float64 (BLOCK_TITLES,), around 1, with a long tail.
        sizes: int (f,), films in a work; 1 for a single title.
        genres: int8 (f, 3), positions in GENRES, most fitting first; -1 for none.
        theme: int (f,), what a work is about: one of the THEMES_PER_GENRE themes of its first genre, counted over all.
        spread: float32 (f,), how far a work's titles lie from its centre.
        wording: int (f, 3), which pattern, adjective and noun its name has.
    """

    number: int
    work: NDArray[np.int64]
    part: NDArray[np.int64]
    year: NDArray[np.int64]
    popularity: NDArray[np.float64]
    sizes: NDArray[np.int64]
    genres: NDArray[np.int8]
    theme: NDArray[np.int64]
    spread: NDArray[np.float32]
    wording: NDArray[np.int64]

    def genre_sets(self) -> NDArray[np.int64]:
        """Tell where in GENRE_SETS the genres of works stand, (f,)."""
        sets: NDArray[np.int64] = _SET_NUMBERS[tuple(self.genres.T)]
        return sets

    def centre_numbers(self) -> NDArray[np.int64]:
        """Number (f,) what works are about: THEMES_PER_GENRE in a row for each of GENRE_SETS."""
        return self.genre_sets() * THEMES_PER_GENRE + self.theme % THEMES_PER_GENRE


def user_id(row: int) -> str:
    """Name the user at ``row``."""
    return f"user_{row + 1:08d}"


def make_titles(seed: int, number: int) -> TitleBlock:
    """Draw the facts of the ``number``-th block of titles."""
    random = stream(seed, _TITLES_STREAM, number)
    sizes = _work_sizes(random)
    works = len(sizes)
    work = np.repeat(np.arange(works), sizes)
    part = np.arange(BLOCK_TITLES) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    gap = random.integers(1, 5, works)
    start = np.maximum(THIS_YEAR - random.exponential(22, works).astype(np.int64), FIRST_YEAR)
    start = np.minimum(start, THIS_YEAR - (sizes - 1) * gap)
    popularity = np.exp(1.1 * random.standard_normal(works)[work] + 0.6 * random.standard_normal(BLOCK_TITLES))
    genres = _work_genres(random, works)
    theme = genres[:, 0] * np.int64(THEMES_PER_GENRE) + random.integers(0, THEMES_PER_GENRE, works)
    spread = np.clip(0.44 * np.exp(0.3 * random.standard_normal(works)), 0.25, 1.1).astype(np.float32)
    wording = random.integers(0, WORDINGS, (works, 3))
    # Films of a franchise stand near each other, not side by side; near, so that a small world has whole franchises.
    order = np.argsort(np.arange(BLOCK_TITLES) + 64 * random.random(BLOCK_TITLES))
    work, part = work[order], part[order]
    year = start[work] + part * gap[work]
    return TitleBlock(number, work, part, year, popularity[order], sizes, genres, theme, spread, wording)


def _work_sizes(random: np.random.Generator) -> NDArray[np.int64]:
    """Draw sizes that add up to BLOCK_TITLES: most works stand alone, franchises have 2 to MOST_FILMS films."""
    sizes = np.where(
        random.random(BLOCK_TITLES) < 0.85, 1, np.minimum(1 + random.geometric(0.45, BLOCK_TITLES), MOST_FILMS)
    )
    works = int(np.searchsorted(np.cumsum(sizes), BLOCK_TITLES)) + 1
    sizes = sizes[:works]
    sizes[-1] -= sizes.sum() - BLOCK_TITLES
    return sizes


def _work_genres(random: np.random.Generator, works: int) -> NDArray[np.int8]:
    """Draw one to three genres a work; further ones are companions of the first."""
    genres = np.full((works, 3), -1, dtype=np.int8)
    genres[:, 0] = random.choice(len(GENRES), works, p=_GENRE_SHARE)
    how_many = random.choice(3, works, p=(0.35, 0.42, 0.23))
    pick = random.random(works)
    for genre, companions in enumerate(_COMPANIONS):
        members = np.flatnonzero(genres[:, 0] == genre)
        second = (pick[members] * len(companions)).astype(np.int64)
        third = (second + 1) % len(companions)
        genres[members, 1] = np.where(how_many[members] >= 1, companions[second], -1)
        genres[members, 2] = np.where(how_many[members] == 2, companions[third], -1)
    return genres


class TitlePool:
    """The titles that users choose among, by first genre and popularity."""

    def __init__(self, titles: int) -> None:
        self._titles = titles
        self._kept_share = min(1.0, KNOWN_TITLES / titles)
        # Room for all at once: an array a block would take more memory than what it holds.
        room = -(-titles // BLOCK_TITLES) * self._kept_of(BLOCK_TITLES)
        self._rows = np.empty(room, np.int64)
        self._genres = np.empty(room, np.int8)
        self._popularity = np.empty(room, np.float32)
        self._count = 0
        self._by_genre: list[NDArray[np.int64]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of what it keeps of all titles."""
        return self._rows.nbytes + self._genres.nbytes + self._popularity.nbytes

    def _kept_of(self, count: int) -> int:
        return int(np.ceil(count * self._kept_share))

    def add(self, block: TitleBlock) -> None:
        """Take in a block's titles, or the best known of them."""
        first = block.number * BLOCK_TITLES
        count = min(BLOCK_TITLES, self._titles - first)
        popularity = block.popularity[:count].astype(np.float32)
        kept = np.sort(np.argsort(-popularity, kind="stable")[: self._kept_of(count)])
        place = slice(self._count, self._count + len(kept))
        self._rows[place] = first + kept
        self._genres[place] = block.genres[block.work[kept], 0]
        self._popularity[place] = popularity[kept]
        self._count += len(kept)

    def close(self) -> None:
        """Sort what was taken in, once all of it is there."""
        taken = slice(0, self._count)
        rows, genres = self._rows[taken], self._genres[taken]
        order = np.lexsort((rows, -self._popularity[taken], genres))
        bounds = np.searchsorted(genres[order], np.arange(len(GENRES) + 1))
        self._by_genre = [rows[order[low:high]] for low, high in pairwise(bounds.tolist())]

    def favourite_genres(self, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Draw genres that have titles, as often as they are common."""
        share = np.array([len(rows) for rows in self._by_genre], dtype=np.float64)
        return random.choice(len(GENRES), shape, p=share / share.sum())

    def choose(self, random: np.random.Generator, genres: NDArray[np.int64], skew: float) -> NDArray[np.int64]:
        """Draw a row for each of ``genres``; the larger ``skew``, the better known."""
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
