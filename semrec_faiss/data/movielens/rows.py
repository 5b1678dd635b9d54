"""The rows of MovieLens files with their line numbers, and the bad ones collected for one message."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from semrec_faiss.data.movielens.download import SourceFile
from semrec_faiss.data.seen_checks import YEAR_2100
from semrec_faiss.errors import DataError
from semrec_faiss.progress import Progress, silent

MISTAKES_SHOWN = 10
LARGEST_ID = 10**15
"""Ids are read as float64 at first, which holds whole numbers up to this exactly."""

LEAST_RATING, MOST_RATING = 0.5, 5.0

_ROWS_A_REPORT = 50_000
_SHOWN_CHARACTERS = 80
_WHOLE = re.compile(r"[0-9]{1,15}(?:\.0+)?")

Row = tuple[int, list[str]]


@dataclass
class BadRows:
    """Rows that cannot be used; `check` raises the first ten of them, and how many there are.

    Attributes:
        mistakes: what is wrong, each beginning with file and line.
        count: how many there are, those beyond the first ten included.
    """

    mistakes: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, source: SourceFile, line: int, problem: str) -> None:
        """Take note of one."""
        self.count += 1
        if len(self.mistakes) < MISTAKES_SHOWN:
            self.mistakes.append(f"{source.shown}:{line}: {problem}")

    def check(self) -> None:
        """Raise DataError if there were any."""
        if not self.count:
            return
        head = f"{self.count:,} rows cannot be used:\n" if self.count > 1 else ""
        more = f"\n… and {self.count - len(self.mistakes):,} more" if self.count > len(self.mistakes) else ""
        raise DataError(
            head + "\n".join(self.mistakes) + more, fix="download the data again, or mend or remove these lines"
        )


def rows_of(source: SourceFile, columns: Sequence[str], bad: BadRows, progress: Progress = silent) -> Iterator[Row]:
    """Yield (line number, values) of every row, the header checked and left out; blank lines are no rows.

    Args:
        source: the file.
        columns: the names of its header; a .dat has none.
        bad: told the rows of another number of values, and what is not text in the file's encoding.
        progress: told the bytes read.

    Raises:
        DataError: the header is another.
    """
    lines = _Lines(source, bad, progress)
    rows = _csv_rows(lines, columns) if source.form == "csv" else _dat_rows(lines, len(columns))
    for line, values in rows:
        if len(values) == len(columns):
            yield line, values
        else:
            bad.add(
                source, line, f"{len(values)} values where {len(columns)} are expected: {shortened(','.join(values))}"
            )


class _Lines:
    """Iterates over the decoded lines of a file.

    Attributes:
        number: of the latest line.
        first: of the first line since this was set to 0, which is that of a row that goes over several lines.
    """

    def __init__(self, source: SourceFile, bad: BadRows, progress: Progress) -> None:
        self.source = source
        self.bad = bad
        self.number = self.first = 0
        self._progress = progress

    def __iter__(self) -> Iterator[str]:
        size, done = self.source.path.stat().st_size, 0
        what = f"reading {self.source.path.name}"
        encoding = self.source.encoding.removesuffix("-sig")
        with self.source.path.open("rb") as file:
            for raw in file:
                self.number += 1
                done += len(raw)
                if self.number % _ROWS_A_REPORT == 0:
                    self._progress(what, done, size)
                line = raw.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else raw
                try:
                    text = line.decode(encoding)
                except UnicodeDecodeError as error:
                    self.bad.add(
                        self.source,
                        self.number,
                        f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}",
                    )
                    continue
                self.first = self.first or self.number
                yield text
        self._progress(what, size, size)


def _csv_rows(lines: _Lines, columns: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    is_header = True
    while True:
        lines.first = 0
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            lines.bad.add(lines.source, lines.first or lines.number, f"no CSV: {error}")
            continue
        if is_header:
            _check_header(lines, values, columns)
            is_header = False
        elif values:
            yield lines.first, values


def _check_header(lines: _Lines, values: list[str], columns: Sequence[str]) -> None:
    if [value.strip() for value in values] != list(columns):
        raise DataError(
            f"{lines.source.shown}:1: the header is {shortened(','.join(values))}, but {','.join(columns)} is expected",
            fix="download it again; without its header a file cannot be told from another",
        )


def _dat_rows(lines: _Lines, count: int) -> Iterator[Row]:
    for line in lines:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        values = text.split("::")
        if len(values) > count:  # a title or a tag with :: in it: the value before the last
            values = [*values[: count - 2], "::".join(values[count - 2 : -1]), values[-1]]
        yield lines.number, values


def whole_number(text: str) -> int | None:
    """Return the whole number from 0 that ``text`` spells, None where it spells none."""
    stripped = text.strip()
    if not _WHOLE.fullmatch(stripped):
        return None
    number = int(stripped.partition(".")[0])
    return number if number <= LARGEST_ID else None


def shortened(text: str) -> str:
    """Quote ``text``, cut where it is long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def find_bad_rows(
    source: SourceFile,
    columns: Sequence[str],
    problem_of: Callable[[int, list[str]], str | None],
    bad: BadRows,
    progress: Progress = silent,
) -> None:
    """Go through a large file that was found to hold bad rows, and say which.

    Args:
        source: the file.
        columns: its header.
        problem_of: told line and values, says what is wrong with them.
        bad: told the bad rows.
        progress: told the bytes read.
    """
    for line, values in rows_of(source, columns, bad, progress):
        problem = problem_of(line, values)
        if problem is not None:
            bad.add(source, line, problem)


