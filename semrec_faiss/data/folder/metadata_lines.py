"""metadata.jsonl: every line checked before any is loaded, and a column type for every field."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.data.folder.field_types import INT64, ROW, FieldTypes
from semrec_faiss.data.folder.layout import rows_partner
from semrec_faiss.data.folder.recipe import NO_PARTS
from semrec_faiss.errors import DataError, quoted
from semrec_faiss.progress import Progress, silent

MISTAKES_SHOWN = 10
MAX_LINE_BYTES = 64 << 20
MAX_DEPTH = 100

_LINES_A_REPORT = 4096


@dataclass(frozen=True)
class Metadata:
    """A metadata file without mistakes: its lines, the DuckDB type of each field, and what JSON fields mix."""

    path: Path
    count: int
    fields: dict[str, str]
    mixtures: dict[str, str]


def inspect_metadata(
    path: Path,
    *,
    expect_count: int | None = None,
    progress: Progress = silent,
    known: Mapping[str, str] | None = None,
    parts: Mapping[str, str] = NO_PARTS,
) -> Metadata:
    """Check every line of ``path`` and derive a DuckDB type for every field.

    Args:
        path: metadata.jsonl.
        expect_count: the number of vectors, where it is known.
        progress: told the bytes read.
        known: fields of other titles beside these, with their types.
        parts: fields that play a part under another name.

    Raises:
        DataError: the first ten mistakes, each with file and line, and how many more there are.
    """
    checker = _Checker(path, known or {}, parts)
    try:
        size = path.stat().st_size
        done = 0
        for number, raw in numbered_lines(path):
            checker.check_line(number, raw)
            done += len(raw) + 1
            if number % _LINES_A_REPORT == 0:
                progress(f"checking {path.name}", min(done, size), size)
    except OSError as error:
        raise DataError(f"{path}: cannot read the metadata: {error.strerror or error}") from error
    checker.find_duplicate_ids()
    checker.check_count(expect_count)
    checker.raise_mistakes()
    progress(f"checking {path.name}", size, size)
    return Metadata(path, checker.lines, checker.types.columns(), checker.types.mixtures())


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (1-based number, line) without line ends, byte order mark and blank lines at the end of the file.

    Raises:
        DataError: a line is longer than MAX_LINE_BYTES.
    """
    blank: list[int] = []
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
            if len(raw) == MAX_LINE_BYTES and raw[-1:] != b"\n":
                raise DataError(
                    f"{path}:{number}: the line is longer than {MAX_LINE_BYTES >> 20} MiB",
                    fix="write one JSON object a line; an array or an indented document is not JSON lines",
                )
            line = raw.strip(b" \t\r\n")
            if not line:
                blank.append(number)
                continue
            for skipped in blank:
                yield skipped, b""
            blank.clear()
            yield number, line


def check_json_lines(path: Path) -> None:
    """Raise DataError with the first ten lines of ``path`` that are no JSON objects, and how many more there are."""
    mistakes = []
    for number, raw in numbered_lines(path):
        try:
            _parse(raw)
        except _LineError as mistake:
            mistakes.append(f"{path}:{number}: {mistake}")
    if mistakes:
        more = len(mistakes) - MISTAKES_SHOWN
        listed = "\n".join([*mistakes[:MISTAKES_SHOWN], *([f"… and {more:,} more"] if more > 0 else [])])
        raise DataError(listed, fix="a line is a JSON object, one for each row")


class _LineError(ValueError):
    """What is wrong with one line."""


def title_lines(
    path: Path, parts: Mapping[str, str] = NO_PARTS, first: int = 0, last: int | None = None
) -> Iterator[str]:
    """Yield the titles ``first`` to ``last`` - 1 of a file that was checked, as JSON objects with fields by part."""
    lines = (raw.decode("utf-8") for _, raw in islice(numbered_lines(path), first, last))
    return (json.dumps(_by_part(json.loads(line), parts), ensure_ascii=False) for line in lines) if parts else lines


def _by_part(entry: dict[str, Any], parts: Mapping[str, str]) -> dict[str, Any]:
    """Return a title's fields, those that play a part under its name; a field that has that name is ``original_…``."""
    if not parts:
        return entry
    part_of = {field: part for part, field in parts.items()}
    shown = {name: part_of.get(name, f"original_{name}" if name in parts else name) for name in entry}
    found = {shown[name]: value for name, value in entry.items()}
    if len(found) != len(entry):
        raise _LineError(f"two fields would both be called {quoted(next(iter(set(shown.values()) & set(entry))))}")
    return found


def _no_repeated_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _LineError(f"the key {quoted(next(name for name in names if names.count(name) > 1))} occurs twice")
    return found


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _LineError(f"the number {literal} is too large for a 64-bit float")
    return value


