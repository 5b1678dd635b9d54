"""When something was done: seconds, milliseconds, microseconds, nanoseconds or dates, told apart by their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semrec_faiss.data.folder.field_types import INTEGERS
from semrec_faiss.data.odd_row import Place, first_odd_row
from semrec_faiss.data.seen_checks import YEAR_2100, date_of
from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of each are a second."""

_SPOKEN = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_YEAR_1973 = 100_000_000
_NUMBERS = ("DOUBLE", "FLOAT", "DECIMAL", *INTEGERS)


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


_DATE = "coalesce(isfinite(TRY_CAST(time AS TIMESTAMPTZ)) AND regexp_matches(time::VARCHAR, '^[0-9]'), false)"
"""The SQL of whether a text is a time, which has its year first; a cast takes infinity and epoch for some, too."""


def find_times(
    connection: DuckDBPyConnection, file: str, place: Place, kind: str | None, unit: str | None
) -> Times | None:
    """Tell what the column ``time`` of ``file`` counts in; None where there is no such column, or it is empty.

    Args:
        connection: that reads it.
        file: its SQL.
        place: says where a row of it is.
        kind: the type of the column; None without one.
        unit: what it counts in, where that is said.

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
        number = not _one(connection, f"SELECT count(*) FROM {file} WHERE {_DATE}")
        raw = "TRY_CAST(time AS HUGEINT)" if number else f"CASE WHEN {_DATE} THEN epoch(time::TIMESTAMPTZ)::BIGINT END"
    rows, some, low, high = connection.execute(
        f"SELECT count(*), count({raw}), min({raw}), max({raw}) FROM {file}"
    ).fetchall()[0]
    if not some and not _one(connection, f"SELECT count(time) FROM {file}"):
        return None
    if some < rows:
        odd = first_odd_row(connection, file, "time", f"({raw}) IS NULL")
        assert odd is not None, "there are such rows"
        raise DataError(
            f"{odd.told(place, 'time')}; every row needs one, in seconds since 1970 or, in all rows, with its year"
            " first",
            fix="write every row's, such as 2020-01-31 12:00:00, or say --map time=- to do without times",
        )
    if not number:
        _check_dates(connection, file, place, raw)
        return Times("dates", date_of(int(low)), date_of(int(high)), f"({raw})")
    return _counted(connection, file, place, raw, int(low), int(high), unit)


def _check_dates(connection: DuckDBPyConnection, file: str, place: Place, raw: str) -> None:
    odd = first_odd_row(connection, file, "time", f"({raw}) NOT BETWEEN 0 AND {YEAR_2100 - 1}")
    if odd is not None:
        raise DataError(
            f"{odd.told(place, 'time')}; that is outside 1970 to 2100",
            fix="mend it, or map another column: --map time=COLUMN, or --map time=- to do without times",
        )


def _counted(
    connection: DuckDBPyConnection, file: str, place: Place, raw: str, low: int, high: int, unit: str | None
) -> Times:
    found = unit or next((each for each, number in TIME_UNITS.items() if high // number < YEAR_2100), None)
    if found is None or low < 0 or high // TIME_UNITS[found] >= YEAR_2100:
        limit = YEAR_2100 * TIME_UNITS[found or "ns"]
        odd = first_odd_row(connection, file, raw, f"({raw}) NOT BETWEEN 0 AND {limit - 1}")
        assert odd is not None, "one of these is the first or the last"
        raise DataError(
            f"{odd.told(place, 'time')}; that is outside 1970 to 2100"
            f" {f'as {_SPOKEN[found]}' if found else 'in any unit'}, and times go from {low:,} to {high:,}",
            fix="map another column: --map time=COLUMN, or --map time=- to do without times",
        )
    divisor = TIME_UNITS[found]
    if unit is None:
        early = first_odd_row(connection, file, raw, f"({raw}) < {_YEAR_1973 * divisor}")
        if early is not None:
            raise DataError(
                f"{early.told(place, 'time')}; as {_SPOKEN[found]} since 1970 that is before 1973, and times go from"
                f" {low:,} to {high:,}, which looks like several units, or another one",
                fix=f"say which it is: --time-unit {found}, or --map time=- to do without times",
            )
    days = date_of(low // divisor), date_of(high // divisor)
    return Times(_SPOKEN[found], *days, f"(({raw}) // {divisor})::BIGINT")


def _one(connection: DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
