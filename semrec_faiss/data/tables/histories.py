"""What people did, as a table has it, to the users of a data folder: their histories and their vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from semrec_faiss.config.profile import Profile
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, SEEN, USER_IDS, USER_VECTORS, find_data_folder, open_vectors
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.folder.relation import ParquetRelation
from semrec_faiss.data.folder.vectors import read_float32
from semrec_faiss.data.interactions.profiles import profile_weights, user_vectors, warn_of_scale
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import HISTORY_PARTS, OF_ANY_TABLE, Columns, find_columns
from semrec_faiss.data.tables.files import Table, open_table
from semrec_faiss.data.tables.interactions import interactions
from semrec_faiss.data.tables.source import TableFiles, find_files
from semrec_faiss.data.tables.staged import staged_rows
from semrec_faiss.data.time_spans import refuse_time_spans
from semrec_faiss.data.times import TIME_UNITS, Times
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history
from semrec_faiss.errors import DataError, quoted
from semrec_faiss.progress import Progress, silent

PROFILE_NAME = "users/profile.json"
"""How the users' vectors were made of what they did; a build serves the same, unless its config says otherwise."""

NONE = "-"
"""What ``--map`` gives a part that no column plays."""

_NAMED = 5
_NEEDED = ("user", "item")

__all__ = [
    "PROFILE_NAME",
    "TIME_UNITS",
    "HistoryWish",
    "ImportedHistories",
    "check_likes",
    "default_profile",
    "history_columns",
    "import_histories",
    "open_interactions",
    "stage",
]


