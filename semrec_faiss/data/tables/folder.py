"""A whole data folder of a table: its titles, and its users where there is something to make them of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from semrec_faiss.data.demo import or_demos
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA, METADATA_TABLE
from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.data.folder.recipe import read_recipe
from semrec_faiss.data.tables.histories import HistoryWish, ImportedHistories, import_histories
from semrec_faiss.data.tables.importing import ImportedTable, TableWish, import_table
from semrec_faiss.data.tables.people import import_users
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.paths import as_typed
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_folder


@dataclass(frozen=True)
class ImportedFolder:
    """What was made.

    Attributes:
        table: of the titles.
        histories: of the users; None where there are none.
        users: whose vectors came along; None where none did.
    """

    table: ImportedTable
    histories: ImportedHistories | None
    users: int | None = None


def import_folder(
    source: Path,
    out: Path,
    wish: TableWish,
    *,
    users: Path | None = None,
    interactions: Path | None = None,
    history: HistoryWish | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ImportedFolder:
    """Make the data folder ``out`` of a table; it appears only when everything is written.

    Args:
        source: the table; see `import_table`.
        out: the folder to make.
        wish: what is said about the table's columns.
        users: a table of user ids and vectors; see `write_users`.
        interactions: a table of what people did; see `import_histories`. Without ``users`` it makes them.
        history: what is said about these two.
        overwrite: replace an earlier data folder at ``out``.
        progress: told the rows read.

    Raises:
        UsageError: ``out`` is something else than a data folder, or exists; or as `import_table`.
        NotFoundError, DataError: as `import_table`.
        StorageError: the disk refuses.
    """
    check_out_folder(out, overwrite=overwrite)
    _refuse_data_folder(source)
    try:
        with new_folder(out) as folder:
            table = import_table(source, folder, wish, progress)
            ids_column = read_recipe(folder / METADATA_TABLE)[0].columns["media_id"]
            asked = replace(history or HistoryWish(), titles_ids=ids_column)
            ids = None if users is None else import_users(users, folder, asked.columns, table.dim)
            done = None if interactions is None else import_histories(interactions, folder, asked, ids, progress)
            return ImportedFolder(table, done, None if ids is None else len(ids))
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}", fix="name another folder") from error


def _refuse_data_folder(source: Path) -> None:
    """Refuse what an import would make: its files are no parts of one table."""
    given = or_demos(source)
    if (given / MEDIA_VECTORS).is_file() and any((given / name).is_file() for name in (METADATA, METADATA_TABLE)):
        raise UsageError(
            f"{source} is a data folder already, not a table",
            fix=f"build it as it is: semrec build --dataset {as_typed(source)} --output INDEX",
        )
