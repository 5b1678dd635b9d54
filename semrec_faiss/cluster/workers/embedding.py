"""Texts to vectors by workers of a cluster: the blocks of one machine, each divided among workers with a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.cluster.connection import alive_nodes, connect, load_ray
from semrec_faiss.cluster.starting import A_PLACE
from semrec_faiss.cluster.workers.blocks import Pool
from semrec_faiss.data.text.encoder import CPU_BATCH, GPU_BATCH, Encoder, EncoderLoader, ModelSource, load_encoder

BLOCK_ROWS = 16_384
"""Titles in a block, what an interruption loses at most: all workers share one, so it is larger than one machine's."""


class TextWorker:
    """A worker: has the model, which is loaded by its first texts."""

    def __init__(self, load: EncoderLoader, source: ModelSource, batch_size: int | None, device: str | None) -> None:
        """Say what will be loaded, and how."""
        self._load = load
        self._wanted = (source, batch_size, device)

    @cached_property
    def _encoder(self) -> Encoder:
        source, batch_size, device = self._wanted
        return self._load(source, batch_size=batch_size, device=device)

    def encode(self, first: int, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return a vector for each of the texts, of which the first has this number; float32 (n, d)."""
        return self._encoder.encode(texts)


class ClusterEncoder:
    """An `Encoder` whose texts go through workers of a cluster; a lost one's are done again by another."""

    def __init__(self, pool: Pool, workers: int, gpus: bool, batch_size: int) -> None:
        """Encode by a pool of `TextWorker`, each of which takes ``batch_size`` texts at a time."""
        self._pool = pool
        self._workers = workers
        self.device = f"{workers} workers with a {'GPU' if gpus else 'CPU'} each"
        self.batch_size = workers * batch_size

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector for each of n ``texts``, float32 (n, d); raises as `Encoder`, and UnavailableError."""
        share = max(1, -(-len(texts) // self._workers))  # each has as much, whatever its device takes at a time
        blocks = [(at, tuple(texts[at : at + share])) for at in range(0, len(texts), share)]
        found = {block[0]: vectors for block, vectors in self._pool.done(blocks)}
        return np.concatenate([found[at] for at, _ in blocks])


@contextmanager
def encoders_of(
    address: str, workers: int | None = None, load: EncoderLoader = load_encoder
) -> Iterator[EncoderLoader]:
    """Give what `embed_folder` loads a model with, so that workers of a cluster have it; they end with the block.

    Args:
        address: the cluster; see `connect`.
        workers: how many; by default one per GPU, or one per machine where there are none.
        load: what each worker loads the model with.

    Raises:
        UnavailableError: there is no cluster.
        MissingPackageError: Ray is missing.
    """
    connect(address)
    pools: list[Pool] = []

    def load_everywhere(source: ModelSource, *, batch_size: int | None, device: str | None) -> Encoder:
        gpus = 0 if device == "cpu" else int(load_ray().cluster_resources().get("GPU", 0))
        count = workers or gpus or len(alive_nodes())
        with_gpu = gpus >= count
        batch = batch_size or (GPU_BATCH if with_gpu else CPU_BATCH)
        used = device if device is not None or with_gpu else "cpu"

        def start(_: int) -> Any:
            ray = load_ray()
            worker = ray.remote(TextWorker).options(
                num_cpus=A_PLACE, num_gpus=int(with_gpu), scheduling_strategy="SPREAD"
            )
            return worker.remote(load, source, batch, used)

        pools.append(Pool(start, count, "encode"))
        return ClusterEncoder(pools[-1], count, with_gpu, batch)

    try:
        yield load_everywhere
    finally:
        for pool in pools:
            pool.end()
