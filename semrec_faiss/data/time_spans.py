"""Lengths of time and periods: Arrow's types that DuckDB reads as whole numbers, which they are not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from semrec_faiss.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_EXTENSION = b"ARROW:extension:name"
"""Where a column says of which type it is that whoever reads it does not know: pandas', where that is not imported."""


def refuse_time_spans(path: Path | str, columns: Iterable[pa.Field]) -> None:
    """Refuse ``columns`` of lengths of time or of pandas' periods, also within lists and structures.

    Raises:
        DataError: there is one; 90 minutes were told as 5400000000000, and January 2020 as 600.
    """
    for column in columns:
        if _holds_period(column):
            raise DataError(
                f"{path}: column {column.name} holds periods of pandas, which are stored as whole numbers",
                fix="write it as dates, frame[column].dt.to_timestamp() in pandas, or leave it out",
            )
        if _holds_duration(column.type):
            raise DataError(
                f"{path}: column {column.name} has type {column.type}; a length of time is stored as a whole number,"
                " which does not tell its unit",
                fix="write it as a number, frame[column].dt.total_seconds() in pandas, or leave it out",
            )


def _holds_period(column: pa.Field) -> bool:
    name = getattr(column.type, "extension_name", (column.metadata or {}).get(_EXTENSION, b"").decode())
    return name == "pandas.period" or any(_holds_period(part) for part in _parts(column.type))


def _holds_duration(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_duration(kind)) or any(_holds_duration(part.type) for part in _parts(kind))


def _parts(kind: pa.DataType) -> list[pa.Field]:
    """Return what a type is made of, as fields."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _parts(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return [pa.field("", kind.value_type)]
    return [kind.field(at) for at in range(kind.num_fields)]