def rating_problem(values: Sequence[str], movies: Container[int]) -> str | None:
    """Say what is wrong with userId, movieId, rating and timestamp; None where nothing is."""
    user, movie, rating, timestamp = values
    if whole_number(user) is None:
        return f"userId is {shortened(user)}; a whole number is expected"
    problem = _movie_problem(movie, movies)
    if problem is not None:
        return problem
    if not LEAST_RATING <= _float(rating) <= MOST_RATING:
        return f"rating is {shortened(rating)}; a number from {LEAST_RATING} to {MOST_RATING} is expected"
    seconds = whole_number(timestamp)
    if seconds is None or seconds >= YEAR_2100:
        return f"timestamp is {shortened(timestamp)}; seconds since 1970, before the year 2100, are expected"
    return None


def tag_problem(user: str, movie: str, given_at: str, movies: Container[int]) -> str | None:
    """Say what is wrong with userId, movieId and timestamp of a tag; None where nothing is."""
    if whole_number(user) is None:
        return f"userId is {shortened(user)}; a whole number is expected"
    problem = _movie_problem(movie, movies)
    if problem is not None:
        return problem
    if whole_number(given_at) is None:
        return f"timestamp is {shortened(given_at)}; seconds since 1970 are expected"
    return None


def score_problem(values: Sequence[str], movies: Container[int], tags: Container[int]) -> str | None:
    """Say what is wrong with movieId, tagId and relevance; None where nothing is."""
    movie, tag, relevance = values
    problem = _movie_problem(movie, movies)
    if problem is not None:
        return problem
    number = whole_number(tag)
    if number is None or number not in tags:
        return f"tagId {shortened(tag)} is not among the genome's tags"
    if not 0 <= _float(relevance) <= 1:
        return f"relevance is {shortened(relevance)}; a number from 0 to 1 is expected"
    return None


def _movie_problem(text: str, movies: Container[int]) -> str | None:
    movie = whole_number(text)
    if movie is None:
        return f"movieId is {shortened(text)}; a whole number is expected"
    return None if movie in movies else f"movieId {movie} is not among the movies"


def _float(text: str) -> float:
    try:
        return float("nan" if "_" in text else text)  # Python takes 1_0 for 10
    except ValueError:
        return float("nan")
