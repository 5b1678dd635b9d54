"""Ratings and genome scores in DuckDB, out of core: loaded, checked row by row, sorted by user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.database import first_line, literal_path, quoted_text
from semrec_faiss.data.movielens.download import SourceFile
from semrec_faiss.data.movielens.rows import (
    LARGEST_ID,
    LEAST_RATING,
    MOST_RATING,
    BadRows,
    find_bad_rows,
    rating_problem,
    rows_of,
    score_problem,
    whole_number,
)
from semrec_faiss.data.seen_checks import YEAR_2100
from semrec_faiss.errors import DataError
from semrec_faiss.progress import Progress, silent

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
SCORE_COLUMNS = ("movieId", "tagId", "relevance")

_MEMORY = "500MB"
_BLOCK_RATINGS = 500_000
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Scratch:
    """A DuckDB database file that keeps to a fixed memory, and the folder that it is in and spills to."""

    db: DuckDBPyConnection
    folder: Path


@contextmanager
def open_scratch(folder: Path) -> Iterator[Scratch]:
    """Open a database in an existing folder, which the caller removes."""
    import duckdb

    with duckdb.connect(
        str(folder / "ratings.duckdb"),
        config={
            "memory_limit": _MEMORY,
            "threads": 2,  # each further one has buffers of its own
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    ) as db:
        yield Scratch(db, folder)


@dataclass(frozen=True)
class Raters:
    """Who has rated, by ascending userId; m of them.

    Attributes:
        ids: int64 (m,), MovieLens' own.
        counts: int64 (m,), how many titles each has rated.
        highest: float32 (m,), each one's highest rating.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    highest: NDArray[np.float32]

    def blocks(self) -> Iterator[slice]:
        """Yield runs of users who have about half a million ratings together."""
        first, total = 0, 0
        for position, count in enumerate(self.counts.tolist()):
            if total and total + count > _BLOCK_RATINGS:
                yield slice(first, position)
                first, total = position, 0
            total += count
        if total:
            yield slice(first, len(self.ids))


def add_titles(scratch: Scratch, movie_ids: Sequence[int]) -> None:
    """Make the table ``titles`` (title_row, movie_id), which ratings and scores are joined with."""
    ids = np.array(movie_ids, dtype=np.float64)
    db = scratch.db
    db.register("numbered", {"title_row": np.arange(len(ids), dtype=np.int32), "movie_id": ids})
    db.execute("CREATE TABLE titles AS FROM numbered")
    db.unregister("numbered")


def load_ratings(scratch: Scratch, source: SourceFile, movie_ids: Sequence[int], progress: Progress = silent) -> Raters:
    """Make the table ``history`` (user_id, title_row, movie_id, rating, rated_at), sorted by user and title.

    Args:
        scratch: with `add_titles` done.
        source: ratings.csv or ratings.dat.
        movie_ids: the known titles, by row.
        progress: told how far it is.

    Raises:
        DataError: rows that cannot be used, with file and line: ids or timestamps that are no whole numbers, ratings
            outside 0.5 to 5, times after 2100, movies that are not known, a movie that somebody has rated twice.
    """
    whole = f"userId = floor(userId) AND userId BETWEEN 0 AND {LARGEST_ID}"
    in_time = f"timestamp = floor(timestamp) AND timestamp BETWEEN 0 AND {YEAR_2100 - 1}"
    usable = f"{whole} AND {in_time} AND rating BETWEEN {LEAST_RATING} AND {MOST_RATING}"
    known, db = set(movie_ids), scratch.db
    _load(
        scratch,
        source,
        RATING_COLUMNS,
        "CREATE TABLE rated AS SELECT try_cast(userId AS BIGINT) AS user_id,"
        f" CASE WHEN {usable} THEN title_row END AS title_row, try_cast(movieId AS BIGINT) AS movie_id,"
        " rating::FLOAT AS rating, try_cast(timestamp AS BIGINT) AS rated_at"
        " FROM {rows} LEFT JOIN titles ON movie_id = movieId",
        "rated",
        lambda _, values: rating_problem(values, known),
        progress,
    )
    with _telling(db, "sorting ratings", progress):
        db.execute("CREATE TABLE history AS FROM rated ORDER BY user_id, title_row")
    db.execute("DROP TABLE rated")
    found = db.execute(
        "SELECT user_id, count(*) AS ratings, max(rating) AS highest FROM history GROUP BY user_id ORDER BY user_id"
    ).fetchnumpy()
    raters = Raters(*(np.ma.getdata(found[name]) for name in ("user_id", "ratings", "highest")))
    if not len(raters.ids):
        raise DataError(f"{source.shown} holds no ratings", fix="download it again")
    _refuse_repeats(scratch, source, movie_ids, raters, progress)
    return raters


def histories(scratch: Scratch, raters: Raters, users: slice) -> dict[str, NDArray[Any]]:
    """Return user_id, title_row (both int64) and rating of a run of users, all (ratings,), by user and title."""
    ids = raters.ids[users]
    found = scratch.db.execute(
        "SELECT user_id, title_row, rating FROM history WHERE user_id BETWEEN $first AND $last"
        " ORDER BY user_id, title_row",
        {"first": int(ids[0]), "last": int(ids[-1])},
    ).fetchnumpy()
    return {name: np.ma.getdata(column) for name, column in found.items()}


