"""The front of an index in shards: its users and settings are read here, titles and vectors asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.index import ShardedIndex
from semrec_faiss.cluster.searcher import ShardedSearcher
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.cluster.starting import ShardStarter
from semrec_faiss.cluster.titles import ShardedTitles
from semrec_faiss.errors import UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import ShardList, read_shards
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.titles import fields_of, parts_of
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.wish import Wish


class ShardedSaved(SavedIndex):
    """A generation of an index in shards, and the actors that answer for these."""

    def __init__(self, generation: Generation, settings: Sequence[str], shards: OpenShards) -> None:
        """Wrap a generation that lists ``shards``."""
        self._open(generation, settings)
        self.shards = shards

    def _check_kind(self, generation: Generation) -> None:
        """Any front will do."""

    @cached_property
    def vectors(self) -> ShardedIndex:
        """The vectors of all shards."""
        return ShardedIndex(self.shards, self.config.index, self.generation.manifest.dim, self.shards.opened())

    @cached_property
    def titles(self) -> ShardedTitles:
        """The titles of all shards, in row order."""
        return ShardedTitles(self.shards, fields_of(self.generation))

    @property
    def searcher(self) -> ShardedSearcher:
        """What asks the shards, at once."""
        return ShardedSearcher(self.vectors, self.titles, self.shards, parts_of(self.generation))

    def matching(self, where: str) -> Rows:
        """Return the rows of titles for which a SQL expression holds, ascending; raises UsageError for a mistake."""
        mask = self.searcher.restriction(Wish(1, Filter(where))).mask
        return np.arange(self.shards.count) if mask is None else np.flatnonzero(mask)

    def vectors_to_compare(self, rows: Rows) -> Vectors:
        """Return the vectors of ``rows``: float32 (n, dim)."""
        return self.vectors.vectors(rows)

    def start(self, before: ShardedSaved | None = None) -> None:
        """Start the actors, but for those that ``before`` has already; see `ShardStarter.start`."""
        self.starter.start(self.shards, None if before is None else before.shards)

    @property
    def starter(self) -> ShardStarter:
        """What starts the actors."""
        return ShardStarter(self.config, self.settings, self.shards.wanted)

    def opened_anew(self) -> ShardedSaved:
        """Return the same generation with nothing read yet, and without actors."""
        return ShardedSaved(self.generation, self.settings, self.shards.unopened(self.shards.listed))

    def newest(self) -> ShardedSaved | None:
        """Return the generation in use now, without actors, or None for this one; raises as `SavedIndex.newest`."""
        directory = IndexDirectory(self.generation.folder.parent)
        if directory.current_ref() == self.generation.ref:
            return None
        newest = directory.current()
        newest.trust(self.generation)
        return ShardedSaved(newest, self.settings, self.shards.unopened(listed_in(newest)))

    def __reduce__(self) -> Any:
        return _saved_again, (self.shards, self.generation.ref, self.settings)


def listed_in(generation: Generation) -> ShardList:
    """Return the shards of an index; raises UsageError where it is in one piece, and DamagedIndexError."""
    listed = read_shards(generation)
    if listed is None:
        raise UsageError(
            f"index {generation.folder.parent} is not in shards",
            fix="open it as it is, or build it with `semrec build --shards N`",
        )
    return listed


def _saved_again(shards: OpenShards, ref: GenerationRef, settings: tuple[str, ...]) -> ShardedSaved:
    return ShardedSaved(Generation(shards.index, ref), settings, shards)


def opened_front(index: Path, settings: Sequence[str], **how: Any) -> ShardedSaved:
    """Open the front in use of an index in shards, without actors.

    Args:
        index: the index directory.
        settings: search and device settings.
        how: of `OpenShards`.

    Raises:
        NotFoundError: there is no index.
        UsageError: it is not in shards.
        DamagedIndexError: a file is not as it was written.
    """
    generation = IndexDirectory(index).current()
    return ShardedSaved(generation, settings, replace(OpenShards(index, listed_in(generation), []), **how))
