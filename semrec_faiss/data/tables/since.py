"""What users have seen since, in a table of any kind, as the Parquet file that an update takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from semrec_faiss.data.column_names import guessed
from semrec_faiss.data.folder.parquet import parquet_parts
from semrec_faiss.data.folder.relation import ParquetRelation
from semrec_faiss.data.seen_checks import SEEN_COLUMNS
from semrec_faiss.data.tables.histories import HistoryWish, history_columns, open_interactions, stage
from semrec_faiss.data.tables.interactions import interactions
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.data.times import Times
from semrec_faiss.errors import SemrecError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import filling_scratch, scratch_folder


@dataclass(frozen=True)
class SeenSince:
    """What users have seen since.

    Attributes:
        path: a Parquet file, or a folder of parts: user_id, media_id, and rating and timestamp where they are known.
        notes: what was guessed, in sentences.
        times: in which unit times were; None without, and where they are seconds by the column's name.
        incomplete_rows: rows without a user or an item, which were left out.
    """

    path: Path
    notes: tuple[str, ...] = ()
    times: Times | None = None
    incomplete_rows: int = 0


@contextmanager
def seen_since(source: Path, wish: HistoryWish, progress: Progress = silent) -> Iterator[SeenSince]:
    """Read a table as `import_histories` does, into a file that goes with the block.

    Parquet of which nothing is said, with the columns user_id and media_id, and rating and timestamp or none that is
    known as such, is taken as it is.

    Raises:
        NotFoundError: there is nothing at ``source``.
        UsageError: a column is not there, or cannot be guessed.
        DataError: it cannot be read, no row has a user and an item, or times or ratings are none.
    """
    if wish == HistoryWish() and _is_as_wanted(source):
        yield SeenSince(source)
        return
    files = find_files(source)
    table = open_interactions(files, wish)
    columns = history_columns(table, wish)
    with scratch_folder() as scratch, scratch_folder() as apart:
        named = source.resolve() if source.name in ("", "..") else source
        path, raw = scratch / (named.name or "table"), apart / "rows.parquet"
        with filling_scratch():
            mistakes = stage(table, raw, columns.by_part, progress)
            rows = ParquetRelation(raw)
            with interactions(rows, table.name, mistakes.place, None, None, wish.time_unit) as found:
                found.write_seen(path)
                incomplete, times = found.counts()["incomplete"], found.times
        yield SeenSince(path, (*columns.notes, *files.notes()), times, incomplete)


def _is_as_wanted(source: Path) -> bool:
    try:
        names = pq.read_schema(parquet_parts(source)[0]).names
    except (SemrecError, OSError, pa.ArrowException, UnicodeError):  # which whoever reads it as a table tells
        return False
    is_ours = all(guessed(part, names) in (column, None) for column, part in SEEN_COLUMNS.items())
    return is_ours and {"user_id", "media_id"} <= set(names) and len(set(names)) == len(names)
