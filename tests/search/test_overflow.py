"""Indexes of inner products that earlier versions built of vectors whose scores overflow float32: errors, never NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender, Taste
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DataError
from semrec_faiss.index.build import run as build
from semrec_faiss.index.build import source, users
from semrec_faiss.index.build import vectors as build_vectors


@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("scale", [1e22, 1e-18])
@pytest.mark.parametrize("kind", [{"type": "flat"}, {"type": "ivf_flat", "build": {"nlist": 4}}])
def test_scores_that_overflow_are_refused_and_likeness_is_right(
    tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any], scale: float
) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32) * np.float32(scale)
    made = make_folder(tmp_path / "data", vectors=vectors, users=3)
    for module in (source, users):
        monkeypatch.setattr(module, "check_products", lambda *_: None)  # earlier versions did not look
    monkeypatch.setattr(build_vectors, "_known_answers", lambda *_: ())
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}
    build.build_index(config_from_dict({**values, "index": {**kind, "normalize": False}}))
    recommender = Recommender.open(tmp_path / "index")
    asks: list[Callable[[], object]] = [
        lambda: recommender.search(vectors[:3], 5),
        lambda: recommender.search(vectors[:1], 5, where="year > 1960"),
        lambda: recommender.recommend_for(Taste(likes="m00003"), 5),
    ]
    for ask in asks if scale > 1 else []:
        with pytest.raises(DataError, match="a score is larger than a float32 can hold"):
            ask()
    cosines = made.unit @ made.unit[7]
    cosines[7] = -2
    found = recommender.similar("m00007", 5)
    assert found.rows.tolist() == np.argsort(-cosines)[:5].tolist()
    np.testing.assert_allclose(found.scores, np.sort(cosines)[::-1][:5], atol=1e-5)
