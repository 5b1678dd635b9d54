"""What is wrong with a table, collected until all of it has been seen: file, row and column of each."""

from __future__ import annotations

from bisect import bisect_right

from semrec_faiss.errors import DataError

SHOWN = 10


class Mistakes:
    """Mistakes of a table: rows are counted from 1 in each of its files, and from 0, in brackets, in memory."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._starts: list[int] = []
        self._is_array = False
        self._noted: list[tuple[int, str]] = []
        self.count = 0

    def begin(self, file: str, first: int) -> None:
        """Say that row ``first`` of the whole table, from 0, is the first of ``file``."""
        self._files.append(file)
        self._starts.append(first)

    def begin_array(self, name: str) -> None:
        """Say that all rows are those of an array, or of a table in memory."""
        self._is_array = True
        self.begin(name, 0)

    def place(self, row: int) -> str:
        """Say where ``row`` of the whole table is, counted from 0."""
        file, number = self._found(row)
        return f"{file}[{row}]" if self._is_array else f"{file}: row {number:,}"

    def note(self, row: int, column: str | None, what: str, *, first: int | None = None) -> None:
        """Take note of what is wrong in ``row`` of the whole table, from 0; what repeats was ``first`` there."""
        place = self.place(row) + ("" if column is None else f", column {column}")
        self._keep(row, f"{place}: {what}{'' if first is None else self._also(first, row)}")

    def note_text(self, text: str) -> None:
        """Take note of a mistake that names its own place."""
        self._keep(-1, text)

    def add(self, count: int) -> None:
        """Count mistakes that are not shown one by one."""
        self.count += count

    def take(self, other: Mistakes) -> None:
        """Take over what another has noted."""
        self._noted = (self._noted + other._noted)[:SHOWN]
        self.count += other.count

    def _keep(self, row: int, text: str) -> None:
        self.count += 1
        if len(self._noted) < SHOWN:
            self._noted.append((row, text))

    def _found(self, row: int) -> tuple[str, int]:
        """Return the file that has a row, and its number there, from 1."""
        part = max(0, bisect_right(self._starts, row) - 1)
        file, first = (self._files[part], self._starts[part]) if self._files else ("the table", 0)
        return file, row - first + 1

    def _also(self, first: int, row: int) -> str:
        (file, number), (here, _) = self._found(first), self._found(row)
        if self._is_array:
            return f" at [{first}]"
        return f" in row {number:,}" + ("" if file == here else f" of {file}")

    def raise_all(self, name: str) -> None:
        """Raise DataError with the first ten and how many there are, if there is any."""
        if not self.count:
            return
        listed = "\n".join(text for _, text in sorted(self._noted))
        more = self.count - len(self._noted)
        head = f"{name} has {self.count:,} mistakes:\n" if self.count > 1 else ""
        tail = f"\n… and {more:,} more" if more else ""
        raise DataError(f"{head}{listed}{tail}", fix="mend these rows, or leave them out; nothing was made")
