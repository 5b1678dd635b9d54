"""Titles as one types: all titles' words in one text, searched from its beginning; a keystroke costs a millisecond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.spelling import words

_BLOCK = 4096
"""Hits that are looked at of one way to find a title."""


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
        self._starts: Rows = np.concatenate(([0], np.cumsum([len(line) for line in lines], dtype=np.int64)))[:-1]

    def find(self, typed: str, count: int) -> list[int]:
        """Return the rows of up to ``count`` titles: those that begin so, then where a word does, then what holds it.

        Among equals the shorter comes first, then the earlier row.
        """
        return [hit.row for hit in self.hits(typed, count)]

    def hits(self, typed: str, count: int) -> list[Hit]:
        """Return what `find` does, and how each answers."""
        asked = " ".join(words(typed)).encode()
        if not asked:
            return []
        found: dict[int, Hit] = {}
        for way, pattern in enumerate((b"\n " + asked, b" " + asked, asked)):
            hits = sorted(Hit(way, self._length(row), row) for row in self._rows(pattern) if row not in found)
            found |= {hit.row: hit for hit in hits}
            if len(found) >= count:
                break
        return list(found.values())[:count]

    def _rows(self, pattern: bytes) -> Iterator[int]:
        at = self._text.find(pattern)
        for _ in range(_BLOCK):
            if at < 0:
                return
            row = int(np.searchsorted(self._starts, at, side="right")) - 1
            yield row
            at = self._text.find(pattern, self._end(row))

    def _end(self, row: int) -> int:
        return int(self._starts[row + 1]) if row + 1 < len(self._starts) else len(self._text)

    def _length(self, row: int) -> int:
        return self._end(row) - int(self._starts[row])
