"""VectorIndex: k titles per query, best first, ties by row, on CPU and GPU by the same code path."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FUSED_K_LIMIT, GPU_LIMIT, FlatIndex, FusedIndex, IndexConfig, IvfFlatIndex
from semrec_faiss.errors import DataError, UsageError
from semrec_faiss.index.cpu.exact import (
    Search,
    order_ties,
    original_vectors,
    rescore,
    rounding_error,
    scan,
    settled,
)
from semrec_faiss.index.factory import holds_vectors_exactly
from semrec_faiss.index.faiss_index import QUERY_BLOCK_ROWS, FaissIndex
from semrec_faiss.index.hardware.device import Device, out_of_k_limit
from semrec_faiss.index.queries import ON_HOST, as_batch, checked_count, prepared_block
from semrec_faiss.index.search_result import Exactness, SearchResult, joined, score_overflow

if TYPE_CHECKING:
    from semrec_faiss.index.exclusions import Exclusions
    from semrec_faiss.index.fused.running import FusedResult
    from semrec_faiss.index.fused.searcher import FusedSearcher
    from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
    from semrec_faiss.index.fused.titles.users import HeldUsers, HostUsers
    from semrec_faiss.index.screening.screen import Screen


MOST_RESCORED = 32
"""Up to so many titles per query, a CPU scores all of them again; of more, most are left out afterwards."""


class VectorIndex(FaissIndex):
    """A FAISS index over title vectors: k titles per query, best first, ties by row, from many threads.

    Attributes:
        config: the index section of the config, autos resolved.
        fused: what searches type fused on GPUs; None for any other.
    """

    def __init__(
        self,
        cpu_index: Any,
        config: IndexConfig,
        device: Device | None = None,
        *,
        originals: Vectors | None = None,
        screen: Screen | None = None,
        directions: NDArray[np.float64] | None = None,
    ) -> None:
        """Wrap a trained, filled CPU index.

        Args:
            cpu_index: a FAISS CPU index.
            config: the resolved config it was made from.
            device: where to search; the CPU by default.
            originals: float32 (count, dim), what was added; needed where the index does not hold it exactly.
            screen: bounds by which an exact search on a CPU leaves titles out.
            directions: float64 (kept, dim), by which type fused on a GPU does.

        Raises:
            DeviceError: the device cannot hold or run the index.
            ConfigError: a search setting that the index does not have.
        """
        self._keep(config)
        self._directions = directions
        super().__init__(cpu_index, config, device or Device(), screen)
        self.fused: FusedSearcher | SeveralGpus | None = None
        if self.device.gpus and isinstance(config, FusedIndex):
            self.fused = self._to_fused(config)
        if originals is None and not holds_vectors_exactly(cpu_index):
            raise DataError("this index type quantises the vectors, and the original vectors are not beside it")
        self._originals = originals
        self._originals_lock = threading.Lock()

    def set_search(self, config: IndexConfig) -> None:
        """Search with other settings from now on, without loading anything again.

        Args:
            config: as the index was made from, but for its search section.

        Raises:
            UsageError: more than the search section differs.
            ConfigError: a search setting that the index does not have.
        """
        if config.model_copy(update={"search": self.config.search}) != self.config:
            raise UsageError("only the search settings of an index can change once it is built")
        self.apply(config)
        if self.fused is not None and isinstance(config, FusedIndex) and config != self.config:
            self.fused = None  # its memory is needed
            self.fused = self._to_fused(config)
        self._keep(config)

    def _keep(self, config: IndexConfig) -> None:
        """Keep settings that are asked for at every search: pydantic takes microseconds to say that there is none."""
        self.config = config
        self._refine: int | None = getattr(config.search, "refine", None)
        self._nprobe: int | None = getattr(config.search, "nprobe", None)
        self._normalizes = config.normalize

    def _to_fused(self, config: FusedIndex) -> FusedSearcher | SeveralGpus:
        from semrec_faiss.index.fused.searcher import FusedSearcher
        from semrec_faiss.index.fused.several.several_gpus import SeveralGpus

        vectors = self._flat()
        if vectors is None:
            raise DataError("type fused searches a flat index, and this one is none")
        devices = [f"cuda:{gpu}" for gpu in self.device.gpus]
        rescore, along = config.search.rescore, self._directions
        if len(devices) == 1:
            return FusedSearcher(
                vectors, devices[0], rescore=rescore, directions=along, originals=self.device.originals
            )
        return SeveralGpus(
            vectors,
            devices,
            rescore=rescore,
            layout=self.device.layout,
            directions=along,
            originals=self.device.originals,
        )

    def _flat(self) -> Vectors | None:
        """Return what a flat index holds, float32 (count, dim); None of any other."""
        return original_vectors(self.cpu_index)

    @property
    def exact(self) -> Exactness:
        """Whether a search finds what a brute-force scan would, ties aside."""
        if isinstance(self.config, FusedIndex):
            return self.fused is None or ("proven" if self.fused.proves else False)
        if isinstance(self.config, FlatIndex):
            return not self.device.float16 or not self.device.gpus
        return isinstance(self.config, IvfFlatIndex) and self.config.search.nprobe >= int(self.cpu_index.nlist)

    @property
    def k_limit(self) -> int | None:
        """The largest number of titles that one search may return, None where there is no limit."""
        if self.fused is not None:
            return FUSED_K_LIMIT if self.count > FUSED_K_LIMIT else None
        refine = self._refine or 1
        return self.gpu_limit // refine if self.device.gpus and self.count > self.gpu_limit else None

    @property
    def out_of_k_limit(self) -> str:
        """What to do where more than `k_limit` titles are wanted."""
        return out_of_k_limit(self.config)

    def vectors(self, rows: Rows | list[int]) -> Vectors:
        """Return the vectors of ``rows`` as they were added: float32 (len(rows), dim)."""
        chosen = np.asarray(rows, dtype=np.int64)
        originals = self._exact_vectors()
        if originals is not None:
            return np.ascontiguousarray(originals[chosen])
        return self.cpu_index.reconstruct_batch(chosen) if len(chosen) else np.empty((0, self.dim), np.float32)

    def block(self, first: int, last: int) -> Vectors:
        """Return the vectors of rows ``first`` to ``last`` - 1, only to be read: float32 (last - first, dim)."""
        originals = self._exact_vectors()
        return self.vectors(np.arange(first, last)) if originals is None else originals[first:last]

    def _exact_vectors(self) -> Vectors | None:
        with self._originals_lock:
            if self._originals is None:
                self._originals = original_vectors(self.cpu_index)
            return self._originals

    @property
    def keeps_originals(self) -> bool:
        """Whether the vectors are at hand as they were added, in memory or mapped, beside the FAISS index."""
        return self._originals is not None

    def prepare(self, queries: NDArray[Any]) -> Vectors:
        """Check queries and bring them to what the index compares.

        Returns:
            float32 (queries, dim), contiguous; of unit length where the index normalises. A single vector is a
            batch of one.

        Raises:
            UsageError: another shape, or not numbers.
            DataError: a NaN, an infinite value, or an all-zero query where the index normalises.
        """
        batch = as_batch(queries, self.dim, or_one=True)
        return self._prepared_block(batch, 0)

    def search(self, queries: NDArray[Any], k: int, *, prepared: bool = False, first: int = 0) -> SearchResult:
        """Find the ``k`` best titles of each query, all of them when the index has fewer.

        Args:
            queries: float (queries, dim).
            k: how many; at least 1, at most 2,048 on a GPU.
            prepared: the queries are already what `prepare` returns (stored user vectors are).
            first: the number of the first query, from which messages count.

        Raises:
            UsageError: a wrong shape, or k out of range.
            DataError: NaN, infinite or all-zero queries.
            DeviceError: out of memory even for a single query.
        """
        k = self._checked_k(k)
        batch = as_batch(queries, self.dim)
        if len(batch) > QUERY_BLOCK_ROWS and self.fused is None:  # a float32 copy of all would cost memory
            starts = range(0, len(batch), QUERY_BLOCK_ROWS)
            blocks = (batch[start : start + QUERY_BLOCK_ROWS] for start in starts)
            asked = zip(blocks, starts, strict=True)
            return joined([self.search(block, k, prepared=prepared, first=start) for block, start in asked])
        block = batch if prepared or self.fused is not None else self._prepared_block(batch, first)
        strategy, unproven = "refine" if self._refine else "index", (0, 0)
        if self.fused is not None:
            if prepared:
                found = self.fused.search(np.ascontiguousarray(block), k)
            else:
                found = self.fused.search_given(block, first, k, normalize=self._normalizes)
            rows, scores, unproven = found.rows, found.scores, (found.repeated, found.scanned)
        elif self.exact:
            scores, rows = self.settled(self.unsettled, block, k, min(self.count, self.k_limit or self.count))
        else:
            scores, rows = self.unsettled(block, min((self._refine or 1) * k, self.count))
            if self._refine:
                scores, rows = rescore(block, rows, k, self.vectors)
            strategy += "+scan" if self._fill_short(block, scores, rows) else ""
            order_ties(scores, rows)
        if not self._normalizes and not np.isfinite(scores).all():
            raise score_overflow()
        exact = "proven" if self.is_screened(len(block), k) else self.exact
        return SearchResult(rows, scores, exact, strategy, *unproven)

    def _prepared_block(self, block: NDArray[Any], first: int) -> Vectors:
        by = ON_HOST if self.fused is None else self.fused.arithmetic
        return prepared_block(block, first, normalize=self._normalizes, by=by)

    def settled(self, search: Search, queries: Vectors, k: int, limit: int) -> tuple[Scores, Rows]:
        """Search exactly by ``search``, and order what is nearly tied; see `semrec_faiss.index.cpu.exact.settled`."""
        error = self.rounding_error(queries)
        ties_alone = bool(self.device.gpus) or k > MOST_RESCORED
        return settled(search, queries, k, limit, error, self.vectors, ties_alone=ties_alone)

    def rounding_error(self, queries: Vectors) -> Scores:
        """Return by how much the scores of prepared queries, float32 (queries, dim), may be off: float32 (queries,)."""
        return rounding_error(queries, 1.0 if self._normalizes else self._largest_norm)

    @cached_property
    def _largest_norm(self) -> float:
        largest = 0.0
        for start in range(0, self.count, QUERY_BLOCK_ROWS):
            block = self.vectors(np.arange(start, min(start + QUERY_BLOCK_ROWS, self.count)))
            largest = max(largest, float(np.einsum("nd,nd->n", block, block, dtype=np.float64).max()))
        return float(np.sqrt(largest))

    def search_allowed(
        self, queries: Vectors, k: int, mask: Mask | None = None, excluded: Exclusions | None = None
    ) -> FusedResult:
        """Find the ``k`` best titles that each query may return, inside the kernels of type fused.

        Args:
            queries: float32 (queries, dim), prepared.
            k: at most 2,048, and at most the number of titles.
            mask: bool (count,), True where a title may be returned.
            excluded: rows that single queries must not return besides.

        Raises:
            UsageError: the index is of another type, or on a CPU.
        """
        if self.fused is None:
            raise UsageError(
                f"only type fused on a GPU takes a mask into the search, not type {self.config.type} on {self.device}",
                fix="take another strategy",
            )
        return self.fused.search(np.ascontiguousarray(queries), k, mask=mask, excluded=excluded)

    def hold_users(self, users: HostUsers) -> HeldUsers | None:
        """Copy users beside the titles of type fused on GPUs; None where that is not so, or there is no room."""
        return None if self.fused is None else self.fused.hold_users(users)

    def search_users(
        self,
        users: HeldUsers,
        rows: Rows,
        k: int,
        mask: Mask | None = None,
        *,
        without_seen: bool,
    ) -> FusedResult:
        """Find the ``k`` best titles of users that `hold_users` has copied; see `FusedSearcher.search_users`."""
        fused: Any = self.fused  # which holds them
        found: FusedResult = fused.search_users(users, rows, k, mask=mask, without_seen=without_seen)
        return found

    def _checked_k(self, k: int) -> int:
        k = checked_count(k)
        if self.k_limit is not None and k > self.k_limit:
            refine = self._refine
            why = f" (the GPU's {self.gpu_limit} candidates over refine {refine})" if refine else ""
            if self.fused is not None:
                raise UsageError(f"k is {k}, over type fused's limit of {FUSED_K_LIMIT}", fix=self.out_of_k_limit)
            raise UsageError(f"k is {k}, over the GPU's limit of {self.k_limit}{why}", fix=self.out_of_k_limit)
        return min(k, self.count)

    def _fill_short(self, queries: Vectors, scores: Scores, rows: Rows) -> bool:
        """Complete, in place, the queries for which FAISS found fewer titles than there are.

        An inverted-list index visits more lists, doubling nprobe; what is still short is scanned exactly.

        Returns:
            Whether an exact scan was needed.
        """
        k = rows.shape[1]
        short = np.flatnonzero(rows[:, -1] < 0)
        if not len(short):
            return False
        nprobe = self._nprobe
        nlist = int(getattr(self.cpu_index, "nlist", 0))
        limit = min(nlist, GPU_LIMIT) if self.device.gpus else nlist
        while len(short) and nprobe and nprobe < limit and len(self.resources) <= 1:
            nprobe = min(2 * nprobe, limit)
            asked = queries[short]
            found, at = self.search_lists(asked, min((self._refine or 1) * k, self.count), nprobe)
            scores[short], rows[short] = rescore(asked, at, k, self.vectors) if self._refine else (found, at)
            short = short[rows[short, -1] < 0]
        if len(short):
            scores[short], rows[short] = self._scanned(queries[short], k)
        return bool(len(short))

    def _scanned(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Compare queries with every vector, whatever the type; scores and order are the same in any batch."""

        def search(asked: Vectors, fetch: int) -> tuple[Scores, Rows]:
            return scan(asked, fetch, self.count, self.vectors)

        return settled(search, queries, k, self.count, self.rounding_error(queries), self.vectors)
