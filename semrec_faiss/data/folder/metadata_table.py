"""A table of metadata: its columns as fields of titles, each with its own type, and everything that is wrong there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from semrec_faiss.data.folder.database import quoted_name, quoted_text, reading, session
from semrec_faiss.data.folder.field_types import (
    INTEGERS,
    MAX_FIELDS,
    ROW,
    is_no_name,
    refuse_bytes,
    refuse_objects_without_fields,
)
from semrec_faiss.data.folder.layout import rows_partner
from semrec_faiss.data.folder.recipe import NO_PARTS, PARTS, Recipe, read_recipe
from semrec_faiss.data.folder.records import json_text, read_record
from semrec_faiss.data.folder.relation import ROW_NUMBER, ParquetRelation, Relation
from semrec_faiss.data.time_spans import refuse_time_spans
from semrec_faiss.errors import DataError, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SHOWN = 10
BATCH = 4096

_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")
_IDS = ("VARCHAR", "UUID", *INTEGERS)


class Note(Protocol):
    """Takes a row from 0, a column and what is wrong there; what repeats was ``first`` there."""

    def __call__(self, row: int, column: str, what: str, *, first: int | None = None) -> None:
        """Take note of it."""
        ...


@dataclass(frozen=True)
class MetadataTable:
    """Metadata without mistakes.

    Attributes:
        source: where it is.
        selected: the SQL of the fields' values, in record order.
        fields: the DuckDB type of each field.
        count: the number of titles.
    """

    source: Relation
    selected: str
    fields: dict[str, str]
    count: int

    def rows(self, connection: DuckDBPyConnection) -> str:
        """Return the SQL of a table with the row number and a column a field, for queries of this connection."""
        return f"({_rows(self.source.sql(connection, numbered=True), self.selected)})"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each title's fields as JSON has them, in row order."""
        with reading(self.source.name), session() as connection:
            found = connection.execute(f"SELECT {json_text(self.fields)} FROM {self.rows(connection)}")
            while batch := found.fetchmany(BATCH):
                yield from (read_record(text) for (text,) in batch)


def inspect_table(
    path: Path, *, expect_count: int | None = None, parts: Mapping[str, str] = NO_PARTS, is_checked: bool = False
) -> MetadataTable:
    """Check metadata.parquet and say how it is read; ``parts`` are columns that play one under another name.

    What ``is_checked`` already is not looked through for mistakes again.

    Raises:
        DataError: the first ten mistakes, each with row and column, or another number of rows than of vectors; columns
            of types that no field has.
    """
    noted: list[str] = []

    def note(row: int, column: str, what: str, *, first: int | None = None) -> None:
        also = "" if first is None else f" in row {first + 1:,}"
        noted.append(f"{path}: row {row + 1:,}, column {column}: {what}{also}")

    recipe, schema = read_recipe(path)
    refuse_time_spans(path, schema)
    found, count = checked_table(
        ParquetRelation(path), recipe.with_parts(parts), schema.names, None if is_checked else note
    )
    if expect_count is not None and found.count != expect_count:
        raise DataError(
            f"{path} has {found.count:,} rows, but there are {expect_count:,} vectors{rows_partner(path)}",
            fix="the two files must have one entry each for the same things, in the same order",
        )
    if noted:
        more = [f"… and {count - len(noted):,} more"] if count > len(noted) else []
        raise DataError("\n".join([*noted, *more]), fix="mend these rows, or leave them out with their vectors")
    return found


def checked_table(source: Relation, recipe: Recipe, names: list[str], note: Note | None) -> tuple[MetadataTable, int]:
    """Look at all rows; tell ``note`` the first mistakes of each kind, and return how many there are.

    Args:
        source: the rows.
        recipe: which column plays which part.
        names: the columns of the rows.
        note: is told the mistakes; None looks for none.

    Raises:
        DataError: it cannot be read, lacks a column, or one holds bytes.
    """
    path = source.name
    _check_names(path, names, recipe)
    with reading(path), session() as connection:
        file = source.sql(connection, numbered=True)
        described = connection.execute(f"DESCRIBE FROM {file}").fetchall()
        held = connection.sql(f"FROM {file}")
        nested = dict(zip(held.columns, held.types, strict=True))
        types = {name: kind for name, kind, *_ in described if name in names}
        count = 0
        if [name for name, *_ in described][: len(types)] != list(names):
            raise DataError(f"{path} has columns that its Parquet reader names otherwise", fix="rename them")
        ours = _named(names, recipe)
        wanted = {name: _expression(name, column, types[column], recipe, path) for name, column in ours.items()}
        for name, (column, _, wrong) in wanted.items():
            refuse_bytes(path, column, nested[column])
            refuse_objects_without_fields(path, column, nested[column])
            mistake = wrong or _too_large(column, nested[column])
            if note is None:
                continue
            count += _note_wrong(connection, file, column, mistake, note) if mistake else 0
            if name == "media_id":
                count += _note_repeats(connection, file, column, note)
        selected = ", ".join(f"{sql} AS {quoted_name(name)}" for name, (_, sql, _) in wanted.items())
        kinds = connection.execute(f"DESCRIBE {_rows(file, selected)}").fetchall()
        fields = {name: kind for name, kind, *_ in kinds if name != ROW}
        total = connection.execute(f"SELECT count(*) FROM {file}").fetchall()[0][0]
    if not total:
        raise DataError(f"{path} has no rows", fix="give a table that has some")
    return MetadataTable(source, selected, fields, int(total)), count


