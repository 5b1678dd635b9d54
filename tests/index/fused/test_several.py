"""Type fused on several GPUs: the same answers as on one. In the interpreter the CPU stands for two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fused_worlds import PLACE, clustered, exclude, needs_kernels, searcher

from semrec_faiss.errors import DeviceError, UsageError
from semrec_faiss.index.fused.several import SeveralGpus, merged


def _devices() -> list[str]:
    if PLACE != "cuda:0":
        return ["cpu", "cpu"]
    import torch

    return [f"cuda:{gpu}" for gpu in range(torch.cuda.device_count())]


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_several_answer_as_one_does(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = _devices()
    if len(devices) < 2:
        pytest.skip("needs two GPUs")
    monkeypatch.setattr("semrec_faiss.index.fused.several.LEAST_A_REPLICA", 1)
    rng = np.random.default_rng(31)
    titles = clustered(rng, 701, 32)
    titles[rng.choice(701, 60)] = titles[5]
    queries = np.concatenate((titles[5:6], rng.normal(size=(1, 32)))).astype(np.float32)
    mask, few = rng.random(701) < 0.4, np.zeros(701, np.bool_)
    few[[3, 5, 700]] = True
    seen = exclude([rng.choice(701, size=30, replace=False) for _ in queries])
    one, several = searcher(titles), SeveralGpus(titles, devices, layout=layout)
    assert len(several.searchers) == len(devices)
    for options in ({}, {"mask": mask}, {"excluded": seen}, {"mask": mask, "excluded": seen}, {"mask": few}):
        for _ in range(1 if PLACE == "cpu" else 3):
            found, expected = several.search(queries, 12, **options), one.search(queries, 12, **options)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
    with pytest.raises(UsageError, match="k is 702"):
        several.search(queries, 702)


@needs_kernels
def test_a_gpu_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = clustered(np.random.default_rng(1), 300, 32)
    devices = (_devices() * 2)[:2]
    several = SeveralGpus(titles, devices, layout="shards")

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr(several.searchers[1]._all, "answer", failing)
    with pytest.raises(DeviceError, match=rf"{several.searchers[1].name[:3]}.* failed: CUDA error"):
        several.search(titles[:2], 3)


def test_merging_takes_the_best_and_ties_by_row() -> None:
    one = (np.array([[4, 1, -1], [0, 2, 3]]), np.array([[0.5, -0.0, -np.inf], [1.0, 0.25, -2.0]], np.float32))
    other = (np.array([[9, 8], [7, -1]]), np.array([[0.75, 0.5], [0.25, -np.inf]], np.float32))
    rows, scores = merged([one, other], 4)
    np.testing.assert_array_equal(rows, [[9, 4, 8, 1], [0, 2, 7, 3]])
    np.testing.assert_array_equal(scores, np.array([[0.75, 0.5, 0.5, 0.0], [1.0, 0.25, 0.25, -2.0]], np.float32))
    rows, scores = merged([one, other], 6)
    assert rows[0].tolist() == [9, 4, 8, 1, -1, -1]
    assert np.isneginf(scores[0, 4:]).all()
