"""Exact neighbours against brute force, and a cache that knows what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import UsageError
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.quality.truth import ExactNeighbours, digest_of_array, exact_index


class Counted:
    """An exact index over some vectors, and how often it was made."""

    def __init__(self, vectors: np.ndarray, device: Device | None = None) -> None:
        self.vectors, self.made, self.device = vectors, 0, device

    def __call__(self) -> VectorIndex:
        self.made += 1
        count, dim = self.vectors.shape
        return exact_index(lambda: [(0, self.vectors)], count, dim, normalize=True, device=self.device)

    def neighbours(self, cache: Path | None, metric: str = "ip") -> ExactNeighbours:
        return ExactNeighbours(self, digest_of_array(self.vectors), cache=cache, metric=metric)


@pytest.fixture
def titles(clusters: Callable[..., Any]) -> np.ndarray:
    return np.asarray(clusters(400, 16))


@pytest.fixture
def queries(clusters: Callable[..., Any]) -> np.ndarray:
    return np.asarray(clusters(9, 16, seed=5))


def check_against_brute_force(make: Counted, queries: np.ndarray, truth: Callable[..., Any]) -> None:
    scores, rows = truth(make.vectors, queries, 7)
    found = make.neighbours(None).find(queries, 7)
    assert np.array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert (found.matching, found.from_cache) == (400, False)
    mask = np.zeros(400, np.bool_)
    mask[::3] = True
    scores, positions = truth(make.vectors[mask], queries, 7)
    masked = make.neighbours(None).find(queries, 7, mask)
    assert np.array_equal(masked.rows, np.flatnonzero(mask)[positions])
    np.testing.assert_allclose(masked.scores, scores, atol=1e-6)
    assert masked.matching == 134


def test_same_as_brute_force(titles: np.ndarray, queries: np.ndarray, truth: Callable[..., Any]) -> None:
    check_against_brute_force(Counted(titles, Device()), queries, truth)


@pytest.mark.gpu
def test_same_as_brute_force_on_the_gpu(titles: np.ndarray, queries: np.ndarray, truth: Callable[..., Any]) -> None:
    make = Counted(titles)
    assert make().device == Device((0,))
    check_against_brute_force(make, queries, truth)


def test_fewer_than_k_match(titles: np.ndarray, queries: np.ndarray) -> None:
    mask = np.zeros(400, np.bool_)
    mask[[5, 250]] = True
    found = Counted(titles).neighbours(None).find(queries, 4, mask)
    assert found.matching == 2
    assert sorted(found.rows[0].tolist()) == [-1, -1, 5, 250]
    assert np.isneginf(found.scores[:, 2:]).all()
    nothing = Counted(titles).neighbours(None).find(queries, 4, np.zeros(400, np.bool_))
    assert (nothing.rows == -1).all()
    assert nothing.matching == 0
    assert (Counted(titles[:3]).neighbours(None).find(queries, 5).rows[:, 3:] == -1).all()


def test_each_question_is_computed_once(tmp_path: Path, titles: np.ndarray, queries: np.ndarray) -> None:
    make = Counted(titles)
    first = make.neighbours(tmp_path / "cache").find(queries, 5)
    again = make.neighbours(tmp_path / "cache").find(queries, 5)
    assert (make.made, first.from_cache, again.from_cache) == (1, False, True)
    assert first.digest == again.digest
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.scores, again.scores)
    assert again.matching == 400


def test_key_knows_data_queries_metric_k_and_filter(tmp_path: Path, titles: np.ndarray, queries: np.ndarray) -> None:
    mask = np.ones(400, np.bool_)
    other_mask = mask.copy()
    other_mask[7] = False
    moved = titles.copy()
    moved[399] = titles[0]
    asked = [
        Counted(titles).neighbours(tmp_path).find(queries, 5),
        Counted(moved).neighbours(tmp_path).find(queries, 5),
        Counted(titles).neighbours(tmp_path).find(queries[::-1], 5),
        Counted(titles).neighbours(tmp_path, "l2").find(queries, 5),
        Counted(titles).neighbours(tmp_path).find(queries, 6),
        Counted(titles).neighbours(tmp_path).find(queries, 5, mask),
        Counted(titles).neighbours(tmp_path).find(queries, 5, other_mask),
    ]
    assert len({found.digest for found in asked}) == len(asked)
    assert not any(found.from_cache for found in asked)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"PK\x03\x04 no"])
def test_damaged_cache_is_computed_again(
    tmp_path: Path, titles: np.ndarray, queries: np.ndarray, damage: Callable[[bytes], bytes]
) -> None:
    whole = Counted(titles).neighbours(tmp_path).find(queries, 5)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = Counted(titles).neighbours(tmp_path).find(queries, 5)
    assert not again.from_cache
    assert np.array_equal(whole.rows, again.rows)
    assert Counted(titles).neighbours(tmp_path).find(queries, 5).from_cache, "and kept whole this time"


def test_digest_is_of_values_and_not_of_where_they_lie(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "a.npy", values)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    same = {
        digest_of_array(values),
        digest_of_array(mapped),
        digest_of_array(values.astype(">f4")),
        digest_of_array(np.asfortranarray(values)),
    }
    assert len(same) == 1
    assert digest_of_array(values.astype(np.float64)) not in same
    assert digest_of_array(values.reshape(3, 20)) not in same


def test_an_approximate_index_makes_no_truth(titles: np.ndarray, queries: np.ndarray) -> None:
    config = resolve(config_from_dict({"index": {"type": "ivf_flat", "search": {"nprobe": 1}}}).index, 400, 16)
    index = VectorIndex(build_faiss_index(config, lambda: [(0, titles)], 400, 16, Device()), config)
    with pytest.raises(UsageError, match="not exact"):
        ExactNeighbours(lambda: index, "x").find(queries, 5)
    with pytest.raises(UsageError, match="k is 0"):
        Counted(titles).neighbours(None).find(queries, 0)
