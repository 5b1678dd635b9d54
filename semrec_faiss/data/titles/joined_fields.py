"""The fields of a table of titles beside those of titles that there are: each has one type."""

from __future__ import annotations

from collections.abc import Mapping

from semrec_faiss.data.folder.database import quoted_name, reading, session
from semrec_faiss.data.folder.field_types import INTEGERS
from semrec_faiss.data.folder.metadata_table import MetadataTable
from semrec_faiss.errors import DataError


def joined_fields(table: MetadataTable, known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Hold the fields of a table against those of other titles.

    A column without any value is of the type that they have, such as one of Arrow's nulls; so are lists of nothing, or
    of nulls, where they have lists.

    Args:
        table: of titles, without mistakes.
        known: the types of the other titles' fields.

    Returns:
        The types of the fields of all, and the SQL of the table's columns that are of another type there.

    Raises:
        DataError: a field has another type in each.
    """
    others = {name: kind for name, kind in table.fields.items() if not _fits(kind, known.get(name, kind))}
    instead = _without_values(table, {name: known[name] for name in others})
    for name, kind in others.items():
        if name not in instead:
            raise DataError(
                f"{table.source.name}: column {name} has type {kind}, and the titles that there are have {known[name]}",
                fix=f"write the column as {known[name]}",
            )
    return {**known, **{name: kind for name, kind in table.fields.items() if name not in known}}, instead


def _fits(kind: str, held: str) -> bool:
    return kind == held or (kind in INTEGERS and held == "BIGINT") or (kind, held) == ("FLOAT", "DOUBLE")


def _without_values(table: MetadataTable, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return of these columns those that hold nothing, as the SQL of the same in the type that is wanted."""
    if not wanted:
        return {}
    instead, tests = {}, []
    for name, kind in wanted.items():
        column, are_lists = quoted_name(name), kind.endswith("[]") and table.fields[name].endswith("[]")
        of_nulls = f"list_transform({column}, lambda x: NULL::{kind[:-2]})"
        instead[name] = of_nulls if are_lists else f"NULL::{kind}"
        tests.append(f"coalesce(max(list_count({column})), 0) = 0" if are_lists else f"count({column}) = 0")
    with reading(table.source.name), session() as connection:
        found = connection.execute(f"SELECT {', '.join(tests)} FROM {table.rows(connection)}").fetchall()[0]
    return {name: sql for (name, sql), is_empty in zip(instead.items(), found, strict=True) if is_empty}
