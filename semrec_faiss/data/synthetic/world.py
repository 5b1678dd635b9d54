"""A made-up world of titles, drawn a block at a time.

Each block has its own random stream, keyed by the seed and the block's number: any block can be made alone, and a
larger world begins with the titles of a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic.names import WORDINGS

BLOCK_TITLES = 2048
THEMES_PER_GENRE = 60

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
_COMPANION_COUNTS = np.array([len(companions) for companions in _COMPANIONS])
_COMPANION_TABLE = np.array(
    [np.resize(companions, max(_COMPANION_COUNTS)) for companions in _COMPANIONS], dtype=np.int8
)


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

SPREADS = np.geomspace(0.25, 1.1, 8)
"""float64 (8,): how far a work's titles can lie from its centre, rising."""

_TITLES_STREAM = 1


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
        spread: int (f,), which of SPREADS a work's titles have.
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
    spread: NDArray[np.int64]
    wording: NDArray[np.int64]

    def genre_sets(self) -> NDArray[np.int64]:
        """Tell where in GENRE_SETS the genres of works stand: int64 (works,)."""
        sets: NDArray[np.int64] = _SET_NUMBERS[tuple(self.genres.T)]
        return sets

    def centre_numbers(self) -> NDArray[np.int64]:
        """Number what works are about, THEMES_PER_GENRE in a row for each of GENRE_SETS: int64 (works,)."""
        return self.genre_sets() * THEMES_PER_GENRE + self.theme % THEMES_PER_GENRE


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
    spread = nearest_spread(0.44 * np.exp(0.3 * random.standard_normal(works)))
    wording = random.integers(0, WORDINGS, (works, 3))
    # Films of a franchise stand near each other, not side by side; near, so that a small world has whole franchises.
    order = np.argsort(np.arange(BLOCK_TITLES) + 64 * random.random(BLOCK_TITLES))
    work, part = work[order], part[order]
    year = start[work] + part * gap[work]
    return TitleBlock(number, work, part, year, popularity[order], sizes, genres, theme, spread, wording)


def nearest_spread(wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Tell which of SPREADS is nearest to each of ``wanted`` (any,), by ratio: int64 (any,)."""
    between: NDArray[np.int64] = np.searchsorted(np.sqrt(SPREADS[1:] * SPREADS[:-1]), wanted)
    return between


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
    first = genres[:, 0]
    companions = _COMPANION_COUNTS[first]
    second = (random.random(works) * companions).astype(np.int64)
    genres[:, 1] = np.where(how_many >= 1, _COMPANION_TABLE[first, second], -1)
    genres[:, 2] = np.where(how_many == 2, _COMPANION_TABLE[first, (second + 1) % companions], -1)
    return genres
