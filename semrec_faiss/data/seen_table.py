"""users/seen.parquet: what users have seen, as rows, with every mistake named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import StoredRows, row_type
from semrec_faiss.data.folder.database import first_line, session
from semrec_faiss.data.folder.field_types import refuse_what_is_no_id
from semrec_faiss.data.folder.relation import ParquetRelation, Relation
from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The beginnings of the names of DuckDB's numbers.
_NUMBERS = (
    *("DOUBLE", "FLOAT", "DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)

YEAR_2100 = 4_102_444_800
"""Seconds from 1970 to 2100: what lies after is no time of a rating, but counted in another unit."""

IdTable = dict[str, NDArray[Any]]
"""Ids, and a number for each."""

EXAMPLES = 5


@dataclass(frozen=True)
class SeenRows:
    """Rows of a table of what users have seen, in its order.

    Attributes:
        users: integer (n,), the users' rows.
        titles: integer (n,), the titles' rows.
        ratings: float32 (n,), NaN where there is none; None where the table has none.
        timestamps: int64 (n,), seconds since 1970; None where the table has none.
        ignored: further rows, which name a user or a title that is not known.
    """

    users: StoredRows
    titles: StoredRows
    ratings: NDArray[np.float32] | None
    timestamps: NDArray[np.int64] | None
    ignored: int


def read_seen_rows(
    source: Path | Relation,
    users: IdTable,
    titles: IdTable,
    *,
    with_ratings: bool = True,
    strict: bool = False,
    allow_none: bool = False,
) -> SeenRows:
    """Read what `read_history` reads, as rows in the order of the file.

    Args:
        source: the file, or the rows in memory.
        users: the ids that count, and the number of each; see `numbered`.
        titles: the same of titles.
        with_ratings: whether to read the further columns where there are any.
        strict: refuse rows that would be ignored.
        allow_none: whether all of them may be; else they are taken for a file with other ids.

    Raises:
        DataError: as `read_history`.
    """
    source = ParquetRelation(source) if isinstance(source, Path) else source
    path = source.name
    with _explained(path), session() as connection:
        file = source.sql(connection)
        columns = _check_columns(connection, path, file)
        more = {name: sql for name, sql in _more_columns(path, columns).items() if with_ratings}
        connection.register("user_rows", users)
        connection.register("title_rows", titles)
        found = connection.execute(
            "SELECT u.number AS user_row, t.number AS title_row"
            f"{_named(more)} FROM {file} AS s"
            " LEFT JOIN user_rows AS u ON u.id = s.user_id::VARCHAR"
            " LEFT JOIN title_rows AS t ON t.id = s.media_id::VARCHAR"
        ).fetchnumpy()
        known = ~(np.ma.getmaskarray(found["user_row"]) | np.ma.getmaskarray(found["title_row"]))
        if not known.all() and (strict or not (allow_none or known.any()) or _lacks_ids(connection, file)):
            raise _unknown(connection, path, file)
    ratings = np.ma.filled(found["rating"].astype(np.float32), np.nan)[known] if "rating" in more else None
    timestamps = _whole_column(path, found["timestamp"][known]) if "timestamp" in more else None
    rows = [np.ma.getdata(found[name])[known] for name in ("user_row", "title_row")]
    return SeenRows(rows[0], rows[1], ratings, timestamps, int((~known).sum()))


@dataclass(frozen=True)
class DelistedRows:
    """Rows of what known users have seen that name titles there are not; they count as soon as there are.

    Attributes:
        users: int (n,), the users' numbers.
        media_ids: str (n,), what they have seen.
        ratings: float32 (n,), NaN where there is none; None where the table has none.
        timestamps: int64 (n,), seconds since 1970; None where the table has none.
    """

    users: NDArray[np.integer[Any]]
    media_ids: NDArray[np.object_]
    ratings: NDArray[np.float32] | None
    timestamps: NDArray[np.int64] | None

    def take(self, at: NDArray[np.int64]) -> DelistedRows:
        """Return the rows ``at``, int64 (n,), in that order."""
        return DelistedRows(
            self.users[at],
            self.media_ids[at],
            None if self.ratings is None else self.ratings[at],
            None if self.timestamps is None else self.timestamps[at],
        )


def joined_ratings_and_times(
    parts: Sequence[SeenRows | DelistedRows],
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Put ratings and timestamps one after the other.

    Returns:
        The ratings, float32 (rows of all parts,), NaN where a part has none and None where no part has any; and the
        timestamps, int64 (rows of all parts,), None where any part has none.
    """
    ratings = [np.full(len(one.users), np.nan, np.float32) if one.ratings is None else one.ratings for one in parts]
    times = [one.timestamps for one in parts if one.timestamps is not None]
    return (
        None if all(one.ratings is None for one in parts) else np.concatenate(ratings),
        np.concatenate(times) if len(times) == len(parts) else None,
    )


