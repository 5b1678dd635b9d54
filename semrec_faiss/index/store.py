"""The index directory: generations, digests, publish, rollback.

A build writes a new generation beside the one in use and replaces CURRENT as its last step, so that a reader sees the
old index or the new one, whole. CURRENT carries the digest of the generation's manifest and the manifest the digests of
all other files, so that no byte is believed that was not written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from semrec_faiss.errors import NotFoundError, SemrecError, StorageError, UsageError
from semrec_faiss.index.manifest import (
    MANIFEST_NAME,
    FileEntry,
    GenerationRef,
    Manifest,
    check_file,
    damaged,
    read_manifest,
    sha256_of,
)

CURRENT_NAME = "CURRENT"
_LOCK_NAME = ".lock"
_BUILDING_PREFIX = ".building-"
_CURRENT_FORM = re.compile(r"(gen-[0-9]{6,})\nsha256:([0-9a-f]{64})\n")


class Generation:
    """One whole version of an index on disk; files are held against their digests when they are first asked for."""

    def __init__(self, folder: Path, ref: GenerationRef) -> None:
        """Read the manifest; raises DamagedIndexError when it is not the one that ``ref`` names."""
        self.folder = folder / ref.name
        self.ref = ref
        self.manifest: Manifest = read_manifest(self.folder, ref.manifest_sha256)
        self._checked: set[str] = set()

    @property
    def name(self) -> str:
        """For example ``gen-000002``."""
        return self.ref.name

    def has(self, name: str) -> bool:
        """Tell whether the generation holds a file of this name."""
        return name in self.manifest.files

    def file(self, name: str) -> Path:
        """Return the path of a file whose bytes are as they were written.

        Raises:
            DamagedIndexError: they are not, or the generation has no such file.
        """
        path = self.folder / name
        if name not in self._checked:
            if name not in self.manifest.files:
                raise damaged(path, "is not part of this generation")
            check_file(path, self.manifest.files[name])
            self._checked.add(name)
        return path

    def check_all(self) -> None:
        """Hash every file anew; raises DamagedIndexError at the first that has changed."""
        self._checked.clear()
        for name in self.manifest.files:
            self.file(name)


class HashingFile:
    """A file being written, its digest and size taken from the bytes handed over, not read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``; raises OSError when the disk is full."""
        count = self._file.write(data)
        self._digest.update(data)
        self._bytes += count
        return count

    def entry(self) -> FileEntry:
        """Return the size and digest of everything written so far."""
        return FileEntry(bytes=self._bytes, sha256=self._digest.hexdigest())


class NewGeneration:
    """A generation being written; nothing of it is visible before it is published."""

    def __init__(self, folder: Path, name: str, previous: GenerationRef | None) -> None:
        self.folder = folder
        self.name = name
        self.previous = previous
        self.files: dict[str, FileEntry] = {}

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[HashingFile]:
        """Write one file through a `HashingFile`."""
        with (self.folder / name).open("wb", buffering=1 << 20) as file:
            hashing = HashingFile(file)
            yield hashing
        self.files[name] = hashing.entry()

    def adopt(self, name: str) -> None:
        """Take in a file that another library has written into the folder."""
        digest, size = sha256_of(self.folder / name)
        self.files[name] = FileEntry(bytes=size, sha256=digest)

    def finish(self, manifest: Manifest) -> GenerationRef:
        """Write the manifest, hold every file against it and bring all to the disk."""
        text = (manifest.model_dump_json(indent=1) + "\n").encode()
        _write_synced(self.folder / MANIFEST_NAME, text)
        for name, entry in self.files.items():
            check_file(self.folder / name, entry)
            _sync(self.folder / name)
        _sync(self.folder)
        return GenerationRef(name=self.name, manifest_sha256=hashlib.sha256(text).hexdigest())


class IndexDirectory:
    """An index on disk: the generation in use, the previous one, and the way from one to the next."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def current(self) -> Generation:
        """Open the generation in use.

        Raises:
            NotFoundError: there is no index here.
            DamagedIndexError: CURRENT or the manifest is not as it was written.
        """
        return Generation(self.path, self._current_ref())

    def _current_ref(self) -> GenerationRef:
        current = self.path / CURRENT_NAME
        if not self.path.is_dir() or not (current.exists() or self._generation_names()):
            state = "is no index" if self.path.exists() else "does not exist"
            raise NotFoundError(f"index {self.path} {state}", fix="semrec build CONFIG --output INDEX makes one")
        try:
            text = current.read_bytes().decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise damaged(current, f"cannot be read: {error}") from error
        match = _CURRENT_FORM.fullmatch(text)
        if match is None:
            raise damaged(current, "does not name a generation and its digest")
        return GenerationRef(name=match[1], manifest_sha256=match[2])

    def _generation_names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.glob("gen-*") if entry.is_dir())

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the directory's lock, so that one process at a time builds or rolls back.

        Raises:
            UsageError: another process holds it, or the path cannot be an index.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; an index is a directory", fix="name another --output")
        if self.path.is_dir() and not self._is_ours():
            raise UsageError(
                f"{self.path} is a directory with other content", fix="name a new or empty directory as --output"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK_NAME, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise UsageError(f"another process is writing {self.path}", fix="wait until it has finished") from error
        except OSError as error:
            raise StorageError(
                f"cannot write in {self.path}: {error.strerror or error}", fix="name another --output"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _is_ours(self) -> bool:
        names = {entry.name for entry in self.path.iterdir()}
        return not names or CURRENT_NAME in names or _LOCK_NAME in names or bool(self._generation_names())

    @contextlib.contextmanager
    def new_generation(self) -> Iterator[NewGeneration]:
        """Give a folder to write a generation into; it is removed when the block ends without `publish`.

        Hold `writing` around it. Remains of builds that were killed are removed first.

        Raises:
            StorageError: the disk is full or refuses; the generation in use stays.
        """
        for remains in self.path.glob(_BUILDING_PREFIX + "*"):
            shutil.rmtree(remains, ignore_errors=True)
        previous = self._usable_ref()
        number = 1 + max((int(name[4:]) for name in self._generation_names() if name[4:].isdigit()), default=0)
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(prefix=_BUILDING_PREFIX, dir=self.path))
            yield NewGeneration(folder, f"gen-{number:06d}", previous)
        except OSError as error:
            raise StorageError(
                f"cannot write the index in {self.path}: {error.strerror or error}; what was there before is unchanged",
                fix="free space on that disk or name another --output",
            ) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _usable_ref(self) -> GenerationRef | None:
        """The generation in use, or None when there is none or it is too damaged to be rolled back to."""
        try:
            return self.current().ref
        except SemrecError:
            return None

    def publish(self, new: NewGeneration, manifest: Manifest) -> Generation:
        """Make a written generation the one in use and drop all but it and its predecessor."""
        ref = new.finish(manifest)
        new.folder.rename(self.path / new.name)
        _sync(self.path)
        self._point_at(ref)
        keep = {new.name, new.previous.name if new.previous else ""}
        for name in self._generation_names():
            if name not in keep:
                shutil.rmtree(self.path / name, ignore_errors=True)
        return Generation(self.path, ref)

    def _point_at(self, ref: GenerationRef) -> None:
        staged = self.path / f"{CURRENT_NAME}.new"
        _write_synced(staged, f"{ref.name}\nsha256:{ref.manifest_sha256}\n".encode())
        staged.replace(self.path / CURRENT_NAME)
        _sync(self.path)

    def rollback(self) -> Generation:
        """Return to the previous generation, after holding all its files against their digests.

        Raises:
            NotFoundError: there is no index, or no previous generation.
            DamagedIndexError: the previous generation is not as it was written.
            StorageError: the disk refuses.
        """
        if not self.path.is_dir():
            self._current_ref()
        with self.writing():
            previous = self._previous_ref()
            generation = Generation(self.path, previous)
            generation.check_all()
            try:
                self._point_at(previous)
            except OSError as error:
                raise StorageError(f"cannot write in {self.path}: {error.strerror or error}") from error
            return generation

    def _previous_ref(self) -> GenerationRef:
        manifest = self.current().manifest
        if manifest.previous is None or not (self.path / manifest.previous.name).is_dir():
            raise NotFoundError(f"{self.path} has no generation before {manifest.generation} to roll back to")
        return manifest.previous


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Bring a file, or a folder's entries, to the disk; Windows has no way to sync a folder."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
