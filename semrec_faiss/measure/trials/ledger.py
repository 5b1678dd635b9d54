"""The ledger of a sweep: a line of JSON a trial, only ever appended to, each line on the disk before the next begins.

A process that is killed while it writes leaves a last line without an end. It is no record: readers pass over it and
the next writer cuts it off. Anything else that is not a record, whole and sound, is damage and an error.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Literal, Protocol, TypeVar, cast

from pydantic import TypeAdapter

from semrec_faiss.errors import DataError, NotFoundError, StorageError
from semrec_faiss.locks import only_writer
from semrec_faiss.measure.documents.fields import Unsound, checked
from semrec_faiss.storage import flush_to_disk, read_small, sync_folder

LEDGER = "trials.jsonl"

_MOST_BYTES = 1 << 30
"""More than the records of a hundred thousand trials take."""


class AnyRecord(Protocol):
    """The record of a trial of whatever kind."""

    digest: str

    @property
    def status(self) -> Literal["measured", "failed"]:
        """What became of it."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a line of the ledger holds it."""


TrialRecord = TypeVar("TrialRecord", bound=AnyRecord)


def read_ledger(path: Path, kind: TypeAdapter[TrialRecord]) -> dict[str, TrialRecord]:
    """Read the latest record of every trial, by digest, in the order in which trials were first measured.

    Args:
        path: of the ledger.
        kind: what its records are.

    Raises:
        NotFoundError: there is no such file.
        DataError: a line that ends is not a record of a trial; the message names line and field.
    """
    try:
        content = read_small(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no ledger {path}", fix="run `semrec sweep` first") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    records: dict[str, TrialRecord] = {}
    for number, line in enumerate(content[: _whole_bytes(content)].splitlines(), start=1):
        try:
            record = checked(kind, _parse(line))
        except Unsound as mistake:
            raise DataError(
                f"{path}:{number} is not a record of a trial: {mistake}", fix="remove the line; its trial runs again"
            ) from None
        records[record.digest] = record
    return records


def _whole_bytes(content: bytes) -> int:
    """Return how many bytes the lines that end take."""
    return content.rfind(b"\n") + 1


def _parse(line: bytes) -> object:
    try:
        return json.loads(line, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return None


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands there twice")
    return made


class Ledger(Generic[TrialRecord]):
    """Appends records to a file that no other process appends to meanwhile; used in a ``with`` block.

    Attributes:
        records: the latest of every trial by digest, those appended since included.
    """

    def __init__(self, folder: Path, kind: TypeAdapter[TrialRecord]) -> None:
        self._folder = folder
        self._kind = kind
        self._path = folder / LEDGER
        self._file: io.FileIO | None = None
        self.records: dict[str, TrialRecord] = {}

    def __enter__(self) -> Ledger[TrialRecord]:
        """Lock the folder, read what is there and cut off a torn last line.

        Raises:
            UsageError: another process writes it.
            StorageError: the folder cannot be made or written.
            DataError: the ledger is damaged.
        """
        with ExitStack() as held:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(only_writer(self._folder, self._folder / ".lock"))
            except OSError as error:
                raise StorageError(f"cannot write {self._folder}: {error.strerror or error}") from error
            self._open()
            self._held = held.pop_all()
        return self

    def _open(self) -> None:
        try:
            self._path.touch()
            content = read_small(self._path, _MOST_BYTES)
            whole = _whole_bytes(content)
            if whole < len(content):
                os.truncate(self._path, whole)
            self._file = self._path.open("ab", buffering=0)
            sync_folder(self._folder)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
        self.records = read_ledger(self._path, self._kind)

    def append(self, record: TrialRecord) -> None:
        """Append a record; it is on the disk when this returns.

        Raises:
            StorageError: the disk is full or refuses; what was written of the line is taken back.
        """
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        line = json.dumps(record.as_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        start = self._file.tell()
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            flush_to_disk(cast(BinaryIO, self._file))
        except OSError as error:
            os.truncate(self._path, start)
            raise StorageError(
                f"cannot append to {self._path}: {error.strerror or error}", fix="free disk space; run the sweep again"
            ) from error
        self.records[record.digest] = record

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._held:
            if self._file is not None:
                try:
                    self._file.close()
                except OSError as failure:
                    if error is None:
                        raise StorageError(f"cannot write {self._path}: {failure.strerror or failure}") from failure
