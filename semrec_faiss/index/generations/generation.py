"""One generation of an index: its files held against their digests, and a new one being written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.generations.held_files import HeldFiles
from semrec_faiss.index.generations.manifest import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_NAME,
    FileEntry,
    GenerationRef,
    Manifest,
    check_file,
    check_manifest_digest,
    check_size,
    damaged,
    manifest_digest_line,
    read_manifest,
)
from semrec_faiss.storage import flush_to_disk, sha256_of_file, sync_file, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa


_ROW_GROUP = 131_072
"""Rows of a Parquet file's groups, which several threads share the reading of."""


class Generation:
    """One whole version of an index on disk; files are held against their digests when they are first asked for.

    Its files stay readable for as long as it lives, whatever later builds remove.

    Attributes:
        for_now: whether it is no index on disk that others may open or change: it goes with this object.
    """

    for_now = False

    def __init__(self, folder: Path, ref: GenerationRef) -> None:
        """Read the manifest and open the files; raises DamagedIndexError when ``ref`` names another manifest."""
        self.folder = folder.absolute() / ref.name
        self.ref = ref
        self.manifest: Manifest = read_manifest(self.folder, ref.manifest_sha256)
        self._held = HeldFiles(self.folder, self.manifest.files)
        self._checked: set[str] = set()

    @classmethod
    def staged(cls, new: NewGeneration, manifest: Manifest) -> Generation:
        """Look at a generation that is being written as if ``manifest``, of what is there already, were its own."""
        generation = object.__new__(cls)
        generation.folder = new.folder
        generation.ref = GenerationRef(name=new.name, manifest_sha256=_text_of(manifest)[1])
        generation.manifest = manifest
        generation._held = new.held()
        generation._checked = set()
        return generation

    def trust(self, other: Generation) -> None:
        """Take for checked what ``other``, which is open, has checked of the files that both share on the disk."""
        for name in other._checked & self.manifest.files.keys():
            same = self.manifest.files[name] == other.manifest.files[name]
            if same and self._held.is_same(name, other._held):
                self._checked.add(name)

    @property
    def is_all_there(self) -> bool:
        """Whether every file could be opened: not so when it was removed by a build while it was opened."""
        return self._held.all_there

    @property
    def name(self) -> str:
        """For example ``gen-000002``."""
        return self.ref.name

    @property
    def in_short(self) -> str:
        """Where it is, its type and its sizes."""
        its = self.manifest
        return f"{self.folder}: {its.config.index.type}, {its.count} titles of {its.dim} dimensions, {its.users} users"

    @property
    def bytes(self) -> int:
        """What its files take on the disk."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def has(self, name: str) -> bool:
        """Tell whether the generation holds a file of this name."""
        return name in self.manifest.files

    def file(self, name: str) -> Path:
        """Return a path by which a file is read whose bytes are as they were written; it need not bear its name.

        Raises:
            DamagedIndexError: they are not, or the generation has no such file.
            NotFoundError: later builds have removed the whole generation, on a system that keeps no removed files.
        """
        held = self._path(name)
        if name not in self._checked:
            check_file(self.folder / name, self.manifest.files[name], held)
            self._checked.add(name)
        return held

    def mapped(self, name: str) -> Path:
        """Return a path, as `file` does, of a file of the right size, whose reader holds each part against a sum.

        Raises:
            DamagedIndexError: it is missing or of another size, or the generation has no such file.
            NotFoundError: as `file`.
        """
        held = self._path(name)
        check_size(self.folder / name, self.manifest.files[name], held)
        return held

    def _path(self, name: str) -> Path:
        """Return the path by which a file is read."""
        if name not in self.manifest.files:
            raise damaged(self.folder / name, "is not part of this generation")
        held = self._held.path(name)
        if held is None and not self.folder.is_dir() and self.folder.parent.is_dir():
            raise NotFoundError(
                f"{self.name} of {self.folder.parent} was removed by later builds after it was opened",
                fix="open the index again",
            )
        return held or self.folder / name

    def check_all(self) -> None:
        """Hash every file anew; raises DamagedIndexError at the first that has changed."""
        self._checked.clear()
        check_manifest_digest(self.folder, self.ref.manifest_sha256)
        for name in self.manifest.files:
            self.file(name)


class HashingFile:
    """A file being written, its digest and size taken from the bytes handed over, not read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all bytes of ``data``; raises OSError when the disk is full."""
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
        self._linked: set[str] = set()

    def path(self, name: str) -> Path:
        """Return where one of its files is written, and then read."""
        return self.folder / name

    def held(self) -> HeldFiles:
        """Return its files as somebody holds them who reads them."""
        return HeldFiles(self.folder, self.files)

    def link(self, generation: Generation, name: str) -> None:
        """Take in a file of another generation as it is, with its digest, by a hard link.

        Where the file system refuses links it is copied.

        Raises:
            DamagedIndexError: it is missing or of another size.
            OSError: the disk is full or refuses.
        """
        held = generation.mapped(name)
        try:
            os.link(generation.folder / name, self.folder / name)
            self._linked.add(name)
        except OSError:
            shutil.copyfile(held, self.folder / name)
        self.files[name] = generation.manifest.files[name]

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[HashingFile]:
        """Write one file through a `HashingFile`."""
        with self.path(name).open("wb", buffering=1 << 20) as file:
            hashing = HashingFile(file)
            yield hashing
        self.files[name] = hashing.entry()

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as a Parquet file; raises OSError when the disk is full."""
        import pyarrow.parquet as pq

        with self.path(name).open("wb") as file:  # of Python's, whose errors come out as they are
            pq.write_table(table, file, compression="zstd", use_dictionary=False, row_group_size=_ROW_GROUP)
        self.adopt(name)

    def adopt(self, name: str) -> None:
        """Take in a file that another library has written at `path`."""
        path = self.path(name)
        self.files[name] = FileEntry(bytes=path.stat().st_size, sha256=sha256_of_file(path))

    def finish(self, manifest: Manifest) -> GenerationRef:
        """Write the manifest, hold every file written here against it and bring all to the disk."""
        text, digest = _text_of(manifest)
        write_synced(self.folder / MANIFEST_NAME, text)
        write_synced(self.folder / MANIFEST_DIGEST_NAME, manifest_digest_line(digest))
        for name, entry in self.files.items():
            if name not in self._linked:  # which another generation has on the disk already
                check_file(self.folder / name, entry)
                sync_file(self.folder / name)
        sync_folder(self.folder)
        return GenerationRef(name=self.name, manifest_sha256=digest)


def current_line(ref: GenerationRef) -> bytes:
    """Return what CURRENT holds where this generation is in use."""
    return f"{ref.name}\nsha256:{ref.manifest_sha256}\n".encode()


def _text_of(manifest: Manifest) -> tuple[bytes, str]:
    text = (manifest.model_dump_json(indent=1) + "\n").encode()
    return text, hashlib.sha256(text).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and bring it to the disk; raises OSError when the disk refuses."""
    with path.open("wb") as file:
        file.write(data)
        flush_to_disk(file)
