"""An index and what was added to it and removed since it was built, searched as one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FlatIndex, IndexConfig
from semrec_faiss.index.cpu.exact import MORE_CANDIDATES, scan
from semrec_faiss.index.cpu.products import best_of_batch
from semrec_faiss.index.cpu.views import flat_over
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.hardware.on_gpu import to_gpu
from semrec_faiss.index.search_result import best_of_parts, padded
from semrec_faiss.index.segments.joined import JoinedVectors, gathered
from semrec_faiss.index.segments.places import GONE
from semrec_faiss.index.vector_index import VectorIndex

if TYPE_CHECKING:
    from semrec_faiss.index.screening.screen import Screen

_DEVIATIONS = 6
"""So many times the usual spread of removed titles among the best is fetched, too: one query in a million is repeated.
A few more cost nothing in a batch, and a single query that is repeated as much as a hundred do."""


class SegmentedIndex(VectorIndex):
    """A `VectorIndex` whose base lacks removed titles and whose segments are searched exactly.

    Its rows are those of an index built anew. Types flat and fused on a GPU hold only those and are searched as ever;
    any other base is asked for more than are wanted, what was removed is dropped, and the best of the segments are
    merged in.
    """

    def __init__(
        self,
        cpu_index: Any,
        config: IndexConfig,
        device: Device | None = None,
        *,
        base_rows: Rows,
        fresh: Vectors,
        originals: Vectors | None = None,
        screen: Screen | None = None,
        directions: NDArray[np.float64] | None = None,
    ) -> None:
        """Wrap the CPU index of the base.

        Args:
            cpu_index: a FAISS CPU index.
            config: the resolved config it was made from.
            device: where to search; the CPU by default.
            base_rows: int64, ascending: which of the base's titles are left; they are the first rows.
            fresh: float32 (n, dim), C-contiguous: the vectors of the rows after those.
            originals: what was added to the base; needed where it does not hold it exactly.
            screen: bounds of the base's titles.
            directions: as for a `VectorIndex`.

        Raises:
            DeviceError: the device cannot hold or run the index.
            ConfigError: a search setting that the index does not have.
        """
        self._base_rows = base_rows
        self._fresh = fresh
        self._row_of = np.full(int(cpu_index.ntotal) + len(fresh), GONE, np.int64)
        self._row_of[base_rows] = np.arange(len(base_rows))
        self._row_of[int(cpu_index.ntotal) :] = len(base_rows) + np.arange(len(fresh))
        # Whether FAISS searches what is left and the segments in one piece.
        self._is_one = device is not None and bool(device.gpus) and isinstance(config, FlatIndex)
        super().__init__(cpu_index, config, device, originals=originals, screen=screen, directions=directions)
        self._base_count = self.count
        self.count = len(base_rows) + len(fresh)
        self._fresh_searcher: Any = None
        if self.device.gpus and self.fused is None and not self._is_one and len(fresh):
            self._fresh_searcher = self._on_gpu(fresh)

    def _for_gpus(self, config: IndexConfig) -> Any:
        """Return what is left and the segments, as one flat index, for type flat; of any other the base."""
        return flat_over(np.asarray(self._flat())) if isinstance(config, FlatIndex) else super()._for_gpus(config)

    def _on_gpu(self, fresh: Vectors) -> Any:
        searcher, resources = to_gpu(flat_over(fresh), self.device)
        self.resources += [resource for resource in resources if resource not in self.resources]
        return searcher

    def _flat(self) -> Vectors | None:
        """Return what a flat base has left, and the segments, float32 (count, dim); None where it is none."""
        base = super()._flat()
        return None if base is None else cast("Vectors", JoinedVectors(base, self._base_rows, self._fresh))

    def block(self, first: int, last: int) -> Vectors:
        """Return the vectors of the rows from ``first`` to ``last`` - 1: float32 (last - first, dim)."""
        return self.vectors(np.arange(first, last))

    def vectors(self, rows: Rows | list[int]) -> Vectors:
        """Return the vectors of ``rows`` as they were added: float32 (len(rows), dim)."""
        return gathered(np.asarray(rows, dtype=np.int64), self._base_rows, self._fresh, super().vectors)

    def base_mask(self, mask: Mask) -> Mask:
        """Return ``mask``, bool (count,), over what the base holds: bool (titles of the base,)."""
        of_base = np.zeros(self._base_count, np.bool_)
        of_base[self._base_rows] = mask[: len(self._base_rows)]
        return of_base

    def search_by(self, params: Any, queries: Vectors, k: int, mask: Mask) -> tuple[Scores, Rows]:
        """Search the base with FAISS's parameters, and exactly what ``mask`` allows of the segments."""
        scores, places = super().search_by(params, queries, min(k, self._base_count), mask)
        fresh = np.flatnonzero(mask[len(self._base_rows) :])
        best, positions = _best_of(queries, min(k, len(fresh)), np.ascontiguousarray(self._fresh[fresh]))
        found = fresh[positions] if len(fresh) else positions
        return self._merged(scores, self._rows_at(places), best, found, k)

    def _by_bounds(self, queries: Vectors, k: int) -> tuple[Scores, Rows] | None:
        """Search what is left of the base and the segments by bounds, as one."""
        if self._screen is None or self._flat_vectors is None or len(queries) != 1:
            return None
        found = self._screen.search(queries, k, self._flat_vectors, self._fresh)
        return None if found is None else (found[0], self._rows_at(found[1]))

    def faiss_search(self, queries: Vectors, k: int, **options: Any) -> tuple[Scores, Rows]:
        """Search what is left of the base and, exactly, the segments; returns what `FaissIndex.faiss_search` does."""
        if self._is_one:
            return super().faiss_search(queries, k, **options)
        scores, rows = self._base_search(queries, min(k, len(self._base_rows)), **options)
        if not len(self._fresh):
            return scores, rows
        best, found = self._fresh_search(queries, min(k, len(self._fresh)))
        return self._merged(scores, rows, best, found, k)

    def _base_search(self, queries: Vectors, k: int, **options: Any) -> tuple[Scores, Rows]:
        """Find the best that are left of the base: scores and rows (queries, k), -1 where it finds fewer."""
        left, most = len(self._base_rows), min(self._base_count, self.gpu_limit if self.device.gpus else 1 << 62)
        if not k:
            return _nothing(len(queries))
        if left == self._base_count:
            scores, places = super().faiss_search(queries, k, **options)
            return scores, places  # the base's places are its rows
        fetch = min(most, _enough(k, self._base_count / left))
        scores, rows, short = self._left_of(queries, fetch, k, options)
        while len(short) and fetch < most:
            fetch = min(most, MORE_CANDIDATES * fetch)
            more_scores, more_rows, still = self._left_of(np.ascontiguousarray(queries[short]), fetch, k, options)
            scores[short], rows[short] = more_scores, more_rows
            short = short[still]
        if len(short) and fetch < self._base_count:  # a GPU gives no more
            scores[short], rows[short] = scan(queries[short], k, left, self.vectors)
        return scores, rows

    def _left_of(self, queries: Vectors, fetch: int, k: int, options: Any) -> tuple[Scores, Rows, Rows]:
        """Fetch candidates and drop the removed ones; also tell the queries that may have more than were fetched."""
        scores, places = super().faiss_search(queries, fetch, **options)
        rows = self._rows_at(places)
        first = np.argsort(rows == GONE, axis=1, kind="stable")[:, :k]
        rows, kept = np.take_along_axis(rows, first, axis=1), np.take_along_axis(scores, first, axis=1)
        kept = np.where(rows == GONE, np.float32(-np.inf), kept)
        if rows.shape[1] < k:
            rows, kept = padded(rows, GONE, k), padded(kept, -np.inf, k)
        return kept, rows, np.flatnonzero((rows[:, -1] == GONE) & (places[:, -1] >= 0))

    def _rows_at(self, places: Rows) -> Rows:
        return np.where(places < 0, GONE, self._row_of[np.maximum(places, 0)])

    def _fresh_search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        if self._fresh_searcher is None:
            return _best_of(queries, k, self._fresh)
        with self.locked():
            scores, positions = self._fresh_searcher.search(queries, k)
        return scores, positions

    def _merged(self, scores: Scores, rows: Rows, best: Scores, found: Rows, k: int) -> tuple[Scores, Rows]:
        """Merge rows of the base with positions in the segments, best first, ties by row: (queries, k)."""
        return best_of_parts([scores, best], [rows, found + len(self._base_rows)], k)


def _enough(k: int, ratio: float) -> int:
    """Return how many candidates nearly always hold k that are left, where there were ``ratio`` times as many."""
    mean = k * ratio
    return math.ceil(mean + _DEVIATIONS * math.sqrt(mean * (ratio - 1))) + 1


def _best_of(queries: Vectors, k: int, vectors: Vectors) -> tuple[Scores, Rows]:
    if not k or not len(queries):
        return _nothing(len(queries))
    return best_of_batch(queries, k, vectors)


def _nothing(queries: int) -> tuple[Scores, Rows]:
    return np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64)
