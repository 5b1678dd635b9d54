"""Users: their ids, and what each of them has seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.database import connect, first_line
from semrec_faiss.data.folder.layout import rows_partner
from semrec_faiss.data.folder.parquet import parquet_source
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError
from semrec_faiss.storage import read_small

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The beginnings of the names of DuckDB's numbers.
_NUMBERS = (
    *("DOUBLE", "FLOAT", "DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)

_YEAR_2100 = 4_102_444_800
"""Seconds from 1970 to 2100: what lies after is no time of a rating, but counted in another unit."""

_MOST_BYTES = 4 << 30
"""More than the ids of a hundred million users take."""

_TABLES = ("user_rows", "title_rows")

EXAMPLES = 5
MISTAKES_SHOWN = 10


def read_user_ids(path: Path, *, expect_count: int | None = None) -> list[str]:
    """Read user_ids.json: a list of ids, or an object with the list as "user_ids"; integers become strings.

    Args:
        path: the file.
        expect_count: the number of user vectors, where it is known.

    Raises:
        DataError: malformed JSON, another shape, or ids that are empty, repeated or too many; positions count from 0.
    """
    try:
        content = json.loads(read_small(path, _MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the user ids: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON in UTF-8: {first_line(error)}") from error
    listed = content.get("user_ids") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise DataError(f"{path} holds no list of user ids", fix='write ["user_1", …] or {"user_ids": ["user_1", …]}')
    if not listed:
        raise DataError(f"{path} holds an empty list of user ids", fix="remove the users' files, or add users to them")
    _check_ids(path, listed)
    if expect_count is not None and len(listed) != expect_count:
        raise DataError(
            f"{path} has {len(listed):,} user ids, but there are {expect_count:,} vectors{rows_partner(path)}",
            fix="the two files must have one entry each for the same users, in the same order",
        )
    return [str(user_id) for user_id in listed]


@dataclass(frozen=True)
class History:
    """What users have seen; user i has seen ``rows[offsets[i]:offsets[i + 1]]``, ascending, none twice.

    Attributes:
        offsets: int64 (users + 1,).
        rows: int32 (n,), title rows.
        ratings: float32 (n,), NaN where a title is seen but not rated; None where nothing is known of ratings.
        timestamps: int64 (n,), seconds since 1970 in UTC; None where it is not known when.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    ratings: NDArray[np.float32] | None = None
    timestamps: NDArray[np.int64] | None = None


