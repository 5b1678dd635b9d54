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
from semrec_faiss.index import train
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
        monkeypatch.setattr(module, "check_products", lambda *_: 1.0)  # earlier versions did not look
    monkeypatch.setattr(build_vectors, "_known_answers", lambda *_: ())
    monkeypatch.setattr(train, "LONGEST_TRAINED", np.inf)
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


def test_titles_whose_likeness_overflows_are_varied_right(
    tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short query has scores that a float32 holds, of titles that have no such product with one another."""
    vectors = np.array([[4, 0], [3.9, 0.1], [3, 3], [0, 3.5], [3.5, 1]], np.float32) * np.float32(1e21)
    made = make_folder(tmp_path / "data", vectors=vectors)
    monkeypatch.setattr(source, "check_products", lambda *_: 1.0)
    monkeypatch.setattr(build_vectors, "_known_answers", lambda *_: ())
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}
    build.build_index(config_from_dict({**values, "index": {"type": "flat", "normalize": False}}))
    found = Recommender.open(tmp_path / "index").search(np.array([1e-2, 1e-3], np.float32), 5, diversity=0.5)
    # By hand, in units of 1e21: of (1, 0.1)·x first (4, 0). From then on a product of two titles, 1e42 and more, is all
    # that counts beside scores of 1e19: always the title whose nearest among those chosen is the least near. That is
    # (0, 3.5) with 0; then (3, 3) with 12, others have 15.6 and 14; then (3.5, 1) with 14, the other has 15.6.
    assert found[0].rows.tolist() == [0, 3, 2, 4, 1]
    assert np.isfinite(found[0].scores).all()
