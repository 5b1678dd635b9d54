"""Filters as bitmaps: packed and counted on the host, and sent to the GPU without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.filters.shelves import shelf_size
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.titles.gpu_titles import load_torch


class Bitmaps:
    """Makes bitmaps of masks over the titles of one GPU; one thread at a time."""

    def __init__(self, titles: int, device: Any) -> None:
        """Make page-locked room for a filter's bitmaps, of so many titles and of a shelf: all are sent from there."""
        self._torch, self._device = load_torch(), device
        locked = device.type == "cuda"
        self._titles, self._words = titles, bitmap_words(titles)
        self._room = self._torch.zeros(2 * self._words, dtype=self._torch.int32, pin_memory=locked)
        self._view = self._room.numpy()
        self._sent = self._torch.cuda.Event() if locked else None

    def send(self, mask: Mask) -> tuple[int, Any, Any]:
        """Return how many titles a mask, bool (titles,), allows, its bitmap, and the one of its titles on a shelf.

        Both are int32, on their way to the GPU: whatever the thread launches there finds them. Of a shelf's titles the
        first are the filter's; where it would have to hold the whole catalogue there is no such bitmap.
        """
        packed = np.packbits(mask, bitorder="little")
        if self._sent is not None and not self._sent.query():
            self._sent.synchronize()  # the room is the last filter's until that has left it
        words = self._view[: self._words]
        words.view(np.uint8)[: len(packed)] = packed  # what follows stays 0: masks are of one length
        allowed = _count(words, mask)
        size = shelf_size(allowed)
        both = self._words + (bitmap_words(size) if size < self._titles else 0)
        _allow_first(allowed, self._view[self._words : both])
        sent = self._torch.empty(both, dtype=self._torch.int32, device=self._device)
        sent.copy_(self._room[:both], non_blocking=True)
        if self._sent is not None:
            self._sent.record(self._torch.cuda.current_stream(self._device))
        return allowed, sent[: self._words], sent[self._words :] if both > self._words else None


def _count(bitmap: NDArray[np.int32], mask: Mask) -> int:
    """Count the bits of a mask's bitmap: the mask has eight times as many bytes to read."""
    if hasattr(np, "bitwise_count"):
        return int(np.bitwise_count(bitmap.view(np.uint64)).sum())
    return int(np.count_nonzero(mask))  # numpy 1


def _allow_first(count: int, bitmap: NDArray[np.int32]) -> None:
    """Make the bitmap of the first so many titles; of no words none."""
    words, bits = divmod(count, 32)
    bitmap[:words], bitmap[words:] = -1, 0
    if bits and len(bitmap):
        bitmap[words] = (1 << bits) - 1
