"""ClusterRecommender: the questions of a `Recommender`, answered by the shards of an index together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.arguments import names_of, path_of
from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.connection import OWN, SCHEME, connect, split_address
from semrec_faiss.cluster.saved import ShardedSaved, opened_front
from semrec_faiss.cluster.searcher import ShardedSearcher
from semrec_faiss.cluster.shards import PATIENCE_SECONDS, OpenShards
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.search.batching.asked import Searches
from semrec_faiss.search.likeness import VectorPart
from semrec_faiss.search.living.opened import Opened
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish

if TYPE_CHECKING:
    from semrec_faiss.index.update.plan import Change
    from semrec_faiss.index.update.updating import UpdateSummary


class ShardedOpened(Opened):
    """The front of an index in shards and its actors."""

    saved: ShardedSaved
    searcher: ShardedSearcher

    def searcher_by(self, batcher: Searches | None) -> ShardedSearcher:
        """Return what asks the shards, at once."""
        return self.saved.searcher

    def alike(self, row: int, by: VectorPart, wish: Wish, exclusions: Exclusions) -> TopK:
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
        if len(before) < len(shards):
            raise shards.lost_one()  # a place among the titles of some shards is none
        return 1 + int(sum(before.values()))


class ClusterRecommender(Recommender):
    """A `Recommender` whose titles lie in shards, each served by actors of a Ray cluster.

    Answers of exact types are those of one index of all titles, bit for bit. It travels to other processes of the
    cluster, where it asks the same actors; these end with the process that opened it, or by `close`. A newer generation
    has actors of its own but for shards that have not changed; the others' end when nobody asks them any more.
    Without the head of the cluster questions raise UnavailableError after 20 s; opened again, it asks by the next head.
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
        with_users: bool = False,
    ) -> ClusterRecommender:
        """Join a cluster, start an actor for each shard of the index in ``path``, and open it.

        Args:
            path: an index directory, as this machine reads it, or ``ray://HOST:PORT/INDEX``.
            settings: search and device settings for this session.
            batcher: not taken: shards are asked at once.
            address: the cluster; see `connect`.
            replicas: actors per shard; where one is lost, another answers.
            patience_s: how long a question waits for a shard that is lost, before UnavailableError.
            partial: answer without such a shard; answers say what share of the titles they saw.
            follow: go to each newer generation soon after its publishing, as `refresh` does.
            with_users: read users at once.

        Raises:
            NotFoundError: there is no index at ``path``.
            UsageError: it is not in shards, or an argument of another type.
            DamagedIndexError: a file is not as it was written.
            UnavailableError: there is no cluster, or a shard finds no place in it.
            MissingPackageError: Ray or FAISS is missing.
        """
        if isinstance(path, str) and path.startswith(SCHEME):
            address, path = split_address(path)
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise UsageError(f"replicas is {replicas!r}; a whole number from 1 on is expected")
        how = {"patience_s": patience_s, "partial": partial, "wanted": replicas}
        saved = opened_front(path_of(path, "the index").absolute(), names_of(settings, "settings"), **how)
        connect(address)
        saved.start()
        return cls(saved, None, follow, with_users)

    @staticmethod
    def check(path: Path, settings: Sequence[str]) -> None:
        """Refuse what opening refuses of an index and its settings, without a cluster; raises as `open` does."""
        opened_front(path, settings)

    @property
    def shards(self) -> OpenShards:
        """The actors."""
        saved = self.saved
        assert isinstance(saved, ShardedSaved)
        return saved.shards

    def _make_room(self, newer: SavedIndex) -> None:
        """Let the open generation go where the next finds no GPUs beside it."""
        assert isinstance(newer, ShardedSaved)
        if self._opened is not None and newer.starter.lacks_gpus(newer.shards.listed, self.shards):
            self._let_go(newer, "GPUs of its own, and the cluster has none left")

    def _take(self, saved: SavedIndex, parts: tuple[bool, bool]) -> None:
        assert isinstance(saved, ShardedSaved)
        before = None if self._opened is None else self._opened.saved
        assert before is None or isinstance(before, ShardedSaved)
        saved.start(before)
        super()._take(saved, parts)

    def _change(self, change: Change, **options: Any) -> UpdateSummary:
        """Change the index on disk by the cluster; see `update_shards`."""
        from semrec_faiss.cluster.publish.updating import update_shards

        saved = self.saved
        assert isinstance(saved, ShardedSaved)
        return update_shards(saved.shards.index, change, asks=saved, **options)

    def close(self) -> None:
        """End the actors, and follow the index no more; nothing can be asked afterwards."""
        super().close()
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
