"""A generation in memory, for an index that lives as long as an object does."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.held_files import HeldFiles


class NewGenerationInMemory(NewGeneration):
    """A generation being written into anonymous memory: no folder has its files, and they go with who holds them."""

    def __init__(self) -> None:
        """Begin one without files; only where `HeldFiles.can_create`."""
        super().__init__(Path("in memory", "gen-000001"), "gen-000001", None)
        self._made = HeldFiles(self.folder, ())

    def path(self, name: str) -> Path:
        """Return the path by which this process writes and reads a file, which is made when it is first asked for."""
        return self._made.path(name) or self._made.create(name)

    def held(self) -> HeldFiles:
        """Return its files."""
        return self._made
