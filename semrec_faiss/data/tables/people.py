"""Users whose vectors come along: a table of ids and vectors to users/ of a data folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import USER_IDS, USER_VECTORS, open_vectors
from semrec_faiss.data.folder.npy import GrowingNpy
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import find_columns, vector_column
from semrec_faiss.data.tables.files import Table, open_table
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.data.tables.vectors import VectorReader
from semrec_faiss.errors import DataError, UsageError, quoted


def import_users(source: Path, folder: Path, columns: Mapping[str, str], dim: int = 0) -> list[str]:
    """Write the users of a table in files, whose ids are texts whatever they look like; see `write_users`.

    Args:
        source: see `find_files`.
        folder: the data folder that is being made.
        columns: the column of the part ``user``, where it is named.
        dim: of the titles' vectors; 0 where there are none yet.

    Raises:
        NotFoundError: there is nothing at ``source``.
        UsageError, DataError: as `write_users`.
    """
    files = find_files(source)
    table = open_table(files)
    if files.format in ("csv", "jsonl"):
        found = find_columns(table.name, table.schema.names, _of_users(columns), ("user",), ())
        table = open_table(files, list(found.by_part.values()))
    ids = write_users(table, folder, columns)
    if dim:
        check_dim(table.name, int(open_vectors(folder / USER_VECTORS).shape[1]), dim)
    return ids


def check_dim(name: str, held: int, dim: int) -> None:
    """Refuse users' vectors of ``held`` dimensions beside titles' of ``dim``; raises DataError."""
    if held != dim:
        raise DataError(
            f"{name}: the users' vectors have {held} dimensions, the titles' have {dim}",
            fix="give vectors of one space for both",
        )


def _of_users(columns: Mapping[str, str]) -> dict[str, str]:
    return {part: column for part, column in columns.items() if part == "user"}


def write_users(table: Table, folder: Path, columns: Mapping[str, str]) -> list[str]:
    """Write user ids and their vectors; return the ids.

    Args:
        table: with a column of ids and one of vectors.
        folder: the data folder that is being made.
        columns: the column of the part ``user``, where it is named.

    Raises:
        UsageError: a column cannot be guessed.
        DataError: rows that cannot be used, such as ids that repeat, the first ten with their place.
    """
    (folder / "users").mkdir(exist_ok=True)
    with (folder / USER_VECTORS).open("w+b") as file:
        npy = GrowingNpy(file)
        ids = read_users(table, columns, npy.write)
        npy.finish()
    (folder / USER_IDS).write_text(json.dumps(ids) + "\n", encoding="utf-8")
    return ids


def read_users(table: Table, columns: Mapping[str, str], take: Callable[[NDArray[Any]], object]) -> list[str]:
    """Hand ``take`` the users' vectors, float (some, dim) at a time, and return their ids; see `write_users`."""
    vector, _ = vector_column(table.name, table.schema, None)
    if vector is None:
        raise UsageError(f"{table.name} has no column of lists of floats for the users' vectors", fix="give one a row")
    names = [name for name in table.schema.names if name != vector]
    who = find_columns(table.name, names, _of_users(columns), ("user",), ("user",)).by_part["user"]
    mistakes = Mistakes()
    reader = VectorReader(vector, mistakes)
    ids: list[str] = []
    first: dict[str, int] = {}
    for batch in table.batches(mistakes):
        found = reader.read(batch.column(vector), len(ids))
        for row, user in enumerate(batch.column(who).to_pylist(), start=len(ids)):
            ids.append(_as_text(user))
            before = first.setdefault(ids[-1], row)
            if problem := _unfit(user) or ("" if ids[-1].strip() else "is empty"):
                mistakes.note(row, who, problem)
            elif before != row:
                mistakes.note(row, who, f"{quoted(ids[-1])} is also", first=before)
        if len(found):
            take(found)
    mistakes.raise_all(table.name)
    if not ids:
        raise DataError(f"{table.name} has no rows", fix="leave the users out")
    return ids


def _as_text(user: Any) -> str:
    """Return an id as interactions have it: whole numbers that came as floats are written without a fraction."""
    return str(int(user)) if isinstance(user, float) and user.is_integer() else str(user)


def _unfit(user: Any) -> str:
    """Return why a value is no id: neither a text, nor a whole number, nor a UUID."""
    if user is None:
        return "is null"
    is_decimal = isinstance(user, Decimal) and user.as_tuple().exponent == 0  # of a column without a fraction
    if isinstance(user, bool) or not (isinstance(user, str | int | float | UUID) or is_decimal):
        return f"is {quoted(user)}; a text or a whole number is expected"
    if isinstance(user, float) and not user.is_integer():
        return f"{user} is not a whole number"
    too_large = isinstance(user, float) and abs(user) >= 2**53
    return f"{user:.0f} is a float, and these do not tell whole numbers of that size apart" if too_large else ""
