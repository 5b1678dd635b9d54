"""When something was done: seconds, milliseconds, microseconds, nanoseconds or dates, told apart by their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semrec_faiss.data.seen_checks import YEAR_2100, date_of
from semrec_faiss.errors import DataError, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of each are a second."""

_SPOKEN = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_YEAR_1973 = 100_000_000
_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = ("DOUBLE", "FLOAT", "DECIMAL", *_SIGNED, *(f"U{name}" for name in _SIGNED))


@dataclass(frozen=True)
class Times:
    """What times are in, and the SQL that makes seconds since 1970 of them.

    Attributes:
        unit: seconds, milliseconds, microseconds, nanoseconds or dates.
        first: the first day, in UTC.
        last: the last day.
        sql: of whole seconds.
    """

    unit: str
    first: str
    last: str
    sql: str


def find_times(
    connection: DuckDBPyConnection, file: str, name: str, kind: str | None, unit: str | None
) -> Times | None:
    """Tell what the column ``time`` of ``file`` counts in; None where there is no such column, or it is empty.

    Raises:
        DataError: some rows have no time, one that is none, or some that fit no one unit.
    """
    if kind is None or kind.strip('"') == "NULL":
        return None
    number = kind.startswith(_NUMBERS)
    if number:
        raw = "CASE WHEN isfinite(time::DOUBLE) THEN TRY_CAST(time AS HUGEINT) END"
    elif kind.startswith(("DATE", "TIMESTAMP")):
        raw = "epoch(time)::BIGINT"
    else:
        raw = "coalesce(epoch(TRY_CAST(time AS TIMESTAMPTZ))::BIGINT, TRY_CAST(time AS HUGEINT))"
        number = not _one(connection, f"SELECT count(*) FROM {file} WHERE TRY_CAST(time::VARCHAR AS HUGEINT) IS NULL")
    rows, some, low, high = connection.execute(
        f"SELECT count(*), count({raw}), min({raw}), max({raw}) FROM {file}"
    ).fetchall()[0]
    if not some and not _one(connection, f"SELECT count(time) FROM {file}"):
        return None
    if some < rows:
        numbered = f"SELECT row_number() OVER () AS row, time::VARCHAR AS held, {raw} AS told FROM {file}"
        row, held = connection.execute(
            f"SELECT row, held FROM ({numbered}) WHERE told IS NULL ORDER BY row LIMIT 1"
        ).fetchall()[0]
        raise DataError(
            f"{name}: {rows - some:,} of {rows:,} rows have no time, or one that is none;"
            f" the first is row {row:,}, {'without one' if held is None else f'of {quoted(held)}'}",
            fix="give every row one, or say --map time=- to do without times",
        )
    if not number:
        return Times("dates", date_of(int(low)), date_of(int(high)), f"({raw})")
    return _counted(connection, file, name, raw, int(low), int(high), unit)


def _counted(
    connection: DuckDBPyConnection, file: str, name: str, raw: str, low: int, high: int, unit: str | None
) -> Times:
    found = unit or next((each for each, number in TIME_UNITS.items() if high // number < YEAR_2100), None)
    if found is None or low < 0 or high // TIME_UNITS[found] >= YEAR_2100:
        raise DataError(
            f"{name}: times go from {low:,} to {high:,}, which lies outside 1970 to 2100 in any unit",
            fix="map another column: --map time=COLUMN, or --map time=- to do without times",
        )
    divisor = TIME_UNITS[found]
    if unit is None:
        early = _one(connection, f"SELECT count(*) FROM {file} WHERE {raw} < {_YEAR_1973 * divisor}")
        if early:
            raise DataError(
                f"{name}: times go from {low:,} to {high:,}; as {_SPOKEN[found]} since 1970, {early:,} rows lie before"
                " 1973, which looks like several units, or another one",
                fix=f"say which it is: --time-unit {found}, or --map time=- to do without times",
            )
    days = date_of(low // divisor), date_of(high // divisor)
    return Times(_SPOKEN[found], *days, f"(({raw}) // {divisor})::BIGINT")


def _one(connection: DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