def _no_constant(name: str) -> Any:
    raise _LineError(f"{name} is not JSON; write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeated_key, parse_float=_finite, parse_constant=_no_constant)


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw:
        raise _LineError("the line is empty")
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _LineError(f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}") from error
    except json.JSONDecodeError as error:
        raise _LineError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise _LineError("nested too deeply") from error
    except _LineError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise _LineError(f"not usable: {error}") from error
    if not isinstance(value, dict):
        raise _LineError(f"a JSON object is expected, not {_json_name(value)}")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _LineError(f"nested deeper than {MAX_DEPTH} levels")
    if rb"\ud" in raw.lower():
        _refuse_unpaired_surrogate(value)
    return value


def _depth(value: Any) -> int:
    depth, inside = 0, [value]
    while inside:
        depth += 1
        inside = [
            each
            for outer in inside
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, (dict, list))
        ]
    return depth


def _refuse_unpaired_surrogate(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise _LineError(f"\\u{code:04x} is half of a surrogate pair, which is no character") from error


class _Checker:
    """Collects what is wrong with a metadata file, and the types of its fields."""

    def __init__(self, path: Path, known: Mapping[str, str], parts: Mapping[str, str]) -> None:
        self.path = path
        self._parts = parts
        self.lines = 0
        self.types = FieldTypes(known)
        self._mistakes: list[tuple[int, str]] = []
        self._more = 0
        self._repeats = 0
        # A 64-bit hash a line finds duplicates of millions of ids in 8 bytes each; they are confirmed by reading again.
        self._id_hashes = array("q")

    def check_line(self, number: int, raw: bytes) -> None:
        """Check one line and take note of its fields."""
        self.lines = number
        media_id: Any = (ROW, number)  # equal to no id, for lines without a usable one
        try:
            entry = _by_part(_parse(raw), self._parts)
            for mistake in self.types.see(entry):
                self._note(number, mistake)
            for part, mistake in _entry_mistakes(entry):
                self._note(number, f"{self._called(part)} {mistake}")
            if _is_id(entry.get("media_id")):
                media_id = str(entry["media_id"])
        except _LineError as mistake:
            self._note(number, str(mistake))
        self._id_hashes.append(hash(media_id))

    def find_duplicate_ids(self) -> None:
        """Note every media_id that an earlier line has already."""
        hashes = np.frombuffer(self._id_hashes, dtype=np.int64) if self._id_hashes else np.empty(0, dtype=np.int64)
        values, counts = np.unique(hashes, return_counts=True)
        repeated = values[counts > 1]
        if not repeated.size:
            return
        suspects = set((np.flatnonzero(np.isin(hashes, repeated)) + 1).tolist())
        first_line: dict[str, int] = {}
        for number, raw in numbered_lines(self.path):
            if number in suspects:
                media_id = str(json.loads(raw)[self._parts.get("media_id", "media_id")])
                first = first_line.setdefault(media_id, number)
                if first != number:
                    self._repeats += 1
                    self._note(number, f"media_id {quoted(media_id)} is also on line {first}")

    def check_count(self, expected: int | None) -> None:
        """Note a file without titles, or with another number of them than there are vectors."""
        if not self.lines:
            self._note(1, "the file has no titles")
        elif expected is not None and self.lines != expected:
            lines = f"{self.lines:,} line{'' if self.lines == 1 else 's'}"
            vectors = f"{expected:,} vectors{rows_partner(self.path)}"
            self._note(self.lines, f"the file ends after {lines}, but there are {vectors}")

    def raise_mistakes(self) -> None:
        """Raise what was found as one DataError, if anything was."""
        if not self._mistakes:
            return
        shown = "\n".join(f"{self.path}:{number}: {text}" for number, text in sorted(self._mistakes))
        count = len(self._mistakes) + self._more
        if count > 1:
            shown = f"{self.path} has {count:,} mistakes:\n{shown}"
        if self._more:
            shown += f"\n… and {self._more:,} more"
        shape = "a line is a JSON object with at least media_id and title, one for each vector"
        raise DataError(shown, fix="give every title a media_id of its own" if self._repeats == count else shape)

    def _called(self, part: str) -> str:
        return f"{self._parts[part]}, which is {part}," if part in self._parts else part

    def _note(self, number: int, text: str) -> None:
        if len(self._mistakes) < MISTAKES_SHOWN:
            self._mistakes.append((number, text))
        else:
            self._more += 1


def _is_id(value: Any) -> bool:
    return (type(value) is str and bool(value.strip())) or (type(value) is int and -INT64 <= value < INT64)


def _entry_mistakes(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if entry.get("media_id") is None:
        yield "media_id", "is missing"
    elif not _is_id(entry["media_id"]):
        yield "media_id", f"is {_json_name(entry['media_id'])}; a non-empty string or a 64-bit integer is expected"
    title = entry.get("title")
    if title is None:
        yield "title", "is missing"
    elif type(title) is not str or not title.strip():
        yield "title", f"is {_json_name(title)}; a non-empty string is expected"
    year = entry.get("year")
    if year is not None and not (type(year) is int and -INT64 <= year < INT64):
        yield "year", f"is {_json_name(year)}; an integer or null is expected"
    genres = entry.get("genres")
    if genres is not None and not (type(genres) is list and all(type(genre) is str for genre in genres)):
        yield "genres", f"is {_json_name(genres)}; a list of strings or null is expected"


def _json_name(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} ({_shortened(value)})"
    return f"{'the string ' if isinstance(value, str) else ''}{_shortened(value)}"


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