def read_delisted_rows(source: Path | ParquetRelation, users: IdTable, titles: IdTable) -> DelistedRows:
    """Read the rows that `read_seen_rows` ignores for want of their titles, in the order of the file.

    Raises:
        DataError: as `read_history`.
    """
    source = ParquetRelation(source) if isinstance(source, Path) else source
    path = source.name
    with _explained(path), session() as connection:
        file = source.sql(connection)
        more = _more_columns(path, _check_columns(connection, path, file))
        connection.register("user_rows", users)
        connection.register("title_rows", titles)
        found = connection.execute(
            f"SELECT u.number AS user_row, s.media_id::VARCHAR AS media_id{_named(more)}"
            f" FROM {file} AS s JOIN user_rows AS u ON u.id = s.user_id::VARCHAR"
            " ANTI JOIN title_rows AS t ON t.id = s.media_id::VARCHAR"
        ).fetchnumpy()
    return DelistedRows(
        np.ma.getdata(found["user_row"]),
        np.ma.getdata(found["media_id"]),
        np.ma.filled(found["rating"].astype(np.float32), np.nan) if "rating" in more else None,
        _whole_column(path, found["timestamp"]) if "timestamp" in more else None,
    )


def _named(columns: dict[str, str]) -> str:
    return "".join(f", {sql} AS {name}" for name, sql in columns.items())


