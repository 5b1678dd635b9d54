"""Made data folders, brute force to hold answers against, and the marks that skip what this machine lacks."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from semrec_faiss.data.titles.filters import limits

# How fast this machine is decides nothing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

HANG_SECONDS = 300.0
"""After so long a test takes what it waits for for hanging: nothing that works takes that on any busy machine."""

REPO = Path(__file__).resolve().parents[1]
MOVIELENS = REPO.parent / "shared" / "data" / "movielens-small"

# Tests of the service want the extra `serve` as soon as they are collected.
collect_ignore_glob = [] if find_spec("uvicorn") else ["serve"]

GENRES = ("Drama", "Comedy", "Crime", "Western", "Animation")


@dataclass(frozen=True)
class MadeFolder:
    """A data folder on disk and everything that was put into it."""

    root: Path
    vectors: NDArray[np.float32]
    media_ids: list[str]
    titles: list[str]
    user_vectors: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    user_ids: list[str] = field(default_factory=list)
    seen: dict[str, list[str]] = field(default_factory=dict)

    @property
    def unit(self) -> NDArray[np.float64]:
        """The title vectors at unit length."""
        return to_unit(self.vectors)


def to_unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Scale every vector to length one, in float64."""
    wide = np.asarray(vectors, dtype=np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def make_clusters(
    count: int, dim: int, *, clusters: int = 20, spread: float = 0.35, seed: int = 0
) -> NDArray[np.float32]:
    """Draw unit vectors around random centres: (count, dim) float32, neighbours well apart from strangers."""
    rng = np.random.default_rng(seed)
    centres = to_unit(rng.normal(size=(clusters, dim)))
    offsets = to_unit(rng.normal(size=(count, dim))) * spread
    return to_unit(centres[rng.integers(clusters, size=count)] + offsets).astype(np.float32)


def make_data_folder(
    root: Path,
    *,
    titles: int = 300,
    dim: int = 16,
    users: int = 0,
    seed: int = 0,
    word: str = "Film",
    vectors: NDArray[Any] | None = None,
) -> MadeFolder:
    """Write a data folder whose titles all begin with ``word``; users have seen the titles they are made from."""
    made = make_clusters(titles, dim, seed=seed) if vectors is None else np.asarray(vectors)
    names = [f"{word} {number} ({1950 + number % 70})" for number in range(len(made))]
    ids = [f"m{number:05d}" for number in range(len(made))]
    (root / "media").mkdir(parents=True)
    np.save(root / "media" / "content_vectors.npy", made)
    with (root / "media" / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number, (media_id, name) in enumerate(zip(ids, names, strict=True)):
            record = {
                "media_id": media_id,
                "title": name,
                "year": 1950 + number % 70,
                "genres": [GENRES[number % len(GENRES)]],
                "runtime": 60 + number % 120,
                "note": f"„{word}“ № {number}",
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not users:
        return MadeFolder(root, made.astype(np.float32), ids, names)
    rng = np.random.default_rng(seed + 1)
    liked = [np.sort(rng.choice(len(made), size=3, replace=False)) for _ in range(users)]
    user_vectors = to_unit(np.stack([made[rows].astype(np.float64).mean(axis=0) for rows in liked]))
    user_ids = [f"user_{number:03d}" for number in range(users)]
    seen = {user_id: [ids[row] for row in rows] for user_id, rows in zip(user_ids, liked, strict=True)}
    (root / "users").mkdir()
    np.save(root / "users" / "preference_vectors.npy", user_vectors)
    (root / "users" / "user_ids.json").write_text(json.dumps(user_ids), encoding="utf-8")
    _write_seen(root / "users" / "seen.parquet", seen)
    return MadeFolder(root, made.astype(np.float32), ids, names, user_vectors, user_ids, seen)


def _write_seen(path: Path, seen: dict[str, list[str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    pairs = [(user_id, media_id) for user_id, ids in seen.items() for media_id in ids]
    columns = {
        name: pa.array([pair[at] for pair in pairs], pa.string()) for at, name in enumerate(("user_id", "media_id"))
    }
    parquet.write_table(pa.table(columns), path)


def brute_force(titles: NDArray[Any], queries: NDArray[Any], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rank by inner product in float64, ties by row: scores and rows, both (queries, min(k, titles))."""
    scores = np.asarray(queries, dtype=np.float64) @ np.asarray(titles, dtype=np.float64).T
    rows = np.broadcast_to(np.arange(len(titles)), scores.shape)
    best = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, best, axis=1), best.astype(np.int64)


def assert_same_ranking(
    rows: NDArray[Any],
    scores: NDArray[Any],
    all_scores: NDArray[np.float64],
    *,
    tolerance: float = 1e-5,
) -> None:
    """Hold a full result against the true scores of all titles (queries, titles): right but for near-ties.

    The scores must be those of the rows, and the list of scores must be the best possible one; so a title can stand
    elsewhere than brute force has it only where another title scores the same.
    """
    k = rows.shape[1]
    own = np.take_along_axis(all_scores, rows, axis=1)
    best = -np.sort(-all_scores, axis=1)[:, :k]
    np.testing.assert_allclose(scores, own, rtol=0, atol=tolerance)
    np.testing.assert_allclose(own, best, rtol=0, atol=tolerance)
    assert_well_formed(rows, scores, all_scores.shape[1])


def assert_well_formed(rows: NDArray[Any], scores: NDArray[Any], count: int) -> None:
    """Check what every result promises: descending, ties by row, rows in range, none twice, no NaN."""
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert rows.shape == scores.shape
    assert not np.isnan(scores).any()
    assert rows.size == 0 or (rows.min() >= 0 and rows.max() < count)
    assert (np.diff(scores, axis=1) <= 0).all(), "scores must descend"
    tied = np.diff(scores, axis=1) == 0
    assert (np.diff(rows, axis=1)[tied] > 0).all(), "titles of equal score must stand in row order"
    ordered = np.sort(rows, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all(), "no title twice"


def until(holds: Callable[[], object], said: Callable[[], object] = str) -> None:
    """Wait for a state, however long it takes to come; what hangs is ended with what ``said`` returns."""
    ends = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < ends, said()
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process runs, on Linux: one that has ended has no command line, though nobody waits for it.

    In a container whose first process takes no orphans, those that have ended stay for good.
    """
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of stdout, runs of blanks made one."""
        return [" ".join(line.split()) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """The JSON on stdout, which must be all there is."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_python(
    *arguments: object, seconds: float = HANG_SECONDS, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``arguments`` in a process of its own that imports this source tree, and wait for its end.

    Args:
        arguments: ``-c`` and a program, ``-m semrec_faiss`` and a command, or a file, and what it is told.
        seconds: after how many it is taken for hanging.
        cwd: the folder that it runs in.
        environment: variables beside this process's own.
    """
    paths = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=seconds,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
    )


Semrec = Callable[..., Ended]


@pytest.fixture
def semrec(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Semrec:
    """Run `semrec` as its entry point does, without a new process; ``cwd`` is where."""
    from semrec_faiss.cli.main import cli
    from semrec_faiss.cli.process.exit import exit_code_of

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*arguments: object, cwd: Path | None = None) -> Ended:
        words = [str(argument) for argument in arguments]
        with monkeypatch.context() as there:
            there.chdir(cwd or Path.cwd())
            command = partial(cli.main, args=words, prog_name="semrec", standalone_mode=False)
            code = exit_code_of(command, words, debug=False, as_json="--json" in words)
        ended = Ended(code, *capfd.readouterr())
        assert "Traceback" not in ended.err
        return ended

    return run


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the source tree."""
    return REPO


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., MadeFolder]:
    """`make_data_folder`: writes a small data folder and returns what is in it."""
    return make_data_folder


@pytest.fixture(scope="session")
def clusters() -> Callable[..., NDArray[np.float32]]:
    """`make_clusters`: draws clustered unit vectors."""
    return make_clusters


@pytest.fixture(scope="session")
def unit() -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """`to_unit`: scales vectors to length one in float64."""
    return to_unit


@pytest.fixture(scope="session")
def truth() -> Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """`brute_force`: the ranking that an exact search must give."""
    return brute_force


@pytest.fixture(scope="session")
def same_ranking() -> Callable[..., None]:
    """`assert_same_ranking`: an exact result, near-ties aside."""
    return assert_same_ranking


@pytest.fixture(scope="session")
def well_formed() -> Callable[..., None]:
    """`assert_well_formed`: what every result promises."""
    return assert_well_formed


@dataclass(frozen=True)
class RatedIndex:
    """An index whose users have rated titles near each other: its folder, unit vectors, (row, rating, time) a user."""

    path: Path
    unit: NDArray[np.float64]
    ratings: list[list[tuple[int, float, int]]]


@pytest.fixture(scope="session")
def rated_index(tmp_path_factory: pytest.TempPathFactory) -> RatedIndex:
    """A flat index of 150 titles and 40 users, called ``index``."""
    from semrec_faiss.config.reading import config_from_dict
    from semrec_faiss.index.build.run import build_index

    root = tmp_path_factory.mktemp("rated")
    made = make_data_folder(root / "data", titles=150, dim=12, users=40)
    random = np.random.default_rng(5)
    told = []
    for _ in range(40):
        near = np.argsort(-(made.unit @ made.unit[random.integers(150)]))[:70]
        near = random.choice(near, random.integers(4, 30), replace=False)
        stars = random.integers(4, 11, len(near)) / 2
        times = random.integers(1, 10**9, len(near))
        told.append(list(zip(near.tolist(), stars.tolist(), times.tolist(), strict=True)))
    flat = [
        (made.user_ids[user], made.media_ids[row], star, at) for user, own in enumerate(told) for row, star, at in own
    ]
    random.shuffle(flat)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE seen (user_id VARCHAR, media_id VARCHAR, rating DOUBLE, timestamp BIGINT)")
        connection.executemany("INSERT INTO seen VALUES (?, ?, ?, ?)", flat)
        connection.execute(f"COPY seen TO '{root / 'data/users/seen.parquet'}' (FORMAT parquet)")
    build_index(config_from_dict({"dataset": str(root / "data"), "output": str(root / "index"), "device": "cpu"}))
    return RatedIndex(root / "index", made.unit, told)


@pytest.fixture(scope="session")
def movielens() -> Path:
    """The data folder made from MovieLens; skips where it is not beside the source tree."""
    if not (MOVIELENS / "media" / "content_vectors.npy").is_file():
        pytest.skip("shared/data/movielens-small is not beside the source tree")
    return MOVIELENS


def _gpu_count() -> int:
    from semrec_faiss.errors import MissingPackageError
    from semrec_faiss.index.hardware.device import gpu_count

    try:
        return gpu_count()
    except MissingPackageError:
        return 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes take files in turn, begin with those of slow tests, so that all end together."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``gpu`` where FAISS sees no GPU, before anything is built for it."""
    if item.get_closest_marker("gpu") is not None and _gpu_count() == 0:
        pytest.skip("FAISS sees no GPU")


@pytest.fixture(scope="session", autouse=True)
def _patient_filters() -> None:
    """Let filters take as long as they do on a busy machine; that they are ended is tested with a limit of its own."""
    limits.SECONDS = HANG_SECONDS


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Let `gc.collect`, which every timing begins with, pass over the many objects of modules and earlier tests."""
    gc.collect()
    gc.freeze()
