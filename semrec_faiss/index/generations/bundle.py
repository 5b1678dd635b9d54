"""One generation of an index as one file, .tar.zst, and back: nothing is put in place that is not as it was written.

The first member is BUNDLE.json: which generation it is, which versions made it, and the size and SHA-256 of each of the
members that follow. What is unpacked is held against it while it is read, so that a bundle cannot write anywhere else,
nor more than it says.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semrec_faiss._version import __version__
from semrec_faiss.errors import DamagedIndexError, NotFoundError, StorageError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, write_synced
from semrec_faiss.index.generations.manifest import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_NAME,
    MOST_BYTES,
    FileEntry,
    GenerationRef,
    manifest_digest_line,
)
from semrec_faiss.paths import refuse_special
from semrec_faiss.places import BUNDLE, check_new_file, check_new_folder
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import CURRENT_NAME, new_file, new_folder, one_run_into

BUNDLE_NAME = "BUNDLE.json"
ENDING = ".tar.zst"

_BLOCK = tarfile.BLOCKSIZE
_READ_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OWN = {MANIFEST_NAME, MANIFEST_DIGEST_NAME}


class Bundle(BaseModel):
    """What BUNDLE.json says.

    Attributes:
        format: 1.
        generation: the name of the generation.
        manifest_sha256: of its MANIFEST.json.
        semrec_version: what bundled it.
        faiss_version: what built it.
        files: size and digest by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    generation: str = Field(pattern=r"^gen-[0-9]{6,18}$")
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    semrec_version: str
    faiss_version: str
    files: dict[str, FileEntry]

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(entry.bytes for entry in self.files.values())


def bundle_index(index: Path, out: Path, progress: Progress = silent) -> Bundle:
    """Pack the generation that is in use; each file is held against its digest as it is read.

    Args:
        index: the index directory.
        out: the file, which ends in .tar.zst; it appears only when it is whole.
        progress: told the bytes packed.

    Raises:
        NotFoundError: there is no index.
        DamagedIndexError: a file is not as it was written.
        UsageError, StorageError: ``out`` cannot be written.
    """
    import pyarrow as pa

    if not out.name.endswith(ENDING):
        raise UsageError(f"{out} does not end in {ENDING}", fix=f"name it {out.name.split('.')[0]}{ENDING}")
    check_new_file(out, "OUT", BUNDLE)
    generation = IndexDirectory(index).current()
    manifest = (generation.folder / MANIFEST_NAME).read_bytes()
    small = {MANIFEST_NAME: manifest, MANIFEST_DIGEST_NAME: manifest_digest_line(generation.ref.manifest_sha256)}
    files = {name: _entry(content) for name, content in small.items()} | generation.manifest.files
    found = Bundle(
        format=1,
        generation=generation.name,
        manifest_sha256=generation.ref.manifest_sha256,
        semrec_version=__version__,
        faiss_version=generation.manifest.faiss_version,
        files=files,
    )
    if files[MANIFEST_NAME].sha256 != generation.ref.manifest_sha256:
        raise DamagedIndexError(f"{generation.folder / MANIFEST_NAME} has changed since it was written")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            one_run_into(out),
            new_file(out) as file,
            pa.CompressedOutputStream(_LeftOpen(file), "zstd") as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
        ):
            _add(tar, BUNDLE_NAME, io.BytesIO(found.model_dump_json(indent=1).encode()))
            for name, content in small.items():
                _add(tar, name, io.BytesIO(content))
            _add_files(tar, generation, progress)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return found


