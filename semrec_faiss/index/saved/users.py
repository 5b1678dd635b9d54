"""The users of an index on disk: ids, vectors, and what each has seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, StoredRows, Values, Vectors, row_type
from semrec_faiss.data.folder.database import first_line, literal_path, session
from semrec_faiss.data.seen_table import DelistedRows, SeenRows
from semrec_faiss.data.titles.stored import Texts
from semrec_faiss.data.users import History, grouped_history, known_ratings
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.cpu.cosines import lengths_of
from semrec_faiss.index.cpu.exact import SCAN_ROWS
from semrec_faiss.index.generations.file_names import DELISTED_NAME, LIKELESS_NAME, SEEN_NAME, USER_LOOKUP, USERS_NAME
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.texts import read_texts, write_texts
from semrec_faiss.index.saved.delisted import joined_rows, read_delisted
from semrec_faiss.index.saved.known_ids import KnownIds
from semrec_faiss.index.saved.near_ids import near_to, unknown_users
from semrec_faiss.index.segments.joined import JoinedVectors
from semrec_faiss.index.segments.opened import OpenSegments
from semrec_faiss.index.segments.places import GONE
from semrec_faiss.storage import too_many_open

USER_IDS_NAME = "users.parquet"
MANY_IDS, MOST_KEPT_IDS = 64, 1 << 20
"""From so many ids at once all of them are kept in memory, of at most so many users: 150 bytes each."""

_SHOWN = 3


def write_user_ids(new: NewGeneration, user_ids: Sequence[str]) -> None:
    """Write users.parquet: user_id in row order."""
    import pyarrow as pa

    new.write_table(USER_IDS_NAME, pa.table({"user_id": pa.array(user_ids, pa.string())}))
    write_texts(new, USER_LOOKUP, ((line_of(user_id), (user_id,)) for user_id in user_ids))


def write_seen(new: NewGeneration, history: History, name: str = SEEN_NAME) -> None:
    """Write seen.parquet: (user_row, title_row) sorted by both, and rating and timestamp where they are known."""
    import pyarrow as pa

    offsets, users = history.offsets, len(history.offsets) - 1
    columns: dict[str, Any] = {
        "user_row": np.repeat(np.arange(users, dtype=row_type(users)), np.diff(offsets)),
        "title_row": history.rows,
    }
    if history.ratings is not None:
        columns["rating"] = pa.array(history.ratings, from_pandas=True)  # NaN, where there is none, is null
    if history.timestamps is not None:
        columns["timestamp"] = history.timestamps
    new.write_table(name, pa.table(columns))


def line_of(user_id: str) -> bytes:
    """Return the line that a user id is stored as."""
    return encode_basestring_ascii(user_id).encode()


def _ratings_of(columns: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return ratings, NaN where there are none; DuckDB takes NaN in an array for NULL."""
    if "rating" not in columns:
        return np.full(len(columns["user_row"]), np.nan, np.float32)
    return np.asarray(np.ma.filled(columns["rating"], np.nan), dtype=np.float32)


