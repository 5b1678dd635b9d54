"""Every user's list to one Parquet file: streamed in blocks, resumable after a kill, there only when it is whole."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Unpack

from semrec_faiss.data.folder.database import first_line, literal_path, quoted_text
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.locks import only_writer
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.arguments import flag_of
from semrec_faiss.search.profile.profile_search import changed_profile
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish, WishArguments
from semrec_faiss.storage import check_new_file, flush_to_disk

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from semrec_faiss.search.recommender import Recommender

BLOCK_USERS = 4096
"""Users searched and written at once; what a kill loses at most."""


@dataclass(frozen=True)
class ExportSummary:
    """What was written, counted from the finished file.

    Attributes:
        users: users in the index.
        users_with_k: of these, with as many titles as were asked for.
        users_short: with fewer, because fewer match.
        titles_recommended: distinct titles over all lists.
        titles: titles in the index.
        repeats: titles that one user was given twice; never anything but 0.
        seen_leaks: titles that a user has seen; never anything but 0 unless seen titles are included.
        resumed_users: users that an interrupted run had finished before.
    """

    users: int
    users_with_k: int
    users_short: int
    titles_recommended: int
    titles: int
    repeats: int
    seen_leaks: int | None
    resumed_users: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def export_all_users(
    recommender: Recommender,
    out: str | PathLike[str],
    k: int = 10,
    *,
    include_seen: bool = False,
    profile: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **wish: Unpack[WishArguments],
) -> ExportSummary:
    """Write the recommendations of all users: user_id, rank, media_id, title, score; users in row order.

    An interrupted run leaves its finished blocks beside ``out``; the same call on the same index goes on from there.

    Args:
        recommender: an open index with users.
        out: the Parquet file; replaced when the new one is whole.
        k: titles a user.
        include_seen: keep titles that a user has seen.
        profile: settings of the profile that differ from those that the index serves.
        progress: told the users done.
        wish: see `Recommender`.

    Raises:
        UsageError: ``out`` is a directory or under a file, another process writes it, or a setting is out of range.
        NotFoundError: the index holds no users.
        StorageError: the disk is full or refuses; ``out`` is as it was.
    """
    import duckdb

    wanted = Wish.of(k, **wish)
    flag_of(include_seen, "include_seen")
    if not isinstance(out, str | PathLike):
        raise UsageError(f"out is {out!r}; a path is expected", fix="name a file, such as recs.parquet")
    out = Path(out)
    try:
        if out.is_dir():
            raise UsageError(f"{out} is a directory", fix="name a file, such as recs.parquet")
        if out.exists() and not out.is_file():
            raise UsageError(f"{out} is no regular file", fix="name a file, such as recs.parquet")
        check_new_file(out, "--out")
        out = out.resolve() if out.is_symlink() else out
        recommender = recommender.pinned()  # all lists are of one generation
        recommender.searcher.check(wanted)
        out.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(out), _work_folder(recommender, out, wanted, include_seen, profile) as work:
            resumed = _write_parts(recommender, work, wanted, include_seen, profile, progress)
            return _finish(recommender, work, out, wanted, include_seen, resumed)
    except (OSError, ValueError, duckdb.Error) as error:
        said = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"cannot write {out}: {said}", fix="free space or name another --out") from error


def _write_parts(
    recommender: Recommender,
    work: Path,
    wish: Wish,
    include_seen: bool,
    profile: Mapping[str, Any] | None,
    progress: Progress,
) -> int:
    """Write every block that is not there yet; return how many users those that are there hold.

    A block is written while the next one is searched.
    """
    count = recommender.users.count
    resumed = 0
    with _duckdb() as connection, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        for start in range(0, count, BLOCK_USERS):
            part = _part_of(work, start)
            users = np.arange(start, min(start + BLOCK_USERS, count), dtype=np.int64)
            if _is_whole(part):
                resumed += len(users)
            else:
                found, _ = recommender.lists_for(users, wish, include_seen=include_seen, profile=profile)
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write_part, connection, users, found, part)
            progress("recommending", int(users[-1]) + 1, count)
        if writing is not None:
            writing.result()
    return resumed


def _part_of(work: Path, start: int) -> Path:
    return work / f"users-{start:010d}.parquet"


def _is_whole(part: Path) -> bool:
    """Tell a finished block from none, and from one that a power cut left half-written."""
    import duckdb

    if not part.exists():
        return False
    try:
        with _duckdb() as connection:
            connection.execute("SELECT count(score) FROM read_parquet($1)", [literal_path(part)]).fetchall()
    except duckdb.Error:
        return False
    return True


@contextmanager
def _work_folder(
    recommender: Recommender, out: Path, wish: Wish, include_seen: bool, profile: Mapping[str, Any] | None
) -> Iterator[Path]:
    """Give the folder of finished blocks, named by everything they depend on; it goes when the block ends well.

    Remains of other settings are removed; blocks stay after an error.
    """
    saved = recommender.saved
    depends = {
        "generation": saved.generation.ref.model_dump(),
        "search": saved.config.index.model_dump(mode="json"),
        "device": str(saved.device),
        "wish": asdict(wish),
        "include_seen": include_seen,
        "profile": changed_profile(saved.config.profile, profile).model_dump(),
        "block": BLOCK_USERS,
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:16]
    work = out.with_name(f".{out.name}.parts-{digest}")
    for remains in out.parent.glob(f".{glob.escape(out.name)}.parts-*"):
        if remains != work:
            shutil.rmtree(remains, ignore_errors=True)
    work.mkdir(exist_ok=True)
    try:
        yield work
        shutil.rmtree(work)
    finally:
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()


def _write_part(connection: DuckDBPyConnection, users: Any, found: TopK, part: Path) -> None:
    """Write one block of lists as rows of numbers; ids and titles are joined when the file is made."""
    kept = found.rows >= 0
    ranks = np.broadcast_to(np.arange(1, found.rows.shape[1] + 1, dtype=np.int32), found.rows.shape)
    columns = {
        "user_row": np.repeat(users, kept.sum(axis=1)),
        "rank": ranks[kept],
        "title_row": found.rows[kept],
        "score": found.scores[kept],
    }
    staged = part.with_suffix(".new")
    connection.register("found", columns)
    connection.execute(f"COPY (FROM found) TO {quoted_text(str(staged))} (FORMAT parquet)")
    staged.replace(part)


def _finish(
    recommender: Recommender, work: Path, out: Path, wish: Wish, include_seen: bool, resumed: int
) -> ExportSummary:
    """Join the blocks with ids and titles, count what the summary says, and put the file in its place."""
    users = recommender.users
    staged = work / "joined.new"
    with _duckdb() as connection:
        found = [_part_of(work, start) for start in range(0, users.count, BLOCK_USERS)]
        missing = [part.name for part in found if not part.is_file()]
        if missing:
            raise StorageError(
                f"{len(missing)} blocks of users are gone from {work}: does another run write {out.name}?",
                fix="run it again when no other does",
            )
        parts = ", ".join(quoted_text(literal_path(part)) for part in found)
        connection.execute(f"CREATE VIEW found AS FROM read_parquet([{parts}], hive_partitioning = false)")
        _join(recommender, found, staged)
        summary = _summary(connection, recommender, wish.k, include_seen, resumed)
    with staged.open("rb") as file:
        flush_to_disk(file)
    staged.replace(out)
    return summary


def _join(recommender: Recommender, parts: Sequence[Path], staged: Path) -> None:
    """Write the blocks as one file, ids and titles for rows: blocks are in user order, so nothing is sorted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sql = "SELECT media_id, title FROM titles ORDER BY _semrec_row"
    titles = recommender.catalog.cursor().execute(sql).fetchnumpy()
    media_ids, names = (pa.array(titles[name], pa.string()) for name in ("media_id", "title"))
    user_ids = pa.array(recommender.users.ids, pa.string())
    kinds = [("user_id", pa.string()), ("rank", pa.int32()), ("media_id", pa.string()), ("title", pa.string())]
    schema = pa.schema([*kinds, ("score", pa.float32())])
    with pq.ParquetWriter(staged, schema, compression="zstd", store_schema=False) as writer:
        for part in parts:
            found = pq.ParquetFile(part).read()
            at = found["title_row"]
            columns = [user_ids.take(found["user_row"]), found["rank"], media_ids.take(at), names.take(at)]
            writer.write_table(pa.table([*columns, found["score"]], schema=schema))


