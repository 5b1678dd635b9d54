"""Catalog: the titles' metadata in DuckDB, by row, by id and by title.

Every catalog is a DuckDB database of its own in memory. Once it is loaded, it is shut off from files, the network,
other extensions and changes of its settings, so that SQL from a user can only ever see the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import is_whole
from semrec_faiss.arrays import rows_within
from semrec_faiss.data.folder.database import connect, quoted_name, reading, session
from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.folder.metadata_lines import inspect_metadata, title_lines
from semrec_faiss.data.folder.metadata_table import MetadataTable, inspect_table
from semrec_faiss.data.folder.recipe import NO_PARTS, check_parts
from semrec_faiss.data.folder.records import json_text, read_record
from semrec_faiss.data.titles.finder import TitleFinder, readable, unknown_id
from semrec_faiss.data.titles.joined_fields import joined_fields
from semrec_faiss.data.titles.table import (
    BATCH_TITLES,
    TABLE,
    copy_to_parquet,
    create_table,
    insert_kept,
    insert_titles,
    inspect_parquet,
    load_parquet,
)
from semrec_faiss.errors import DataError, NotFoundError
from semrec_faiss.forking import HoldsHandles
from semrec_faiss.progress import Progress, silent

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RowsLike = Sequence[int] | NDArray[np.integer[Any]]
"""Rows as a caller may have them."""

FILTER_BYTES = 2 << 30
"""Memory that questions may take beside the titles."""

_IDS = {"media_id": "VARCHAR"}


class Catalog(HoldsHandles):
    """The titles in row order; safe to use from many threads.

    Attributes:
        count: the number of titles.
        fields: the DuckDB type of every metadata field, in the order in which records hold them.
        mixtures: what fields of type JSON hold, with lines of metadata.jsonl; empty once the catalog is saved.
        aliases: names that the data has for fields which are called by their part here; filters understand both.
        finder: finds titles by what a person types.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        count: int,
        fields: dict[str, str],
        mixtures: dict[str, str] | None = None,
        parts: Mapping[str, str] = NO_PARTS,
    ) -> None:
        """Take over a connection whose table ``titles`` is loaded; use :meth:`read` or :meth:`from_parquet`."""
        self._connection = connection
        self.count = count
        self.fields = fields
        self.mixtures = mixtures or {}
        self.aliases = {field: part for part, field in parts.items() if part in fields and field not in fields}
        self.finder = TitleFinder(connection.cursor, has_year="year" in fields)
        (held,) = connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0]
        connection.execute(
            f"SET memory_limit = '{int(held) + FILTER_BYTES}B';"
            " SET enable_external_access = false; SET lock_configuration = true"
        )

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        expect_count: int | None = None,
        progress: Progress = silent,
        known: Mapping[str, str] | None = None,
        parts: Mapping[str, str] = NO_PARTS,
        ids_alone: bool = False,
    ) -> Catalog:
        """Read the metadata of a data folder: JSON lines, or a Parquet table where its name ends so.

        Args:
            path: the file, a line or a row per title.
            expect_count: the number of vectors, where it is known.
            progress: told what is checked and loaded.
            known: fields of other titles beside these, with their types; the catalogue has all of them.
            parts: fields that play a part under another name, by part.
            ids_alone: check everything, and hold of it the ids alone, where others read the titles by `read_range`.

        Raises:
            DataError: the first ten mistakes, each with file and line.
        """
        if path.suffix == ".parquet":
            table = inspect_table(path, expect_count=expect_count, parts=parts)
            return cls.of_table(table, progress=progress, known=known, parts=parts, ids_alone=ids_alone)
        metadata = inspect_metadata(path, expect_count=expect_count, progress=progress, known=known, parts=parts)
        check_parts(path, parts, metadata.fields)
        connection = connect()
        held = _IDS if ids_alone else metadata.fields
        create_table(connection, held)
        for loaded in insert_titles(connection, held, title_lines(path, parts)):
            progress("loading titles", loaded, metadata.count)
        return cls(connection, metadata.count, metadata.fields, metadata.mixtures, parts=parts)

    @classmethod
    def of_table(
        cls,
        table: MetadataTable,
        *,
        progress: Progress = silent,
        known: Mapping[str, str] | None = None,
        parts: Mapping[str, str] = NO_PARTS,
        ids_alone: bool = False,
    ) -> Catalog:
        """Read metadata that was checked, wherever it is; see `read`.

        Raises:
            DataError: a field has another type than ``known`` has, or there is none of ``parts``.
        """
        check_parts(table.source.name, parts, known or table.fields)
        fields, instead = joined_fields(table, known or {})
        connection = connect()
        create_table(connection, _IDS if ids_alone else fields)
        replaced = ", ".join(f"{sql} AS {quoted_name(name)}" for name, sql in instead.items())
        columns = f"{ROW}, media_id" if ids_alone else f"* REPLACE ({replaced})" if replaced else "*"
        with reading(table.source.name):
            connection.execute(f"INSERT INTO {TABLE} BY NAME SELECT {columns} FROM {table.rows(connection)}")
        progress("loading titles", table.count, table.count)
        return cls(connection, table.count, fields, parts=parts)

    @classmethod
    def read_range(
        cls, path: Path, first: int, last: int, fields: Mapping[str, str], parts: Mapping[str, str] = NO_PARTS
    ) -> Catalog:
        """Read some titles of metadata that was checked as a whole, and has these ``fields``.

        Raises:
            DataError: it has fewer titles than that, so it is another file by now.
        """
        connection, known = connect(), dict(fields)
        create_table(connection, known)
        if path.suffix == ".parquet":
            rows = inspect_table(path, parts=parts, is_checked=True).rows(connection)
            source = f"FROM {rows} WHERE {ROW} >= {int(first)} AND {ROW} < {int(last)}"
            sql = f"INSERT INTO {TABLE} BY NAME SELECT * REPLACE ({ROW} - {int(first)} AS {ROW}) {source}"
            with reading(path):
                connection.execute(sql)
        else:
            for _ in insert_titles(connection, known, title_lines(path, parts, first, last)):
                pass
        (count,) = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()[0]
        if count != last - first:
            raise DataError(f"{path} has {count} of the titles {first} to {last - 1}", fix="build the index again")
        return cls(connection, int(count), known, parts=parts)

    @classmethod
    def from_parquet(cls, path: Path, parts: Mapping[str, str] = NO_PARTS) -> Catalog:
        """Read a file that :meth:`write_parquet` wrote.

        Raises:
            DataError: the file cannot be read, or is none of these files.
        """
        connection = connect()
        count, fields = load_parquet(connection, path)
        return cls(connection, count, fields, parts=parts)

    @classmethod
    def from_parts(
        cls,
        path: Path,
        rows: NDArray[np.int64],
        lines: Iterator[str],
        fields: Mapping[str, str],
        parts: Mapping[str, str] = NO_PARTS,
    ) -> Catalog:
        """Read some titles of a file that :meth:`write_parquet` wrote, and more titles after them.

        Args:
            path: the file.
            rows: int64 (n,), ascending: which of its rows are the first ones.
            lines: the titles after those, as JSON objects.
            fields: the DuckDB type of every field of any of them.
            parts: as for `read`.

        Raises:
            DataError: the file cannot be read, or is none of these files.
        """
        _, held = inspect_parquet(path)
        connection, count = connect(), len(rows)
        create_table(connection, dict(fields))
        insert_kept(connection, dict(fields), path, held, rows)
        for loaded in insert_titles(connection, dict(fields), lines, first=count):
            count = loaded
        return cls(connection, count, dict(fields), parts=parts)

    def write_parquet(self, path: Path) -> None:
        """Write all titles to a Parquet file, in row order.

        Raises:
            StorageError: the file cannot be written.
        """
        # The catalog's own connection is shut off from files, so a second one, which never sees foreign SQL, writes.
        with session() as writer:
            create_table(writer, self.fields, temporary=True)
            for _ in insert_titles(writer, self.fields, self.json_texts()):
                pass
            copy_to_parquet(writer, path)

    @property
    def names(self) -> dict[str, str]:
        """The field that each name stands for that a filter may use: its own, or one of `aliases`."""
        return {name: name for name in self.fields} | self.aliases

    def field_of(self, name: str) -> str | None:
        """Return the field that a person names, in any case, by its own name or an alias; None where there is none."""
        return {known.casefold(): field for known, field in self.names.items()}.get(name.casefold())

    def cursor(self) -> DuckDBPyConnection:
        """Give a DuckDB connection for one thread; its table ``titles`` holds the fields and ``_semrec_row``."""
        return self._connection.cursor()

    def records(self, rows: RowsLike) -> list[dict[str, Any]]:
        """Return the metadata of ``rows``, integers (n,), in the order asked, as new dicts of plain Python values.

        media_id and title come first, then year and genres where there are such fields.

        Raises:
            DataError: a row is outside the catalog.
        """
        asked = rows_within(rows, self.count)
        texts = dict(
            self.cursor()
            .execute(
                f"SELECT {ROW}, {json_text(self.fields)} FROM {TABLE} JOIN (SELECT unnest($rows::BIGINT[]) AS {ROW})"
                f" USING ({ROW})",
                {"rows": np.unique(asked).tolist()},
            )
            .fetchall()
        )
        return [read_record(texts[row]) for row in asked.tolist()]

    def media_ids(self, rows: RowsLike) -> list[str]:
        """Return the media_id of each of ``rows``, integers (n,).

        Raises:
            DataError: a row is outside the catalog.
        """
        return [record["media_id"] for record in self.records(rows)]

    def all_media_ids(self) -> NDArray[np.object_]:
        """Return every media_id as str objects, shape (count,), in row order."""
        ids = self.cursor().execute(f"SELECT media_id FROM {TABLE} ORDER BY {ROW}").fetchnumpy()["media_id"]
        return np.asarray(ids, dtype=object)

    def row_of(self, media_id: str) -> int:
        """Return the row of the title with this id.

        Raises:
            NotFoundError: there is none.
        """
        return int(self.rows_of([media_id])[0])

    def rows_of(self, media_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of titles by id, int64 (ids,), in the order asked.

        Raises:
            NotFoundError: an id is unknown; the message counts them and names the first.
        """
        asked = list(media_ids)
        if not asked:
            return np.empty(0, dtype=np.int64)
        usable = np.array(
            [media_id if isinstance(media_id, str) and is_whole(media_id) else None for media_id in asked], dtype=object
        )
        cursor = self.cursor()
        cursor.register("asked", {"media_id": usable, "position": np.arange(len(asked))})
        sql = f"SELECT position, {ROW} FROM asked JOIN {TABLE} ON asked.media_id::VARCHAR = {TABLE}.media_id"
        found = cursor.execute(sql).fetchnumpy()
        cursor.unregister("asked")
        rows = np.full(len(asked), -1, dtype=np.int64)
        rows[found["position"]] = found[ROW]
        if (rows < 0).any():
            raise self._unknown_ids([asked[position] for position in np.flatnonzero(rows < 0)])
        return rows

    def find(self, title_or_id: str) -> int:
        """Return the row of the title that a person means.

        Tried in this order: the media_id; the title as it is; without case, accents and punctuation, wherever the
        article stands, with or without the year; names in brackets; without the article; and where the text is a
        number, the one media_id that is this number behind other characters and zeros (1 for ml_00000001).

        Raises:
            AmbiguousTitleError: several titles answer equally well; ``candidates`` lists up to ten with their media_id.
            NotFoundError: none does; ``candidates`` are the nearest titles, five at most and only what looks like it.
        """
        return self.finder.find(title_or_id)

    def _unknown_ids(self, media_ids: Sequence[str]) -> NotFoundError:
        known = self.media_ids(range(min(3, self.count)))
        if len(media_ids) == 1:
            near = self.finder.near_ids(readable(str(media_ids[0])))
            return unknown_id(media_ids[0], self.count, near, known)
        examples = ", ".join(map(repr, media_ids[:5]))
        return NotFoundError(
            f"{len(media_ids):,} media_ids, such as {examples}, are not among the {self.count:,} titles",
            fix=f"ids look like {', '.join(map(repr, known))}",
        )

    def json_texts(self) -> Iterator[str]:
        """Yield each title as a JSON object, in row order."""
        cursor = self.cursor()
        for first in range(0, self.count, BATCH_TITLES):
            sql = f"SELECT {json_text(self.fields)} FROM {TABLE} WHERE {ROW} >= ? AND {ROW} < ? ORDER BY {ROW}"
            yield from (text for (text,) in cursor.execute(sql, [first, first + BATCH_TITLES]).fetchall())