class _LeftOpen(io.RawIOBase):
    """A file that is not closed together with what writes into it: it is still to be synced and put in place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return self._file.write(data)


def _entry(content: bytes) -> FileEntry:
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _add_files(tar: tarfile.TarFile, generation: Generation, progress: Progress) -> None:
    done = 0
    for name, entry in generation.manifest.files.items():
        with generation.file(name).open("rb") as file:
            _add(tar, name, file)
        done += entry.bytes
        progress("bundling", done, generation.bytes)


def _add(tar: tarfile.TarFile, name: str, file: BinaryIO) -> None:
    member = tarfile.TarInfo(name)
    member.size = file.seek(0, 2)
    file.seek(0)
    tar.addfile(member, file)


def unbundle_index(file: Path, out: Path, progress: Progress = silent) -> Bundle:
    """Unpack a bundle to a new index directory, which appears only when every digest is right.

    Args:
        file: as `bundle_index` writes it.
        out: the index directory; there must be none, or an empty one.
        progress: told the bytes unpacked.

    Raises:
        NotFoundError: there is no such file.
        DamagedIndexError: it is no bundle, holds what it should not, or is not as it was written; nothing is made.
        UsageError: ``out`` exists and is not empty.
        StorageError: the disk is too small or refuses.
    """
    refuse_special(file, "a bundle")
    if not file.is_file():
        raise NotFoundError(f"there is no bundle {file}", fix="semrec bundle INDEX OUT.tar.zst makes one")
    check_new_folder(out, "OUT")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out} exists and is not empty", fix="name a new directory, and move it over the old one then"
        )
    try:
        with _Members(file) as members, new_folder(out) as folder:
            found = members.bundle()
            _check_space(found, folder)
            (folder / found.generation).mkdir()
            _unpack(found, members, folder / found.generation, progress)
            ref = GenerationRef(name=found.generation, manifest_sha256=found.manifest_sha256)
            manifest = Generation(folder, ref).manifest
            if {**manifest.files} != {name: entry for name, entry in found.files.items() if name not in _OWN}:
                raise _damaged(file, "does not hold the files that its manifest names")
            write_synced(folder / CURRENT_NAME, f"{ref.name}\nsha256:{ref.manifest_sha256}\n".encode())
    except OSError as error:
        raise _cannot_write(out, error) from error
    return found


def _cannot_write(out: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {out}: {error.strerror or error}", fix="free space or name another")


def _check_space(found: Bundle, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if found.bytes > free:
        raise StorageError(
            f"the bundle says that it holds {found.bytes:,} bytes; the disk has {free:,} free",
            fix="free space, or name a directory on another disk",
        )


def _unpack(found: Bundle, members: _Members, folder: Path, progress: Progress) -> None:
    """Write each file that is named, once, of the size and digest that it must have."""
    done = 0
    waiting = dict(found.files)
    while (header := members.next_header()) is not None:
        name, size = header
        entry = waiting.pop(name, None)
        if entry is None:
            raise members.damaged(f"holds {name!r}, which it does not name, or twice")
        if size != entry.bytes:
            raise members.damaged(f"says that {name} has {entry.bytes:,} bytes and then {size:,}")
        digest = hashlib.sha256()
        with (folder / name).open("xb") as file:
            for block in members.content(size):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != entry.sha256:
            raise members.damaged(f"holds a {name} that is not as it was written: its SHA-256 differs")
        done += size
        progress("unbundling", done, found.bytes)
    if waiting:
        raise members.damaged(f"ends before {', '.join(sorted(waiting))}")


class _Members:
    """Reads a bundle member by member; only plain files with plain names are let through."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Members:
        import pyarrow as pa

        self._raw = pa.OSFile(str(self._path))
        self._stream = pa.CompressedInputStream(self._raw, "zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def damaged(self, what: str) -> DamagedIndexError:
        return _damaged(self._path, what)

    def bundle(self) -> Bundle:
        """Read BUNDLE.json, the first member."""
        header = self.next_header()
        if header is None or header[0] != BUNDLE_NAME or header[1] > MOST_BYTES:
            raise self.damaged("is no bundle of an index")
        try:
            found = Bundle.model_validate_json(b"".join(self.content(header[1])))
        except ValidationError as error:
            raise self.damaged("is no bundle that this version of semrec reads") from error
        odd = [name for name in found.files if not _NAME.fullmatch(name)]
        if odd or found.format != 1 or not found.files.keys() >= _OWN or any(e.bytes < 0 for e in found.files.values()):
            raise self.damaged(f"names {odd[0]!r}, which is no plain file" if odd else "is of another format")
        return found

    def next_header(self) -> tuple[str, int] | None:
        """Return the next member's name and size; None at the end."""
        block = self._read(_BLOCK)
        if not block.strip(b"\0"):
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, UnicodeError, ValueError) as error:
            raise self.damaged("is no tar archive") from error
        if member.type != tarfile.REGTYPE:
            raise self.damaged(f"holds {member.name!r}, which is a link, a folder or the like")
        if not _NAME.fullmatch(member.name) or member.size < 0:
            raise self.damaged(f"holds {member.name!r}, which is no plain name of a file")
        return member.name, member.size

    def content(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of the member whose header was read, and pass what fills its last block."""
        for first in range(0, size, _READ_BYTES):
            yield self._read(min(_READ_BYTES, size - first))
        if size % _BLOCK:
            self._read(_BLOCK - size % _BLOCK)

    def _read(self, size: int) -> bytes:
        try:
            found: bytes = self._stream.read(size)
        except OSError as error:
            raise self.damaged(f"cannot be unpacked: {error}") from error
        if len(found) != size:
            raise self.damaged("ends in the middle")
        return found


def _damaged(file: Path, what: str) -> DamagedIndexError:
    return DamagedIndexError(f"{file} {what}; nothing was unpacked", fix="copy it again, or bundle the index again")
