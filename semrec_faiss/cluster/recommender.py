"""ClusterRecommender: the questions of a `Recommender`, answered by the shards of an index together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.connection import OWN, SCHEME, connect, split_address
from semrec_faiss.cluster.index import ShardedIndex
from semrec_faiss.cluster.searcher import ShardedSearcher
from semrec_faiss.cluster.shards import PATIENCE_SECONDS, OpenShards, start_shards
from semrec_faiss.cluster.titles import ShardedTitles
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.shards import read_shards
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.titles import fields_of, parts_of
from semrec_faiss.search.arguments import names_of
from semrec_faiss.search.batching.asked import Searches
from semrec_faiss.search.likeness import Block
from semrec_faiss.search.living.opened import Opened
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish


class ShardedSaved(SavedIndex):
    """The front of an index in shards: its users and settings are read here, titles and vectors asked for."""

    def __init__(self, generation: Generation, settings: Sequence[str], shards: OpenShards) -> None:
        """Wrap a generation that lists ``shards``, which are open."""
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

    def __reduce__(self) -> Any:
        return _saved_again, (self.shards, self._overrides)


def _saved_again(shards: OpenShards, settings: tuple[str, ...]) -> ShardedSaved:
    return ShardedSaved(IndexDirectory(shards.index).current(), settings, shards)


class ShardedOpened(Opened):
    """The front of an index in shards and its actors."""

    saved: ShardedSaved
    searcher: ShardedSearcher

    def searcher_by(self, batcher: Searches | None) -> ShardedSearcher:
        """Return what asks the shards, at once."""
        saved = self.saved
        return ShardedSearcher(saved.vectors, saved.titles, saved.shards, parts_of(saved.generation))

    def alike(self, row: int, by: Block, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the titles whose cosine to one is the greatest, in all shards."""
        shards = self.saved.shards
        asked = shards.ask(int(shards.shards_of(np.array([row]))[0]), "asked_of", row, by)
        return self.searcher.alike(asked, wish, exclusions)

    def rank(self, query: Vectors, row: int, left_out: Rows) -> int:
        """Return the place of a title among those of all shards."""
        shards, starts = self.saved.shards, self.saved.shards.listed.starts.tolist()
        score = shards.ask(int(shards.shards_of(np.array([row]))[0]), "score", query, row)
        mine = [left_out[(left_out >= first) & (left_out < last)] - first for first, last in pairwise(starts)]
        before = shards.ask_each("before", {at: (query, row, score, own) for at, own in enumerate(mine)})
        return 1 + int(sum(before.values()))


class ClusterRecommender(Recommender):
    """A `Recommender` whose titles lie in shards, each served by actors of a Ray cluster.

    Answers of exact types are those of one index of all titles, bit for bit. It travels to other processes of the
    cluster, where it asks the same actors; these end with the process that opened it, or by `close`.
    """

    opens = ShardedOpened

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        settings: str | Iterable[str] = (),
        batcher: Searches | None = None,
        *,
        address: str = OWN,
        replicas: int = 1,
        patience_s: float = PATIENCE_SECONDS,
        partial: bool = False,
        follow: bool = False,
    ) -> ClusterRecommender:
        """Join a cluster, start an actor for each shard of the index in ``path``, and open it.

        Args:
            path: an index directory, as this machine reads it, or ``ray://HOST:PORT/INDEX``.
            settings: search and device settings for this session.
            batcher: not taken: shards are asked at once.
            address: the cluster; see `connect`.
            replicas: actors a shard; where one is lost, another answers.
            patience_s: how long a question waits for a shard that is lost, before UnavailableError.
            follow: not taken: the actors stay with the generation that they opened.
            partial: answer without such a shard; answers say what share of the titles they saw.

        Raises:
            NotFoundError: there is no index at ``path``.
            UsageError: it is not in shards, or an argument of another type.
            DamagedIndexError: a file is not as it was written.
            UnavailableError: there is no cluster, or a shard finds no place in it.
            MissingPackageError: Ray or FAISS is missing.
        """
        if not isinstance(path, str | PathLike):
            raise UsageError(f"the index is {path!r}; the path of a directory is expected")
        if isinstance(path, str) and path.startswith(SCHEME):
            address, path = split_address(path)
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise UsageError(f"replicas is {replicas!r}; a whole number from 1 on is expected")
        folder, given = Path(path).absolute(), names_of(settings, "settings")
        generation = IndexDirectory(folder).current()
        listed = read_shards(generation)
        if listed is None:
            raise UsageError(
                f"index {folder} is not in shards", fix="open it as it is, or build it with `semrec build --shards N`"
            )
        config = ShardedSaved(generation, given, OpenShards(folder, listed, [])).config
        connect(address)
        actors = start_shards(folder, listed, config, given, replicas)
        return cls(ShardedSaved(generation, given, OpenShards(folder, listed, actors, patience_s, partial)))

    @property
    def shards(self) -> OpenShards:
        """The actors."""
        saved = self.saved
        assert isinstance(saved, ShardedSaved)
        return saved.shards

    def refresh(self) -> bool:
        """Refuse: the actors stay with the generation that they opened."""
        raise UsageError("an index in shards stays with the generation that it opened", fix="open it again")

    def close(self) -> None:
        """End the actors; nothing can be asked afterwards."""
        self.shards.close()

    def __enter__(self) -> ClusterRecommender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def opened_anew(cls, lost: dict[str, Any]) -> ClusterRecommender:
        """Refuse: Ray's connection is not there in a process that was forked."""
        raise UsageError(
            "this process was forked from one of a Ray cluster, and cannot ask it",
            fix="start processes by spawn or forkserver, or open the index there",
        )
