"""The titles of an index: records by row and rows by name without a database, which the first filter loads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.arrays import Rows, rows_within
from semrec_faiss.data.folder.field_types import LEADING_FIELDS
from semrec_faiss.data.folder.records import read_record
from semrec_faiss.data.titles.catalog import Catalog, RowsLike
from semrec_faiss.data.titles.columns import StoredColumns, column_of_numbers, columns_of
from semrec_faiss.data.titles.finder import BY_ID, BY_TITLE, SPELLED, Answering, readable
from semrec_faiss.data.titles.near_misses import Near, nearest_of
from semrec_faiss.data.titles.spelling import TitleParts, TitleQuery, key
from semrec_faiss.data.titles.stored import Texts
from semrec_faiss.data.titles.table import TABLE
from semrec_faiss.data.titles.type_ahead import TypeAhead

if TYPE_CHECKING:
    import pyarrow as pa

Record = dict[str, Any]
"""A title's metadata as JSON has it."""

_BLOCK = 4096
"""Records that are read at a time where all are."""


class Titles:
    """Titles by row and by name; safe to use from many threads.

    Attributes:
        count: the number of titles.
        fields: the DuckDB type of every field, in the order of the records.
        is_partial: whether questions are answered also where some titles cannot be reached.
    """

    is_partial = False

    def __init__(
        self,
        load: Callable[[], Catalog],
        stored: Texts | None = None,
        fields: Mapping[str, str] | None = None,
        columns: StoredColumns | None = None,
    ) -> None:
        """Read from ``stored``, and from the catalogue what that does not answer; without it, everything.

        Args:
            load: gives the catalogue when it is first needed.
            stored: the records, as `stored_records` writes them; None for an index that has none.
            fields: the catalogue's fields, where they are known without it.
            columns: the fields as Arrow columns; without them they are made of the records.
        """
        self._load = load
        self._lock = threading.Lock()
        self._catalog_lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._stored = stored
        self._columns = columns
        self._lines: list[bytes] | None = None
        known = self.catalog.fields if fields is None else fields
        self.fields: Mapping[str, str] = dict(known)
        self.count = self.catalog.count if stored is None else stored.count

    @property
    def catalog(self) -> Catalog:
        """The titles in DuckDB, for filters and near misses; loaded when this is first used."""
        with self._catalog_lock:
            if self._catalog is None:
                self._catalog = self._load()
            return self._catalog

    @property
    def has_catalog(self) -> bool:
        """Whether `catalog` is loaded."""
        return self._catalog is not None

    def lines(self, rows: RowsLike) -> list[bytes]:
        """Return the record of each of ``rows``, integers (n,), as JSON in UTF-8, in the order asked.

        Raises:
            DataError: a row is outside the titles.
            DamagedIndexError: a record is not as it was written.
        """
        if self._stored is not None:
            return self._stored.lines(rows)
        asked = rows_within(rows, self.catalog.count).tolist()
        with self._lock:
            if self._lines is None:  # all at once: a query a question would cost milliseconds each
                self._lines = [line_of(record) for record in _records(self.catalog)]
        return [self._lines[row] for row in asked]

    def records(self, rows: RowsLike) -> list[Record]:
        """Return `lines` as new dicts: media_id, title, year and genres first, where there are such fields."""
        return [json.loads(line.decode()) for line in self.lines(rows)]

    def type_ahead(self) -> TypeAhead:
        """Read all titles, and return what finds them as one types."""
        blocks = (range(first, min(first + _BLOCK, self.count)) for first in range(0, self.count, _BLOCK))
        return TypeAhead(record["title"] for block in blocks for record in self.records(list(block)))

    @property
    def has_columns(self) -> bool:
        """Whether `columns` are best asked for the titles that are wanted; else they are made of all records."""
        return self._columns is not None

    def columns(self, rows: Rows, names: Sequence[str] | None = None) -> pa.RecordBatch:
        """Return the titles in ``rows``, int64 (n,), in the order asked: an Arrow column a field, of `fields`' types.

        Args:
            rows: which titles.
            names: which fields; all by default.

        Raises:
            DamagedIndexError: the columns, or a record, are not as they were written.
        """
        if self._columns is not None:
            return self._columns.take(rows, names)
        distinct, at = np.unique(rows, return_inverse=True)
        known = {**LEADING_FIELDS, **self.fields}  # as they are stored
        fields = known if names is None else {name: known[name] for name in names}
        return columns_of(self.records(distinct), fields).take(column_of_numbers(at.reshape(-1)))

    def find(self, title_or_id: str) -> int:
        """Return the row of the title that a person means; see `Catalog.find`.

        The media_id, the title as it is, and a title's own name however it is spelled are looked up in a sorted table;
        only what is none of them goes to the database.

        Raises:
            AmbiguousTitleError: several titles answer equally well.
            NotFoundError: none does.
        """
        return self.found(title_or_id)[0]

    def found(self, title_or_id: str) -> tuple[int, Record]:
        """Return the row that `find` does, and the title's record; raises as that does."""
        held = self.known_record(title_or_id)
        if held is not None:
            return held
        row = self.catalog.find(title_or_id)
        return row, self.records([row])[0]

    def nearest(self, text: str, count: int) -> list[int]:
        """Return the rows of up to ``count`` titles that look like ``text``, best first; the database is asked."""
        text = readable(text)
        return [one.row for one in nearest_of(text, self._near(text), count)]

    def _near(self, text: str) -> list[Near]:
        return self.catalog.finder.near(text)

    def known(self, title_or_id: str) -> int | None:
        """Return the row that the sorted table names, in microseconds; None where `find` would ask the database."""
        held = self.known_record(title_or_id)
        return None if held is None else held[0]

    def known_record(self, title_or_id: str) -> tuple[int, Record] | None:
        """Return the row that `known` does, and the title's record, which was read to find it."""
        held = [] if self._stored is None else self._looked_up(self._stored, title_or_id)[1]
        return held[0] if len(held) == 1 else None

    def looked_up(self, text: str) -> Answering:
        """Return the titles that the sorted table has for ``text``: as an id, or else a title, or else a name."""
        rank, held = (SPELLED, []) if self._stored is None else self._looked_up(self._stored, text)
        return Answering(rank, [row for row, _ in held])

    def known_rows(self, media_ids: Sequence[str]) -> Rows:
        """Return the rows of titles by media_id, int64 (media_ids,), in that order, -1 where there is no such title."""
        if self._stored is None:
            rows = {media_id: row for row, media_id in enumerate(self.catalog.all_media_ids().tolist())}
            return np.array([rows.get(media_id, -1) for media_id in media_ids], np.int64)
        found = self._stored.first_rows([f"media_id:{media_id}" for media_id in media_ids])
        there = np.flatnonzero(found >= 0)
        for at, record in zip(there.tolist(), self.records(found[there]), strict=True):
            if record["media_id"] != media_ids[at]:  # another key has the same hash
                found[at] = self._row_of_id(self._stored, media_ids[at])
        return found

    def _row_of_id(self, stored: Texts, media_id: str) -> int:
        held = self._held(stored, f"media_id:{media_id}")
        return next((row for row, record in held if record["media_id"] == media_id), -1)

    def media_id_of(self, text: str, kind: str) -> str:
        """Return the media_id of the title whose ``kind``, media_id or title, is ``text``.

        Raises:
            NotFoundError: there is none.
            AmbiguousTitleError: several titles answer equally well.
        """
        row = self.catalog.row_of(text) if kind == "media_id" else self.catalog.finder.find(text, ids=False)
        return str(self.records([row])[0]["media_id"])

    def is_title_of_another(self, media_id: str) -> bool:
        """Tell whether another title than the one with this media_id is called like it."""
        sql = f"SELECT count(*) FROM {TABLE} WHERE title = $1 AND media_id <> $1"
        return bool(self.catalog.cursor().execute(sql, [media_id]).fetchall()[0][0])

    def _looked_up(self, stored: Texts, text: str) -> tuple[int, list[tuple[int, Record]]]:
        """Return rows and records of the titles whose id ``text`` is, or else whose title, or else whose name."""
        for kind, rank in (("media_id", BY_ID), ("title", BY_TITLE)):
            held = self._held(stored, f"{kind}:{text}")
            named = [(row, record) for row, record in held if record[kind] == text]
            if named:
                return rank, named
        query = TitleQuery(text)
        asked = dict.fromkeys(key(reading.whole) for reading in query.readings)
        found = {row: record for name in asked for row, record in self._held(stored, f"name:{name}")}
        rows = query.named_rows((row, record["title"], record.get("year")) for row, record in found.items())
        return SPELLED, [(row, found[row]) for row in rows]

    def _held(self, stored: Texts, kept_by: str) -> list[tuple[int, Record]]:
        rows = stored.rows_of(kept_by)
        return list(zip(rows, self.records(rows), strict=True)) if rows else []


def stored_records(
    catalog: Catalog, also: Callable[[Record], None] = lambda _: None
) -> Iterator[tuple[bytes, list[str]]]:
    """Yield each title's record as a line of JSON, and the keys that it is found by: id, title and names.

    Args:
        catalog: the titles.
        also: is given each record besides.
    """
    for record in _records(catalog):
        also(record)
        parts = TitleParts.of(record["title"], record.get("year"))
        names = dict.fromkeys((key(parts.whole), key(parts.main)))
        keys = [f"media_id:{record['media_id']}", f"title:{record['title']}", *(f"name:{name}" for name in names)]
        yield line_of(record), keys


def _records(catalog: Catalog) -> Iterator[Record]:
    return (read_record(text) for text in catalog.json_texts())


def line_of(record: Record) -> bytes:
    """Return a title's record as JSON in UTF-8."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
