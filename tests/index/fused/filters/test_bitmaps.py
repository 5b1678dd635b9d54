"""Filters as bitmaps: packed, counted, and sent from page-locked memory that stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.filters.shelves import (
    shelf_size,
)
from semrec_faiss.index.fused.plan import bitmap_words
from tests.index.fused.worlds import PLACE, needs_kernels


@needs_kernels
def test_bitmaps_are_packed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself: the room that they are sent from is used again."""
    import torch

    def bits(bitmap: Any) -> list[int]:
        return [int(bit) for bit in np.unpackbits(bitmap.cpu().numpy().view(np.uint8), bitorder="little")]

    rng = np.random.default_rng(4)
    for titles in (1, 31, 256, 1000):
        bitmaps = Bitmaps(titles, torch.device(str(PLACE)))
        masks = [rng.random(titles) < share for share in (1.0, 0.3, 0.0, 0.5)]
        sent = [bitmaps.send(mask) for mask in masks]
        for mask, (allowed, bitmap, within) in zip(masks, sent, strict=True):
            assert allowed == mask.sum()
            assert bits(bitmap) == [*mask, *[0] * (32 * bitmap_words(titles) - titles)]
            size = shelf_size(allowed)
            assert (within is None) == (size >= titles)
            if within is not None:
                assert bits(within) == [1] * allowed + [0] * (32 * bitmap_words(size) - allowed)
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # numpy 1 has none
    assert [bitmaps.send(mask)[0] for mask in masks] == [mask.sum() for mask in masks]


@needs_kernels
def test_a_bitmap_waits_until_the_last_one_has_left() -> None:
    """Packed too soon it would be sent in its place. A stand-in plays the GPU's clock."""
    import torch

    bitmaps, told = Bitmaps(300, torch.device(str(PLACE))), []
    bitmaps._sent = SimpleNamespace(
        query=lambda: False,
        synchronize=lambda: told.append(bitmaps._view[: bitmap_words(300)].copy()),
        record=lambda _: told.append(None),
    )
    masks = [np.arange(300) % 3 == rest for rest in range(2)]
    with mock.patch("torch.cuda.current_stream"):
        first, second = (bitmaps.send(mask)[1].cpu().numpy() for mask in masks)
    assert [one is None for one in told] == [False, True, False, True]
    np.testing.assert_array_equal(told[2], first)
    assert not np.array_equal(first, second)
