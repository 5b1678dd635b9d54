"""Made-up users: weighted means of titles they like, and what they have seen; by processes where titles were."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import SEEN, USER_IDS, USER_VECTORS
from semrec_faiss.data.folder.npy import NpyWriter
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
from semrec_faiss.data.synthetic.workers import AHEAD, Crew, write_at
from semrec_faiss.progress import Progress

_GATHER_BYTES = 4 << 20  # of titles' vectors read at a time to make users' vectors

_ORDER_USERS = 1024  # of an order; a block's users are several


@dataclass(frozen=True)
class UsersOrder:
    """Users to be made: the first one's row, and what each likes, as places in the job's file of titles."""

    first: int
    liked: Liked

    @property
    def rows(self) -> range:
        """The users' rows."""
        return range(self.first, self.first + len(self.liked.rows))


@dataclass(frozen=True)
class UsersJob:
    """Making vectors of users and writing them.

    Attributes:
        titles: the .npy file of vectors of the titles that users choose among.
        users: the .npy file of the users', whose header is written already.
        offset: bytes of that header.
        dtype: of that file.
    """

    titles: str
    users: str
    offset: int
    dtype: str

    @contextmanager
    def opened(self) -> Iterator[Callable[[UsersOrder], None]]:
        """Open the files; gives what makes the users of an order."""
        with Path(self.titles).open("rb", buffering=0) as titles, Path(self.users).open("r+b", buffering=0) as users:
            rows = TitleRows(titles)

            def carry_out(order: UsersOrder) -> None:
                row = order.first
                for made in mean_vectors(rows, order.liked):
                    stored = np.ascontiguousarray(made, np.dtype(self.dtype))
                    write_at(users, stored.data, self.offset + row * stored.strides[0])
                    row += len(made)

            yield carry_out


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
        """Read ``rows``, (some, dim)."""
        gathered = np.empty((len(rows), self.dim), dtype=self._dtype)
        for row, target in zip(rows.tolist(), gathered, strict=True):
            self._file.seek(self._start + row * self.row_bytes)
            self._file.readinto(target.data)  # type: ignore[attr-defined]
        return gathered


def mean_vectors(titles: TitleRows, liked: Liked) -> Iterator[NDArray[np.float64]]:
    """Yield users' weighted means of what they like, (some, dim), unit length."""
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
    crew: Crew,
    progress: Progress,
) -> None:
    """Write the vectors of ``shape`` (users, dim) and the ids to ``folder``, whose titles are written."""
    users, _ = shape
    stored = np.dtype(dtype).newbyteorder("<")
    (folder / USER_IDS).parent.mkdir()
    with (
        (folder / USER_VECTORS).open("wb") as vectors_file,
        (folder / USER_IDS).open("wb") as ids_file,
        NpyWriter(vectors_file, shape, dtype) as vectors,
    ):
        job = UsersJob(str(known_vectors(folder, pool)), vectors.name, vectors.begin(), stored.str)
        orders = _orders(pool, users, seed)
        with closing(_by_processes(crew, job, orders) if crew.size else _here(job, orders)) as written:
            for rows in written:
                vectors.count(len(rows))
                ids = ",\n ".join(json.dumps(user_id(row)) for row in rows)
                ids_file.write(f"{',' if rows.start else '['}\n {ids}".encode())
                progress("users", rows.stop, users)
        ids_file.write(b"\n]\n")


def _orders(pool: TitlePool, users: int, seed: int) -> Iterator[UsersOrder]:
    for block in range(0, users, BLOCK_USERS):
        liked = draw_liked(pool, seed, block // BLOCK_USERS)
        for first in range(block, min(block + BLOCK_USERS, users), _ORDER_USERS):
            chosen = slice(first - block, min(first + _ORDER_USERS, users) - block)
            rows = liked.rows[chosen]
            yield UsersOrder(first, Liked(rows if pool.has_all else pool.places(rows), liked.weights[chosen]))


def _by_processes(crew: Crew, job: UsersJob, orders: Iterator[UsersOrder]) -> Generator[range, None, None]:
    """Have all orders carried out; yield the rows of users that are written, in order."""
    crew.begin(job)
    asked: deque[tuple[int, range]] = deque()
    for number, order in enumerate(orders):
        crew.ask(number, order)
        asked.append((number, order.rows))
        if len(asked) > AHEAD * crew.size:
            yield _written(crew, *asked.popleft())
    while asked:
        yield _written(crew, *asked.popleft())
    crew.finish()


def _written(crew: Crew, number: int, rows: range) -> range:
    crew.answer(number)
    return rows


def _here(job: UsersJob, orders: Iterator[UsersOrder]) -> Generator[range, None, None]:
    with job.opened() as carry_out:
        for order in orders:
            carry_out(order)
            yield order.rows


def write_seen(
    folder: Path, pool: TitlePool, counts: tuple[int, int], seed: int, mean: int, progress: Progress
) -> None:
    """Gather (user, title) pairs in a DuckDB file inside ``folder``, then write them out as seen.parquet."""
    import duckdb

    users, titles = counts
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
            progress("seen titles", min(first + BLOCK_USERS, users), users)
        db.execute(
            "COPY (SELECT format('user_{:08d}', user_row + 1) AS user_id, format('title_{:09d}', title_row + 1) "
            f"AS media_id FROM seen) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
        )
    for leftover in folder.glob("seen.duckdb*"):
        leftover.unlink()
