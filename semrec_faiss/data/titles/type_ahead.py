"""Titles as one types: all titles' words in one text, searched from its beginning; a keystroke costs a millisecond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.spelling import words

_BLOCK = 4096
"""Hits that are looked at of one way to find a title."""


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
        asked = " ".join(words(typed)).encode()
        if not asked:
            return []
        found: dict[int, None] = {}
        for pattern in (b"\n " + asked, b" " + asked, asked):
            rows = sorted(dict.fromkeys(self._rows(pattern)), key=lambda row: (self._length(row), row))
            found |= dict.fromkeys(rows)
            if len(found) >= count:
                break
        return list(found)[:count]

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