def _ratings_and_times(
    files: Sequence[dict[str, NDArray[Any]]], kept: Mask
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Put together, of the rows that are kept, ratings, which some files have, and timestamps, which all must have."""
    ratings = timestamps = None
    if any("rating" in columns for columns in files):
        ratings = np.concatenate([_ratings_of(columns) for columns in files])[kept]
    if files and all("timestamp" in columns for columns in files):
        timestamps = np.concatenate([np.ma.getdata(columns["timestamp"]) for columns in files])[kept]
    return ratings, timestamps


class SavedUsers:
    """The users stored in one generation; each part is read when it is first used."""

    def __init__(self, generation: Generation, segments: OpenSegments | None = None) -> None:
        """Wrap a generation whose manifest counts at least one user, and what updates have brought to it."""
        self._generation = generation
        self._segments = segments
        self.count = generation.manifest.users
        self._base_count = generation.manifest.base_users

    def read(self) -> None:
        """Read vectors and what users have seen, so that no question waits for it."""
        _ = self.vectors, self.has_seen and self.seen

    @cached_property
    def ids(self) -> list[str]:
        """The user ids in row order; raises DamagedIndexError where they are not as many as the index says."""
        held = self._columns(USER_IDS_NAME, "user_id")["user_id"] if self._base_count else np.empty(0, object)
        if len(held) != self._base_count:
            raise DamagedIndexError(
                f"{USER_IDS_NAME} holds {len(held)} ids, the manifest counts {self._base_count} users"
            )
        ids: list[str] = held.tolist()
        if self._segments is None or self._stored is None:
            return ids
        left = self._segments.users.within(0)
        more = self._stored.lines(range(len(left), self.count))
        return [*held[left].tolist(), *(json.loads(line) for line in more)]

    @cached_property
    def _stored(self) -> Texts | None:
        if self._base_count and not self._generation.has(f"{USER_LOOKUP}.lookup"):  # an earlier version wrote the index
            return None
        base = read_texts(self._generation, USER_LOOKUP, self._base_count) if self._base_count else None
        return base if self._segments is None else self._segments.user_ids(base)

    @cached_property
    def _known(self) -> KnownIds:
        return KnownIds(self.ids)

    def known_rows(self, user_ids: Sequence[str]) -> Rows:
        """Return the rows of user ids, int64 (ids,), -1 where there is no such user.

        A few are looked up in the sorted table; for many at once all ids are read, and kept, unless they are too many.
        """
        many = len(user_ids) >= MANY_IDS and self.count <= MOST_KEPT_IDS
        if many or self._stored is None or "_known" in self.__dict__:
            return self._known.rows_of(user_ids)
        if len(user_ids) == 1:  # most questions; numpy's way would take three times as long
            return np.array([self._found_among_equal_hashes(self._stored, user_ids[0])], np.int64)
        return self._looked_up(self._stored, user_ids)

    def _looked_up(self, stored: Texts, user_ids: Sequence[str]) -> Rows:
        rows = stored.first_rows(user_ids)
        lines = iter(stored.lines(rows[rows >= 0]))
        for position, user_id in enumerate(user_ids):
            if rows[position] >= 0 and next(lines) != line_of(user_id):  # another id has the same hash
                rows[position] = self._found_among_equal_hashes(stored, user_id)
        return rows

    def _found_among_equal_hashes(self, stored: Texts, user_id: str) -> int:
        rows = stored.rows_of(user_id)
        lines = stored.lines(rows)
        return next((row for row, line in zip(rows, lines, strict=True) if line == line_of(user_id)), -1)

    def rows_of(self, user_ids: Sequence[str]) -> Rows:
        """Return the rows of user ids, int64 (ids,).

        Raises:
            NotFoundError: some are unknown; the message names the first of them.
        """
        rows = self.known_rows(user_ids)
        if (rows[0] < 0) if len(rows) == 1 else (len(rows) and rows.min() < 0):  # of one, numpy's minimum takes longer
            unknown = [user_id for user_id, row in zip(user_ids, rows, strict=True) if row < 0]
            known = self._first_ids()
            slips = near_to(unknown[0], known) if len(unknown) == 1 else []
            found = self._known.rows_of(slips) if self._stored is None else self._looked_up(self._stored, slips)
            near = [slip for slip, row in zip(slips, found.tolist(), strict=True) if row >= 0]
            raise unknown_users(unknown, self.count, near, known)
        return rows

    def _first_ids(self) -> list[str]:
        """Return the first ids, without reading all of them."""
        if self._stored is None:
            return self.ids[:_SHOWN]
        return [json.loads(line) for line in self._stored.lines(range(min(_SHOWN, self.count)))]

    @cached_property
    def vectors(self) -> Vectors:
        """Preference vectors, float32 (users, dim), mapped; unit length where the index normalises."""
        if not self._base_count and self._segments is not None:
            return self._segments.user_vectors
        vectors: Vectors = np.load(self._generation.file(USERS_NAME), mmap_mode="r", allow_pickle=False)
        if vectors.shape != (self._base_count, self._generation.manifest.dim):
            raise DamagedIndexError(f"{USERS_NAME} is {vectors.shape}, the manifest says {self._base_count} users")
        if self._segments is None or len(self._segments.users.rows) == self._base_count == self._segments.users.base:
            return vectors
        # Read like an array, by rows and slices; a copy of all would take as much memory again.
        return cast("Vectors", JoinedVectors(vectors, self._segments.users.within(0), self._segments.user_vectors))

    def blocks(self) -> Iterator[Vectors]:
        """Yield all vectors in order, float32 (some, dim) each."""
        return (self.vectors[start : start + SCAN_ROWS] for start in range(0, self.count, SCAN_ROWS))

    @cached_property
    def lengths(self) -> Values:
        """The vectors' lengths, float64 (users,), found by reading all; 1 where the index normalises."""
        if self._generation.manifest.config.index.normalize or not self.count:
            return np.broadcast_to(np.float64(1), self.count)
        return lengths_of(self.blocks())

    @cached_property
    def without_likes(self) -> Rows:
        """The users of whom nothing is known that counts under the index's profile: int64, ascending."""
        base = np.empty(0, np.int64)
        if self._generation.has(LIKELESS_NAME):
            base = np.asarray(np.load(self._generation.file(LIKELESS_NAME), allow_pickle=False), dtype=np.int64)
        return base if self._segments is None else self._segments.without_likes(base)

    @cached_property
    def has_seen(self) -> bool:
        """Whether the index knows what its users have seen."""
        return bool(self._seen_files)

    @cached_property
    def has_timestamps(self) -> bool | None:
        """Whether the index knows when its users have seen what; None where it does not know of anything seen."""
        import pyarrow.parquet as pq

        if not self._seen_files:
            return None
        return "timestamp" in pq.read_schema(self._generation.file(self._seen_files[0])).names

    @property
    def _seen_files(self) -> list[str]:
        base = [SEEN_NAME] if self._generation.has(SEEN_NAME) else []
        return base if self._segments is None else base + self._segments.seen

    @cached_property
    def seen(self) -> tuple[Rows, StoredRows]:
        """What users have seen: ``rows[offsets[u]:offsets[u + 1]]`` are the title rows of user row ``u``, ascending."""
        if self._segments is not None:
            return self.history.offsets, self.history.rows
        columns = self._columns(SEEN_NAME, "user_row, title_row")
        counts = np.bincount(np.asarray(columns["user_row"]), minlength=self.count)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return offsets, np.ascontiguousarray(columns["title_row"])

    def seen_by(self, users: Rows) -> SeenRows:
        """Return what some users have seen, read by itself: by row, oldest first, a title of a user once or more."""
        segments = self._segments
        places = users if segments is None else np.flatnonzero(np.isin(segments.users.now, users))
        files = [self._columns(name, "*", of=places) for name in self._seen_files]
        who = np.concatenate([np.empty(0, np.int64), *(columns["user_row"] for columns in files)])
        what = np.concatenate([np.empty(0, np.int64), *(columns["title_row"] for columns in files)])
        if segments is not None:
            who, what = segments.users.now[who], segments.titles.now[what]
        there = what != GONE
        return SeenRows(who[there], what[there], *_ratings_and_times(files, there), 0)

    @cached_property
    def history(self) -> History:
        """What users have seen, with ratings and timestamps where the index has them."""
        if self._segments is not None:
            return self._joined_history(self._segments)
        columns = self._columns(SEEN_NAME, "*")
        offsets, rows = self.seen
        ratings = known_ratings(_ratings_of(columns)) if "rating" in columns else None
        timestamps = np.ma.getdata(columns["timestamp"]) if "timestamp" in columns else None
        return History(offsets, rows, ratings, timestamps)

    def _joined_history(self, segments: OpenSegments) -> History:
        """Put together what users have seen; what names a title or a user that was removed is left out."""
        files = [self._columns(name, "*") for name in self._seen_files]
        users = segments.users.now[np.concatenate([columns["user_row"] for columns in files])]
        titles = segments.titles.now[np.concatenate([columns["title_row"] for columns in files])]
        left = (users != GONE) & (titles != GONE)
        seen = users[left], titles[left], *_ratings_and_times(files, left)
        return grouped_history(*seen, self.count, self._generation.manifest.count)

    def delisted(self) -> DelistedRows | None:
        """Return what users have seen of titles that it does not hold, oldest first, by user row; None for nothing."""
        segments = self._segments
        if segments is None:
            return read_delisted(self._generation, DELISTED_NAME)
        parts: list[DelistedRows] = []
        came = {media_id: segments.titles.part_of(place) for place, media_id in segments.media_ids.items()}
        for number, prefix in enumerate(("", *(f"{name}." for name in segments.names))):
            kept = read_delisted(self._generation, prefix + DELISTED_NAME)
            if kept is not None:  # what was there when the title came has come with it
                still = [came.get(media_id, number) <= number for media_id in kept.media_ids.tolist()]
                parts.append(kept.take(np.flatnonzero(still)))
            if self._generation.has(prefix + SEEN_NAME):
                parts.append(self._of_removed(prefix + SEEN_NAME, segments))
        rows = joined_rows(parts)
        if rows is None:
            return None
        users = segments.users.now[rows.users]
        return replace(rows, users=users).take(np.flatnonzero(users != GONE))

    def _of_removed(self, name: str, segments: OpenSegments) -> DelistedRows:
        columns = self._columns(name, "*")
        gone = np.array([place for place in segments.media_ids if segments.titles.now[place] == GONE], np.int64)
        last = segments.titles.last[columns["title_row"]]
        rows = np.flatnonzero(np.isin(last, gone))
        places, at = np.unique(last[rows], return_inverse=True)
        return DelistedRows(
            columns["user_row"][rows],
            np.array([segments.media_ids[place] for place in places.tolist()], dtype=object)[at],
            _ratings_of(columns)[rows] if "rating" in columns else None,
            np.ma.getdata(columns["timestamp"])[rows] if "timestamp" in columns else None,
        )

    def history_of(self, user: int) -> History:
        """What one user has seen: a history of one."""
        offsets, rows = self.seen
        part = slice(int(offsets[user]), int(offsets[user + 1]))
        ratings, timestamps = self.history.ratings, self.history.timestamps
        return History(
            np.array([0, part.stop - part.start]),
            rows[part],
            None if ratings is None else ratings[part],
            None if timestamps is None else timestamps[part],
        )

    def _columns(self, name: str, wanted: str, of: Rows | None = None) -> dict[str, NDArray[Any]]:
        """Read columns of a Parquet file of the generation, or only rows of some users, by the numbers that it has.

        Raises:
            DamagedIndexError: DuckDB cannot.
        """
        import duckdb

        path = literal_path(self._generation.file(name))
        with session() as connection:
            try:
                sql = f"SELECT {wanted} FROM read_parquet($1, hive_partitioning = false)"
                if of is not None:
                    connection.register("users", {"number": of})
                    sql += " SEMI JOIN users ON user_row = number"
                columns: dict[str, NDArray[Any]] = connection.execute(sql, [path]).fetchnumpy()
            except duckdb.Error as error:
                file = self._generation.folder / name
                raise too_many_open(error, file) or DamagedIndexError(
                    f"{file} cannot be read: {first_line(error)}", fix="build the index again"
                ) from error
        return columns
