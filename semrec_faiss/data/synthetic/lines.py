"""Made-up titles as lines of metadata.jsonl.

Put together of ready pieces, because all other threads wait while a line is made: ten million calls of json.dumps take
minutes. Names are plain ASCII words, so nothing needs escaping.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.synthetic.names import work_names
from semrec_faiss.data.synthetic.world import (
    BLOCK_TITLES,
    FIRST_YEAR,
    GENRE_SETS,
    GENRES,
    MOST_FILMS,
    THIS_YEAR,
    TitleBlock,
)

_YEARS = range(FIRST_YEAR, THIS_YEAR + 1)
_NTH_FILM = ("", *(f" {nth}" for nth in range(2, MOST_FILMS + 1)))

# Pieces of lines: by the last three digits of an id, by part and year, by choice of genres, and by thousandths.
_ID_ENDS = [f'{digits:03d}", "title": "' for digits in range(1000)]
_YEAR_TEXTS = [f'{nth} ({year})", "year": {year}, "genres": ' for nth in _NTH_FILM for year in _YEARS]
_GENRE_LISTS = [json.dumps([GENRES[genre] for genre in chosen if genre >= 0]) for chosen in GENRE_SETS]
_FRACTIONS = [f".{digits:03d}}}\n" for digits in range(1000)]


def json_lines(block: TitleBlock, count: int) -> bytes:
    """Write the first ``count`` titles of a block."""
    first = block.number * BLOCK_TITLES
    names = work_names(first, block.wording)
    franchises = [f'"{name}"' if size > 1 else "null" for name, size in zip(names, block.sizes.tolist(), strict=True)]
    facts = [
        f'{_GENRE_LISTS[number]}, "franchise": {franchise}, "popularity": '
        for number, franchise in zip(block.genre_sets().tolist(), franchises, strict=True)
    ]
    years = (block.part[:count] * len(_YEARS) + block.year[:count] - FIRST_YEAR).tolist()
    whole, fraction = np.divmod(_thousandths(block.popularity[:count]), 1000)
    rows = zip(
        _id_starts(first + 1, count),
        block.work[:count].tolist(),
        years,
        whole.tolist(),
        fraction.tolist(),
        strict=True,
    )
    return "".join(
        [
            f"{start}{names[work]}{_YEAR_TEXTS[year]}{facts[work]}{number}{_FRACTIONS[digits]}"
            for start, work, year, number, digits in rows
        ]
    ).encode()


def _id_starts(first: int, count: int) -> list[str]:
    """Write the beginnings of ``count`` lines, up to the title, for ids from ``first`` on."""
    starts: list[str] = []
    while len(starts) < count:
        thousand, digits = divmod(first + len(starts), 1000)
        leading = f'{{"media_id": "title_{thousand:06d}'
        starts += [leading + end for end in _ID_ENDS[digits : digits + count - len(starts)]]
    return starts


def _thousandths(popularity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to thousandths just as the format ``.3f`` does, which looks at more digits than a product has."""
    product = popularity * 1000
    rounded = np.rint(product).astype(np.int64)
    for row in np.flatnonzero(np.abs(np.abs(product - rounded) - 0.5) < 1e-6).tolist():
        rounded[row] = int(f"{popularity[row]:.3f}".replace(".", ""))
    return rounded
