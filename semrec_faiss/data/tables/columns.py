"""Which column of a table plays which part: as it was named, or guessed where that is obvious, and told either way."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from semrec_faiss.data.column_names import guessed
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.paths import as_typed

SPELLED = ("embedding", "embeddings", "vector", "vectors", "emb")
"""Names of columns of texts that spell vectors, as CSV has them."""

OF_ANY_TABLE = ("id", "key", "uid", "uuid")
"""Names of titles' ids that a table of something else may have for its own rows."""

HISTORY_PARTS = ("user", "item", "rating", "time")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by part, and what is to be told of how they were found.

    Attributes:
        by_part: the name of the column that plays a part; parts that none plays are left out.
        notes: sentences about guesses.
    """

    by_part: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


def find_columns(
    name: str,
    names: Sequence[str],
    given: Mapping[str, str],
    parts: Sequence[str],
    needed: Sequence[str],
    likely: Mapping[str, str] = MappingProxyType({}),
) -> Columns:
    """Say which column plays each of ``parts``.

    Args:
        name: the table, for messages.
        names: its columns.
        given: the column of a part, as ``--map`` names it.
        parts: those to look for.
        needed: those without which the table is of no use.
        likely: a name by which a part is known, before those of `GUESSES`.

    Raises:
        UsageError: a column that is not there, or a part that is needed and cannot be guessed; all of them at once.
    """
    problems, notes, missing = [], [], []
    found: dict[str, str] = {}
    for part in parts:
        if part in given:
            if given[part] in names:
                found[part] = given[part]
            else:
                missing.append(part)
                near = difflib.get_close_matches(given[part], names, n=1, cutoff=0.5)
                offer = f" (did you mean {quoted(near[0])}?)" if near else ""
                problems.append(f"there is no column {quoted(given[part])} for {part}{offer}")
            continue
        guess = guessed(part, names, likely.get(part))
        if guess is not None:
            found[part] = guess
            if guess != part:
                notes.append(f"{part}: column {quoted(guess)}, by its name")
        elif part in needed:
            missing.append(part)
            problems.append(f"no column can be guessed for {part}")
    if problems:
        raise UsageError(
            f"{name}: {'; '.join(problems)}; its columns are {', '.join(names)}",
            fix=f"name the column: {' '.join(f'--map {part}=COLUMN' for part in missing)}",
        )
    return Columns(found, tuple(notes))


def vector_column(name: str, schema: Any, given: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the column of vectors and what is to be told; None where no column holds any.

    Raises:
        UsageError: the column named is not there or holds no vectors, or several hold some and none is obvious.
    """
    able = [one.name for one in schema if is_vector(one.type)]
    if given is not None:
        if given not in schema.names:
            raise UsageError(
                f"{name} has no column {quoted(given)} for the vectors; its columns are {', '.join(schema.names)}",
                fix=_instead_of(given, able),
            )
        kind = schema.field(given).type
        if not is_vector(kind, whole=True) and not is_text(kind):
            raise UsageError(
                f"{name}: column {given} has type {kind}, which holds no vectors",
                fix="name a column of lists or tensors of floats: " + (", ".join(able) or "there is none"),
            )
        return given, ()
    by_name = guessed("vector", able) or guessed(
        "vector", [one.name for one in schema if is_vector(one.type, whole=True)]
    )
    if by_name is None and len(able) > 1:
        raise UsageError(
            f"{name}: several columns may hold the vectors: {', '.join(able)}", fix=f"name it: --vector {able[0]}"
        )
    spelled = [one.name for one in schema if is_text(one.type) and one.name.lower() in SPELLED]
    chosen = by_name or (able[0] if able else spelled[0] if len(spelled) == 1 else None)
    if chosen is None:
        return None, ()
    why = "by its name" if by_name or spelled else "the only one of lists of floats"
    return chosen, (f"vectors: column {quoted(chosen)}, {why}",)


def refuse_vectors(name: str, schema: Any, instead: str) -> None:
    """Refuse a column that is called as vectors are where they are not taken from it: no field is meant by that.

    Args:
        name: the table, for messages.
        schema: its columns.
        instead: what is given instead.

    Raises:
        UsageError: there is such a column of lists or tensors of floats.
    """
    column = guessed("vector", [one.name for one in schema if is_vector(one.type)])
    if column is not None:
        raise UsageError(
            f"{name} has vectors in the column {quoted(column)}, and {instead} is given; as a field of the titles they"
            " would be in every answer",
            fix=f"leave out the column, or {instead}; under another name the column is kept as a field",
        )


def is_vector(kind: Any, *, whole: bool = False) -> bool:
    """Whether a column of this Arrow type can hold vectors: lists or tensors of floats.

    With ``whole`` those of integers, too: JSON has one kind of numbers, and some models give bytes. Not every such list
    is a vector, so they have to be named.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists):
        return False
    return bool(pa.types.is_floating(kind.value_type) or (whole and pa.types.is_integer(kind.value_type)))


def is_text(kind: Any) -> bool:
    """Whether a column holds texts, which may spell vectors."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def parse_map(assignments: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """Read ``PART=COLUMN`` as ``--map`` gives it, of one of these parts.

    Raises:
        UsageError: one is of another form, or names an unknown part, or one twice.
    """
    found: dict[str, str] = {}
    for text in assignments:
        part, equals, column = text.partition("=")
        if not equals or part not in parts or not column or part in found:
            what = "is not of the form PART=COLUMN"
            if equals and column:
                what = "names a part twice" if part in found else f"names {quoted(part)}, which is not a part"
            raise UsageError(
                f"--map {quoted(text)} {what}; the parts are {', '.join(parts)}",
                fix=f"for example: --map {parts[0]}=sku",
            )
        found[part] = column
    return found


def _instead_of(given: str, able: Sequence[str]) -> str:
    if given.endswith(".npy"):
        return f"--vectors {as_typed(given)}"
    return f"--vector {able[0]}" if able else "name one that is there"


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
