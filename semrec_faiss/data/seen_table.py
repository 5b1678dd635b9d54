"""users/seen.parquet: what users have seen, as rows, with every mistake named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import StoredRows, row_type
from semrec_faiss.data.folder.database import session
from semrec_faiss.data.folder.relation import ParquetRelation, Relation
from semrec_faiss.data.seen_checks import (
    check_columns,
    explained,
    further_columns,
    lacks_ids,
    unknown_ids,
    whole_times,
)

IdTable = dict[str, NDArray[Any]]
"""Ids, and a number for each."""


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
        with_ratings: whether to read the further columns where there are any; without them the order is any.
        strict: refuse rows that would be ignored.
        allow_none: whether all of them may be; else they are taken for a file with other ids.

    Raises:
        DataError: as `read_history`.
    """
    source = ParquetRelation(source) if isinstance(source, Path) else source
    path = source.name
    with explained(path), session() as connection:
        file = source.sql(connection)
        columns = check_columns(connection, source)
        more = {name: sql for name, sql in further_columns(path, columns).items() if with_ratings}
        connection.register("user_rows", users)
        connection.register("title_rows", titles)
        found = _in_file_order(
            connection.execute(
                f"SELECT u.number AS user_row, t.number AS title_row{_named(more)}"
                f" FROM {_placed(file, more)} AS s"
                " LEFT JOIN user_rows AS u ON u.id = s.user_id::VARCHAR"
                " LEFT JOIN title_rows AS t ON t.id = s.media_id::VARCHAR"
            ).fetchnumpy()
        )
        known = ~(np.ma.getmaskarray(found["user_row"]) | np.ma.getmaskarray(found["title_row"]))
        if not known.all() and (strict or not (allow_none or known.any()) or lacks_ids(connection, file)):
            raise unknown_ids(connection, source, file)
        timestamps = None
        if "timestamp" in more:
            of_known = found["timestamp"][known], found["place"][known]
            timestamps = whole_times(connection, source, _placed(file, more), *of_known)
    ratings = np.ma.filled(found["rating"].astype(np.float32), np.nan)[known] if "rating" in more else None
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


def read_delisted_rows(source: Path | Relation, users: IdTable, titles: IdTable) -> DelistedRows:
    """Read the rows that `read_seen_rows` ignores for want of their titles, in the order of the file.

    Raises:
        DataError: as `read_history`.
    """
    source = ParquetRelation(source) if isinstance(source, Path) else source
    path = source.name
    with explained(path), session() as connection:
        file = source.sql(connection)
        more = further_columns(path, check_columns(connection, source))
        connection.register("user_rows", users)
        connection.register("title_rows", titles)
        found = _in_file_order(
            connection.execute(
                f"SELECT u.number AS user_row, s.media_id::VARCHAR AS media_id{_named(more)}"
                f" FROM {_placed(file, more)} AS s JOIN user_rows AS u ON u.id = s.user_id::VARCHAR"
                " ANTI JOIN title_rows AS t ON t.id = s.media_id::VARCHAR"
            ).fetchnumpy()
        )
        timestamps = None
        if "timestamp" in more:
            timestamps = whole_times(connection, source, _placed(file, more), found["timestamp"], found["place"])
    return DelistedRows(
        np.ma.getdata(found["user_row"]),
        np.ma.getdata(found["media_id"]),
        np.ma.filled(found["rating"].astype(np.float32), np.nan) if "rating" in more else None,
        timestamps,
    )


def _placed(file: str, more: dict[str, str]) -> str:
    """Return the SQL of the rows of ``file`` with their places, where further columns are read."""
    if not more:  # without ratings and times the rows of a user and a title are all the same
        return file
    return f"(SELECT user_id, media_id, {', '.join(more)}, row_number() OVER () AS place FROM {file})"


def _named(more: dict[str, str]) -> str:
    return "".join(f", {sql} AS {name}" for name, sql in more.items()) + ", s.place" * bool(more)


def _in_file_order(found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Bring rows that have places into the order of the file, which DuckDB's joins do not keep."""
    if "place" not in found:
        return found
    places = np.ma.getdata(found["place"])
    if bool((places[1:] > places[:-1]).all()):
        return found
    order = np.argsort(places)
    return {name: column[order] for name, column in found.items()}


def distinct_ids(path: Path, column: Literal["user_id", "media_id"]) -> list[str]:
    """Return the different ids of a column of a table of what users have seen, sorted; raises as `read_history`."""
    with explained(path), session() as connection:
        source = ParquetRelation(path)
        check_columns(connection, source)
        sql = f"SELECT DISTINCT {column}::VARCHAR FROM {source.sql(connection)} WHERE {column} IS NOT NULL ORDER BY 1"
        return [found for (found,) in connection.execute(sql).fetchall()]


def numbered(ids: NDArray[np.object_], numbers: StoredRows | None = None) -> IdTable:
    """Return ids, str (n,), with a number each, integer (n,), by default their positions."""
    if numbers is None:
        return {"id": ids, "number": np.arange(len(ids), dtype=row_type(len(ids)))}
    return {"id": ids, "number": numbers.astype(row_type(int(numbers.max(initial=0)) + 1))}
