"""Interactions as files hold them, CSV or Parquet, to the seen titles of a data folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from semrec_faiss.data.folder.csv_lines import check_csv_lines, delimiter_of
from semrec_faiss.data.folder.database import first_line, literal_path, quoted_name, quoted_text, session
from semrec_faiss.data.folder.field_types import refuse_bytes, refuse_what_is_no_id
from semrec_faiss.data.folder.parquet import parquet_source, row_place
from semrec_faiss.data.folder.relation import ParquetRelation
from semrec_faiss.data.odd_row import OddRow, first_odd_row
from semrec_faiss.data.seen_checks import check_arrow_types
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.paths import refuse_special

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OURS = {"user_id": "user_id::VARCHAR", "media_id": "media_id::VARCHAR"}
_MOVIELENS = {
    "user_id": "format('user_{:08d}', \"userId\"::BIGINT)",
    "media_id": "format('ml_{:08d}', \"movieId\"::BIGINT)",
}
_MOVIELENS_AS_THEY_ARE = {"user_id": '"userId"::VARCHAR', "media_id": '"movieId"::VARCHAR'}
_NUMBER = "TRY_CAST({0} AS DOUBLE) IS NOT NULL AND NOT contains({0}, '_')"
_WHOLE = "regexp_full_match({0}, '[0-9]{{1,18}}')"
_TIME = "TRY_CAST({0} AS TIMESTAMPTZ) IS NOT NULL AND regexp_matches({0}, '^[0-9]{{4}}[-/]')"
"""The SQL of whether a text is one; a cast takes 1_000 for a thousand, and 'epoch' for a time."""

_SPELLED = re.compile(r"ml_\d{8,}")
_FIX = "name the columns user_id, media_id, and rating and timestamp where they are known"


def write_seen(source: Path, target: Path, media_ids: Iterable[str] = ()) -> list[str]:
    """Write users/seen.parquet of a file of interactions; return the ids of its users, sorted.

    Args:
        source: .parquet or .csv with the columns user_id and media_id, and rating and timestamp where they are known;
            or MovieLens' ratings.csv, with userId and movieId.
        target: the file to write, with the columns of ``source``, named as ours.
        media_ids: of the titles. MovieLens' ids are spelled as theirs: ml_00000001, as `semrec dataset movielens` does,
            or where no title's is, as they are, as `semrec dataset import` leaves them.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is neither .parquet nor .csv, or no file at all.
        DataError: it cannot be read, or lacks a column, has one twice, or one of lengths of time.
    """
    import duckdb

    refuse_special(source, "a .parquet or .csv file")
    if not source.exists():
        raise NotFoundError(f"there is no file {source}", fix="give --interactions a .parquet or .csv file")
    try:
        with session() as connection:
            rows = _rows_of(source)
            for part in ParquetRelation(source).parts if source.suffix == ".parquet" else ():
                check_arrow_types(part)
            held = connection.sql(f"FROM {rows}")
            named = _columns(source, held.columns, media_ids)
            texts = _Texts(connection, source, rows)
            if named["user_id"] == _MOVIELENS["user_id"]:
                texts.check_whole("userId")
                texts.check_whole("movieId")
            if source.suffix == ".csv":
                meant = {"rating": texts.number, "timestamp": texts.time}
                named |= {name: sql(name) for name, sql in meant.items() if name in named}
            columns = ", ".join(f"{sql} AS {name}" for name, sql in named.items())
            for name, kind in zip(held.columns, held.types, strict=True):
                if name in _OURS:
                    refuse_what_is_no_id(source, name, kind)
                refuse_bytes(source, name, kind)
            connection.execute(
                f"COPY (SELECT {columns} FROM {rows}) TO {quoted_text(str(target))} (FORMAT parquet, COMPRESSION zstd)"
            )
            ids = _users_of(connection, target)
    except (duckdb.Error, UnicodeError) as error:
        if source.suffix == ".csv":
            check_csv_lines(source, delimiter_of(source))
        raise DataError(f"{source} cannot be read: {first_line(error)}", fix="write or copy it again") from error
    if not ids:
        raise DataError(f"{source} holds no interactions", fix="give a file that holds some")
    return ids


def _users_of(connection: DuckDBPyConnection, seen: Path) -> list[str]:
    sql = f"SELECT DISTINCT user_id::VARCHAR AS id FROM {parquet_source(seen)} ORDER BY id"
    found = connection.execute(sql).fetchall()
    return [user_id for (user_id,) in found]


def _rows_of(source: Path) -> str:
    if source.suffix == ".parquet":
        return parquet_source(source)
    if source.suffix == ".csv" and source.is_file():  # all as texts: 007 is no 7, and 03/04 a day that nobody knows
        return (
            f"read_csv({quoted_text(literal_path(source))}, header = true, hive_partitioning = false,"
            f" delim = {quoted_text(delimiter_of(source))}, quote = '\"', escape = '\"', all_varchar = true)"
        )
    raise UsageError(f"{source} is neither .parquet nor .csv", fix="write the interactions as one of these")


def _columns(source: Path, names: list[str], media_ids: Iterable[str]) -> dict[str, str]:
    ours = _OURS
    if {"userId", "movieId"} <= set(names):
        known = list(media_ids)
        spelled = not known or any(_SPELLED.fullmatch(media_id) for media_id in known)
        ours = _MOVIELENS if spelled else _MOVIELENS_AS_THEY_ARE
    if ours is _OURS and not _OURS.keys() <= set(names):
        missing = " and ".join(name for name in _OURS if name not in names)
        raise DataError(
            f"{source} lacks the column{'s' * (' ' in missing)} {missing}; it has {', '.join(names)}", fix=_FIX
        )
    return {**ours, **{name: name for name in ("rating", "timestamp") if name in names}}


class _Texts:
    """Columns of which the texts are looked at, as all are in a CSV."""

    def __init__(self, connection: DuckDBPyConnection, source: Path, rows: str) -> None:
        self._connection = connection
        self._source = source
        self._rows = rows

    def number(self, column: str) -> str:
        """Return the SQL of a column of numbers; raises DataError where one is none."""
        if (odd := self._odd(column, _NUMBER)) is not None:
            raise self._refused(column, odd, "a number is expected", "write numbers, such as 4.5")
        return f"{_filled(column)}::DOUBLE"

    def time(self, column: str) -> str:
        """Return the SQL of seconds since 1970 of a column of these, or of times; raises DataError where it is neither.

        Days are not guessed: 03/04/2020 is one in March or in April.
        """
        if (number := self._odd(column, _NUMBER)) is None:
            return f"{_filled(column)}::{'BIGINT' if self._odd(column, _WHOLE) is None else 'DOUBLE'}"
        if (time := self._odd(column, _TIME)) is None:
            return f"epoch({_filled(column)}::TIMESTAMPTZ)::BIGINT"
        odd, what = (
            max(number, time, key=lambda one: one.row),
            "the rows above have the other kind: seconds in all, or times in all, are expected",
        )
        if (neither := self._odd(column, f"({_NUMBER}) OR ({_TIME})")) is not None:
            odd, what = neither, "seconds or a time with its year first are expected"
        fix = "write whole seconds since 1970, or times such as 2020-01-31 12:00:00"
        raise self._refused(column, odd, what, fix)

    def check_whole(self, column: str) -> None:
        """Raise DataError where a column holds something else than whole numbers from 0 on."""
        if (odd := self._odd(column, _WHOLE)) is not None:
            raise self._refused(column, odd, "a whole number is expected", "write the ids as MovieLens has them")

    def _odd(self, column: str, test: str) -> OddRow | None:
        """Return the first row whose text fails a test; None where all pass."""
        filled = _filled(column)
        failed = f"{filled} IS NOT NULL AND NOT ({test.format(filled)})"
        return first_odd_row(self._connection, self._rows, filled, failed)

    def _refused(self, column: str, odd: OddRow, what: str, fix: str) -> DataError:
        return DataError(f"{odd.told(row_place(self._source), column)}; {what}", fix=fix)


def _filled(column: str) -> str:
    return f"nullif(trim({quoted_name(column)}::VARCHAR), '')"
