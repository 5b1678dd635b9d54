"""A cluster of two Ray nodes on this machine, and an index that lies in shards beside the same in one piece."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, make_data_folder

from semrec_faiss.cluster.connection import connect
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from tests.cluster.worlds import HEAD, NODE, World

HAS_RAY = importlib.util.find_spec("ray") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.slow)  # each starts nodes or actors, which are processes
            if not HAS_RAY:
                item.add_marker(pytest.mark.skip(reason="ray is not installed"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes that may use four cores each; this process is their driver."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ["RAY_DEDUP_LOGS"] = "0"
    os.environ.setdefault("RAY_TMPDIR", "/tmp")  # where the names of its sockets are short enough
    paths = [str(REPO), str(REPO / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD)
    made.add_node(**NODE)
    connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("cluster")
    made = make_data_folder(root / "data", titles=301, dim=16, users=40)
    config = {"dataset": str(made.root), "index": {"type": "flat"}, "device": {"kind": "cpu"}}
    build_index(config_from_dict(config | {"output": str(root / "whole")}))
    return World(made, root / "whole", root / "sharded", config)
