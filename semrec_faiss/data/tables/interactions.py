"""Interactions as rows that DuckDB reads, held against the titles: who they are of, what is kept, and when it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semrec_faiss.arrays import Mask
from semrec_faiss.data.folder.database import first_line, quoted_name, session
from semrec_faiss.data.folder.field_types import refuse_bytes, refuse_what_is_no_id
from semrec_faiss.data.folder.relation import ROW_NUMBER, Relation
from semrec_faiss.data.odd_row import Place, first_odd_row
from semrec_faiss.data.tables.columns import HISTORY_PARTS
from semrec_faiss.data.times import find_times
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH_ROWS = 1 << 17
"""Rows read at once: as many as DuckDB writes into one group of a Parquet file."""


@contextmanager
def interactions(
    rows: Relation,
    name: str,
    place: Place,
    catalog: Catalog | None,
    users: Sequence[str] | None,
    time_unit: str | None,
) -> Iterator[Interactions]:
    """Look at interactions whose columns are named by their parts.

    Args:
        rows: the columns user and item, and rating and time where there are any.
        name: the table, for messages.
        place: says where a row of it is.
        catalog: the titles, of which some row has to name one; None: whoever takes the rows knows them.
        users: ids of those that count; None: everybody.
        time_unit: of the times; None where it is to be told from the values.

    Raises:
        DataError: they cannot be read, or times are none.
    """
    import duckdb

    try:
        with session() as connection:
            if catalog is not None:
                connection.register("titles", {"id": catalog.all_media_ids()})
            yield Interactions(connection, name, place, rows, users, time_unit, knows_titles=catalog is not None)
    except (duckdb.Error, pa.ArrowException, UnicodeError) as error:
        raise DataError(f"{name} cannot be read: {first_line(error)}", fix="mend it, or map other columns") from error


class Interactions:
    """Rows of a connection that has a table ``titles`` of known ids beside them where that is said; use `interactions`.

    Attributes:
        times: in which unit times are; None without.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        name: str,
        place: Place,
        rows: Relation,
        users: Sequence[str] | None,
        unit: str | None,
        *,
        knows_titles: bool,
    ) -> None:
        self._connection = connection
        self._knows_titles = knows_titles
        self._name = name
        self._place = place
        self._file = rows.sql(connection)
        self._numbered = rows.sql(connection, numbered=True)
        held = connection.sql(f"FROM {self._file}")
        for column, kind in zip(held.columns, held.types, strict=True):
            if column in ("user", "item"):
                refuse_what_is_no_id(name, column, kind, floats=True)
            refuse_bytes(name, column, kind)
        found = {column: str(kind) for column, kind in zip(held.columns, held.types, strict=True)}
        self._types: dict[str, str | None] = {part: found.get(part) for part in HISTORY_PARTS}
        for part in ("user", "item"):
            if found[part].startswith(("FLOAT", "DOUBLE")):
                self._check_whole(part, 2**24 if found[part].startswith("FLOAT") else 2**53)
        self._ids = {part: _id_of(part, found[part]) for part in ("user", "item")}
        self._ids_given = " AND ".join(f"{sql} IS NOT NULL AND {sql} <> ''" for sql in self._ids.values())
        self._complete = self._ids_given
        if users is not None:
            connection.register("people", {"id": np.array(users, dtype=object)})
            self._complete += f" AND {self._ids['user']} IN (SELECT id FROM people)"
        self.times = find_times(connection, self._file, place, self._types["time"], unit)

    def _check_whole(self, part: str, told_apart: int) -> None:
        """Refuse an id of floats that is no whole number of less than ``told_apart``."""
        whole = f"coalesce(TRY_CAST({part} AS HUGEINT) = {part} AND abs({part}) < {told_apart}, false)"
        odd = first_odd_row(self._connection, self._file, part, f"{part} IS NOT NULL AND NOT ({whole})")
        if odd is not None:
            raise DataError(
                f"{odd.told(self._place, part)}; an id is a whole number of less than {told_apart:,}, from where on"
                " floats do not tell them apart",
                fix=f"write them as whole numbers or texts, or map another column: --map {part}=COLUMN",
            )

    def seen(self) -> Any:
        """Return what was kept as an Arrow table, in order."""
        return self._kept().read_all()

    def write_seen(self, seen: Path) -> None:
        """Write users/seen.parquet of what was kept, in order."""
        kept = self._kept()
        with pq.ParquetWriter(seen, kept.schema, compression="zstd") as writer:
            for batch in kept:
                writer.write_batch(batch)

    def _kept(self) -> Any:
        """Return a reader of the rows that are complete, as a table of what users have seen.

        Those of items that are no titles count as soon as an index has them. Of rows that repeat both the last one
        counts, and DuckDB keeps no order in what it looks up in another table.
        """
        if not self._one(f"SELECT count(*) FROM {self._file} WHERE {self._complete} AND {self._known()}"):
            raise self._nothing_kept()
        columns = [f"{self._ids['user']} AS user_id", f"{self._ids['item']} AS media_id"]
        if self._types["rating"] is not None:
            columns.append(f"{self._rating()} AS rating")
        if self.times is not None:
            columns.append(f"{self.times.sql} AS timestamp")
        is_kept = np.zeros(self._one(f"SELECT count(*) FROM {self._file}"), np.bool_)
        sql = f"SELECT {ROW_NUMBER} FROM {self._numbered} WHERE {self._complete}"
        for numbers in self._connection.sql(sql).to_arrow_reader(_BATCH_ROWS):
            is_kept[numbers.column(0).to_numpy()] = True
        rows = self._connection.sql(f"SELECT {', '.join(columns)} FROM {self._file}").to_arrow_reader(_BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(rows.schema, _filtered(rows, is_kept))

    def _nothing_kept(self) -> DataError:
        """Say that no row names a title, or, where some do, that those are of nobody whose vector came along."""
        if not self._one(f"SELECT count(*) FROM {self._file}"):
            return DataError(f"{self._name} has no rows", fix="leave the interactions out")
        given = f"(FROM {self._file} WHERE {self._ids_given})"
        if not self._one(f"SELECT count(*) FROM {given}"):
            return DataError(
                f"{self._name}: no row has both a user and an item",
                fix="map the columns that hold them: --map user=COLUMN --map item=COLUMN",
            )
        titles = self._one(f"SELECT count(*) FROM {given} WHERE {self._known()}")
        part, what, table = ("user", "one of the users", "people") if titles else ("item", "a title", "titles")
        whose = "users" if titles else "titles"
        asked, known = (
            self._connection.execute(
                f"SELECT DISTINCT {column} AS id FROM {rows} WHERE id IS NOT NULL ORDER BY id LIMIT 3"
            ).fetchall()
            for column, rows in ((self._ids[part], given), ("id", table))
        )
        return DataError(
            f"{self._name}: no row names {what}; {part}s look like {', '.join(repr(one) for (one,) in asked)},"
            f" {whose}' ids like {', '.join(repr(one) for (one,) in known)}",
            fix=self._read_otherwise(self._ids[part], table)
            or f"write ids as the {whose} have them, or map the column that holds these: --map {part}=COLUMN",
        )

    def _read_otherwise(self, column: str, table: str) -> str:
        """Say how ids keep what they have lost where they became numbers; nothing where that is not it."""
        ways = {
            "ltrim({0}, '0')": "read these ids as texts, so that they keep their zeros, where the table is made;"
            " in pandas: dtype=str",
            "regexp_replace({0}, '[.]0+$', '')": "write these ids, which became floats, as whole numbers where the"
            " table is made; in pandas: frame[column].astype('Int64')",
        }
        for sql, fix in ways.items():
            bare = f"SELECT {sql.format(column)} AS id FROM {self._file}"
            known = f"SELECT {sql.format('id')} FROM {table}"
            if self._one(f"SELECT count(*) FROM ({bare}) WHERE id <> '' AND id IN ({known})"):
                return fix
        return ""

    def user_ids(self) -> list[str]:
        """Return everybody who did something, sorted."""
        sql = f"SELECT DISTINCT {self._ids['user']} AS id FROM {self._file} WHERE {self._complete} ORDER BY id"
        return [user for (user,) in self._connection.execute(sql).fetchall()]

    def counts(self) -> dict[str, int]:
        """Count the rows that count, those that will once their titles come, and those that are not kept."""
        item = self._ids["item"]
        sql = (
            f"SELECT count(*) FILTER ({self._known()} AND {self._complete}), count(*) FILTER (NOT {self._known()} AND"
            f" {self._complete}), count(DISTINCT {item}) FILTER (NOT {self._known()} AND {self._complete}),"
            f" count(*) FILTER (NOT coalesce({self._complete}, false)) FROM {self._file}"
        )
        found = self._connection.execute(sql).fetchall()[0]
        return dict(zip(("known_rows", "unknown_rows", "unknown_items", "incomplete"), map(int, found), strict=True))

    def _known(self) -> str:
        return f"coalesce({self._ids['item']} IN (SELECT id FROM titles), false)" if self._knows_titles else "true"

    def _rating(self) -> str:
        raw = f"nullif(trim({quoted_name('rating')}::VARCHAR), '')"
        number = f"TRY_CAST({raw} AS DOUBLE)"
        for what, kept in (("a number", number), ("a number that a float32 holds", f"TRY_CAST({number} AS FLOAT)")):
            odd = first_odd_row(self._connection, self._file, raw, f"{raw} IS NOT NULL AND {kept} IS NULL")
            if odd is not None:
                raise DataError(
                    f"{odd.told(self._place, 'rating')}; {what} is expected",
                    fix="map another column: --map rating=COLUMN, or --map rating=- where there are no ratings",
                )
        return f"CASE WHEN isfinite({number}) THEN {number} END"

    def _one(self, sql: str) -> int:
        return int(self._connection.execute(sql).fetchall()[0][0])


def _filtered(batches: Iterable[Any], is_kept: Mask) -> Iterator[Any]:
    first = 0
    for batch in batches:
        yield batch.filter(pa.array(is_kept[first : first + batch.num_rows]))
        first += batch.num_rows


def _id_of(part: str, kind: str) -> str:
    """Return the SQL of an id as a text; whole numbers that came as floats are written without a fraction."""
    column = quoted_name(part)
    return f"{column}::HUGEINT::VARCHAR" if kind.startswith(("FLOAT", "DOUBLE")) else f"{column}::VARCHAR"
