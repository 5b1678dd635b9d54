"""The lines of a CSV file: what separates its columns, and what is wrong where DuckDB only says that something is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from semrec_faiss.errors import DataError, quoted

_DELIMITERS = ",;\t|"
_LONGEST_HEAD = 4 << 20
_ENDS = {b"\n": "\\n", b"\r\n": "\\r\\n"}


def delimiter_of(path: Path) -> str:
    """Return what separates the names of the first line.

    Raises:
        DataError: the file cannot be read, is empty, does not begin in UTF-8, or has two columns of one name.
    """
    try:
        with _opened(path) as file:
            head = file.readline(_LONGEST_HEAD).replace(b"\r", b"\n").partition(b"\n")[0]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", fix="mend or write it again") from error
    if not head:
        raise DataError(f"{path} is empty", fix="give a file with a line of column names and a line a title")
    try:
        line = head.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, 1) from error
    delimiter = max(_DELIMITERS, key=line.count)
    with _texts_up_to(_LONGEST_HEAD):
        _check_names(path, next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter)))
    return delimiter


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse two columns of one name, case aside, of which DuckDB would call one otherwise; raises DataError."""
    folded = [name.strip().lower() for name in names]
    twice = next((name for name, its in zip(names, folded, strict=True) if its and folded.count(its) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {quoted(twice)}", fix="rename one, or leave it out")


def check_csv_lines(path: Path, delimiter: str) -> None:
    """Raise DataError with the first line that is not UTF-8, is quoted wrong, or has other columns or another end."""
    with _opened(path) as file, _texts_up_to(_LONGEST_HEAD):
        lines = _Lines(file)
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        end, columns = None, 0
        while True:
            first = lines.number + 1
            try:
                if (record := next(records, None)) is None:
                    return
            except UnicodeDecodeError as error:
                raise _not_utf8(path, lines.number) from error
            except csv.Error as error:
                if (refusal := _odd_record(path, str(error), first, lines.number)) is None:
                    return
                raise refusal from error
            columns = columns or len(record)
            if record and len(record) != columns:
                raise DataError(
                    f"{path}: line {first:,} has {len(record)} columns, the first has {columns}",
                    fix="mend it, or leave it out",
                )
            end = end or lines.end
            if end and lines.end and lines.end != end:
                raise DataError(
                    f"{path}: line {lines.number:,} ends with {_ENDS[lines.end]}, those before it with {_ENDS[end]}",
                    fix="write it again with one kind of line ends",
                )


@contextmanager
def _texts_up_to(characters: int) -> Iterator[None]:
    """Let `csv` read longer texts than by itself in the block."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _Lines:
    """Decodes lines; the number of the latest, from 1, and its end are kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.end = b""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            self.end = next((end for end in (b"\r\n", b"\n") if line.endswith(end)), b"")
            yield line.decode()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with pa.input_stream(str(path), compression="detect") as stream:
        yield io.BufferedReader(cast(io.RawIOBase, stream))


def _not_utf8(path: Path, line: int) -> DataError:
    return DataError(f"{path}: line {line:,} is not UTF-8", fix="write it in UTF-8")


def _odd_record(path: Path, said: str, first: int, last: int) -> DataError | None:
    """Return the refusal of a record from line ``first`` to ``last``; None where nothing is known of it."""
    if said.startswith("new-line character seen"):
        return DataError(
            f"{path}: line {last:,} holds a carriage return (\\r), which ends no other line",
            fix="write it again with one kind of line ends",
        )
    fix = 'write a quote within a text twice, and a text with quotes in quotes: "say ""hi"""'
    if said.startswith(("unexpected end of data", "field larger than")):
        return DataError(f"{path}: line {first:,}: a quote is opened that nothing closes", fix=fix)
    if "expected after" in said:
        return DataError(f"{path}: line {last:,}: a text goes on after the quote that closes it", fix=fix)
    return None
