"""Whether something can be written where it is to go, asked before the work whose result it is."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from semrec_faiss.errors import StorageError, UsageError, quoted
from semrec_faiss.storage import CURRENT_NAME


class Content(NamedTuple):
    """What a file holds, and how it begins: what begins otherwise is somebody else's, and is not replaced."""

    told: str
    begins: tuple[bytes, ...]


PARQUET = Content("Parquet", (b"PAR1",))
ARROW = Content("Arrow IPC", (b"ARROW1",))
HDF5 = Content("HDF5", (b"\x89HDF",))
BUNDLE = Content("a bundle", (b"\x28\xb5\x2f\xfd",))
JSON = Content("a JSON object", (b"{",))
CONFIG = Content("a config by semrec tune or semrec pick", (b"# By `semrec tune ", b"# Chosen by `semrec pick` "))


def check_new_file(path: Path, option: str, content: Content) -> None:
    """Refuse a path that no file can be written to; a file of the same content may be there, and an empty one.

    Args:
        path: where the file is to go; folders on the way that are not there yet will be made.
        option: what the path was given as, for the message.
        content: what is to be written.

    Raises:
        UsageError: it is a directory, a device or a file of something else, or lies under a file, in an index or
            in a data folder, or cannot be a name.
        StorageError: the disk refuses.
    """
    fix = f"name another {option}"
    with _explained(path, fix):
        if path.is_dir():
            raise UsageError(f"{path} is a directory; {option} is the file to write", fix=f"{option} {path / 'NAME'}")
        if path.exists() and not path.is_file():  # it would be replaced by a file
            raise UsageError(f"{path} is neither a file nor a new name", fix=fix)
        _refuse_indexes(path.absolute().parents[:2], path, fix)
        _refuse_data_folders(path, fix)
        _try_folder(path.parent, path, fix)
        if path.exists():
            _refuse_another(path, content, fix)


def check_new_folder(path: Path, option: str) -> None:
    """Refuse a path that no folder can be made at or written in; raises as `check_new_file` does."""
    fix = f"name another {option}"
    with _explained(path, fix):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; {option} is a directory", fix=fix)
        _refuse_indexes((path.absolute(), path.absolute().parent), path, fix)
        _try_folder(path, path, fix)


def _refuse_another(path: Path, content: Content, fix: str) -> None:
    with path.open("rb") as file:
        begin = file.read(max(map(len, content.begins)))
    if begin and not begin.startswith(content.begins):
        raise UsageError(f"{path} holds something else than {content.told}", fix=f"{fix}, or remove it")


def _refuse_indexes(folders: Sequence[Path], path: Path, fix: str) -> None:
    for folder in folders:
        if (folder / CURRENT_NAME).is_file():
            told = "is an index" if folder == path.absolute() else f"lies in the index {folder}"
            raise UsageError(f"{path} {told}, whose files are its own", fix=fix)


def _refuse_data_folders(path: Path, fix: str) -> None:
    """Refuse a file of a data folder, which may be of the same content as what is written of it."""
    parts = path.resolve().parent
    if parts.name in ("media", "users") and any((parts.parent / "media").glob("metadata.*")):
        raise UsageError(f"{path} lies in the data folder {parts.parent}, whose files are its own", fix=fix)


def _try_folder(folder: Path, path: Path, fix: str) -> None:
    """Open a file without a name in the nearest folder that is there."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{path} cannot be made: {there} is a file", fix=fix)
    with tempfile.TemporaryFile(dir=there):
        pass


@contextmanager
def _explained(path: Path, fix: str) -> Iterator[None]:
    """Turn what the system says about a path into an error with a fix."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # says what `Path.exists` keeps to itself
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} cannot be written: its links lead in a circle", fix=fix) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{quoted(str(path))} cannot be written: the name is too long", fix=fix) from error
        raise StorageError(f"cannot write {path}: {error.strerror or error}", fix=fix) from error
    except ValueError as error:
        raise UsageError(f"{quoted(str(path))} cannot be written: {error}", fix=fix) from error
