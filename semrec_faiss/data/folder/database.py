"""DuckDB in memory, and how names, texts and paths are written in its SQL."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from semrec_faiss.errors import DataError
from semrec_faiss.forking import keep_for_ever, renewed_after_fork

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass
class _Kept:
    """The database that sessions share; a new one takes DuckDB some 30 ms."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    database: DuckDBPyConnection | None = None


_kept = _Kept()


@renewed_after_fork
def _forget() -> None:
    """Leave the database, whose threads stayed with the parent, without ever letting go of it."""
    if _kept.database is not None:
        keep_for_ever(_kept.database)
    _kept.lock, _kept.database = threading.Lock(), None


def connect() -> DuckDBPyConnection:
    """Open a database in memory that spills to no file, fetches no extension and sees no Python variable.

    A time without a zone is one of UTC, wherever the machine is.
    """
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            # Look-ups are small; as many threads as a large machine has cores would only take time to start.
            "threads": min(4, os.cpu_count() or 1),
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "enable_external_file_cache": False,
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


@contextlib.contextmanager
def session() -> Iterator[DuckDBPyConnection]:
    """Give a connection for questions of files, of what is registered with it and of temporary tables.

    All sessions share a database that stays open; what one registers, and its temporary tables, no other sees.

    Raises:
        UnicodeError: a column's name in a file is no UTF-8, which DuckDB's Python tells as an error of no kind.
    """
    import duckdb

    with _kept.lock:
        if _kept.database is None:
            _kept.database = connect()
        cursor = _kept.database.cursor()
    try:
        yield cursor
    except (duckdb.FatalException, duckdb.InternalException):  # after which a database answers nothing more
        _kept.database = None
        raise
    except RuntimeError as error:
        if "conversion error" in str(error):
            raise UnicodeError("the name of a column is not UTF-8") from error
        raise
    finally:
        cursor.close()


@contextlib.contextmanager
def reading(name: Path | str) -> Iterator[None]:
    """Tell what DuckDB cannot read of a table in the block as bad data; raises DataError."""
    import duckdb

    try:
        yield
    except (duckdb.Error, UnicodeError) as error:
        raise DataError(f"{name} cannot be read: {first_line(error)}", fix="write or copy it again") from error


def quoted_name(name: str) -> str:
    """Return ``name`` as SQL spells a column."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return ``text`` as SQL spells a string."""
    return "'" + text.replace("'", "''") + "'"


def literal_path(path: Path) -> str:
    """Return ``path`` so that DuckDB reads this one file even where its name holds wildcards."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))


def first_line(error: BaseException) -> str:
    """Return what ``error`` says, without the excerpt of SQL that DuckDB adds."""
    return str(error).split("\n", 1)[0]