def distinct_ids(path: Path, column: Literal["user_id", "media_id"]) -> list[str]:
    """Return the different ids of a column of a table of what users have seen, sorted; raises as `read_history`."""
    with _explained(path), session() as connection:
        file = ParquetRelation(path).sql(connection)
        _check_columns(connection, path, file)
        sql = f"SELECT DISTINCT {column}::VARCHAR FROM {file} WHERE {column} IS NOT NULL ORDER BY 1"
        return [found for (found,) in connection.execute(sql).fetchall()]


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Tell what DuckDB cannot read in the block as bad data."""
    import duckdb

    try:
        yield
    except (duckdb.Error, UnicodeError) as error:
        raise DataError(
            f"{path}: cannot read what users have seen: {first_line(error)}",
            fix="write or copy it again, as Parquet with the columns user_id and media_id",
        ) from error


def _lacks_ids(connection: DuckDBPyConnection, file: str) -> bool:
    sql = f"SELECT count(*) FROM {file} WHERE user_id IS NULL OR media_id IS NULL"
    return bool(connection.execute(sql).fetchall()[0][0])


def numbered(ids: NDArray[np.object_], numbers: StoredRows | None = None) -> IdTable:
    """Return ids, str (n,), with a number each, integer (n,), by default their positions."""
    if numbers is None:
        return {"id": ids, "number": np.arange(len(ids), dtype=row_type(len(ids)))}
    return {"id": ids, "number": numbers.astype(row_type(int(numbers.max(initial=0)) + 1))}


def _more_columns(path: Path | str, columns: dict[str, str]) -> dict[str, str]:
    """Return the SQL that reads rating and timestamp, where the file has them."""
    found = {}
    if "rating" in columns:
        if not columns["rating"].startswith((*_NUMBERS, '"NULL"')):  # all null: nothing is rated
            raise DataError(
                f"{path}: the column rating has type {columns['rating']}; a number is expected", fix="write numbers"
            )
        found["rating"] = "CASE WHEN isfinite(s.rating::FLOAT) THEN s.rating::FLOAT END"  # as of interactions
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


def _whole_column(path: Path | str, column: NDArray[Any]) -> NDArray[np.int64]:
    if np.ma.is_masked(column):
        raise DataError(
            f"{path}: {int(np.ma.getmaskarray(column).sum()):,} rows have no timestamp, or one that is not a number",
            fix="give every row one, or leave the column out",
        )
    times = np.asarray(np.ma.getdata(column), dtype=np.int64)
    if len(times) and not (times.min() >= 0 and times.max() < YEAR_2100):
        raise _not_seconds(path, int(times.min()), int(times.max()))
    return times


def _not_seconds(path: Path | str, first: int, last: int) -> DataError:
    """Say which timestamp lies outside 1970 to 2100, and what the file seems to count in."""
    if first < 0:
        return DataError(
            f"{path}: a timestamp is {first:,}, before 1970",
            fix="write whole seconds since 1970, or leave the column out",
        )
    units = {1_000: "milliseconds", 1_000_000: "microseconds", 1_000_000_000: "nanoseconds"}
    divisor = next((number for number in units if last // number < YEAR_2100), None)
    seems = "" if divisor is None else f"; as {units[divisor]} it would be {date_of(last // divisor)}"
    return DataError(
        f"{path}: a timestamp is {last:,}, which as seconds since 1970 lies after the year 2100{seems}",
        fix="write whole seconds since 1970" + ("" if divisor is None else f": timestamp // {divisor}"),
    )


def date_of(seconds: int) -> str:
    """Return the day, in UTC, of seconds since 1970."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def _check_columns(connection: DuckDBPyConnection, path: Path | str, file: str) -> dict[str, str]:
    """Return the columns' types by name."""
    held = connection.sql(f"FROM {file}")
    columns = dict(zip(held.columns, held.types, strict=True))
    missing = [name for name in ("user_id", "media_id") if name not in columns]
    if missing:
        raise DataError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {' and '.join(missing)}; it has {', '.join(columns)}",
            fix="name the columns user_id and media_id",
        )
    for name in ("user_id", "media_id"):
        refuse_what_is_no_id(path, name, columns[name])
    return {name: str(kind) for name, kind in columns.items()}


def _unknown(connection: DuckDBPyConnection, path: Path | str, file: str) -> DataError:
    """Say how many rows name unknown users or titles, with the first few of these."""
    problems, lacking = [], []
    for column, table, whose in (("user_id", "user_rows", "user"), ("media_id", "title_rows", "title")):
        rows, ids, empty = connection.execute(
            f"SELECT count(*), count(DISTINCT {column}), count(*) - count({column}) FROM {file}"
            f" WHERE {column} IS NULL OR {column}::VARCHAR NOT IN (SELECT id FROM {table})"
        ).fetchall()[0]
        if ids:
            examples = connection.execute(
                f"SELECT DISTINCT {column}::VARCHAR AS id FROM {file}"
                f" WHERE {column}::VARCHAR NOT IN (SELECT id FROM {table}) ORDER BY id LIMIT {EXAMPLES}"
            ).fetchall()
            named = ", ".join(repr(name) for (name,) in examples)
            problems.append(
                f"rows whose {column} no {whose} has: {rows - empty:,} (different ids: {ids:,}, such as {named})"
            )
        if empty:
            problems.append(f"rows without {column}: {empty:,}")
        if rows:
            lacking.append(table)
    known = [connection.execute(f"SELECT any_value(id) FROM {table}").fetchall()[0][0] for table in lacking]
    such_as = " and ".join(repr(each) for each in known if each is not None)
    return DataError(
        f"{path}: {'; '.join(problems)}",
        fix=f"write ids as the users and titles have them,{' such as ' * bool(such_as)}{such_as}"
        f"{',' * bool(such_as)} or remove these rows",
    )
