"""Vectors learned by workers are those of the same blocks in one process, whatever worker is killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import UsageError
from semrec_faiss.cluster.workers.learning import ClusterWorkers
from semrec_faiss.data.interactions import divided, text_part
from semrec_faiss.data.interactions.divided import HERE, Workers
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from tests.cluster import worlds
from tests.cluster.worlds import World


def test_workers_learn_what_one_process_does(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divided, "USERS_A_BLOCK", 16)
    monkeypatch.setattr(text_part, "BLOCK_ROWS", 100)
    settings = LearnSettings(rank=8, directions=5)
    made = {}
    for name, workers in (("whole", HERE), ("blocks", Workers()), ("cluster", ClusterWorkers())):
        with monkeypatch.context() as patched:
            if name == "cluster":
                mark = tmp_path / "killed"
                patched.setattr(divided, "_times", partial(worlds.times_killed_once, str(mark)))
            learn_folder(world.made.root, tmp_path / name, settings, workers=workers)
        vectors = [
            np.load(tmp_path / name / path) for path in ("media/content_vectors.npy", "users/preference_vectors.npy")
        ]
        made[name] = vectors
    assert (tmp_path / "killed").exists(), "a worker was killed meanwhile"
    for found, same, whole in zip(made["cluster"], made["blocks"], made["whole"], strict=True):
        np.testing.assert_array_equal(found, same)
        np.testing.assert_allclose(found, whole, atol=1e-4)


def test_the_command_learns_by_a_cluster(cluster: Any, world: World, tmp_path: Path, semrec: Any) -> None:
    told = semrec(
        "dataset", "learn", world.made.root, tmp_path / "out", "--rank", "4", "--ray", "auto", "--json"
    ).document
    assert (told["titles"], told["users"], told["rank"]) == (301, 40, 4)
    with pytest.raises(UsageError, match="belongs to the cluster at"):
        ClusterWorkers("127.0.0.1:1")
