"""DuckDB in memory, and how names, texts and paths are written in its SQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect() -> DuckDBPyConnection:
    """Open a database in memory that spills to no file, fetches no extension and sees no Python variable."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            # Look-ups are small; as many threads as a large machine has cores would only take time to start.
            "threads": min(4, os.cpu_count() or 1),
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )


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
