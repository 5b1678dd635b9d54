"""The index directory: generations, digests, publish, rollback.

A build writes a new generation beside the one in use and replaces CURRENT as its last step, so that a reader sees the
old index or the new one, whole. CURRENT carries the digest of the generation's manifest and the manifest the digests of
all other files, so that no byte is believed that was not written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from semrec_faiss.errors import DamagedIndexError, NotFoundError, SemrecError, StorageError, UsageError, quoted
from semrec_faiss.index.generations.generation import Generation, NewGeneration, current_line, write_synced
from semrec_faiss.index.generations.manifest import GenerationRef, Manifest, damaged, own_manifest_digest, unreadable
from semrec_faiss.index.generations.shards import SHARDS_FOLDER
from semrec_faiss.kinds import indexes_near, what_instead
from semrec_faiss.locks import only_writer
from semrec_faiss.paths import as_typed
from semrec_faiss.storage import CURRENT_NAME, read_small, sync_folder

_NEAR = 3
"""Indexes that an error names."""

_STAGED_NAME = f"{CURRENT_NAME}.new"
_LOCK_NAME = ".lock"
_BUILDING_PREFIX = ".building-"
_CURRENT_FORM = re.compile(r"(gen-[0-9]{6,18})\nsha256:([0-9a-f]{64})\n")
_GENERATION_FORM = re.compile(r"gen-[0-9]{6,18}")


class IndexDirectory:
    """An index on disk: the generation in use, the previous one, and the way from one to the next."""

    def __init__(self, path: str | Path) -> None:
        """Point at ``path``, which need not exist; raises UsageError where no directory can have that name."""
        self.path = Path(path)
        try:
            os.stat(self.path)  # noqa: PTH116 - Path.exists() hides some of these errors
        except ValueError as error:
            raise UsageError(f"{quoted(str(path))} cannot be a directory: {error}") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UsageError(f"{quoted(str(path))} cannot be a directory: its name is too long") from error

    def current(self) -> Generation:
        """Open the generation in use; when builds remove it meanwhile, the one that is in use then.

        Raises:
            NotFoundError: there is no index here.
            DamagedIndexError: CURRENT or the manifest is not as it was written.
        """
        ref = self.current_ref()
        while True:
            problem = None
            try:
                generation = Generation(self.path, ref)
                if generation.is_all_there:
                    return generation
            except DamagedIndexError as error:
                problem = error
            newest = self.current_ref()
            if newest == ref:
                if problem is not None:
                    raise problem
                return generation
            ref = newest

    def current_ref(self) -> GenerationRef:
        """Name the generation in use, by CURRENT alone; raises as `current`."""
        current = self.path / CURRENT_NAME
        if not self.holds_an_index:
            raise self._no_index()
        try:
            text = read_small(current).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(current, error) from error
        match = _CURRENT_FORM.fullmatch(text)
        if match is None:
            raise damaged(current, "does not name a generation and its digest")
        return GenerationRef(name=match[1], manifest_sha256=match[2])

    def _no_index(self) -> NotFoundError:
        if not self.path.exists():
            return NotFoundError(
                f"index {self.path} does not exist", fix=f"semrec build CONFIG --output {as_typed(self.path)} makes one"
            )
        if (given := what_instead(self.path, "index")) is not None:
            return NotFoundError(f"{given.told}, not an index", fix=given.fix)
        fix = "semrec build CONFIG --output INDEX makes one"
        if near := indexes_near(self.path):
            fix = f"give an index near it: {', '.join(map(as_typed, near[:_NEAR]))}{', …' * (len(near) > _NEAR)}"
        return NotFoundError(f"{self.path} is not an index directory", fix=fix)

    @property
    def holds_an_index(self) -> bool:
        """Whether there is one, damaged or not."""
        return self.path.is_dir() and ((self.path / CURRENT_NAME).exists() or bool(self._generation_names()))

    def _generation_names(self) -> list[str]:
        """The generations on disk, oldest first; nothing else that somebody may have put beside them."""
        folders = [entry for entry in self.path.glob("gen-*") if _GENERATION_FORM.fullmatch(entry.name)]
        names = [entry.name for entry in folders if entry.is_dir()]
        return sorted(names, key=lambda name: int(name[4:]))

    @contextlib.contextmanager
    def writing(self, wait: float = 0) -> Iterator[None]:
        """Hold the directory's lock, so that one process at a time builds, updates or rolls back.

        Args:
            wait: seconds for another process to end.

        Raises:
            UsageError: another process holds it still, or the path cannot be an index.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; an index is a directory", fix="name another --output")
        if self.path.is_dir() and not self._is_ours():
            raise UsageError(
                f"{self.path} is a directory with other content", fix="name a new or empty directory as --output"
            )
        within = self.path.absolute().parent
        if (within / CURRENT_NAME).is_file():  # which would remove it as a generation that is no longer needed
            raise UsageError(
                f"{self.path} lies in the index {within}, whose files are its own", fix="name another --output"
            )
        made = [folder for folder in (self.path, *self.path.absolute().parents) if not folder.exists()]
        with contextlib.ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(only_writer(self.path, self.path / _LOCK_NAME, wait=wait))
            except (NotADirectoryError, FileExistsError) as error:
                raise UsageError(
                    f"{self.path} cannot be made: it lies under a file", fix="name another --output"
                ) from error
            except OSError as error:
                raise StorageError(
                    f"cannot write in {self.path}: {error.strerror or error}",
                    fix="let this user write there, or take another directory",
                ) from error
            if made:
                held.callback(self._remove_if_unused, made)
            yield

    def _remove_if_unused(self, made: list[Path]) -> None:
        """Remove the folders that were made for an index of which nothing came; the lock is still held."""
        with contextlib.suppress(OSError):  # another process put something there, or the system keeps a held lock
            if {entry.name for entry in self.path.iterdir()} == {_LOCK_NAME}:
                (self.path / _LOCK_NAME).unlink()
                for folder in made:
                    folder.rmdir()

    def _is_ours(self) -> bool:
        """Tell an index, whole or damaged, and an empty folder from everything else."""
        if self._generation_names():
            return True
        names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(_BUILDING_PREFIX)}
        return names <= {_LOCK_NAME, _STAGED_NAME, SHARDS_FOLDER}

    @contextlib.contextmanager
    def new_generation(self, previous: GenerationRef | None = None) -> Iterator[NewGeneration]:
        """Give a folder to write a generation into; it is removed when the block ends without `publish`.

        Hold `writing` around it. Remains of builds that were killed are removed first.

        Args:
            previous: what a rollback returns to; by default the generation in use.

        Raises:
            StorageError: the disk is full or refuses; the generation in use stays.
        """
        for remains in self.path.glob(_BUILDING_PREFIX + "*"):
            shutil.rmtree(remains, ignore_errors=True)
        previous = previous or self._usable_ref()
        number = 1 + max((int(name[4:]) for name in self._generation_names()), default=0)
        folder: Path | None = None
        try:
            folder = self.path / f"{_BUILDING_PREFIX}{secrets.token_hex(8)}"
            folder.mkdir()
            yield NewGeneration(folder, f"gen-{number:06d}", previous)
        except OSError as error:
            raise StorageError(
                f"cannot write the index in {self.path}: {error.strerror or error}; what was there before is unchanged",
                fix="free space on that disk, or take another directory",
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
        """Make a written generation the one in use.

        Kept are it, its predecessor, the one before titles or users were changed last, and what was last rolled back.
        """
        ref = new.finish(manifest)
        place = self.path / new.name
        new.folder.rename(place)
        try:
            sync_folder(self.path)
            self._point_at(ref)
        except OSError:
            if self._usable_ref() != ref:
                shutil.rmtree(place, ignore_errors=True)
            raise
        self._remove_all_but(new.name, new.previous, manifest.before_change)
        return Generation(self.path, ref)

    def _remove_all_but(self, name: str, previous: GenerationRef | None, before_change: GenerationRef | None) -> None:
        """Drop old generations; what is newer than the predecessor was rolled back, and the latest of it stays."""
        kept, names = {name, *([] if before_change is None else [before_change.name])}, self._generation_names()
        if previous is not None:
            newer = names[names.index(previous.name) + 1 : names.index(name)]
            rolled_back = [other for other in newer if isinstance(self._opened(other), Generation)]
            kept |= {previous.name, *rolled_back[-1:]}
        for old in names:
            if old not in kept:
                shutil.rmtree(self.path / old, ignore_errors=True)

    def _point_at(self, ref: GenerationRef) -> None:
        staged = self.path / _STAGED_NAME
        try:
            write_synced(staged, current_line(ref))
            staged.replace(self.path / CURRENT_NAME)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        sync_folder(self.path)

    def generations(self) -> dict[str, Generation | DamagedIndexError]:
        """Return every generation on disk by name, oldest first; for one that cannot be read, what is wrong with it.

        Raises:
            NotFoundError: there is no index here.
        """
        if not self._generation_names():
            self.current_ref()
        return {name: self._opened(name) for name in self._generation_names()}

    def named(self, name: str) -> Generation:
        """Return a generation that is kept; raises NotFoundError and DamagedIndexError as `rollback` does."""
        return Generation(self.path, self._named_ref(name))

    def _opened(self, name: str) -> Generation | DamagedIndexError:
        try:
            return Generation(self.path, self._ref_of(name))
        except DamagedIndexError as error:
            return error

    def _ref_of(self, name: str) -> GenerationRef:
        return GenerationRef(name=name, manifest_sha256=own_manifest_digest(self.path / name))

    def rollback(self, to: str | None = None) -> Generation:
        """Return to another generation, after holding all its files against their digests.

        Args:
            to: its name; None takes the one before the generation in use.

        Raises:
            NotFoundError: there is no index, or no such generation.
            DamagedIndexError: that generation is not as it was written.
            StorageError: the disk refuses.
        """
        if not self.path.is_dir() or not self._generation_names():
            self.current_ref()
        with self.writing():
            previous = self._previous_ref() if to is None else self._named_ref(to)
            generation = Generation(self.path, previous)
            generation.check_all()
            try:
                self._point_at(previous)
            except OSError as error:
                raise StorageError(f"cannot write in {self.path}: {error.strerror or error}") from error
            return generation

    def _named_ref(self, name: str) -> GenerationRef:
        names = self._generation_names()
        if name not in names:
            raise NotFoundError(
                f"{self.path} has no generation {quoted(name)}",
                fix=f"it has {', '.join(names)}: `semrec info {as_typed(self.path)} --all` shows them",
                candidates=tuple(names),
            )
        return self._ref_of(name)

    def _previous_ref(self) -> GenerationRef:
        """Name the generation before the one in use, or, where that cannot be read, the one before the newest."""
        try:
            manifest = self.current().manifest
        except DamagedIndexError:
            return self._ref_before_newest()
        previous, before_change = manifest.previous, self.before_change(manifest)
        if previous is None or not (self.path / previous.name).is_dir():
            index = as_typed(self.path)
            fix = f"`semrec rollback {index} --to NAME` takes any that `semrec info {index} --all` lists"
            if len(self._generation_names()) == 1:
                fix = "it is the only one there is: build or update the index again"
            if before_change is not None:
                command = self.command_to(before_change)
                fix = f"to go back to before its titles and users were changed last: {command}"
            raise NotFoundError(
                f"{self.path} has no generation before {self.current_ref().name} to roll back to", fix=fix
            )
        return previous

    def before_change(self, manifest: Manifest) -> GenerationRef | None:
        """Name the generation before a change that was appended to, or compacted, where it is still kept."""
        ref = manifest.before_change
        return ref if ref is not None and (self.path / ref.name).is_dir() else None

    def command_to(self, ref: GenerationRef) -> str:
        """Spell the command that returns to a generation."""
        return shlex.join(["semrec", "rollback", str(self.path), "--to", ref.name])

    def _ref_before_newest(self) -> GenerationRef:
        names = self._generation_names()
        with contextlib.suppress(DamagedIndexError):
            names = [name for name in names if int(name[4:]) <= int(self.current_ref().name[4:])]
        if len(names) < 2:
            raise NotFoundError(f"{self.path} has no generation before its damaged one to roll back to")
        return self._ref_of(names[-2])
