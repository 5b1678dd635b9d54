"""Writing so that a reader, or a machine that loses power, sees the old or the new, never half of it.

Everything is written under a temporary name beside its place, flushed to the disk and then renamed.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from semrec_faiss.errors import SemrecError, StorageError
from semrec_faiss.locks import only_writer

CURRENT_NAME = "CURRENT"
"""The file of an index directory that names its generation in use."""

_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
"""What a system says where a process, or all of them, have as many files open as they may."""

_NO_SUCH_STEP = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""What file systems say, those of networks and containers above all, that flush no folders: there is nothing to do."""

_READ_BYTES = 1 << 20


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        OSError: the disk refuses, or what lies at ``path`` is not a file: a device would be replaced like one.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is not a regular file")
    recover(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w+b") as file:  # HDF5 reads what it has written
            yield file
            flush_to_disk(file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``out`` when the block ends well, and vanishes when it does not.

    What ``out`` held before is gone afterwards, so the caller asks first.

    Raises:
        UsageError: another process is making ``out``.
        OSError: the disk refuses.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        recover(out)
        partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            sync_tree(partial)
            move_over(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(out.parent)


@contextmanager
def one_run_into(out: Path) -> Iterator[None]:
    """Keep other processes from writing ``out`` for as long as a run takes that writes there at its end.

    Raises:
        UsageError: another process writes ``out``; the message names it.
        StorageError: the disk refuses.
    """
    with ExitStack() as held:
        try:
            out.resolve().parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(only_writer(out.resolve()))
        except OSError as error:
            raise StorageError(f"cannot write {out}: {error.strerror or error}", fix="name another place") from error
        yield


def recover(place: Path) -> None:
    """Mend what runs that were killed left beside ``place``: put back what stood there, remove what never got there.

    What a process that still runs has there is not touched.
    """
    if os.name == "nt":  # there, asking whether a process is alive ends it
        return
    for remains in _remains(place, ".old-"):
        if place.exists():
            _remove(remains)
        else:
            remains.rename(place)
    for remains in _remains(place, ".partial-"):
        _remove(remains)


def _remains(place: Path, kind: str) -> list[Path]:
    """The files and folders that dead processes left, the latest first; one of our own number cannot be in use."""
    names = (f"{glob.escape(place.name)}{kind}*", f".{glob.escape(place.name)}{kind}*")
    found = [path for name in names for path in place.parent.glob(name) if not _is_in_use(path)]
    return sorted(found, key=lambda path: path.lstat().st_mtime, reverse=True)


def _is_in_use(remains: Path) -> bool:
    pid = remains.name.rpartition("-")[2]
    try:
        if int(pid) == os.getpid():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError, ValueError):
        return True
    return True


def _remove(remains: Path) -> None:
    with suppress(OSError):
        if remains.is_dir() and not remains.is_symlink():
            shutil.rmtree(remains)
        else:
            remains.unlink()


def move_over(new: Path, place: Path) -> None:
    """Rename the folder ``new`` to ``place``, in one step with what is there where the system can exchange names.

    Elsewhere the old one steps aside first, and `recover` puts it back when the process is killed between the steps.
    """
    if not place.exists():
        new.rename(place)
        return
    if exchange(new, place):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = place.with_name(f"{place.name}.old-{os.getpid()}")
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where the system or its file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform.startswith("linux") else None
    if renameat2 is None:
        return False
    here, as_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), as_exchange) == 0)


def too_many_open(error: BaseException | None, path: object = None) -> StorageError | None:
    """Make the error for what could not be opened as too many files are; None where it is not that.

    Args:
        error: what was said; of a library that keeps the system's number to itself, its words are looked at.
        path: what was to be opened; None: what the error names.
    """
    while error is not None:
        for code in _TOO_MANY_OPEN:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                named = path or getattr(error, "filename", None) or "what is needed"
                return StorageError(
                    f"{named} cannot be opened: {os.strerror(code)}",
                    fix="let it have more files open at once, such as by `ulimit -n 4096`",
                )
        error = error.__cause__
    return None


def read_small(path: Path, limit: int = 1 << 20) -> bytes:
    """Read a whole regular file that can only be small; a pipe is not waited for, nor an endless device read.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than ``limit`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(min(found.st_size, limit) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes, the limit", str(path))
    return content


def save_json(path: Path, value: object, *, indent: int | None = None) -> None:
    """Write ``value`` to ``path`` as JSON in ASCII, whole or not at all; raises OSError as `new_file` does."""
    with new_file(path) as file:
        file.write(f"{json.dumps(value, indent=indent)}\n".encode())


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def flush_to_disk(file: BinaryIO) -> None:
    """Return only when what was written to ``file`` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the renames inside ``folder`` last; a system that cannot open folders (Windows) needs no such step."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_STEP:
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush to the disk what others have written to a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Flush every file and folder under ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that goes with the block; errors that leave it do not name it, as nobody knows it.

    Yields:
        it.

    Raises:
        StorageError: there is no place for it.
    """
    with filling_scratch():
        made = tempfile.TemporaryDirectory(prefix="semrec-")
    with made as name:
        try:
            yield Path(name)
        except SemrecError as error:
            known = name + os.sep
            error.message = error.message.replace(known, "")
            error.args = tuple(str(one).replace(known, "") for one in error.args)
            raise


@contextmanager
def filling_scratch() -> Iterator[None]:
    """Tell what the system refuses in the block as of temporary files, by StorageError; others may be read there."""
    try:
        yield
    except OSError as error:
        no_place = isinstance(error, FileNotFoundError) and error.filename is None  # of any that tempfile tries
        if not no_place and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise StorageError(
            f"temporary files cannot be written: {error.strerror or error}",
            fix="free room, or give the environment variable TMPDIR a folder that has some",
        ) from error
