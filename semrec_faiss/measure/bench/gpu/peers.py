"""Exact search of vectors that lie on a GPU, results left there: ours, FAISS's flat index, and a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.cards import Card, fitted
from semrec_faiss.index.fused.kernels.compiling import recorded
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import GRAPH_BYTES, Masking, plan_search, takes_pieces
from semrec_faiss.index.fused.room import block_queries, query_bytes
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.hardware.device import installed_faiss, load_faiss
from semrec_faiss.index.hardware.on_gpu import gpu_resources

Search = Callable[[], Any]
"""Starts one search of a batch; returns (scores, rows) on the GPU."""

SCORE_BYTES = 4 << 30
"""The scores that the matrix product may hold at once."""

FAISS_QUERIES = 16_384

GRAPH_TITLES = 1_000_000
"""Of more titles a graph takes minutes to build."""


class FusedPeer:
    """Type fused without its way in and out: kernels only, as one CUDA graph where the product captures one."""

    def __init__(self, its: BlockSearch, queries: Any, k: int, allowed: Any = None) -> None:
        """Prepare a batch as a search of all titles, or of a shelf's, plans it.

        ``allowed`` is a bitmap that all queries share.
        """
        titles = its.titles
        self._queries, self._allowed = queries, allowed
        masking: Masking = "none" if allowed is None else "shared"
        self._step = min(len(queries), block_queries(titles.count, titles.dim, k, masking, screened=titles.screened))
        self.coded = its.reads_codes(self._step, k)
        kind = {"coded": self.coded, "screened": titles.screened}
        kind["pieces"] = takes_pieces(its.filled, k, **kind)
        plan = plan_search(titles.count, titles.dim, self._step, k, **kind)
        plan = fitted(plan, Card.of(load_torch(), titles.halves.device))
        self._work = FusedPass(titles, plan, self._step, k)
        self._graph: Any = None
        held = self._step * query_bytes(titles.count, titles.dim, self._step, k, masking, **kind)
        if titles.halves.device.type == "cuda" and self._step == len(queries) and held <= GRAPH_BYTES:
            self._graph = recorded(lambda: self._work.run(queries, allowed, 0), titles.halves.device)

    def search(self) -> tuple[Any, Any]:
        """Run the batch; what it found is overwritten by the next block of a batch that needs several."""
        if self._graph is not None:
            self._graph.replay()
        else:
            for start in range(0, len(self._queries), self._step):
                self._work.run(self._queries[start : start + self._step], self._allowed, 0)
        return self._work.scores, self._work.rows

    def find_unproven(self) -> NDArray[np.int64]:
        """Return which of the batch's answers the first pass does not prove: int64 (some,)."""
        unproven = []
        for start in range(0, len(self._queries), self._step):
            block = self._queries[start : start + self._step]
            self._work.run(block, self._allowed, 0)
            unproven.append(start + np.flatnonzero(self._work.needed[: len(block)].cpu().numpy() != -np.inf))
        return np.concatenate(unproven)


def faiss_name() -> str:
    """Name FAISS's flat index as this build has it."""
    return "cuvs" if "faiss-gpu-cuvs" in installed_faiss() else "faiss"


class FaissPeer:
    """GpuIndexFlatIP of FAISS, given pointers into GPU memory."""

    def __init__(self, vectors: Any, gpu: int, *, float16: bool) -> None:
        """Copy ``vectors``, float32 (titles, dim) on the GPU, into an index."""
        import torch

        faiss = load_faiss()
        self._resources = gpu_resources(gpu).handle
        stream = faiss.cast_integer_to_cudastream_t(torch.cuda.current_stream(gpu).cuda_stream)
        self._resources.setDefaultStream(gpu, stream)
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = gpu, float16
        config.use_cuvs = faiss_name() == "cuvs"  # off unless asked for, in the build that has it too
        self._index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
        self._index.add_c(len(vectors), faiss.cast_integer_to_float_ptr(vectors.data_ptr()))
        torch.cuda.synchronize(gpu)

    def on(self, queries: Any, k: int) -> Search:
        """Prepare a batch."""
        import torch

        faiss = load_faiss()
        scores = torch.empty((len(queries), k), dtype=torch.float32, device=queries.device)
        rows = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)

        def search() -> tuple[Any, Any]:
            for start in range(0, len(queries), FAISS_QUERIES):
                part = slice(start, start + FAISS_QUERIES)
                self._index.search_c(
                    len(queries[part]),
                    faiss.cast_integer_to_float_ptr(queries[part].data_ptr()),
                    k,
                    faiss.cast_integer_to_float_ptr(scores[part].data_ptr()),
                    faiss.cast_integer_to_idx_t_ptr(rows[part].data_ptr()),
                )
            return scores, rows

        return search


def product_and_topk(halves: Any, queries: Any, k: int) -> Search:
    """Prepare torch's float16 matrix product with its topk, in blocks whose scores fit `SCORE_BYTES`."""
    rounded = queries.half()
    step = max(1, SCORE_BYTES // (2 * len(halves)))

    def search() -> tuple[Any, Any]:
        scores = rows = None
        for block in _blocks(rounded, step):
            scores, rows = (block @ halves.T).topk(k, dim=1)
        return scores, rows

    return search


def flashlib_peers(vectors: Any, k: int) -> dict[str, Callable[[Any], Search]]:
    """FlashLib's search by distance, where it is installed: exact, of float16 copies, and through its CAGRA graph.

    Of vectors of unit length, float32 (titles, dim) on the GPU, the nearest are those of the largest product.
    """
    if find_spec("flashlib") is None:
        return {}
    exact, graphs = (import_module(f"flashlib.primitives.{name}") for name in ("knn", "cagra"))
    halves = vectors.half()
    peers: dict[str, Callable[[Any], Search]] = {
        "flashlib": lambda queries: partial(exact.flash_knn, queries.half(), halves, k)
    }
    if len(vectors) <= GRAPH_TITLES:
        graph = graphs.flash_cagra_build(vectors)
        peers["flashlib_cagra"] = lambda queries: partial(graphs.flash_cagra_search, graph, queries, k)
    return peers


def _blocks(queries: Any, step: int) -> Iterator[Any]:
    return (queries[start : start + step] for start in range(0, len(queries), step))
