"""A FAISS index on a CPU, or its copy on GPUs, asked in blocks that fit memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.config.index_types import FlatIndex, FusedIndex, IndexConfig
from semrec_faiss.errors import DeviceError
from semrec_faiss.forking import HoldsHandles
from semrec_faiss.index.cpu.exact import SPARE, original_vectors
from semrec_faiss.index.cpu.few import FewTitles, suits
from semrec_faiss.index.cpu.lists import InvertedLists
from semrec_faiss.index.cpu.products import best_by_numpy, best_of_one, multiplies_by_numpy
from semrec_faiss.index.factory import apply_search_settings
from semrec_faiss.index.hardware.device import (
    Device,
    first_line,
    gpu_candidates,
    is_out_of_memory,
    load_faiss,
)
from semrec_faiss.index.hardware.on_gpu import GpuResources, held, to_gpu
from semrec_faiss.index.hardware.out_of_memory import halved

if TYPE_CHECKING:
    from semrec_faiss.index.screening.screen import Screen

QUERY_BLOCK_ROWS = 16_384
"""Queries handed to FAISS at once: bounds its buffers and our float32 copies, and costs nothing in speed."""

TOO_LITTLE_MEMORY = "lower device.temp_memory_mb, free memory, or set device.kind=cpu"


class FaissIndex(HoldsHandles):
    """What FAISS finds by itself, searchable from many threads; nothing is scored again or completed.

    A CPU index is always kept, for saving and for exact vectors; on a GPU a copy of it is searched.

    Attributes:
        device: where it is searched.
        count: the number of titles.
        dim: dimensions of a vector.
        cpu_index: the CPU index.
        gpu_limit: how many candidates a GPU gives for a query at most.
        faiss_index: what FAISS searches: the CPU index or its copy on the GPUs. Whoever times FAISS puts something of
            the same ``search`` in its place for a while.
        resources: FAISS's resources of every GPU, held while it searches; see `locked`.
        block_rows: queries that are searched at once; fewer once memory has run out.
    """

    def __init__(self, cpu_index: Any, config: IndexConfig, device: Device, screen: Screen | None = None) -> None:
        """Wrap a trained, filled CPU index; type fused keeps vectors of its own on a GPU, and no copy of FAISS's.

        ``screen``, if any, is what single queries of an exact index on a CPU are searched by.

        Raises:
            DeviceError: the device cannot hold or run the index.
            ConfigError: a search setting that the index does not have.
        """
        self.device = device
        self.count = int(cpu_index.ntotal)
        self.dim = int(cpu_index.d)
        self.cpu_index = cpu_index
        self.gpu_limit = gpu_candidates(cpu_index)
        self.faiss_index = cpu_index
        self.resources: list[GpuResources] = []
        if device.gpus and not isinstance(config, FusedIndex):
            self.faiss_index, self.resources = to_gpu(self._for_gpus(config), device)
        self.apply(config)
        is_flat = isinstance(config, FlatIndex | FusedIndex) and not device.gpus
        self._flat_vectors = original_vectors(cpu_index) if is_flat else None
        self._screen = screen if is_flat else None
        self._lists = None if device.gpus else InvertedLists.of(cpu_index)
        self.block_rows = QUERY_BLOCK_ROWS

    def _for_gpus(self, config: IndexConfig) -> Any:
        """Return the CPU index that GPUs are given a copy of."""
        return self.cpu_index

    def apply(self, config: IndexConfig) -> None:
        """Search with the settings of ``config``; raises ConfigError at one that the index does not have."""
        with self.locked():
            apply_search_settings(self.faiss_index, config, cpu_index=self.cpu_index)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of every GPU resources object that a search uses; nothing to hold on a CPU."""
        with held(self.resources):
            yield

    def unsettled(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Search without scoring anything again, in blocks that are halved whenever memory runs out.

        Args:
            queries: float32 (queries, dim), prepared.
            k: how many.

        Returns:
            scores float32 and rows int64 (queries, k), best first; -1 where it found fewer.

        Raises:
            DeviceError: FAISS failed, or memory does not suffice for a single query.
        """
        pieces: list[tuple[Scores, Rows]] = []
        start = 0
        while start < len(queries):
            piece = queries[start : start + self.block_rows]
            try:
                pieces.append(self._by_bounds(piece, k) or self.faiss_search(piece, k))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise DeviceError(f"FAISS failed on {self.device}: {first_line(error)}") from error
                is_first = self.block_rows == QUERY_BLOCK_ROWS
                self.block_rows = halved(len(piece), self.device, error, is_first=is_first, fix=TOO_LITTLE_MEMORY)
                continue
            start += len(piece)
        if len(pieces) == 1:
            return pieces[0]
        if not pieces:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        return np.concatenate([d for d, _ in pieces]), np.concatenate([i for _, i in pieces])

    def faiss_search(self, queries: Vectors, k: int, **options: Any) -> tuple[Scores, Rows]:
        """Search all queries at once, without bounds.

        Args:
            queries: float32 (queries, dim), prepared.
            k: how many.
            options: of FAISS's search, ``params`` above all.

        Returns:
            scores float32 and rows int64 (queries, k), best first; -1 where it found fewer.
        """
        if self._flat_vectors is not None and len(queries) == 1:
            return best_of_one(queries, k, self._flat_vectors)
        if self._flat_vectors is not None and suits(len(queries), k, *self._flat_vectors.shape):
            return self._few_titles.search(queries, k)
        if self._flat_vectors is not None and multiplies_by_numpy(len(queries), k, len(self._flat_vectors)):
            return best_by_numpy(queries, k, self._flat_vectors)
        if self._lists is not None:
            return self._lists.search(queries, k, **options)
        with self.locked():
            scores, rows = self.faiss_index.search(queries, k, **options)
        return scores, rows

    @cached_property
    def _few_titles(self) -> FewTitles:
        """The titles of a flat index as columns, from the first batch on that is searched so."""
        assert self._flat_vectors is not None
        return FewTitles(self._flat_vectors)

    def _by_bounds(self, queries: Vectors, k: int) -> tuple[Scores, Rows] | None:
        """Search for a single query by bounds; None where there are none, or they do not pay."""
        if self._screen is None or self._flat_vectors is None or len(queries) != 1:
            return None
        return self._screen.search(queries, k, self._flat_vectors)

    def is_screened(self, queries: int, k: int) -> bool:
        """Tell whether a search leaves titles out by their bounds, so that its answers are proven."""
        return queries == 1 and self._screen is not None and self._screen.suits(k + SPARE)

    def base_mask(self, mask: Mask) -> Mask:
        """Return a mask over the titles, bool (count,), as one over what FAISS's own index holds."""
        return mask

    def search_by(self, params: Any, queries: Vectors, k: int, mask: Mask) -> tuple[Scores, Rows]:
        """Search on a CPU with FAISS's search parameters, among them a selector of `base_mask`.

        Args:
            params: the parameters.
            queries: float32 (queries, dim), prepared.
            k: how many.
            mask: bool (count,), the titles that the selector lets through.

        Returns:
            scores float32 and rows int64 (queries, k), best first, in FAISS's order; -1 where it found fewer.
        """
        if self._lists is not None:
            return self._lists.search(queries, k, params=params)
        scores, rows = self.cpu_index.search(queries, k, params=params)
        return scores, rows

    def search_lists(self, queries: Vectors, k: int, nprobe: int) -> tuple[Scores, Rows]:
        """Search ``nprobe`` inverted lists per query; takes float32 (queries, dim), returns as `faiss_search` does."""
        faiss = load_faiss()
        is_pq = isinstance(faiss.downcast_index(self.cpu_index), faiss.IndexIVFPQ)
        kind = faiss.IVFPQSearchParameters if is_pq else faiss.SearchParametersIVF
        return self.faiss_search(queries, k, params=kind(nprobe=nprobe))