def load_genome_scores(
    scratch: Scratch,
    source: SourceFile,
    movie_ids: Sequence[int],
    tag_ids: Sequence[int],
    progress: Progress = silent,
) -> None:
    """Make the table ``genome`` (title_row, tag_id, relevance).

    Raises:
        DataError: rows that cannot be used, with file and line.
    """
    scratch.db.register("numbered", {"known_tag": np.array(tag_ids, dtype=np.float64)})
    scratch.db.execute("CREATE TABLE genome_tags AS FROM numbered")
    scratch.db.unregister("numbered")
    movies, tags = set(movie_ids), set(tag_ids)
    _load(
        scratch,
        source,
        SCORE_COLUMNS,
        "CREATE TABLE genome AS SELECT CASE WHEN relevance BETWEEN 0 AND 1 AND known_tag IS NOT NULL THEN title_row END"
        " AS title_row, try_cast(tagId AS INTEGER) AS tag_id, relevance"
        " FROM {rows} LEFT JOIN titles ON movie_id = movieId LEFT JOIN genome_tags ON known_tag = tagId",
        "genome",
        lambda _, values: score_problem(values, movies, tags),
        progress,
    )


def _load(
    scratch: Scratch,
    source: SourceFile,
    columns: Sequence[str],
    sql: str,
    table: str,
    problem_of: Callable[[int, list[str]], str | None],
    progress: Progress,
) -> None:
    """Run ``sql``, in which {rows} stands for the file's rows; where DuckDB or ``title_row`` balks, say which rows."""
    import duckdb

    next(islice(rows_of(source, columns, BadRows()), 1), None)  # looks at the header
    bad = BadRows()
    what = f"reading {source.path.name}"
    try:
        with _telling(scratch.db, what, progress):
            scratch.db.execute(sql.format(rows=_csv_of(source.path, source, columns)))
    except (duckdb.OutOfMemoryException, duckdb.IOException):
        raise
    except duckdb.Error:
        find_bad_rows(source, columns, problem_of, bad, progress)
        bad.check()
        # No row is at fault: DuckDB refuses files that mix line ends.
        equal = _with_equal_line_ends(source.path, scratch.folder)
        try:
            with _telling(scratch.db, what, progress):
                scratch.db.execute(sql.format(rows=_csv_of(equal, source, columns)))
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            raise DataError(f"{source.shown} cannot be read: {first_line(error)}", fix="download it again") from error
        equal.unlink()
    (unusable,) = scratch.db.execute(f"SELECT count(*) FROM {table} WHERE title_row IS NULL").fetchall()[0]
    if unusable:
        find_bad_rows(source, columns, problem_of, bad, progress)
        bad.check()
        raise DataError(f"{source.shown}: {unusable:,} rows cannot be used")


def _csv_of(path: Path, source: SourceFile, columns: Sequence[str]) -> str:
    types = ", ".join(f"{quoted_text(name)}: 'DOUBLE'" for name in columns)
    form = "delim = ',', quote = '\"', escape = '\"', header = true"
    if source.form == "dat":
        form = "delim = '::', quote = '', escape = '', header = false"
    return f"read_csv({quoted_text(literal_path(path))}, auto_detect = false, {form}, columns = {{{types}}})"


def _with_equal_line_ends(path: Path, folder: Path) -> Path:
    """Copy a file into ``folder``, every line ended by a line feed alone."""
    target = folder / f"equal-{path.name}"
    with path.open("rb") as file, target.open("wb") as copy:
        for line in file:
            copy.write(line.rstrip(b"\r\n") + b"\n")
    return target


def _refuse_repeats(
    scratch: Scratch, source: SourceFile, movie_ids: Sequence[int], raters: Raters, progress: Progress
) -> None:
    """Look for titles that somebody has rated twice; in sorted histories they stand side by side."""
    repeated: set[tuple[int, int]] = set()
    checked = 0
    for users in raters.blocks():
        found = histories(scratch, raters, users)
        user, row = found["user_id"], found["title_row"]
        same = np.flatnonzero((user[1:] == user[:-1]) & (row[1:] == row[:-1]))
        repeated.update((int(user[at]), movie_ids[int(row[at])]) for at in same)
        checked += len(user)
        progress("checking ratings", checked, int(raters.counts.sum()))
    if not repeated:
        return
    lines: dict[tuple[int, int], int] = {}
    bad = BadRows()

    def problem_of(line: int, values: list[str]) -> str | None:
        pair = (whole_number(values[0]) or 0, whole_number(values[1]) or 0)
        if pair not in repeated or lines.setdefault(pair, line) == line:
            return None
        return f"user {pair[0]} has rated movie {pair[1]} already, on line {lines[pair]}"

    find_bad_rows(source, RATING_COLUMNS, problem_of, bad, progress)
    bad.check()


@contextmanager
def _telling(db: DuckDBPyConnection, what: str, progress: Progress) -> Iterator[None]:
    """Tell how far a query is that runs in the block, as DuckDB estimates it."""
    if progress is silent:
        yield
        return
    db.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            progress(what, max(0, min(99, int(db.query_progress()))), 100)

    progress(what, 0, 100)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress(what, 100, 100)