@dataclass(frozen=True)
class HistoryWish:
    """What is said about a table of interactions.

    Attributes:
        columns: the column of a part (user, item, rating, time); ``-`` where none plays it.
        time_unit: of the times; None where it is to be told from the values.
        profile: how histories become vectors; None: every title that was rated counts by its rating, the latest most.
        titles_ids: the column of the titles' ids in their own table: items are looked for under this name first.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    profile: Profile | None = None
    titles_ids: str | None = None


@dataclass(frozen=True)
class ImportedHistories:
    """What became of a table of interactions.

    Attributes:
        interactions: rows that name titles.
        users: how many people did something.
        users_without_history: of these, those of whom nothing is known that counts; they get popular titles.
        unknown_items: different items that are no titles.
        unknown_rows: the rows that name them; they are kept, and count as soon as an index has them.
        incomplete_rows: rows without a user or an item, or of users who are none; they are left out.
        times: in which unit times were, and from when to when; None without.
        notes: what was guessed, in sentences.
    """

    interactions: int
    users: int
    users_without_history: int
    unknown_items: int
    unknown_rows: int
    incomplete_rows: int
    times: Times | None
    notes: tuple[str, ...]


def import_histories(
    source: Path, folder: Path, wish: HistoryWish, users: Sequence[str] | None = None, progress: Progress = silent
) -> ImportedHistories:
    """Write users/ of a data folder whose media/ is there already, of a table of interactions.

    Args:
        source: Parquet, Arrow IPC, CSV or JSON lines; see `find_files`.
        folder: the data folder that is being made.
        wish: what is said about the table.
        users: ids whose vectors came along; None makes users of those who did something.
        progress: told the rows read.

    Raises:
        NotFoundError: there is nothing at ``source``.
        UsageError: a column is not there, or cannot be guessed.
        DataError: it cannot be read, no item is a title, or times or ratings are none.
    """
    files = find_files(source)
    made = write_histories(open_interactions(files, wish), folder, wish, users=users, progress=progress)
    return replace(made, notes=(*made.notes, *files.notes()))


def open_interactions(files: TableFiles, wish: HistoryWish) -> Table:
    """Open a table of interactions, whose ids are texts whatever they look like; raises as `open_table`."""
    table = open_table(files)
    if files.format not in ("csv", "jsonl"):
        return table
    found = history_columns(table, wish, _NEEDED, ())
    return open_table(files, list(found.by_part.values()))


def write_histories(
    table: Table, folder: Path, wish: HistoryWish, *, users: Sequence[str] | None = None, progress: Progress = silent
) -> ImportedHistories:
    """Write users/ of a table that is open; with ``users``, whose vectors came along, only what they did.

    Raises:
        UsageError: columns that cannot be guessed, or do not exist.
        DataError: rows that cannot be used, the first ten with their place.
    """
    columns = history_columns(table, wish)
    catalog = Catalog.read(find_data_folder(folder, need_vectors=False).metadata)
    (folder / "users").mkdir(exist_ok=True)
    raw = folder / "users" / "raw.parquet"
    mistakes = stage(table, raw, columns.by_part, progress)
    with interactions(ParquetRelation(raw), table.name, mistakes.place, catalog, users, wish.time_unit) as found:
        found.write_seen(folder / SEEN)
        ids, counts, times = found.user_ids(), found.counts(), found.times
    raw.unlink()
    without = 0
    if users is None:
        without = _write_made_users(folder, ids, catalog, wish.profile, has_times=times is not None)
    return ImportedHistories(
        interactions=counts["known_rows"],
        users=len(ids),
        users_without_history=without,
        unknown_items=counts["unknown_items"],
        unknown_rows=counts["unknown_rows"],
        incomplete_rows=counts["incomplete"],
        times=times,
        notes=columns.notes,
    )


def history_columns(
    table: Table, wish: HistoryWish, parts: Sequence[str] = HISTORY_PARTS, needed: Sequence[str] = _NEEDED
) -> Columns:
    """Say which columns of interactions play which of ``parts``; raises UsageError as `find_columns`."""
    given = {part: column for part, column in wish.columns.items() if column != NONE or part in _NEEDED}
    parts = [part for part in parts if part in given or part not in wish.columns]
    ids = wish.titles_ids
    likely = {} if ids is None or ids.lower() in OF_ANY_TABLE else {"item": ids}
    found = find_columns(table.name, table.schema.names, given, parts, needed, likely)
    refuse_time_spans(table.name, [table.schema.field(column) for column in found.by_part.values()])
    left = [name for name in table.schema.names if name not in found.by_part.values()]
    if not left:
        return found
    named = ", ".join(map(quoted, left[:_NAMED])) + ", …" * (len(left) > _NAMED)
    return replace(found, notes=(*found.notes, f"columns that play no part: {named}; --map PART=COLUMN gives one"))


def default_profile(*, has_times: bool) -> Profile:
    """Return how histories become vectors where nothing is said: what was rated counts by it, the latest most."""
    return Profile(half_life=10.0 if has_times else None)


def _write_made_users(
    folder: Path, ids: list[str], catalog: Catalog, profile: Profile | None, *, has_times: bool
) -> int:
    profile = profile or default_profile(has_times=has_times)
    (folder / USER_IDS).write_text(json.dumps(ids) + "\n", encoding="utf-8")
    (folder / PROFILE_NAME).write_text(profile.model_dump_json() + "\n", encoding="utf-8")
    return _write_vectors(folder, ids, catalog, profile) if (folder / MEDIA_VECTORS).is_file() else 0


def stage(table: Table, raw: Path, parts: Mapping[str, str], progress: Progress) -> Mistakes:
    """Write the columns that are needed, under the names of their parts; return what says where a row was.

    Raises:
        DataError: rows that cannot be read, the first ten with their place.
    """
    mistakes = Mistakes()
    names = list(parts)
    schema = pa.schema([pa.field(part, table.schema.field(parts[part]).type) for part in names])
    rows = 0
    with staged_rows(table.name, raw, schema) as write:
        for batch in table.batches(mistakes):
            write(pa.RecordBatch.from_arrays([batch.column(parts[part]) for part in names], schema=schema))
            rows += batch.num_rows
            progress("reading histories", rows, rows)
    mistakes.raise_all(table.name)
    return mistakes


def _write_vectors(folder: Path, ids: list[str], catalog: Catalog, profile: Profile) -> int:
    """Write the users' vectors: means of their titles' unit vectors; return how many users nothing is known of."""
    history = read_history(folder / SEEN, ids, catalog)
    path = folder / MEDIA_VECTORS
    titles = read_float32(open_vectors(path), normalize=True, path=path)
    check_likes(history, profile)
    warn_of_scale(history, profile)
    shape, without = (len(ids), titles.shape[1]), 0
    with (folder / USER_VECTORS).open("wb") as file, NpyWriter(file, shape, np.float32) as writer:
        for _, block, unknown in user_vectors(history, titles, profile):
            writer.write(block)
            without += int(unknown.sum())
    return without


def check_likes(history: History, profile: Profile) -> None:
    """Raise DataError where nothing is known of any user that counts."""
    if not (profile_weights(history, profile) > 0).any():
        raise DataError(
            f"nobody likes anything: no rating weighs above nothing (weights: {profile.weights})",
            fix="choose other --weights, or --map rating=- where the column is no rating",
        )