def _summary(connection: Any, recommender: Recommender, k: int, include_seen: bool, resumed: int) -> ExportSummary:
    users = recommender.users
    distinct, repeats = connection.execute(
        "SELECT count(DISTINCT title_row), count(*) - count(DISTINCT (user_row, title_row)) FROM found"
    ).fetchall()[0]
    full = connection.execute(
        "SELECT count(*) FROM (SELECT user_row FROM found GROUP BY user_row HAVING count(*) >= $k)",
        {"k": min(k, recommender.index.count)},
    ).fetchall()[0][0]
    leaks = None
    if users.has_seen and not include_seen:
        offsets, rows = users.seen
        connection.register(
            "seen", {"user_row": np.repeat(np.arange(users.count), np.diff(offsets)), "title_row": rows}
        )
        leaks = connection.execute("SELECT count(*) FROM found JOIN seen USING (user_row, title_row)").fetchall()[0][0]
    return ExportSummary(
        users=users.count,
        users_with_k=int(full),
        users_short=users.count - int(full),
        titles_recommended=int(distinct),
        titles=recommender.index.count,
        repeats=int(repeats),
        seen_leaks=None if leaks is None else int(leaks),
        resumed_users=resumed,
    )


def _duckdb() -> Any:
    import duckdb

    return duckdb.connect(":memory:")
