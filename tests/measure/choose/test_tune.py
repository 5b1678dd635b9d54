"""Bisection finds the least value, and tuning the least setting of a real index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.config.index_types import IvfFlatIndex
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.data.interactions.transformation_file import JSON_NAME
from semrec_faiss.errors import ConfigError, UsageError
from semrec_faiss.measure.choose.tune import least_value, tune
from semrec_faiss.measure.trials.settings import QuerySettings

QUERIES = QuerySettings(titles=40, users=0, seed=1)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_least_value_of_any_threshold(most: int, threshold: int) -> None:
    tried: list[int] = []

    def reaches(value: int) -> bool:
        assert 1 <= value <= most
        tried.append(value)
        return value >= threshold

    assert least_value(reaches, most) == (threshold if threshold <= most else None)
    assert len(tried) == len(set(tried)), "nothing is tried twice"
    assert len(tried) <= 40


def configured(data: Path, **index: Any) -> Config:
    return config_from_dict({"dataset": str(data), "index": index, "device": "cpu"})


def test_least_nprobe_that_finds_enough(tiny_data: Any) -> None:
    config = configured(tiny_data.root, type="ivf_flat", build={"nlist": 6})
    found = tune(config, 0.9, k=5, queries=QUERIES, repeats=2)
    assert found.chosen is not None and found.config is not None
    assert found.parameter == "nprobe"
    assert found.chosen.recall >= 0.9
    recalls = {step.value: step.recall for step in found.steps}
    below = found.chosen.value - 1
    assert below == 0 or recalls[below] < 0.9, "one less is tried and is not enough"
    assert isinstance(found.config.index, IvfFlatIndex)
    assert (found.config.index.search.nprobe, found.config.index.build.nlist) == (found.chosen.value, 6)
    everything = tune(config, 1.0, k=5, queries=QUERIES, repeats=2)
    assert everything.chosen is not None
    assert everything.chosen.value >= found.chosen.value


def test_learned_vectors_keep_their_lengths(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data", titles=100)
    (made.root / "media" / JSON_NAME).write_text("{}")
    with pytest.raises(ConfigError, match=r"learned vectors.*normalize is true") as refused:
        tune(configured(made.root, type="ivf_flat", build={"nlist": 4}), 0.9, k=5, queries=QUERIES, repeats=2)
    assert refused.value.fix == "set normalize: false for the index, as configs/learned.yaml does"


def test_least_ef_search_and_refine(tiny_data: Any) -> None:
    graph = tune(configured(tiny_data.root, type="hnsw"), 0.95, k=5, queries=QUERIES, repeats=2)
    assert graph.parameter == "efSearch"
    assert graph.chosen is not None
    pq = configured(tiny_data.root, type="ivf_pq", build={"nlist": 2, "M": 4}, search={"nprobe": 2})
    with pytest.warns(RuntimeWarning, match="few to train"):
        refined = tune(pq, 0.99, parameter="refine", k=5, queries=QUERIES, repeats=2)
    assert refined.chosen is not None
    assert refined.chosen.value > 1, "quantised scores alone do not find so much"
    assert refined.chosen.recall >= 0.99


def test_not_enough_at_the_largest_value(tiny_data: Any) -> None:
    pq = configured(tiny_data.root, type="ivf_pq", build={"nlist": 6, "M": 2, "nbits": 4}, search={"refine": 1})
    with pytest.warns(RuntimeWarning, match="few to train"):
        found = tune(pq, 0.999, parameter="nprobe", k=5, queries=QUERIES, repeats=2)
    assert (found.chosen, found.config) == (None, None)
    assert [step.value for step in found.steps] == [6]
    assert found.steps[0].recall < 0.999


def test_a_factorys_setting(tiny_data: Any) -> None:
    found = tune(configured(tiny_data.root, factory="IVF6,Flat"), 0.9, k=5, queries=QUERIES, repeats=2)
    assert found.parameter == "nprobe"
    assert found.config is not None
    assert found.config.index.search.nprobe == found.chosen.value


def test_types_without_such_a_setting_are_refused(tiny_data: Any) -> None:
    with pytest.raises(UsageError, match="flat has no search setting to tune"):
        tune(configured(tiny_data.root, type="flat"), 0.9, queries=QUERIES)
    with pytest.raises(UsageError, match="hnsw has no nprobe"):
        tune(configured(tiny_data.root, type="hnsw"), 0.9, parameter="nprobe", queries=QUERIES)
    with pytest.raises(ConfigError, match="no dataset is given"):
        tune(config_from_dict({"index": {"type": "hnsw"}}), 0.9)
