"""Users whose vectors come along: a table of ids and vectors to users/ of a data folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from semrec_faiss.data.folder.layout import USER_IDS, USER_VECTORS
from semrec_faiss.data.folder.npy import GrowingNpy
from semrec_faiss.data.tables.columns import find_columns, vector_column
from semrec_faiss.data.tables.files import Table
from semrec_faiss.data.tables.mistakes import Mistakes
from semrec_faiss.data.tables.vectors import VectorReader
from semrec_faiss.data.users import read_user_ids
from semrec_faiss.errors import DataError, UsageError


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
    named = {part: column for part, column in columns.items() if part == "user"}
    who = find_columns(table.name, names, named, ("user",), ("user",)).by_part["user"]
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
