"""Whether a newer generation of an index fits the memory beside the one that is open, predicted before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.index.hardware.host_memory import available_bytes
from semrec_faiss.index.memory.prediction import CUDA_CONTEXT_BYTES, MemoryPrediction, predict_memory
from semrec_faiss.index.saved.saved_index import INDEX_NAME, SavedIndex


@dataclass(frozen=True)
class LackingRoom:
    """A memory that two generations do not fit.

    Attributes:
        place: ``memory``, or ``GPU 0``.
        needed_bytes: what the newer one is predicted to take.
        free_bytes: what there is beside the one that is open.
    """

    place: str
    needed_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        return f"{self.needed_bytes / 1e9:.1f} GB of {self.place}, and {self.free_bytes / 1e9:.1f} GB are free"


def lacking_room(newer: SavedIndex, beside: SavedIndex) -> LackingRoom | None:
    """Predict the memory of a generation, and hold it against what is free beside the one that is open.

    Args:
        newer: nothing of it need be read.
        beside: the one that is open; files that both share take memory once, where they are mapped.

    Returns:
        The first memory that does not suffice; None where all do.
    """
    states = [state for state in gpu_states() if state.gpu in newer.device.gpus]
    free = {state.gpu: state.total_bytes - state.used_bytes for state in states}
    predicted = _least(newer, min(free.values(), default=None))
    if predicted.gpu is not None:
        needed = predicted.gpu.base - predicted.gpu.context
        for gpu, its in free.items():
            if needed > its:
                return LackingRoom(f"GPU {gpu}", needed, its)
    needed, available = predicted.host.base, available_bytes()
    if predicted.gpu is None and _is_shared(newer, beside):
        needed -= predicted.host.vectors + predicted.host.structure
    return None if available is None or needed <= available else LackingRoom("memory", needed, available)


def _least(newer: SavedIndex, free_bytes: int | None) -> MemoryPrediction:
    """Predict the least that a generation takes where a GPU has so much left.

    Whether its titles came as float16, of which type fused keeps no others, is known only once they are read.
    """
    manifest, limit = newer.generation.manifest, None if free_bytes is None else free_bytes + CUDA_CONTEXT_BYTES
    asked = (newer.config.index, manifest.count, manifest.dim, newer.device)
    ways = [predict_memory(*asked, float16_titles=came, limit_bytes=limit) for came in (False, True)]
    return min(ways, key=lambda way: way.searched.base)


def _is_shared(newer: SavedIndex, beside: SavedIndex) -> bool:
    """Tell whether both map the same vectors: an update links the file."""
    files = [saved.generation.manifest.files.get(INDEX_NAME) for saved in (newer, beside)]
    return files[0] is not None and files[0] == files[1]
