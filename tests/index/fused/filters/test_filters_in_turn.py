"""Random filters one after another, with whatever titles, lists and accidents: each answer is brute force's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.filters.shelves import Shelf, shelf_size
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles
from semrec_faiss.index.screening.spectrum import principal_directions
from tests.index.fused.recordings import FUSED, recordings
from tests.index.fused.worlds import (
    PLACE,
    SIZE,
    WORLDS,
    Truth,
    came_as_float16,
    clustered,
    exclude,
    needs_kernels,
    searcher,
)

BY_BOUNDS = ("bounds", "bounds beside halves")
DIM, KINDS = 40, ("vectors", "codes", "copies", "halves", "on the host", *BY_BOUNDS, "wide", "shards")


def made(kind: str, rng: np.random.Generator, n: int) -> tuple[NDArray[np.float32], FusedSearcher | SeveralGpus]:
    """Make titles and their index."""
    world = {"copies": "many copies", "halves": "whole numbers", "wide": "lengths apart"}.get(kind, "clustered")
    titles = np.ascontiguousarray(WORLDS[world](rng, n, DIM), dtype=np.float32)
    if kind == "bounds beside halves":
        titles = came_as_float16(titles)
    if kind == "shards":
        return titles, SeveralGpus(titles, [PLACE, PLACE], layout="shards")
    directions = np.ascontiguousarray(principal_directions(titles)[0][:15]) if kind in BY_BOUNDS else None
    return titles, searcher(titles, directions=directions, originals="host" if kind == "on the host" else "auto")


def drawn_masks(data: st.DataObject, rng: np.random.Generator, n: int) -> list[Mask]:
    """What fills a shelf, what shares it, what is one too many, the last title alone or not at all, all, nothing."""
    alike = [(9, 12, 10), (1, 6, 5), (7, 8, 49), (n // 2, n // 2 - 1, 48), (n, n - 1, 0)]
    masks = np.zeros((3, n), np.bool_)
    for mask, count in zip(masks, data.draw(st.sampled_from(alike)), strict=True):
        mask[rng.choice(n, count, replace=False)] = True
        if count and data.draw(st.booleans()):
            mask[np.flatnonzero(mask)[-1]], mask[-1] = False, True
    return [mask.copy() for mask in masks]


@contextmanager
def memory_short_at(where: str, call: int, searchers: list[FusedSearcher]) -> Iterator[None]:
    """Let memory run out once: at the so-manieth call from now on."""
    import torch

    owner, name = {
        "bitmap": (Bitmaps, "send"),
        "shelf": (GpuTitles, "gather"),
        "load": (Shelf, "load"),
        "loading": (GpuTitles, "gather_again"),
        "recording": (BlockSearch, "_capture"),
        "search": (BlockSearch, "answer"),
    }[where]
    original, calls = getattr(owner, name), []

    def short(self: Any, *given: Any, **options: Any) -> Any:
        if where == "bitmap":  # nothing can be let go of where there is no shelf
            spared = not any(one.filters._shelves and one.filters._bitmaps is self for one in searchers)
        else:
            spared = where == "search" and self.titles.origins is None  # of all titles blocks are halved
        if not spared:
            calls.append(None)
        if len(calls) == call + 1:
            calls.append(None)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return original(self, *given, **options)

    with mock.patch.object(owner, name, short):
        yield


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2 if PLACE == "cpu" else 40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_filters_in_turn(kind: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(50, 260 * SIZE))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    patches = {
        f"{FUSED}.plan.CODED_TITLES": 1 if kind in ("codes", *BY_BOUNDS) else 500_000,
        f"{FUSED}.repeating.QUERIES_A_REPEAT": 4 if kind in ("copies", "bounds beside halves") else 256,
        f"{FUSED}.searcher.SCREENED_TITLES": 1,
        f"{FUSED}.filters.shelves.LEAST_SHELVED": 6,
        f"{FUSED}.filters.known_filters.FILTERS_KNOWN": data.draw(st.sampled_from([1, 2, 64])),
        f"{FUSED}.filters.known_filters.CALM_BATCHES": data.draw(st.sampled_from([3, 4096])),
        f"{FUSED}.filters.known_filters.ANOTHER_MS": data.draw(st.sampled_from([0.0, 0.1, 5.0])),
        f"{FUSED}.filters.known_filters.masking_loss_ms": lambda *_: data.draw(
            st.sampled_from([np.inf, np.inf, 0.0, 0.6])
        ),
    }
    with ExitStack() as patched:
        for name, value in patches.items():
            patched.enter_context(mock.patch(name, value))
        patched.enter_context(recordings())
        titles, index = made(kind, rng, n)
        searchers = [index] if isinstance(index, FusedSearcher) else index.searchers
        for one in searchers:
            one.filters.budget = data.draw(st.sampled_from([10_000, 40_000, 1 << 28]))
        asked = np.concatenate((titles[-1:], titles[:1], clustered(rng, 3, DIM)))
        lists = [rng.choice(n, size=size, replace=False) for size in (0, 1, 9, n // 2, n)]
        lists[1][0] = n - 1
        users = index.hold_users(SimpleNamespace(count=5, vectors=asked, has_seen=True, seen=_seen(lists)))
        assert users is not None
        queries = data.draw(st.integers(1, 5))
        ks = data.draw(st.sampled_from([[7], [45], [1, 45]]))
        masks: list[Mask | None] = [*drawn_masks(data, rng, n), None]
        for _ in range(data.draw(st.integers(5, 9))):
            at = data.draw(st.sampled_from([0, 1, 2, 0, 1, 2, 3]))
            mask = masks[at]
            if mask is not None and data.draw(st.integers(0, 3)) == 0:
                mask = masks[at] = mask.copy()  # which is another filter, where the last one lay perhaps
            which = rng.permutation(5)[:queries]
            k, without, as_users = data.draw(st.sampled_from(ks)), data.draw(st.booleans()), data.draw(st.booleans())
            places = ["none", "none", "bitmap", "shelf", "load", "loading", "recording", "search"]
            where = data.draw(st.sampled_from(places))
            with memory_short_at(where, data.draw(st.integers(0, 1)), searchers) if where != "none" else ExitStack():
                found: FusedResult
                if as_users:
                    found = index.search_users(users, which, k, mask=mask, without_seen=without)
                else:
                    excluded = exclude([lists[query] for query in which]) if without else None
                    found = index.search(asked[which], k, mask=mask, excluded=excluded)
            allowed = np.tile(np.ones(n, np.bool_) if mask is None else mask, (len(which), 1))
            if without:
                for query, user in enumerate(which):
                    allowed[query, lists[user]] = False
            Truth.of(titles, asked[which], allowed).check(found, k)
            for one in searchers:
                _check_shelves(one)


def _seen(lists: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    excluded = exclude(lists)
    return excluded.offsets, excluded.rows.astype(np.int32)


def _check_shelves(index: FusedSearcher) -> None:
    """Whoever is said to be on a shelf is there, alone."""
    filters = index.filters
    held = [known.shelf for known in filters._known.values() if known.shelf is not None]
    assert len(set(map(id, held))) == len(held) and all(shelf in filters._shelves for shelf in held)
    for key, known in filters._known.items():
        assert key == id(known.mask)
        if known.shelf is not None:
            rows = np.flatnonzero(known.mask)
            assert known.shelf.size == shelf_size(len(rows)) < index.titles.count
            on_it = known.shelf.titles.origins.cpu().numpy()
            np.testing.assert_array_equal(on_it[: len(rows)], rows)
            assert (on_it[len(rows) :] == index.titles.count - 1).all()
