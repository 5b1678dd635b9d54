"""A worker's generations where another process owns the device: titles and vectors are mapped here, searched there."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify_opened
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.serve.asking.serving import Serving, warm_and_log
from semrec_faiss.serve.workers.remote import RemoteDevice

ON_CPU = "device.kind=cpu"


class RemoteServing(Serving):
    """Owns the generation in use of a worker, whose searches the device's owner makes."""

    def __init__(self, index: Path, settings: tuple[str, ...], device: RemoteDevice) -> None:
        """Serve ``index``, held by ``device`` too; the files are mapped, and shared by all workers."""
        super().__init__(index, (*settings, ON_CPU), Batcher())
        self._device = device

    @property
    def waiting(self) -> int:
        """How many batches the owner has not answered."""
        return self._device.waiting

    def _open(self, saved: SavedIndex) -> Served:
        verify_opened(saved)
        recommender = Recommender(saved, self._device.open(saved.generation.name))
        warm_and_log(recommender)
        return Served(recommender, inline_queries=0)
