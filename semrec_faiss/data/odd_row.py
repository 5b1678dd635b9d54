"""The first row of a table that is not as it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semrec_faiss.errors import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NUMBER = re.compile(r"[-+.e0-9]{1,60}|nan|-?inf")

Place = Callable[[int], str]
"""Says where a row is, counted from 0."""


@dataclass(frozen=True)
class OddRow:
    """A row that failed a test.

    Attributes:
        row: its number, from 0.
        held: the value there as a text; None for none.
        count: how many rows fail.
    """

    row: int
    held: str | None
    count: int

    def told(self, place: Place, column: str) -> str:
        """Say where it is, what it has in ``column``, and how many are like it where it is not the only one."""
        value = f"no {column}"
        if self.held is not None:
            value = f"the {column} {self.held if _NUMBER.fullmatch(self.held) else quoted(self.held)}"
        return f"{place(self.row)} has {value}" + (f", the first of {self.count:,} such rows" * (self.count > 1))


def first_odd_row(connection: DuckDBPyConnection, file: str, held: str, test: str) -> OddRow | None:
    """Return the first row of ``file`` for which the SQL ``test`` holds, with its value of ``held``; None for none."""
    rows = f"SELECT row_number() OVER () - 1 AS row, ({held})::VARCHAR AS held, ({test}) AS odd FROM {file}"
    found = connection.execute(
        f"SELECT row, held, count(*) OVER () FROM ({rows}) WHERE odd ORDER BY row LIMIT 1"
    ).fetchone()
    return None if found is None else OddRow(*found)
