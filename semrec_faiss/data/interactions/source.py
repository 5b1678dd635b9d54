"""Interactions as files hold them, CSV or Parquet, to the seen titles of a data folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from semrec_faiss.data.folder.csv_lines import check_csv_lines, delimiter_of
from semrec_faiss.data.folder.database import first_line, literal_path, quoted_text, session
from semrec_faiss.data.folder.field_types import refuse_bytes, refuse_what_is_no_id
from semrec_faiss.data.folder.parquet import parquet_source
from semrec_faiss.errors import DataError, NotFoundError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OURS = {"user_id": "user_id::VARCHAR", "media_id": "media_id::VARCHAR"}
_MOVIELENS = {
    "user_id": "format('user_{:08d}', \"userId\"::BIGINT)",
    "media_id": "format('ml_{:08d}', \"movieId\"::BIGINT)",
}
_MOVIELENS_AS_THEY_ARE = {"user_id": '"userId"::VARCHAR', "media_id": '"movieId"::VARCHAR'}
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
        UsageError: it is neither .parquet nor .csv.
        DataError: it cannot be read, or lacks a column.
    """
    import duckdb

    if not source.exists():
        raise NotFoundError(f"there is no file {source}", fix="give --interactions a .parquet or .csv file")
    try:
        with session() as connection:
            rows = _rows_of(source, connection)
            held = connection.sql(f"FROM {rows}")
            columns = ", ".join(f"{sql} AS {name}" for name, sql in _columns(source, held.columns, media_ids).items())
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
        raise DataError(
            f"{source} cannot be read: {first_line(error)}", fix="write or copy it again, with one type a column"
        ) from error
    if not ids:
        raise DataError(f"{source} holds no interactions", fix="give a file that holds some")
    return ids


def _users_of(connection: DuckDBPyConnection, seen: Path) -> list[str]:
    sql = f"SELECT DISTINCT user_id::VARCHAR AS id FROM {parquet_source(seen)} ORDER BY id"
    found = connection.execute(sql).fetchall()
    return [user_id for (user_id,) in found]


def _rows_of(source: Path, connection: DuckDBPyConnection) -> str:
    if source.suffix == ".parquet":
        return parquet_source(source)
    if source.suffix == ".csv" and source.is_file():
        read = (
            f"read_csv({quoted_text(literal_path(source))}, header = true, hive_partitioning = false,"
            f" delim = {quoted_text(delimiter_of(source))}, quote = '\"', escape = '\"'"
        )
        ids = _OURS.keys() & set(connection.sql(f"FROM {read})").columns)
        texts = ", ".join(f"'{name}': 'VARCHAR'" for name in sorted(ids))  # 007 is no 7
        return f"{read}, types = {{{texts}}})" if ids else f"{read})"
    raise UsageError(f"{source} is neither .parquet nor .csv", fix="write the interactions as one of these")


def _columns(source: Path, names: list[str], media_ids: Iterable[str]) -> dict[str, str]:
    ours = _OURS
    if {"userId", "movieId"} <= set(names):
        known = list(media_ids)
        spelled = not known or any(_SPELLED.fullmatch(media_id) for media_id in known)
        ours = _MOVIELENS if spelled else _MOVIELENS_AS_THEY_ARE
    if ours is _OURS and not _OURS.keys() <= set(names):
        missing = " and ".join(name for name in _OURS if name not in names)
        raise DataError(f"{source} lacks the column {missing}; it has {', '.join(names)}", fix=_FIX)
    return {**ours, **{name: name for name in ("rating", "timestamp") if name in names}}