def read_seen(path: Path, user_ids: Sequence[str], catalog: Catalog) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Read the offsets and rows of `read_history`."""
    history = read_history(path, user_ids, catalog, with_ratings=False)
    return history.offsets, history.rows


def read_history(path: Path, user_ids: Sequence[str], catalog: Catalog, *, with_ratings: bool = True) -> History:
    """Read users/seen.parquet, a file or a folder of parts: user_id and media_id, a row for each title seen.

    The columns rating (a number or null) and timestamp (seconds since 1970, or a time) may stand beside them. Where a
    user has seen a title several times, the latest row counts.

    Args:
        path: the file.
        user_ids: the m users, in order.
        catalog: the titles.
        with_ratings: whether to read the further columns where there are any.

    Raises:
        DataError: the file cannot be read, a column is missing or of another type, users or titles are unknown, or
            some rows have no timestamp, or one outside 1970 to 2100.
    """
    import duckdb

    with connect() as connection:
        try:
            columns = _check_columns(connection, path)
            more = {name: sql for name, sql in _more_columns(path, columns).items() if with_ratings}
            connection.register("user_rows", _numbered(np.array(user_ids, dtype=object)))
            connection.register("title_rows", _numbered(catalog.all_media_ids()))
            found = connection.execute(
                "SELECT u.number AS user_row, t.number AS title_row"
                f"{''.join(f', {sql} AS {name}' for name, sql in more.items())} FROM {parquet_source(path)} AS s"
                " LEFT JOIN user_rows AS u ON u.id = s.user_id::VARCHAR"
                " LEFT JOIN title_rows AS t ON t.id = s.media_id::VARCHAR"
            ).fetchnumpy()
            if np.ma.is_masked(found["user_row"]) or np.ma.is_masked(found["title_row"]):
                raise _unknown(connection, path)
        except (duckdb.Error, UnicodeError) as error:
            raise DataError(f"{path}: cannot read what users have seen: {first_line(error)}") from error
    users, titles = np.ma.getdata(found["user_row"]), np.ma.getdata(found["title_row"])
    if not more:
        return History(*_grouped(users, titles, len(user_ids), catalog.count))
    ratings = np.ma.filled(found["rating"].astype(np.float32), np.nan) if "rating" in more else None
    timestamps = _whole_column(path, found["timestamp"]) if "timestamp" in more else None
    return grouped_history(users, titles, ratings, timestamps, len(user_ids), catalog.count)


def _more_columns(path: Path, columns: dict[str, str]) -> dict[str, str]:
    """Return the SQL that reads rating and timestamp, where the file has them."""
    found = {}
    if "rating" in columns:
        if not columns["rating"].startswith(_NUMBERS):
            raise DataError(
                f"{path}: the column rating has type {columns['rating']}; a number is expected", fix="write numbers"
            )
        found["rating"] = "s.rating::FLOAT"
    if "timestamp" in columns:
        kind = columns["timestamp"]
        if not kind.startswith((*_NUMBERS, "TIMESTAMP", "DATE")):
            raise DataError(
                f"{path}: the column timestamp has type {kind}; seconds since 1970 or a time are expected",
                fix="write whole seconds, or a Parquet timestamp",
            )
        found["timestamp"] = _whole_seconds(kind)
    return found


def _whole_seconds(kind: str) -> str:
    """Return the SQL for seconds since 1970; what no integer holds is null, which is refused."""
    if kind.startswith(("DOUBLE", "FLOAT")):
        return "CASE WHEN isfinite(s.timestamp) THEN try_cast(s.timestamp AS BIGINT) END"
    return "s.timestamp::BIGINT" if kind.startswith(_NUMBERS) else "epoch(s.timestamp)::BIGINT"


def _whole_column(path: Path, column: NDArray[Any]) -> NDArray[np.int64]:
    if np.ma.is_masked(column):
        raise DataError(
            f"{path}: {int(np.ma.getmaskarray(column).sum()):,} rows have no timestamp, or one that is no number",
            fix="give every row one, or leave the column out",
        )
    times = np.asarray(np.ma.getdata(column), dtype=np.int64)
    if len(times) and not (times.min() >= 0 and times.max() < _YEAR_2100):
        raise _not_seconds(path, int(times.min()), int(times.max()))
    return times


def _not_seconds(path: Path, first: int, last: int) -> DataError:
    """Say which timestamp lies outside 1970 to 2100, and what the file seems to count in."""
    if first < 0:
        return DataError(
            f"{path}: a timestamp is {first:,}, before 1970",
            fix="write whole seconds since 1970, or leave the column out",
        )
    units = {1_000: "milliseconds", 1_000_000: "microseconds", 1_000_000_000: "nanoseconds"}
    divisor = next((number for number in units if last // number < _YEAR_2100), None)
    seems = "" if divisor is None else f"; as {units[divisor]} it would be {date_of(last // divisor)}"
    return DataError(
        f"{path}: a timestamp is {last:,}, which as seconds since 1970 lies after the year 2100{seems}",
        fix="write whole seconds since 1970" + ("" if divisor is None else f": timestamp // {divisor}"),
    )


def date_of(seconds: int) -> str:
    """Return the day, in UTC, of seconds since 1970."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def grouped_history(
    users: NDArray[Any],
    titles: NDArray[Any],
    ratings: NDArray[np.float32] | None,
    timestamps: NDArray[np.int64] | None,
    user_count: int,
    title_count: int,
) -> History:
    """Sort rows by user and title; of those that repeat both, keep the latest: by time, where it is known, and order.

    Args:
        users: integer (n,), user rows.
        titles: integer (n,), title rows.
        ratings: float32 (n,), or None.
        timestamps: int64 (n,), or None.
        user_count: how many users there are.
        title_count: how many titles.
    """
    pairs = users.astype(np.int64) * title_count + titles
    order = np.argsort(pairs, kind="stable") if timestamps is None else np.lexsort((timestamps, pairs))
    pairs = pairs[order]
    latest = np.ones(len(pairs), dtype=bool)
    np.not_equal(pairs[1:], pairs[:-1], out=latest[:-1])
    order, pairs = order[latest], pairs[latest]
    offsets = np.searchsorted(pairs, np.arange(user_count + 1, dtype=np.int64) * title_count).astype(np.int64)
    return History(
        offsets,
        (pairs % title_count).astype(np.int32),
        None if ratings is None else ratings[order],
        None if timestamps is None else timestamps[order],
    )


