"""What tests of type fused share: where kernels run here, titles of many kinds, and brute force in float64."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.hardware.gpu_memory import gpu_states


def _place() -> str | None:
    """Where the kernels run here: a GPU, Triton's interpreter on the CPU, or nowhere."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "triton")):
        return None
    if gpu_states():  # without a driver torch, which takes seconds to import, is not asked
        import torch

        if torch.cuda.is_available():
            return "cuda:0"
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported, which nothing has done yet
    return "cpu"


PLACE = _place()


def needs_kernels(test: Any) -> Any:
    """Skip without torch and Triton; on a GPU the test is one of ``-m gpu``, in the interpreter it is slow."""
    test = pytest.mark.skipif(PLACE is None, reason="torch and triton are not installed")(test)
    return pytest.mark.gpu(test) if PLACE == "cuda:0" else pytest.mark.slow(test)


on_gpu = pytest.mark.gpu
SIZE = 1 if PLACE == "cpu" else 20
"""How much larger the worlds are on a GPU than in the interpreter."""


def searcher(titles: NDArray[Any], **options: Any) -> FusedSearcher:
    assert PLACE is not None
    return FusedSearcher(np.ascontiguousarray(titles, dtype=np.float32), PLACE, **options)


@dataclass(frozen=True)
class Truth:
    """What brute force in float64 says: scores of all titles, -inf where a title may not be returned."""

    scores: NDArray[np.float64]

    @classmethod
    def of(cls, titles: NDArray[Any], queries: NDArray[Any], allowed: Mask | None = None) -> Truth:
        scores = queries.astype(np.float64) @ titles.astype(np.float64).T
        return cls(scores if allowed is None else np.where(allowed, scores, -np.inf))

    def check(self, found: FusedResult, k: int, *, tolerance: float = 2e-6) -> None:
        """The best possible scores, those of the rows, in order, ties by row, none twice, -1 where nothing is left."""
        scale = max(1e-30, float(np.abs(self.scores[np.isfinite(self.scores)]).max(initial=0)))
        best = -np.sort(-self.scores, axis=1)[:, :k]
        full = np.isfinite(best)
        np.testing.assert_array_equal(found.rows >= 0, full)
        np.testing.assert_array_equal(np.isneginf(found.scores), ~full)
        own = np.take_along_axis(self.scores, np.maximum(found.rows, 0), axis=1)
        np.testing.assert_allclose(own[full], best[full], rtol=0, atol=tolerance * scale)
        np.testing.assert_allclose(found.scores[full], best[full], rtol=0, atol=tolerance * scale)
        with np.errstate(invalid="ignore"):
            steps = np.diff(found.scores, axis=1)
        inside = full[:, 1:]
        assert (steps[inside] <= 0).all()
        assert (np.diff(found.rows, axis=1)[inside & (steps == 0)] > 0).all()
        for row, kept in zip(found.rows, full, strict=True):
            assert len(np.unique(row[kept])) == kept.sum()


def note_codes(monkeypatch: pytest.MonkeyPatch, index: FusedSearcher) -> list[bool]:
    """Note of each pass over all titles, from now on, whether it takes their codes."""
    noted: list[bool] = []
    search_for = index.whole._search_for

    def noting(*sizes: Any, coded: bool) -> Any:
        noted.append(coded)
        return search_for(*sizes, coded=coded)

    monkeypatch.setattr(index.whole, "_search_for", noting)
    return noted


FREE, PRICELESS = float("inf"), 0.0
"""What a shelf is where `bitmaps_lose` so much."""


def bitmaps_lose(monkeypatch: pytest.MonkeyPatch, ms: float) -> None:
    """Let filters be put on shelves at once, or never: a search by bitmap is to take so much longer."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: ms)


def exclude(lists: list[NDArray[np.int64]]) -> Exclusions:
    return Exclusions(np.cumsum([0, *map(len, lists)]), np.concatenate(lists))


@dataclass
class Users:
    """What `HostUsers` asks for."""

    vectors: NDArray[np.float32]
    lists: list[NDArray[np.int64]] | None

    @property
    def count(self) -> int:
        return len(self.vectors)

    @property
    def has_seen(self) -> bool:
        return self.lists is not None

    @property
    def seen(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        assert self.lists is not None
        excluded = exclude(self.lists)
        return excluded.offsets, excluded.rows.astype(np.int32)


def clustered(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    centres = rng.normal(size=(12, d))
    made = centres[rng.integers(12, size=n)] + 0.6 * rng.normal(size=(n, d))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


WORLDS: dict[str, Callable[[np.random.Generator, int, int], NDArray[Any]]] = {
    "clustered": clustered,
    "random": lambda rng, n, d: rng.normal(size=(n, d)),
    "lengths apart": lambda rng, n, d: rng.normal(size=(n, d)) * np.exp(4 * rng.normal(size=(n, 1))),
    "many copies": lambda rng, n, d: rng.normal(size=(23, d))[rng.integers(23, size=n)],
    "whole numbers": lambda rng, n, d: rng.integers(-1, 2, size=(n, d)),
    "all the same": lambda rng, n, d: np.ones((n, d)),
    "all zero": lambda rng, n, d: np.zeros((n, d)),
    "huge": lambda rng, n, d: rng.normal(size=(n, d)) * 1e17,
    "tiny": lambda rng, n, d: rng.normal(size=(n, d)) * 1e-17,
}


def came_as_float16(titles: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float16 and bring to unit length, as a data folder does: float64 × one over its length, rounded."""
    wide = titles.astype(np.float16).astype(np.float64)
    made: NDArray[np.float32] = (wide * (1.0 / np.sqrt((wide * wide).sum(axis=1)))[:, None]).astype(np.float32)
    return made
