"""Made-up users: weighted means of titles they like, and what they have seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import SEEN, USER_IDS, USER_VECTORS
from semrec_faiss.data.folder.npy import NpyFile
from semrec_faiss.data.synthetic.tastes import (
    BLOCK_USERS,
    LIKED_TITLES,
    Liked,
    TitlePool,
    draw_liked,
    draw_seen,
    user_id,
)
from semrec_faiss.data.synthetic.titles import FloatName, known_vectors
from semrec_faiss.data.synthetic.workers import Workers
from semrec_faiss.progress import Progress

_GATHER_BYTES = 4 << 20  # of titles' vectors read at a time to make users' vectors

_ORDER_USERS = 1024  # of an order; a block's users are several


@dataclass(frozen=True)
class UsersOrder:
    """Users to be made: their rows, and what each likes, as places in the job's file of titles."""

    rows: range
    liked: Liked


@dataclass(frozen=True)
class UsersJob:
    """Making vectors of users: from the .npy file of the titles that they choose among, into the users' own."""

    titles: Path
    users: NpyFile


def write_some(job: UsersJob, order: UsersOrder) -> range:
    """Make the users of an order, write their vectors, and tell their rows."""
    row = order.rows.start
    with job.titles.open("rb", buffering=0) as titles:
        for made in mean_vectors(TitleRows(titles), order.liked):
            job.users.write(row, made)
            row += len(made)
    return order.rows


class TitleRows:
    """Single rows of an .npy file of titles' vectors.

    Read, not mapped: what is mapped counts as our memory page by page, up to the whole file.

    Args:
        file: open for reading without a buffer, at its start.
    """

    def __init__(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        shape, _, self._dtype = np.lib.format.read_array_header_1_0(file)
        self.dim: int = shape[1]
        self._file = file
        self._start = file.tell()
        self.row_bytes = self.dim * self._dtype.itemsize

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read ``rows``, int64 (some,): their vectors, float (some, dim)."""
        gathered = np.empty((len(rows), self.dim), dtype=self._dtype)
        for row, target in zip(rows.tolist(), gathered, strict=True):
            self._file.seek(self._start + row * self.row_bytes)
            self._file.readinto(target.data)  # type: ignore[attr-defined]
        return gathered


def mean_vectors(titles: TitleRows, liked: Liked) -> Iterator[NDArray[np.float64]]:
    """Yield users' weighted means of what they like: float64 (some, dim), unit length."""
    step = max(1, _GATHER_BYTES // (LIKED_TITLES * titles.row_bytes))
    for first in range(0, len(liked.rows), step):
        chosen = slice(first, first + step)
        rows, where = np.unique(liked.rows[chosen], return_inverse=True)
        gathered = titles.read(rows)
        where, weights = where.reshape(-1, LIKED_TITLES), liked.weights[chosen]
        mean = np.zeros((len(where), titles.dim))
        for nth in range(LIKED_TITLES):
            mean += gathered[where[:, nth]] * weights[:, nth, None]
        opposite = ~mean.any(axis=1)  # of one dimension there are only two directions: what cancels is not a direction
        mean[opposite] = gathered[where[opposite, 0]]
        yield mean / np.sqrt(np.einsum("ij,ij->i", mean, mean))[:, None]


def write_users(
    folder: Path,
    pool: TitlePool,
    shape: tuple[int, int],
    seed: int,
    dtype: FloatName,
    workers: Workers,
    progress: Progress,
) -> None:
    """Write the vectors of ``shape`` (users, dim) and the ids to ``folder``, whose titles are written."""
    users, _ = shape
    (folder / USER_IDS).parent.mkdir()
    job = UsersJob(known_vectors(folder, pool), NpyFile.create(folder / USER_VECTORS, shape, dtype))
    made = workers.in_order(partial(write_some, job), _orders(pool, users, seed))
    with (folder / USER_IDS).open("wb") as ids_file, closing(made) as written:
        for rows in written:
            ids = ",\n ".join(json.dumps(user_id(row)) for row in rows)
            ids_file.write(f"{',' if rows.start else '['}\n {ids}".encode())
            progress("users", rows.stop, users)
        ids_file.write(b"\n]\n")


def _orders(pool: TitlePool, users: int, seed: int) -> Iterator[UsersOrder]:
    for block in range(0, users, BLOCK_USERS):
        liked = draw_liked(pool, seed, block // BLOCK_USERS)
        for first in range(block, min(block + BLOCK_USERS, users), _ORDER_USERS):
            last = min(first + _ORDER_USERS, users)
            chosen = slice(first - block, last - block)
            rows = liked.rows[chosen]
            places = rows if pool.has_all else pool.places(rows)
            yield UsersOrder(range(first, last), Liked(places, liked.weights[chosen]))


def write_seen(folder: Path, pool: TitlePool, counts: tuple[int, int], seed: int, mean: int, progress: Progress) -> int:
    """Gather (user, title) pairs in a DuckDB file inside ``folder``, write them out as seen.parquet and count them."""
    import duckdb

    users, titles = counts
    pairs = 0
    scratch = folder / "seen.duckdb"
    target = str(folder / SEEN).replace("'", "''")
    with closing(duckdb.connect(str(scratch), config={"threads": 1, "memory_limit": "400MB"})) as db:
        db.execute("SET enable_progress_bar = false")
        db.execute("CREATE TABLE seen (user_row BIGINT, title_row BIGINT)")
        for first in range(0, users, BLOCK_USERS):
            user, title = draw_seen(pool, seed, first // BLOCK_USERS, mean, titles)
            existing = first + user < users
            db.register("pairs", {"user_row": first + user[existing], "title_row": title[existing]})
            db.execute("INSERT INTO seen SELECT user_row, title_row FROM pairs")
            db.unregister("pairs")
            pairs += int(existing.sum())
            progress("seen titles", min(first + BLOCK_USERS, users), users)
        db.execute(
            "COPY (SELECT format('user_{:08d}', user_row + 1) AS user_id, format('title_{:09d}', title_row + 1) "
            f"AS media_id FROM seen) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
        )
    for leftover in folder.glob("seen.duckdb*"):
        leftover.unlink()
    return pairs
