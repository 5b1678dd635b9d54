"""Which shards an index in shards has: the list that its generation holds in the place of vectors and titles."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from semrec_faiss.arrays import Rows
from semrec_faiss.errors import DamagedIndexError, StorageError
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import GenerationRef, Manifest, read_manifest, unreadable

SHARDS_LIST = "shards.json"
"""The file of a generation that has no vectors and titles of its own."""

SHARDS_FOLDER = "shards"
"""Where in the index directory they lie, a folder a generation."""


UNEVEN = 1.5
"""From so many times the mean on the largest shard is told: every question waits for it, and its machine holds it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Record):
    """Where a shard lies.

    Attributes:
        node: the address of the machine whose disk holds it; None for storage that all machines share.
        generation: what was built there, with the digest of its manifest.
    """

    node: str | None
    generation: GenerationRef


class Shard(_Record):
    """An index of a range of titles.

    Attributes:
        folder: its index directory, relative to that of the whole.
        first: the row of its first title in the whole.
        titles: how many it has.
        places: where it lies; of several, each is whole.
    """

    folder: str
    first: int
    titles: int
    places: tuple[Place, ...]

    def manifest(self, index: Path) -> Manifest | None:
        """Return its manifest, where a disk that this machine sees has it as it was written; None elsewhere.

        Args:
            index: the directory of the whole.
        """
        for place in self.places:
            with contextlib.suppress(DamagedIndexError, StorageError):
                return read_manifest(index / self.folder / place.generation.name, place.generation.manifest_sha256)
        return None


class ShardList(_Record):
    """All shards, in row order."""

    shards: tuple[Shard, ...]

    @property
    def starts(self) -> Rows:
        """The first row of each shard, and the number of titles: int64 (shards + 1,)."""
        return np.array([*(shard.first for shard in self.shards), self.count], dtype=np.int64)

    @property
    def count(self) -> int:
        """How many titles all of them have."""
        return sum(shard.titles for shard in self.shards)

    @property
    def uneven(self) -> str | None:
        """What is to be told of a shard that has grown far beyond the others; None where none has."""
        largest = max(range(len(self.shards)), key=lambda at: self.shards[at].titles)
        titles, mean = self.shards[largest].titles, self.count / len(self.shards)
        if titles <= UNEVEN * mean:
            return None
        return (
            f"shard {largest} of {len(self.shards)} has {titles:,} of {self.count:,} titles, {titles / mean:.1f} times"
            f" the mean, and every question waits for it: {self._evening} divides them anew"
        )

    @property
    def even_starts(self) -> Rows:
        """The first row of each of as many shards of as many titles each, and the number of titles: int64."""
        return np.linspace(0, self.count, min(len(self.shards), self.count) + 1).astype(np.int64)

    @property
    def can_be_divided(self) -> bool:
        """Whether titles can be divided anew from shards as they lie.

        On a disk of its own the shard that is there is changed: what stays of it comes before what comes from others.
        """
        lies_apart = any(place.node is not None for shard in self.shards for place in shard.places)
        starts = self.even_starts[:-1]
        return not lies_apart or bool((self.starts[: len(starts)] <= starts).all())

    @property
    def _evening(self) -> str:
        return "`semrec compact`" if self.can_be_divided else "a build of all data"

    def as_json(self) -> bytes:
        """Return the file's content."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()


def read_shards(generation: Generation) -> ShardList | None:
    """Read the list of an index in shards; None for an index of one piece.

    Raises:
        DamagedIndexError: it is not as it was written, or its shards are not the titles that the manifest counts.
    """
    if not generation.has(SHARDS_LIST):
        return None
    path: Path = generation.file(SHARDS_LIST)
    try:
        found = ShardList.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise unreadable(generation.folder / SHARDS_LIST, error) from error
    if (
        found.count != generation.manifest.count
        or (np.diff(found.starts) != [one.titles for one in found.shards]).any()
    ):
        raise DamagedIndexError(
            f"{SHARDS_LIST} lists {found.count} titles, the manifest says {generation.manifest.count}",
            fix="build the index again",
        )
    return found
