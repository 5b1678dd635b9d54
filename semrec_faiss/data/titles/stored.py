"""Texts stored by row and found by key, mapped from disk: nothing is read before it is asked for.

Three files hold n texts. NAME.jsonl has a line per row. NAME.index has 12 bytes per row: where the line ends, and the
CRC-32 of row and line, so that no line is shown that was not written for that row. NAME.lookup has the 64-bit hashes of
all keys in order, then the row of each: two titles may share a key, so what is found is held against the line itself.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows
from semrec_faiss.errors import DamagedIndexError, DataError
from semrec_faiss.storage import too_many_open

ENDINGS = (".jsonl", ".index", ".lookup")
_ENTRY = np.dtype([("end", "<u8"), ("crc", "<u4")])
_BLOCK_BYTES = 1 << 20
REPAIR = "restore it from a copy, run `semrec rollback INDEX` if it was built more than once, or build it again"


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


def write_stored(texts: Iterable[tuple[bytes, Iterable[str]]], lines: Sink, index: Sink, lookup: Sink) -> None:
    """Write the three files.

    Args:
        texts: each row's line, without its end and without line breaks, and the keys that it is found by.
        lines, index, lookup: where NAME.jsonl, NAME.index and NAME.lookup go.
    """
    end = 0
    hashes: list[int] = []
    rows: list[int] = []
    written = bytearray()
    entries: list[tuple[int, int]] = []
    for row, (line, keys) in enumerate(texts):
        written += line + b"\n"
        end += len(line) + 1
        entries.append((end, _digest(row, line)))
        for key in keys:
            hashes.append(_hash(key))
            rows.append(row)
        if len(written) > _BLOCK_BYTES:
            lines.write(bytes(written))
            written.clear()
    lines.write(bytes(written))
    index.write(np.array(entries, _ENTRY).tobytes())
    unordered = np.array(hashes, "<u8")
    order = np.lexsort((np.array(rows, "<i8"), unordered))
    lookup.write(unordered[order].tobytes())
    lookup.write(np.array(rows, "<i8")[order].tobytes())


class Texts(Protocol):
    """Texts by row and rows by key, wherever they lie; see `StoredTexts`."""

    count: int

    def lines(self, rows: Any) -> list[bytes]:
        """Return the lines of ``rows``."""
        ...

    def rows_of(self, key: str) -> list[int]:
        """Return the rows whose keys may hold ``key``."""
        ...

    def first_rows(self, keys: Sequence[str]) -> Rows:
        """Return the first of `rows_of` each key, int64 (keys,), -1 where there is none."""
        ...


class StoredTexts:
    """Texts by row and rows by key; safe to use from many threads."""

    def __init__(
        self, lines: Path, index: Path, lookup: Callable[[], Path], count: int, named: Path | None = None
    ) -> None:
        """Map files that `write_stored` wrote, of sizes that are right.

        Args:
            lines: NAME.jsonl.
            index: NAME.index.
            lookup: gives NAME.lookup, held against its digest, when a key is first looked up.
            count: the number of rows.
            named: what messages call NAME.jsonl, where it is read by another path.

        Raises:
            DamagedIndexError: a file cannot be read, or is of another size than ``count`` rows take.
        """
        self.count = count
        self._named = named or lines
        self._lookup_path = lookup
        self._lookup: tuple[NDArray[np.uint64], Rows] | None = None
        try:
            with lines.open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            entries: NDArray[Any] = np.asarray(np.memmap(index, _ENTRY, "r"))  # whose indexing is quicker
        except (OSError, ValueError) as error:
            raise too_many_open(error, lines) or DamagedIndexError(
                f"{lines}: cannot be read: {error}", fix=REPAIR
            ) from error
        if len(entries) != count:
            raise DamagedIndexError(f"{index} has {len(entries)} rows, there are {count}", fix=REPAIR)
        self._end_of, self._sum_of = entries["end"].item, entries["crc"].item

    def lines(self, rows: Any) -> list[bytes]:
        """Return the lines of ``rows``, in the order asked.

        Raises:
            DataError: there is no such row.
            DamagedIndexError: a line is not the one that was written for its row.
        """
        end_of, sum_of, mapped = self._end_of, self._sum_of, self._lines
        found = []
        for row in np.asarray(rows, dtype=np.int64).reshape(-1).tolist():
            if not 0 <= row < self.count:
                raise DataError(f"row {row} is outside the titles, which have rows 0 to {self.count - 1}")
            start, end = end_of(row - 1) if row else 0, end_of(row)
            line = mapped[start : end - 1] if end > start else b""
            if _digest(row, line) != sum_of(row) or mapped[end - 1 : end] != b"\n":
                raise DamagedIndexError(f"{self._named}:{row + 1} has changed since it was written", fix=REPAIR)
            found.append(line)
        return found

    def rows_of(self, key: str) -> list[int]:
        """Return the rows, ascending, whose keys may hold ``key``; hold what is found against the line."""
        hashes, rows = self._table()
        wanted = _hash(key)
        first = bisect_left(hashes.data, wanted)  # of one key many times quicker than numpy's
        last = bisect_right(hashes.data, wanted, lo=first)
        found: list[int] = rows[first:last].tolist()
        return found

    def first_rows(self, keys: Sequence[str]) -> Rows:
        """Return the first of `rows_of` each key, int64 (keys,), and -1 where there is none."""
        hashes, rows = self._table()
        wanted = np.array([_hash(key) for key in keys], np.uint64)
        if not len(hashes):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(hashes.searchsorted(wanted), len(hashes) - 1)
        return np.where(hashes[at] == wanted, rows[at], -1)

    def _table(self) -> tuple[NDArray[np.uint64], Rows]:
        if self._lookup is None:
            self._lookup = self._read_lookup()
        return self._lookup

    def _read_lookup(self) -> tuple[NDArray[np.uint64], Rows]:
        path = self._lookup_path()
        try:
            mapped = np.memmap(path, "<u8", "r")
        except (OSError, ValueError) as error:
            raise too_many_open(error, path) or DamagedIndexError(
                f"{path}: cannot be read: {error}", fix=REPAIR
            ) from error
        half = len(mapped) // 2
        return np.asarray(mapped[:half]), np.asarray(mapped[half:]).view("<i8")


def _digest(row: int, line: bytes) -> int:
    return crc32(line, row & 0xFFFFFFFF)


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
