"""A forked process asks what its parent opened, or is refused at once; it never hangs and never crashes."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import run_python

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index

PROGRAM = Path(__file__).with_name("ask_after_fork.py")
TITLES = 9_000
"""More than one thread multiplies with a single query."""

TYPES: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 32}},
    "ivf_sq": {"type": "ivf_sq", "build": {"nlist": 32}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 32}},
    "hnsw": {"type": "hnsw"},
    "fused": {"type": "fused"},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="processes are not forked here by default"),
    pytest.mark.filterwarnings("ignore:.*few to train"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Any) -> Path:
    """A data folder with users."""
    return Path(make_folder(tmp_path_factory.mktemp("forks") / "data", titles=TITLES, dim=32, users=12).root)


@pytest.fixture(scope="module")
def index_of(data: Path) -> Any:
    """Builds an index of a type once and returns its path."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            made[name] = data.parent / name
            values = {"dataset": str(data), "output": str(made[name]), "index": TYPES[name], "device": "cpu"}
            build_index(config_from_dict(values))
        return made[name]

    return build


def run(how: str, index: Path, *settings: str) -> Any:
    """What the program prints; a hang ends the test."""
    ended = run_python(PROGRAM, how, index, *settings)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", TYPES)
def test_a_child_and_its_children_ask_what_the_parent_opened(index_of: Any, name: str) -> None:
    child, second, parent = run("inherited", index_of(name))
    assert child == [[True, True, [True, 0]], 0]
    assert second == [True, 0]
    assert parent is True


@pytest.mark.parametrize("name", ["flat", "ivf_pq", "hnsw"])
def test_a_child_opens_what_its_parent_has_let_go(index_of: Any, name: str) -> None:
    assert run("dropped", index_of(name)) == [True, 0]


@pytest.mark.parametrize("name", ["flat", "ivf_flat"])
def test_a_child_that_asks_nothing_ends_well(index_of: Any, name: str) -> None:
    assert run("unasked", index_of(name)) == ["Recommender", 0]


@pytest.mark.parametrize("name", ["flat", "ivf_pq"])
def test_parts_of_an_index_refuse_in_a_child(index_of: Any, name: str) -> None:
    said, code = run("parts", index_of(name))
    assert code == 0
    expected = "UsageError: this {} was opened before the process forked: its threads stayed with the parent"
    assert said == [expected.format("VectorIndex"), expected.format("Catalog")]


@pytest.mark.parametrize("name", ["flat", "hnsw"])  # OpenBLAS's threads and OpenMP's; inverted lists have the latter
def test_forks_while_other_threads_ask(index_of: Any, name: str) -> None:
    assert run("busy", index_of(name)) == [[True, 0]] * 8


@pytest.mark.parametrize("name", ["flat", "ivf_flat"])
def test_every_kind_of_multiprocessing(index_of: Any, name: str) -> None:
    assert run("methods", index_of(name)) == [["fork", 0, True], ["spawn", 0, True], ["forkserver", 0, True]]


def test_the_workers_of_a_torch_loader(index_of: Any) -> None:
    pytest.importorskip("torch", reason="DataLoader is torch's")
    assert run("loader", index_of("flat")) is True


def test_a_recommender_is_pickled_as_its_path_and_settings(index_of: Any) -> None:
    recommender = Recommender.open(index_of("ivf_flat"), ["index.search.nprobe=7"])
    text = pickle.dumps(recommender)
    assert len(text) < 1_000
    again = pickle.loads(text)
    assert again.saved.config == recommender.saved.config
    assert again.index.config.search.nprobe == 7
    assert again.similar("m00007").rows.tolist() == recommender.similar("m00007").rows.tolist()
