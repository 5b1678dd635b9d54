"""Filters as bitmaps: packed and counted on the host, and sent to the GPU without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.titles.gpu_titles import load_torch


class Bitmaps:
    """Makes bitmaps of masks over the titles of one GPU; one thread at a time."""

    def __init__(self, titles: int, device: Any) -> None:
        """Make page-locked room for one bitmap of so many titles: each is sent from there."""
        self._torch, self._device = load_torch(), device
        locked = device.type == "cuda"
        self._room = self._torch.zeros(bitmap_words(titles), dtype=self._torch.int32, pin_memory=locked)
        self._view = self._room.numpy()
        self._sent = self._torch.cuda.Event() if locked else None

    def send(self, mask: Mask) -> tuple[Any, int]:
        """Return the bitmap of a mask, bool (titles,), and how many titles it allows.

        The bitmap is int32 (`bitmap_words`,), on its way to the GPU: whatever the thread launches there finds it.
        """
        packed = np.packbits(mask, bitorder="little")
        if self._sent is not None and not self._sent.query():
            self._sent.synchronize()  # the room is the last bitmap's until that has left it
        self._view.view(np.uint8)[: len(packed)] = packed  # what follows stays 0: masks are of one length
        bitmap = self._torch.empty_like(self._room, device=self._device)
        bitmap.copy_(self._room, non_blocking=True)
        if self._sent is not None:
            self._sent.record(self._torch.cuda.current_stream(self._device))
        return bitmap, self._count(mask)

    def _count(self, mask: Mask) -> int:
        """Count the bits of the bitmap just made: a mask has eight times as many bytes to read."""
        if hasattr(np, "bitwise_count"):
            return int(np.bitwise_count(self._view.view(np.uint64)).sum())
        return int(np.count_nonzero(mask))  # numpy 1
