"""The vectors of all shards as one index: checked and prepared at the front, compared where they lie."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.merging import exactness, merged
from semrec_faiss.cluster.shard import About, Allowed
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.queries import as_batch, checked_count
from semrec_faiss.index.search_result import Exactness, SearchResult
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.restricted.topk import Strategy

NOTHING_ASKED = Allowed()


class ShardedIndex(VectorIndex):
    """A `VectorIndex` whose titles lie in shards; there is no FAISS index of all of them."""

    def __init__(self, shards: OpenShards, config: IndexConfig, dim: int, about: Sequence[About]) -> None:
        """Ask ``shards``, which say ``about`` themselves what they can."""
        self.config = config
        self.device = Device()
        self.dim = dim
        self.count = shards.count
        self.fused = None
        self.resources = []
        self._normalizes = config.normalize
        self._shards = shards
        self._about = about

    @property
    def exact(self) -> Exactness:
        """Whether every shard finds what a brute-force scan would, ties aside."""
        return exactness([one.exact for one in self._about])

    @property
    def k_limit(self) -> int | None:
        """The largest number of titles that one search may return: the least of the shards'; None for no limit."""
        return min((one.k_limit for one in self._about if one.k_limit is not None), default=None)

    @property
    def keeps_originals(self) -> bool:
        """No vectors are at hand here."""
        return False

    def vectors(self, rows: Rows | list[int]) -> Vectors:
        """Fetch the vectors of ``rows`` as they were added: float32 (len(rows), dim)."""
        asked = np.asarray(rows, dtype=np.int64)
        found = np.empty((len(asked), self.dim), np.float32)
        if len(asked):
            for at, vectors in self._shards.ask_by_row("vectors", asked):
                found[at] = vectors
        return found

    def search(self, queries: NDArray[Any], k: int, *, prepared: bool = False, first: int = 0) -> SearchResult:
        """Find the ``k`` best titles of each query; see `VectorIndex.search`."""
        asked = queries if prepared else self._prepared_block(as_batch(queries, self.dim), first)
        found = self.best(asked, checked_count(k), NOTHING_ASKED, None, "auto")
        return SearchResult(found.rows, found.scores, found.exact, found.strategy)

    def best(
        self, queries: Vectors, k: int, allowed: Allowed, exclusions: Exclusions | None, strategy: Strategy
    ) -> TopK:
        """Ask every shard for its k best, and merge.

        Args:
            queries: float32 (queries, dim), prepared.
            k: how many.
            allowed: what may be returned.
            exclusions: rows that single queries must not be given.
            strategy: how each shard searches.
        """
        return self.gathered("top", k, exclusions, lambda mine: (queries, k, allowed, mine, strategy))

    def gathered(self, method: str, k: int, exclusions: Exclusions | None, arguments: Any) -> TopK:
        """Ask every shard by a method that gives lists, and merge these; ``arguments`` are made of its exclusions."""
        started = time.perf_counter()
        starts = self._shards.listed.starts.tolist()
        asked = {
            shard: arguments(None if exclusions is None else exclusions.within(starts[shard], starts[shard + 1]))
            for shard in range(len(self._shards))
        }
        answers = self._shards.ask_each(method, asked)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        seen = self._shards.share_of(answers)
        return merged(list(answers.values()), min(k, self.count), elapsed_ms, seen)