def _grouped(
    users: NDArray[np.int32], titles: NDArray[np.int32], user_count: int, title_count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Sort pairs by user and title without repeats; one sort of one number a pair does both."""
    pairs = users.astype(np.int64)
    pairs *= title_count
    pairs += titles
    pairs.sort()
    first = np.ones(len(pairs), dtype=bool)
    np.not_equal(pairs[1:], pairs[:-1], out=first[1:])
    pairs = pairs[first]
    starts = np.arange(user_count + 1, dtype=np.int64) * title_count
    offsets = np.searchsorted(pairs, starts).astype(np.int64)
    pairs %= title_count
    return offsets, pairs.astype(np.int32)


def _numbered(ids: NDArray[np.object_]) -> dict[str, NDArray[Any]]:
    return {"id": ids, "number": np.arange(len(ids), dtype=np.int32)}


def _check_columns(connection: DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Return the columns' types by name."""
    columns = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {parquet_source(path)}").fetchall()}
    missing = [name for name in ("user_id", "media_id") if name not in columns]
    if missing:
        raise DataError(
            f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(columns)}",
            fix="name the columns user_id and media_id",
        )
    return columns


def _unknown(connection: DuckDBPyConnection, path: Path) -> DataError:
    """Say how many rows name unknown users or titles, with the first few of these."""
    problems = []
    for column, table, where in (
        ("user_id", "user_rows", "user_ids.json"),
        ("media_id", "title_rows", "metadata.jsonl"),
    ):
        rows, ids, empty = connection.execute(
            f"SELECT count(*), count(DISTINCT {column}), count(*) - count({column}) FROM {parquet_source(path)}"
            f" WHERE {column} IS NULL OR {column}::VARCHAR NOT IN (SELECT id FROM {table})"
        ).fetchall()[0]
        if ids:
            examples = connection.execute(
                f"SELECT DISTINCT {column}::VARCHAR AS id FROM {parquet_source(path)}"
                f" WHERE {column}::VARCHAR NOT IN (SELECT id FROM {table}) ORDER BY id LIMIT {EXAMPLES}"
            ).fetchall()
            named = ", ".join(repr(name) for (name,) in examples)
            problems.append(
                f"rows whose {column} is not in {where}: {rows - empty:,} (different ids: {ids:,}, such as {named})"
            )
        if empty:
            problems.append(f"rows without {column}: {empty:,}")
    user, title = (connection.execute(f"SELECT any_value(id) FROM {table}").fetchall()[0][0] for table in _TABLES)
    return DataError(
        f"{path}: {'; '.join(problems)}",
        fix=f"write ids as user_ids.json and metadata.jsonl have them, such as {user!r} and {title!r},"
        " or remove these rows",
    )


def _check_ids(path: Path, ids: list[Any]) -> None:
    mistakes: list[str] = []
    first_position: dict[str, int] = {}
    for position, user_id in enumerate(ids):
        problem = _id_problem(user_id)
        if problem is None:
            first = first_position.setdefault(str(user_id), position)
            if first == position:
                continue
            problem = f"{user_id!r} is also at position {first}"
        mistakes.append(f"position {position}: {problem}")
    if not mistakes:
        return
    more = f"\n… and {len(mistakes) - MISTAKES_SHOWN:,} more" if len(mistakes) > MISTAKES_SHOWN else ""
    listed = "\n".join(mistakes[:MISTAKES_SHOWN])
    raise DataError(f"{path}: unusable user ids: {len(mistakes):,}\n{listed}{more}", fix="give every user one id")


def _id_problem(value: Any) -> str | None:
    if type(value) is int:
        return None
    if type(value) is not str or not value.strip():
        return f"{value!r} is no id; a non-empty string or an integer is expected"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{value!r} holds half of a surrogate pair, which is no character"
    return None
