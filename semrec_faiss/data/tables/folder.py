"""A whole data folder of a table: its titles, and its users where there is something to make them of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.data.tables.histories import HistoryWish, ImportedHistories, import_histories
from semrec_faiss.data.tables.importing import ImportedTable, TableWish, import_table
from semrec_faiss.errors import StorageError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_folder


@dataclass(frozen=True)
class ImportedFolder:
    """What was made.

    Attributes:
        table: of the titles.
        histories: of the users; None where there are none.
    """

    table: ImportedTable
    histories: ImportedHistories | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self.table.as_dict() | {"histories": None if self.histories is None else self.histories.as_dict()}


def import_folder(
    source: Path,
    out: Path,
    wish: TableWish,
    *,
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
        interactions: a table of what people did; see `import_histories`.
        history: what is said about that.
        overwrite: replace an earlier data folder at ``out``.
        progress: told the rows read.

    Raises:
        UsageError: ``out`` is something else than a data folder, or exists; or as `import_table`.
        NotFoundError, DataError: as `import_table`.
        StorageError: the disk refuses.
    """
    check_out_folder(out, overwrite=overwrite)
    try:
        with new_folder(out) as folder:
            table = import_table(source, folder, wish, progress)
            if interactions is None:
                return ImportedFolder(table, None)
            return ImportedFolder(table, import_histories(interactions, folder, history or HistoryWish(), progress))
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}", fix="name another folder") from error