def _rows(file: str, selected: str) -> str:
    return f"SELECT {ROW_NUMBER} AS {ROW}, {selected} FROM {file} ORDER BY {ROW_NUMBER}"


def _check_names(path: Path | str, names: list[str], recipe: Recipe) -> None:
    folded: dict[str, str] = {}
    for name in names:
        if is_no_name(name):
            raise DataError(
                f"{path}: the column name {quoted(name)} is empty or holds control characters", fix="rename it"
            )
        if name.lower() in (ROW, ROW_NUMBER):
            raise DataError(f"{path}: the column name {quoted(name)} is kept for the row number", fix="rename it")
        other = folded.setdefault(name.lower(), name)
        if names.count(name) > 1 or other != name:
            raise DataError(
                f"{path}: the columns {quoted(other)} and {quoted(name)} have one name but for case", fix="rename one"
            )
    if len(names) > MAX_FIELDS:
        raise DataError(f"{path} has {len(names):,} columns; at most {MAX_FIELDS:,} are read", fix="leave some out")
    for part in ("media_id", "title"):
        if recipe.column_of(part, names) is None:
            raise DataError(
                f"{path} has no column {quoted(recipe.columns.get(part, part))} for {part}; it has {', '.join(names)}",
                fix=f"say which it is: {_how_to_say(part)}",
            )


def _how_to_say(part: str) -> str:
    """Name what says which column plays a part: an option of the import, a key of the config of any other command."""
    return f"--map {part}=COLUMN when importing, or dataset.fields: {{{part}: COLUMN}}"


def _named(names: list[str], recipe: Recipe) -> dict[str, str]:
    """Return the column of each field: the parts first, then the others under names of their own."""
    parts = {part: column for part in PARTS if (column := recipe.column_of(part, names)) is not None}
    taken = {name.lower() for name in [*names, *PARTS]}
    found = dict(parts)
    for name in names:
        if name in parts.values():
            continue
        shown = name
        while shown.lower() in PARTS or (shown != name and shown.lower() in taken):
            shown = f"original_{shown}"
        found[shown] = name
    return found


def _expression(name: str, column: str, kind: str, recipe: Recipe, path: Path | str) -> tuple[str, str, str]:
    """Return the column, the SQL of a field's values, and the SQL of what is wrong with a value, null where nothing."""
    raw = quoted_name(column)
    if name in ("media_id", "title"):
        if not re.fullmatch(r"DECIMAL\(\d+,0\)", kind):
            _need(path, column, kind, _IDS, "a text or a whole number", name)
        empty = f"CASE WHEN {raw} IS NULL THEN 'is null' WHEN trim({raw}::VARCHAR) = '' THEN 'is empty' END"
        return column, f"{raw}::VARCHAR", empty
    if name == "year":
        return column, *_year(path, column, raw, kind)
    return column, _value(name, column, kind, recipe, path), ""


def _value(name: str, column: str, kind: str, recipe: Recipe, path: Path | str) -> str:
    """Return the SQL of a field that can hold anything of its type."""
    raw = quoted_name(column)
    if column in recipe.split or (name == "genres" and kind == "VARCHAR"):
        _need(path, column, kind, ("VARCHAR",), "a text to split", name)
        parts = f"string_split({raw}, {quoted_text(recipe.split.get(column, '|'))})"
        return f"list_filter(list_transform({parts}, lambda x: trim(x)), lambda x: x <> '')"
    if name == "genres":
        if not _is_of_nulls(kind):
            _need(path, column, kind, ("VARCHAR[]",), "a list of texts", name)
        return f"list_filter({raw}::VARCHAR[], lambda x: x IS NOT NULL)"
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isfinite({raw}) THEN {raw} END"  # not a number is what no filter can compare
    return f"{raw}::VARCHAR{kind[kind.index('[') :] if '[' in kind else ''}" if _is_of_nulls(kind) else raw


