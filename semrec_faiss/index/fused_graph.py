"""A batch as one CUDA graph: copies in and out and all kernels in a single launch, from pinned memory."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.index.fused_pass import FusedPass, answers_in, as_tensor, load_torch

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


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
        self._answers_out = torch.empty_like(work.answers, device="cpu", pin_memory=True)
        self._found = tuple(part.numpy() for part in answers_in(self._answers_out, queries, work.k))
        self._queries = torch.zeros((queries, work.titles.dim), dtype=torch.float32, device=device)
        self._allowed = None
        if words:
            self._allowed = torch.full((queries if stride else 1, words), -1, dtype=torch.int32, device=device)
        self._stride = stride
        self._whole = self._record(self._copied)

    @cached_property
    def kernels_only(self) -> Any:
        """The graph of the kernels without the copies, for measurements."""
        return self._record(lambda: self._work.run(self._queries, self._allowed, self._stride))

    def _record(self, launches: Any) -> Any:
        torch = self._torch
        launches()  # compiles what is not compiled yet, which a recording does not allow
        torch.cuda.synchronize(self._work.rows.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._work.rows.device), torch.cuda.graph(graph):
            launches()
        return graph

    def _copied(self) -> None:
        work = self._work
        self._queries.copy_(self._queries_in, non_blocking=True)
        work.run(self._queries, self._allowed, self._stride)
        self._answers_out.copy_(work.answers, non_blocking=True)

    def load(self, queries: Any, allowed: Any) -> None:
        """Put a batch on the GPU for ``kernels_only``: queries and bitmap are there already."""
        self._queries.copy_(queries)
        if self._allowed is not None:
            self._allowed.copy_(allowed)
        self._torch.cuda.synchronize(self._queries.device)

    def search(self, queries: Floats, allowed: Any) -> tuple[Rows, Floats, Mask]:
        """Search ``queries``, as many as were recorded; returns copies of rows and scores, and what is proven."""
        rows, scores, proven = self._found
        self._queries_in.copy_(as_tensor(queries))  # on several threads where it is large
        if self._allowed is not None:
            self._allowed.copy_(allowed)
        self._whole.replay()
        self._torch.cuda.current_stream(self._work.rows.device).synchronize()
        return rows.copy(), scores.copy(), proven != 0
