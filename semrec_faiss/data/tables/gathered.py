"""Titles and users of tables that are in memory, with the checks of an import; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from semrec_faiss.config.profile import Profile
from semrec_faiss.data.folder.metadata_table import MetadataTable
from semrec_faiss.data.folder.relation import Relation
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.arrow_relation import ArrowRelation
from semrec_faiss.data.tables.files import Table
from semrec_faiss.data.tables.histories import HistoryWish, check_likes, default_profile, history_columns
from semrec_faiss.data.tables.importing import TableWish, check_media, plan_media
from semrec_faiss.data.tables.interactions import interactions
from semrec_faiss.data.tables.memory import MemoryTable
from semrec_faiss.data.tables.people import read_users
from semrec_faiss.data.tables.vectors import VectorReader
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history
from semrec_faiss.errors import DataError


@dataclass(frozen=True)
class GatheredUsers:
    """Users, and what they did.

    Attributes:
        ids: of the users.
        vectors: float (users, dim); None: they are to be made of the history.
        seen: what they did, in rows; None where that is not known.
        history: these rows, read.
        profile: how vectors are made of histories; None where vectors came along.
    """

    ids: Sequence[str]
    vectors: NDArray[Any] | None = None
    seen: Relation | None = None
    history: History | None = None
    profile: Profile | None = None


def gather_titles(table: Table, wish: TableWish) -> tuple[NDArray[Any], MetadataTable]:
    """Return the vectors of a table, float (n, dim), and its other columns as metadata.

    Raises:
        UsageError: columns that cannot be guessed, or do not exist.
        DataError: rows that cannot be used, the first ten with their place.
    """
    recipe, mistakes = plan_media(table, wish).recipe, Mistakes()
    held = _whole(table, mistakes)
    if not held.num_rows:
        mistakes.raise_all(table.name)
        raise DataError(f"{table.name} has no rows", fix="give a table that has some")
    assert recipe.vector is not None, "a table in memory has no .npy beside it"
    vectors = _vectors(held.column(recipe.vector), VectorReader(recipe.vector, mistakes))
    rest = held.drop_columns([recipe.vector])
    rows = ArrowRelation.of(table.name, rest)
    return vectors, check_media(rows, recipe, rest.column_names, mistakes)


def gather_users(table: Table, columns: Mapping[str, str]) -> GatheredUsers:
    """Return users whose vectors come along; raises as `read_users`."""
    blocks: list[NDArray[Any]] = []
    ids = read_users(table, columns, blocks.append)
    return GatheredUsers(ids, np.concatenate(blocks))


def gather_histories(table: Table, wish: HistoryWish, catalog: Catalog, users: GatheredUsers | None) -> GatheredUsers:
    """Return ``users`` with what they did, or else those who did something.

    Raises:
        UsageError: columns that cannot be guessed, or do not exist.
        DataError: rows that cannot be used, or nobody likes anything.
    """
    by_part, mistakes = history_columns(table, wish).by_part, Mistakes()
    held = _whole(table, mistakes)
    mistakes.raise_all(table.name)
    rows = ArrowRelation.of(table.name, held.select(list(by_part.values())).rename_columns(list(by_part)))
    with interactions(
        rows, table.name, mistakes.place, catalog, None if users is None else users.ids, wish.time_unit
    ) as found:
        seen = ArrowRelation(table.name, found.seen())
        ids = found.user_ids() if users is None else users.ids
        profile = wish.profile or default_profile(has_times=found.times is not None)
    history = read_history(seen, ids, catalog)
    if users is not None:
        return replace(users, seen=seen, history=history)
    check_likes(history, profile)
    return GatheredUsers(ids, None, seen, history, profile)


def _whole(table: Table, mistakes: Mistakes) -> Any:
    if not isinstance(table, MemoryTable):
        return pa.Table.from_batches(table.batches(mistakes), table.schema)
    mistakes.begin_array(table.name)
    return table.table


def _vectors(column: Any, reader: VectorReader) -> NDArray[Any]:
    """Return a column's vectors; where they lie in one piece, that is not copied."""
    blocks, row = [], 0
    for chunk in column.chunks:
        blocks.append(reader.read(chunk, row))
        row += len(chunk)
    some = [block for block in blocks if len(block)]
    return np.concatenate(some) if len(some) > 1 else (some or [np.empty((0, 0))])[0]
