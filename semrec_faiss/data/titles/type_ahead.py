"""Titles as one types: all titles' words in one text, searched from its beginning; a keystroke costs a millisecond."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.spelling import words

_BLOCK = 4096
"""Titles that are looked at of one way to find them."""


class Hit(NamedTuple):
    """A title that answers to what is typed; the least comes first.

    Attributes:
        way: 0 where it begins so, 1 where a word does, 2 where it holds it.
        length: of its words.
        row: its row.
    """

    way: int
    length: int
    row: int


class TypeAhead:
    """Finds titles by the beginning of a word; case, accents and punctuation do not matter."""

    def __init__(self, titles: Iterable[str]) -> None:
        """Take all titles, in row order."""
        lines = [f"\n {' '.join(words(title))}".encode() for title in titles]
        self._text = b"".join(lines)
        self._lengths: Rows = np.array([len(line) for line in lines], np.int64)
        self._starts: Rows = np.cumsum(self._lengths) - self._lengths

    def find(self, typed: str, count: int) -> list[int]:
        """Return the rows of up to ``count`` titles: those that begin so, then where a word does, then what holds it.

        Among equals the shorter comes first, then the earlier row.
        """
        return [hit.row for hit in self.hits(typed, count)]

    def looked_at(self, typed: str, count: int) -> tuple[list[int], float]:
        """Return what `find` does, and the share of all titles that was looked at: 1 but where a shard is lost."""
        return self.find(typed, count), 1.0

    def hits(self, typed: str, count: int) -> list[Hit]:
        """Return what `find` does, and how each answers."""
        asked = " ".join(words(typed)).encode()
        if not asked:
            return []
        found: dict[int, Hit] = {}
        for way, pattern in enumerate((b"\n " + asked, b" " + asked, asked)):
            rows = self._rows(pattern)
            if found:
                rows = rows[~np.isin(rows, list(found))]
            best = np.lexsort((rows, self._lengths[rows]))[: count - len(found)]
            found |= {row: Hit(way, int(self._lengths[row]), row) for row in rows[best].tolist()}
            if len(found) >= count:
                break
        return list(found.values())

    def _rows(self, pattern: bytes) -> Rows:
        """Return the rows of titles that hold ``pattern``, each once, in their order."""
        places: list[int] = []
        at = self._text.find(pattern)
        while at >= 0 and len(places) < _BLOCK:
            places.append(at)
            after = self._text.find(b"\n", at + len(pattern))
            at = self._text.find(pattern, after) if after >= 0 else -1
        return np.searchsorted(self._starts, np.array(places, np.int64), side="right") - 1