def _is_of_nulls(kind: str) -> bool:
    """Tell the type of a column without any value, or of lists that are all empty: it is read as one of texts."""
    return re.fullmatch(r'"?NULL"?(\[\d*\])*', kind) is not None


def _too_large(column: str, kind: Any) -> str:
    """Return the SQL of what is wrong with a field that has numbers: records are JSON, which has no infinite ones.

    Not a number is what tables without a value often hold, and is read as that.
    """
    found = _infinite(quoted_name(column), kind)
    return f"CASE WHEN {found} THEN 'holds an infinite number' END" if found else ""


def _infinite(raw: str, kind: Any, depth: int = 0) -> str:
    """Return the SQL of whether ``raw`` of DuckDB's type ``kind`` holds an infinite number, "" where it cannot."""
    if kind.id in ("float", "double"):
        return f"isinf({raw})"
    if kind.id in ("list", "array", "map"):
        values, each = f"map_values({raw})" if kind.id == "map" else raw, f"x{depth}"
        inner = _infinite(each, kind.children[kind.id == "map"][1], depth + 1)
        return f"len(list_filter({values}, lambda {each}: {inner})) > 0" if inner else ""
    if kind.id == "struct":
        parts = [_infinite(f"struct_extract({raw}, {quoted_text(name)})", part, depth) for name, part in kind.children]
        return " OR ".join(f"({part})" for part in parts if part)
    return ""


def _year(path: Path | str, column: str, raw: str, kind: str) -> tuple[str, str]:
    if kind in _TIMES:
        return f"year({raw})::BIGINT", ""
    if kind.strip('"') == "NULL":
        return "NULL::BIGINT", ""
    if kind in INTEGERS:
        wrong = f"TRY_CAST({raw} AS BIGINT) IS NULL"
    elif kind in ("FLOAT", "DOUBLE"):
        raw = f"(CASE WHEN NOT isnan({raw}) THEN {raw} END)"
        wrong = f"TRY_CAST({raw} AS BIGINT) IS NULL OR TRY_CAST({raw} AS BIGINT) <> {raw}"
    else:
        _need(path, column, kind, ("VARCHAR",), "a whole number or a date", "year")
        raw = f"nullif(trim({raw}), '')"
        wrong = f"NOT regexp_full_match({raw}, '-?[0-9]{{1,18}}')"
    said = f"CASE WHEN {raw} IS NOT NULL AND ({wrong}) THEN format('{{}} is no whole year', {raw}::VARCHAR) END"
    return f"TRY_CAST({raw} AS BIGINT)", said


def _need(path: Path | str, column: str, kind: str, allowed: tuple[str, ...], what: str, part: str) -> None:
    if kind.strip('"') not in allowed:
        named = f"column {column}" + (f", which is {part}," if column != part else "")
        whole = "write whole numbers, frame[column].astype('Int64') in pandas, or " * kind.startswith(
            ("DOUBLE", "FLOAT")
        )
        raise DataError(
            f"{path}: {named} has type {kind}; {what} is expected",
            fix=f"{whole}name another column: {_how_to_say(part)}",
        )


def _note_wrong(connection: DuckDBPyConnection, file: str, column: str, wrong: str, note: Note) -> int:
    sql = f"SELECT file_row_number, {wrong} AS what FROM {file} WHERE what IS NOT NULL"
    found = connection.execute(f"{sql} ORDER BY file_row_number LIMIT {SHOWN}").fetchall()
    for row, what in found:
        note(int(row), column, str(what))
    if len(found) < SHOWN:
        return len(found)
    return int(connection.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0][0])


def _note_repeats(connection: DuckDBPyConnection, file: str, column: str, note: Note) -> int:
    """Note ids that an earlier row has; rows are compared by a 64-bit hash first, so that ids need 8 bytes each."""
    raw = f"{quoted_name(column)}::VARCHAR"
    sql = f"SELECT hash({raw}) AS h FROM {file} WHERE {raw} IS NOT NULL"
    hashes = np.sort(connection.execute(sql).fetchnumpy()["h"])
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(twice):
        return 0
    connection.register("twice", {"h": twice})
    rows = connection.execute(
        f"SELECT {raw} AS id, file_row_number FROM {file} WHERE hash({raw}) IN (SELECT h FROM twice)"
        " ORDER BY file_row_number"
    ).fetchall()
    connection.unregister("twice")
    first: dict[str, int] = {}
    count = 0
    for media_id, row in rows:
        if first.setdefault(media_id, row) != row:
            count += 1
            if count <= SHOWN:
                note(int(row), column, f"{quoted(media_id)} is also", first=first[media_id])
    return count
