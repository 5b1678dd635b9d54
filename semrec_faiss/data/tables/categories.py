"""Columns of categories, as pandas and polars have them: Arrow's dictionaries, where others cannot follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def readable_schema(schema: Any) -> Any:
    """Return an Arrow schema whose categories are plain texts: polars has views there, which Parquet does not take."""
    return pa.schema([field.with_type(_readable(field.type)) for field in schema], schema.metadata)


def _readable(kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        value = pa.string() if pa.types.is_string_view(kind.value_type) else kind.value_type
        return pa.dictionary(kind.index_type, value, kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_readable(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_readable(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        list_of = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return list_of(kind.value_field.with_type(_readable(kind.value_type)))
    return kind


class Categories:
    """The categories of columns of a table that is written in batches: a file of Arrow IPC holds one list a column."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        """Take, by column, all of its categories; `found` collects them."""
        self._known = known

    @classmethod
    def found(cls, schema: Any, batches: Callable[[list[str]], Iterable[Any]]) -> Categories:
        """Collect the categories of a table; ``batches`` reads the columns that it is asked for."""
        known = {field.name: pa.array([], field.type.value_type) for field in schema if _is_categories(field)}
        for batch in batches(list(known)) if known else ():
            for name, so_far in known.items():
                column = batch.column(name)
                values = column.dictionary if _is_categories(column) else column.unique()
                known[name] = pa.concat_arrays([so_far, values.cast(so_far.type)]).unique().drop_null()
        return cls(known)

    def widened(self, schema: Any) -> Any:
        """Return the schema with indices that tell all categories apart: parts of a table have fewer each."""
        for at, field in enumerate(schema):
            if field.name in self._known and len(self._known[field.name]) > _most(field.type.index_type):
                kind = pa.dictionary(pa.int32(), field.type.value_type, field.type.ordered)
                schema = schema.set(at, field.with_type(kind))
        return schema

    def typed(self, column: Any, field: Any) -> Any:
        """Return an array of a column with the type of ``field``, its categories all of those of the column."""
        known = self._known.get(field.name)
        if known is None:
            return column if column.type.equals(field.type) else column.cast(field.type)
        plain = column.dictionary_decode() if _is_categories(column) else column
        indices = pc.index_in(plain.cast(known.type), known).cast(field.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, known, ordered=field.type.ordered)


def _is_categories(field_or_column: Any) -> bool:
    return bool(pa.types.is_dictionary(field_or_column.type))


def _most(indices: Any) -> int:
    return int(2 ** (indices.bit_width - pa.types.is_signed_integer(indices)))
