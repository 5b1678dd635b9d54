"""What is wrong with a table of what users have seen: its columns, its ids and its times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows
from semrec_faiss.data.column_names import guessed, refuse_same_names
from semrec_faiss.data.folder.database import first_line
from semrec_faiss.data.folder.field_types import refuse_what_is_no_id
from semrec_faiss.data.folder.relation import ParquetRelation, Relation
from semrec_faiss.data.odd_row import OddRow, first_odd_row
from semrec_faiss.data.time_spans import refuse_time_spans
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

_EXAMPLES = 5

SEEN_COLUMNS = {"user_id": "user", "media_id": "item", "rating": "rating", "timestamp": "time"}
"""The columns, and what they are called where any table comes in."""

Column = NDArray[Any]
"""A column of a table, masked where there is no value."""


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Tell what DuckDB cannot read in the block as bad data."""
    import duckdb

    try:
        yield
    except (duckdb.Error, UnicodeError) as error:
        raise DataError(
            f"{path}: cannot read what users have seen: {first_line(error)}",
            fix="write or copy it again, as Parquet with the columns user_id and media_id",
        ) from error


def lacks_ids(connection: DuckDBPyConnection, file: str) -> bool:
    """Tell whether some rows have no user_id, or no media_id."""
    sql = f"SELECT count(*) FROM {file} WHERE user_id IS NULL OR media_id IS NULL"
    return bool(connection.execute(sql).fetchall()[0][0])


def further_columns(path: Path | str, columns: dict[str, str]) -> dict[str, str]:
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


def whole_times(connection: DuckDBPyConnection, source: Relation, placed: str, times: Column, places: Column) -> Rows:
    """Return times as int64.

    Args:
        connection: that reads the table.
        source: the table.
        placed: the SQL of its rows, with the place of each, from 1.
        times: seconds (n,), null where there is none.
        places: of these rows, integer (n,).

    Raises:
        DataError: one is none, or lies outside 1970 to 2100; the first such row is told.
    """
    lacking = np.flatnonzero(np.ma.getmaskarray(times))
    seconds = np.asarray(np.ma.getdata(times), dtype=np.int64)
    outside = np.flatnonzero((seconds < 0) | (seconds >= YEAR_2100))
    wrong = lacking if len(lacking) else outside
    if not len(wrong):
        return seconds
    place = int(places[wrong].min())
    held = connection.execute(f"SELECT timestamp::VARCHAR FROM {placed} WHERE place = {place}").fetchall()[0][0]
    told = OddRow(place - 1, held, len(wrong)).told(source.place, "timestamp")
    if len(lacking):
        raise DataError(
            f"{told}; seconds or a time are expected in every row", fix="give them, or leave the column out"
        )
    raise _not_seconds(told, int(seconds[np.ma.getdata(places) == place][0]))


def _not_seconds(told: str, seconds: int) -> DataError:
    """Say what a timestamp outside 1970 to 2100 seems to count in."""
    if seconds < 0:
        return DataError(f"{told}; that is before 1970", fix="write whole seconds since 1970, or leave the column out")
    units = {1_000: "milliseconds", 1_000_000: "microseconds", 1_000_000_000: "nanoseconds"}
    divisor = next((number for number in units if seconds // number < YEAR_2100), None)
    seems = "" if divisor is None else f"; as {units[divisor]} it would be {date_of(seconds // divisor)}"
    return DataError(
        f"{told}; as seconds since 1970 that is after the year 2100{seems}",
        fix="write whole seconds since 1970" + ("" if divisor is None else f": timestamp // {divisor}"),
    )


def date_of(seconds: int) -> str:
    """Return the day, in UTC, of seconds since 1970."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def _as_meant(names: Sequence[str]) -> str:
    """Tell how columns of other names that are known have to be named."""
    meant = {part: guessed(of_a_table, names) for part, of_a_table in SEEN_COLUMNS.items()}
    told = [f"{name} to {part}" for part, name in meant.items() if name not in (None, part)]
    return f", as by renaming {', '.join(told)}" if told else ""


def check_columns(connection: DuckDBPyConnection, source: Relation) -> dict[str, str]:
    """Return the columns' types by name, after a look at each of a table's files.

    Raises:
        DataError: a file lacks ids, or has columns of types that are none of ids, ratings and times.
    """
    parts = source.parts
    for part in parts:
        check_arrow_types(part)
        columns = _checked_columns(connection, part)
        further_columns(part.name, columns)
    return columns if len(parts) == 1 else _checked_columns(connection, source)


def check_arrow_types(part: Relation) -> None:
    """Refuse what DuckDB does not tell of a file: columns of one name, and lengths of time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(part, ParquetRelation):
        return
    try:
        schema = pq.read_schema(part.path)
        names = schema.names
    except (pa.ArrowException, OSError, UnicodeError):
        return  # which DuckDB tells
    refuse_same_names(part.name, names)
    refuse_time_spans(part.name, [schema.field(name) for name in names if name in SEEN_COLUMNS])


def _checked_columns(connection: DuckDBPyConnection, source: Relation) -> dict[str, str]:
    path, held = source.name, connection.sql(f"FROM {source.sql(connection)}")
    columns = dict(zip(held.columns, held.types, strict=True))
    missing = [name for name in ("user_id", "media_id") if name not in columns]
    if missing:
        raise DataError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {' and '.join(missing)}; it has {', '.join(columns)}",
            fix=f"name the columns user_id and media_id{_as_meant(held.columns)}",
        )
    for name in ("user_id", "media_id"):
        refuse_what_is_no_id(path, name, columns[name])
    return {name: str(kind) for name, kind in columns.items()}


def unknown_ids(connection: DuckDBPyConnection, source: Relation, file: str) -> DataError:
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
                f" WHERE {column}::VARCHAR NOT IN (SELECT id FROM {table}) ORDER BY id LIMIT {_EXAMPLES}"
            ).fetchall()
            named = ", ".join(repr(name) for (name,) in examples)
            problems.append(
                f"rows whose {column} no {whose} has: {rows - empty:,} (different ids: {ids:,}, such as {named})"
            )
        if empty:
            first = first_odd_row(connection, file, column, f"{column} IS NULL")
            assert first is not None, "there are such rows"
            problems.append(f"rows without {column}: {empty:,}, {source.place(first.row)} first")
        if rows:
            lacking.append(table)
    known = [connection.execute(f"SELECT any_value(id) FROM {table}").fetchall()[0][0] for table in lacking]
    such_as = " and ".join(repr(each) for each in known if each is not None)
    return DataError(
        f"{source.name}: {'; '.join(problems)}",
        fix=f"write ids as the users and titles have them,{' such as ' * bool(such_as)}{such_as}"
        f"{',' * bool(such_as)} or remove these rows",
    )
