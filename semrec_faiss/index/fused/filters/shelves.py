"""Shelves: GPU memory where the titles of one filter after another are copied to and searched, by the same recordings.

A shelf has room for a fixed number of titles. What is recorded for it, the copying included, does for every filter that
fits, so that a new one neither waits for buffers nor is launched kernel by kernel. Where a filter has fewer titles, the
rest of the shelf has the catalogue's last one, again and again, and a bitmap tells how far the filter's own go.
"""

from __future__ import annotations

from typing import Any

from semrec_faiss.index.fused.batch import Workspace
from semrec_faiss.index.fused.block_search import RECORDED_AT, BlockSearch
from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.kernels.compiling import recorded
from semrec_faiss.index.fused.listing import power_of_two
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

LEAST_SHELVED = 6144
"""Titles of the smallest shelf: so few take less time than the launches that search them."""

FINELY_SIZED = 1 << 17
"""Of larger shelves there are eight sizes from a power of two to the next, and two of smaller: their titles take the
time that they are searched in, and the smaller ones' launches and copies do."""

SHELF_GRAPHS_BYTES = 128 << 20
"""GPU memory of the recorded batches of one shelf: 10,000 queries of 10,000 titles, and smaller batches beside them."""

LISTED_WORDS, COUNTED_AT_ONCE = 256, 1024
"""Words of a bitmap whose rows one program lists, and counts of programs before it that it adds up together."""


class Shelf:
    """Room for the titles of one filter, copied together; one thread at a time.

    Attributes:
        titles: those that are there, ``origins`` ascending; as many as the shelf has room for.
        search: a search of them.
        counted: what `KnownFilters` has counted for its memory.
    """

    def __init__(self, whole: GpuTitles, size: int, workspace: Workspace) -> None:
        """Make room for so many titles of ``whole``."""
        torch, self._device = load_torch(), whole.halves.device
        self._whole = whole
        self._bitmap, self._counts = (
            torch.zeros(count, dtype=torch.int32, device=self._device)
            for count in (bitmap_words(whole.count), listing_programs(whole.count))
        )
        self.titles = whole.gather(torch.full((size,), whole.count - 1, dtype=torch.int32, device=self._device))
        self.search = BlockSearch(self.titles, workspace, SHELF_GRAPHS_BYTES)
        self.counted = self._own_bytes = shelf_bytes(whole, size)
        self._loads, self._recorded = 0, None

    @property
    def size(self) -> int:
        """How many titles it has room for."""
        return self.titles.count

    @property
    def bytes(self) -> int:
        """GPU memory of the shelf and of recorded batches."""
        return self._own_bytes + self.search.recorded_bytes

    def load(self, bitmap: Any, allowed: int) -> None:
        """Copy the titles that a bitmap of the catalogue allows, int32 on the GPU: at most `size`, at least one.

        Nothing waits for it. What was launched before still finds the titles from before: the GPU goes in that order.
        """
        self._bitmap.copy_(bitmap)
        self.search.filled = allowed
        self._loads += 1
        if self._recorded is not None:
            self._recorded.replay()
        elif self._device.type == "cuda" and self._loads >= RECORDED_AT:
            self._recorded = recorded(self._launches, self._device)  # which launches it, too
        else:
            self._launches()

    def _launches(self) -> None:
        self.titles.origins.fill_(self._whole.count - 1)
        list_rows(self._bitmap, self._counts, self.titles.origins)
        self._whole.gather_again(self.titles)


def list_rows(bitmap: Any, counts: Any, rows: Any) -> None:
    """List the rows that a bitmap allows, on the GPU, without waiting for it.

    Args:
        bitmap: int32 (`bitmap_words`,).
        counts: int32 (`listing_programs`,), to work with.
        rows: int32, to be filled from the start, ascending; with room for all of them.
    """
    from semrec_faiss.index.fused.kernels import gathering

    words, programs = len(bitmap), len(counts)
    gathering.count_rows[(programs,)](bitmap, counts, words, WORDS=LISTED_WORDS, num_warps=4, **ARITHMETIC)
    sizes = {"WORDS": LISTED_WORDS, "BLOCK": COUNTED_AT_ONCE}
    gathering.list_rows[(programs,)](bitmap, counts, rows, words, **sizes, num_warps=4, **ARITHMETIC)


def listing_programs(titles: int) -> int:
    """Return how many programs list the rows of a bitmap of so many titles."""
    return -(-bitmap_words(titles) // LISTED_WORDS)


def shelf_size(allowed: int) -> int:
    """Return how large a shelf so many titles are put on."""
    least = max(allowed, LEAST_SHELVED)
    size = power_of_two(least)
    step = size // (16 if size > FINELY_SIZED else 4)
    return -(-least // step) * step


def shelf_bytes(whole: GpuTitles, size: int) -> int:
    """Return the GPU memory of a shelf for so many titles of ``whole``, before anything is recorded."""
    return whole.gathered_bytes(size) + 4 * (bitmap_words(whole.count) + listing_programs(whole.count))
