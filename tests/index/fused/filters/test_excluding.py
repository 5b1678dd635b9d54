"""Titles that a question excludes take no place of a filter: they are dropped, or listed for each query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.topk import FEW_EXCLUDED
from tests.index.fused.worlds import needs_kernels, searcher


@needs_kernels
def test_excluded_titles_are_listed_and_no_filter(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data", titles=300, dim=32, users=6)
    config = {"dataset": str(made.root), "output": str(tmp_path / "index"), "index": {"type": "fused"}}
    build_index(config_from_dict({**config, "device": "cpu"}))
    cpu, ours = (Recommender.open(tmp_path / "index", ["device.kind=cpu"]) for _ in range(2))
    ours.index.fused = fused = searcher(ours.index.vectors(np.arange(300)))
    users = list(ours.users.ids)
    for _ in range(2):  # with the second question users are held on the GPU
        ours.recommend(users[:1], 5)
    assert ours.searcher._held is not None
    best = [result.media_id for result in cpu.recommend(users[0], 40, include_seen=True)]
    for count in (1, FEW_EXCLUDED, FEW_EXCLUDED + 1, 40):
        for where in (None, "year < 1990"):
            wish: dict[str, Any] = {"exclude": best[:count], "where": where}
            questions: list[Callable[[Recommender], Any]] = [
                lambda one, wish=wish: one.similar(made.media_ids[7], 6, **wish),
                lambda one, wish=wish: one.recommend(users, 6, **wish),
                lambda one, wish=wish: one.recommend(users[0], 296, include_seen=True, **wish),
                lambda one, wish=wish: one.search(cpu.index.vectors([3, 4]), 6, **wish),
            ]
            for number, ask in enumerate(questions):
                mine, others = ask(ours), ask(cpu)
                np.testing.assert_array_equal(mine.rows, others.rows, f"{count} {where} {number}")
                np.testing.assert_array_equal(mine.matching, others.matching)
                np.testing.assert_allclose(mine.scores, others.scores, rtol=0, atol=1e-6)
    assert len(fused.filters._known) == 1, "the one filter"
