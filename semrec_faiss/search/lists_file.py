"""Lists of titles on their way to one Parquet file: finished blocks beside it, row groups, and what is counted.

Ids and titles repeat much: they go to the file as indices into dictionaries, which Parquet stores as they are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Scores, StoredRows
from semrec_faiss.data.titles.columns import column_of_numbers, column_of_texts
from semrec_faiss.storage import read_small

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1 << 19
"""Results in a row group, at least, but for the last. Each holds the texts of its titles again: fewer are quicker."""

DICTIONARY_BYTES = 256 << 20
"""Beyond it Parquet would write texts one by one."""

COLUMNS = ("user_id", "rank", "media_id", "title", "score")

MANIFEST = "MANIFEST.json"
"""Of a folder of lists, which workers of a cluster make."""

_MADE = b"semrec_lists"
_HEAD = struct.Struct("<QQI")

TitlesOf = Callable[[Rows], "tuple[pa.Array, pa.Array]"]
"""Title rows, int64; their media_ids and titles as Arrow texts."""

Seen = tuple[Rows, StoredRows]
"""``rows[offsets[u]:offsets[u + 1]]`` are the titles that user ``u`` has seen, ascending."""


def write_block(path: Path, rows: Rows, scores: Scores) -> None:
    """Write the lists of a block of users, int64 and float32 (users, k), so that a half-written one is known for it."""
    body = [np.ascontiguousarray(rows, "<i8").data, np.ascontiguousarray(scores, "<f4").data]
    staged = path.with_suffix(".new")
    with staged.open("wb") as file:
        file.write(_HEAD.pack(*rows.shape, crc32(body[1], crc32(body[0]))))
        file.writelines(body)
    staged.replace(path)


def read_block(path: Path, users: int) -> tuple[Rows, Scores] | None:
    """Read what `write_block` wrote for so many users; None where nothing is, or something else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEAD.size:
        return None
    count, k, expected = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if count != users or len(body) != 12 * count * k or crc32(body) != expected:
        return None
    cut = 8 * count * k
    return (
        np.frombuffer(body[:cut], "<i8").reshape(count, k).astype(np.int64),
        np.frombuffer(body[cut:], "<f4").reshape(count, k).astype(np.float32),
    )


