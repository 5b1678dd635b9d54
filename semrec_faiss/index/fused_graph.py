"""A small batch as one CUDA graph: copies in and out and all kernels in a single launch, from pinned memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.index.fused_pass import FusedPass, load_torch

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

GRAPH_QUERIES = 256
"""Batches up to this size are captured: beyond, the GPU works longer than launches take."""


class CapturedSearch:
    """One pass over a fixed number of queries, recorded and replayed."""

    def __init__(self, work: FusedPass, queries: int, words: int, stride: int) -> None:
        """Record the pass.

        Args:
            work: its buffers, used for nothing else from now on.
            queries: how many each replay searches.
            words: length of a bitmap of allowed rows; 0 where none is given.
            stride: words from one query's bitmap to the next one's, 0 where they share one.
        """
        torch = load_torch()
        self._torch = torch
        self._work = work
        device = work.rows.device
        self._queries_in = torch.empty((queries, work.titles.dim), dtype=torch.float32, pin_memory=True)
        self._rows_out = torch.empty((queries, work.k), dtype=torch.int64, pin_memory=True)
        self._scores_out = torch.empty((queries, work.k), dtype=torch.float32, pin_memory=True)
        self._proven_out = torch.empty((queries,), dtype=torch.int8, pin_memory=True)
        self._as_numpy = tuple(
            buffer.numpy() for buffer in (self._queries_in, self._rows_out, self._scores_out, self._proven_out)
        )
        self._queries = torch.zeros((queries, work.titles.dim), dtype=torch.float32, device=device)
        self._allowed = None
        if words:
            self._allowed = torch.full((queries if stride else 1, words), -1, dtype=torch.int32, device=device)
        self.kernels_only = self._record(lambda: work.run(self._queries, self._allowed, stride))
        self._whole = self._record(lambda: self._copied(stride))

    def _record(self, launches: Any) -> Any:
        torch = self._torch
        launches()  # compiles what is not compiled yet, which a recording does not allow
        torch.cuda.synchronize(self._work.rows.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._work.rows.device), torch.cuda.graph(graph):
            launches()
        return graph

    def _copied(self, stride: int) -> None:
        work = self._work
        self._queries.copy_(self._queries_in, non_blocking=True)
        work.run(self._queries, self._allowed, stride)
        self._rows_out.copy_(work.rows, non_blocking=True)
        self._scores_out.copy_(work.scores, non_blocking=True)
        self._proven_out.copy_(work.proven, non_blocking=True)

    def load(self, queries: Any, allowed: Any) -> None:
        """Put a batch on the GPU for ``kernels_only``: queries and bitmap are there already."""
        self._queries.copy_(queries)
        if self._allowed is not None:
            self._allowed.copy_(allowed)
        self._torch.cuda.synchronize(self._queries.device)

    def search(self, queries: Floats, allowed: Any) -> tuple[Rows, Floats, Mask]:
        """Search ``queries``, as many as were recorded; returns copies of rows and scores, and what is proven."""
        given, rows, scores, proven = self._as_numpy
        given[:] = queries
        if self._allowed is not None:
            self._allowed.copy_(allowed)
        self._whole.replay()
        self._torch.cuda.current_stream(self._work.rows.device).synchronize()
        return rows.copy(), scores.copy(), proven != 0
