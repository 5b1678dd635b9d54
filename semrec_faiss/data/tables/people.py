"""Users whose vectors come along: a table of ids and vectors to users/ of a data folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from semrec_faiss.data.folder.layout import USER_IDS, USER_VECTORS, open_vectors
from semrec_faiss.data.folder.npy import GrowingNpy
from semrec_faiss.data.tables.columns import find_columns, vector_column
from semrec_faiss.data.tables.files import Table, open_table
from semrec_faiss.data.tables.mistakes import Mistakes
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.data.tables.vectors import VectorReader
from semrec_faiss.data.users import read_user_ids
from semrec_faiss.errors import DataError, UsageError


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
    held = int(open_vectors(folder / USER_VECTORS).shape[1])
    if dim and held != dim:
        raise DataError(
            f"{table.name}: the users' vectors have {held} dimensions, the titles' have {dim}",
            fix="give vectors of one space for both",
        )
    return ids


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
        DataError: rows that cannot be used, or ids that repeat.
    """
    vector, _ = vector_column(table.name, table.schema, None)
    if vector is None:
        raise UsageError(f"{table.name} has no column of lists of floats for the users' vectors", fix="give one a row")
    names = [name for name in table.schema.names if name != vector]
    who = find_columns(table.name, names, _of_users(columns), ("user",), ("user",)).by_part["user"]
    mistakes = Mistakes()
    reader = VectorReader(vector, mistakes)
    ids: list[str] = []
    (folder / "users").mkdir(exist_ok=True)
    with (folder / USER_VECTORS).open("w+b") as file:
        npy = GrowingNpy(file)
        for batch in table.batches(mistakes):
            found = reader.read(batch.column(vector), len(ids))
            for row, user in enumerate(batch.column(who).to_pylist(), start=len(ids)):
                if user is None:
                    mistakes.note(row, who, "is null")
                ids.append(str(user))
            if len(found):
                npy.write(found)
        npy.finish()
    mistakes.raise_all(table.name)
    if not ids:
        raise DataError(f"{table.name} has no rows", fix="leave the users out")
    (folder / USER_IDS).write_text(json.dumps(ids) + "\n", encoding="utf-8")
    try:
        return read_user_ids(folder / USER_IDS)
    except DataError as error:
        raise DataError(error.message.replace(str(folder / USER_IDS), table.name), fix=error.fix) from None