def how_made(path: Path) -> Mapping[str, Any] | None:
    """Return how the lists in a file or a folder were made, empty where that is not known; None where it holds none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.is_dir():
            made = json.loads(read_small(path / MANIFEST)).get("made", {})
        else:
            held = pq.read_metadata(path)
            made = json.loads((held.metadata or {}).get(_MADE, b"{}")) if held.schema.names == [*COLUMNS] else None
    except (OSError, pa.ArrowException, ValueError, AttributeError):
        return None
    return made if isinstance(made, dict) else None


class ListsFile:
    """A Parquet file of user_id, rank, media_id, title and score, written block by block of users in row order."""

    def __init__(
        self, path: Path, user_ids: Sequence[str], titles: int, titles_of: TitlesOf, made: Mapping[str, Any]
    ) -> None:
        """Begin a file; raises OSError where the disk refuses, here and in what follows.

        Args:
            path: where.
            user_ids: of all users, in row order.
            titles: how many there are.
            titles_of: gives the ids and titles of rows.
            made: how the lists are made, which the file holds beside them; see `how_made`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._user_ids = column_of_texts(user_ids)
        self._titles_of = titles_of
        self._place_of = np.zeros(titles, np.int32)
        text = pa.dictionary(pa.int32(), pa.string())
        kinds = (text, pa.int32(), text, text, pa.float32())
        self._schema = pa.schema(zip(COLUMNS, kinds, strict=True))
        names = self._schema.names
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            store_schema=False,
            compression={name: "none" if name == "score" else "zstd" for name in names},  # noise, to a compressor
            use_dictionary=[name for name in names if name != "score"],
            write_statistics=["user_id", "rank", "score"],  # of titles they would take as long as all the rest
            dictionary_pagesize_limit=DICTIONARY_BYTES,
        )
        self._writer.add_key_value_metadata({_MADE: json.dumps(made)})
        self._first = 0
        self._blocks: list[tuple[Rows, Scores]] = []

    def add(self, rows: Rows, scores: Scores) -> None:
        """Append the lists of the users that come next: int64 and float32 (users, k), -1 where there is no title."""
        self._blocks.append((rows, scores))
        if sum(block.size for block, _ in self._blocks) >= ROW_GROUP:
            self._write()

    def __enter__(self) -> ListsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None and self._blocks:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        import pyarrow as pa

        rows, scores = (np.concatenate(parts) for parts in zip(*self._blocks, strict=True))
        self._blocks = []
        users, kept = slice(self._first, self._first + len(rows)), rows >= 0
        self._first = users.stop
        found = rows[kept]
        distinct, at = self._encoded(found)
        of_user = np.repeat(np.arange(len(rows), dtype=np.int32), kept.sum(axis=1))
        ranks = np.broadcast_to(np.arange(1, rows.shape[1] + 1, dtype=np.int32), rows.shape)[kept]
        user_ids = self._user_ids.slice(users.start, len(rows))
        media_ids, titles = self._titles_of(distinct)
        encoded = pa.DictionaryArray.from_arrays
        columns = [
            encoded(column_of_numbers(of_user), user_ids),
            column_of_numbers(ranks),
            encoded(column_of_numbers(at), media_ids),
            encoded(column_of_numbers(at), titles),
            column_of_numbers(scores[kept]),
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=max(1, len(found)))

    def _encoded(self, rows: Rows) -> tuple[Rows, NDArray[np.int32]]:
        """Return the distinct rows, ascending, and the place of each row among them."""
        is_there = np.zeros(len(self._place_of), np.bool_)
        is_there[rows] = True
        distinct = np.flatnonzero(is_there)
        self._place_of[distinct] = np.arange(len(distinct), dtype=np.int32)
        return distinct, self._place_of[rows]


class Counts:
    """What is counted of lists as they are written.

    Attributes:
        full: users with as many titles as were asked for.
        repeats: titles that one user was given twice.
        leaks: titles that a user has seen; None where that is not known, or asked for.
    """

    def __init__(self, titles: int, k: int, seen: Seen | None) -> None:
        """Count lists of ``k`` of so many titles."""
        self._titles, self._k, self._seen = titles, k, seen
        self._given = np.zeros(titles, np.bool_)
        self._first = 0
        self.full = self.repeats = 0
        self.leaks: int | None = None if seen is None else 0

    @property
    def distinct(self) -> int:
        """How many titles anybody was given."""
        return int(self._given.sum())

    def add(self, rows: Rows) -> None:
        """Count the lists of the users that come next: int64 (users, k), -1 where there is no title."""
        ordered = np.sort(rows, axis=1)
        there = ordered >= 0
        self._given[ordered[there]] = True
        self.full += int((there.sum(axis=1) >= self._k).sum())
        self.repeats += int(((ordered[:, 1:] == ordered[:, :-1]) & there[:, 1:]).sum())
        if self._seen is not None and self.leaks is not None:
            self.leaks += self._leaks(ordered, there, *self._seen)
        self._first += len(rows)

    def _leaks(self, ordered: Rows, there: Any, offsets: Rows, seen: StoredRows) -> int:
        """Look each title up among what its user has seen, users and titles as one number each."""
        bounds = offsets[self._first : self._first + len(ordered) + 1]
        own = np.arange(len(ordered), dtype=np.int64) * self._titles
        known = np.repeat(own, bounds[1:] - bounds[:-1]) + seen[bounds[0] : bounds[-1]]
        if not len(known):
            return 0
        asked = (own[:, None] + ordered)[there]
        return int((known[np.minimum(known.searchsorted(asked), len(known) - 1)] == asked).sum())
