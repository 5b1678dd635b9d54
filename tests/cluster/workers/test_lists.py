"""Lists for everybody by workers: those of one process, none twice and none missing, whatever is killed meanwhile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from semrec_faiss import NotFoundError, Recommender, UnavailableError, UsageError
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.workers import lists
from semrec_faiss.cluster.workers.blocks import done_in_blocks
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.search.export import export_all_users
from semrec_faiss.search.lists_file import how_made
from semrec_faiss.search.wish import Wish
from tests.cluster.worlds import Worker, World


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "BLOCK_USERS", 7)


def _rows(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_parts_hold_what_one_process_writes(cluster: Any, world: World, tmp_path: Path) -> None:
    expected = export_all_users(Recommender.open(world.whole), tmp_path / "one.parquet", 5, where="year > 1960")
    build_shards(config_from_dict(world.config | {"output": str(tmp_path / "sharded")}), 2)
    for name, index in (("whole", world.whole), ("shards", tmp_path / "sharded")):
        found = lists.recommend_all(index, tmp_path / name, 5, workers=2, where="year > 1960")
        assert found == expected
        assert _rows(tmp_path / name) == pq.read_table(tmp_path / "one.parquet").to_pylist()
        told = json.loads((tmp_path / name / lists.MANIFEST).read_text())
        assert told["summary"] == expected.as_dict()
        assert sorted(told["files"]) == sorted(path.name for path in (tmp_path / name).glob("*.parquet"))
        assert len(told["files"]) == 6
        assert [path.name for path in tmp_path.glob(f".{name}*")] == []


def test_an_interrupted_run_goes_on(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written = tmp_path / "lists", []
    lists.recommend_all(world.whole, out, 4, workers=1)
    whole, before = _rows(out), json.loads((out / lists.MANIFEST).read_text())

    def breaks(path: Path) -> Any:
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        written.append(path)
        return kept(path)

    kept = lists.new_file
    monkeypatch.setattr(lists, "new_file", breaks)
    with pytest.raises(lists.StorageError, match="No space left"):
        lists.recommend_all(world.whole, out, 3, workers=1)
    assert _rows(out) == whole, "what was there stays"
    monkeypatch.setattr(lists, "new_file", kept)
    damaged = written[1]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    flipped = bytearray(written[2].read_bytes())
    flipped[60] ^= 1  # in the ids of users
    written[2].write_bytes(flipped)
    before_that = how_made(out)
    found = lists.recommend_all(world.whole, out, 3, workers=1)
    now = how_made(out)
    assert before_that is not None and now is not None
    assert (before_that["wish"]["k"], now["wish"]["k"]) == (4, 3)
    assert found.resumed_users == 14
    assert found.users == found.users_with_k == 40
    assert _rows(out) == [row for row in whole if row["rank"] <= 3]
    assert json.loads((out / lists.MANIFEST).read_text())["summary"] != before["summary"]


def test_what_cannot_be_written_or_asked_is_said_before(cluster: Any, world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is a directory with other content"):
        lists.recommend_all(world.whole, tmp_path / "other")
    with pytest.raises(NotFoundError, match="does not exist"):
        lists.recommend_all(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match="the filter"):
        lists.recommend_all(world.whole, tmp_path / "out", where="year <")
    with pytest.raises(UsageError, match="belongs to the cluster at"):
        lists.recommend_all(world.whole, tmp_path / "out", address="127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_a_block_whose_worker_is_killed_is_done_again(cluster: Any, tmp_path: Path) -> None:
    import ray

    (tmp_path / "dies.3").write_text("once")
    started: list[int] = []

    def start(number: int) -> Any:
        started.append(number)
        return ray.remote(Worker).options(num_cpus=0.1).remote(str(tmp_path))

    blocks = [(number,) for number in range(9)]
    found = list(done_in_blocks(start, 2, "do", blocks))
    assert sorted(found) == [((number,), number * number) for number in range(9)]
    assert len(started) == 3
    assert len(list(tmp_path.glob("3.*"))) == 2


@pytest.mark.slow
def test_a_block_that_ends_every_worker_is_given_up(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    (tmp_path / "dies.1").write_text("always")
    start = lambda number: ray.remote(Worker).options(num_cpus=0.1).remote(str(tmp_path))  # noqa: E731
    with pytest.raises(UnavailableError, match="4 workers were lost over the same block of work"):
        list(done_in_blocks(start, 1, "do", [(number,) for number in range(3)]))
    assert capsys.readouterr().out == "", "Ray tells of lost workers, and stdout is for JSON"


def test_a_worker_whose_gpu_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: Ray waited for ever for a GPU in the place of that of a machine that was lost."""
    has = {"CPU": 8.0, "GPU": 2.0}
    started: list[dict[str, Any]] = []

    def options(**wanted: Any) -> Any:
        started.append(wanted)
        return SimpleNamespace(remote=lambda *_: "a worker")

    fake = SimpleNamespace(
        available_resources=lambda: has,
        cluster_resources=lambda: has,
        remote=lambda _: SimpleNamespace(options=options),
    )
    monkeypatch.setattr(lists, "load_ray", lambda: fake)
    opened: Any = SimpleNamespace(
        index=SimpleNamespace(device=SimpleNamespace(gpus=(0,))), users=SimpleNamespace(count=20)
    )
    run = lists._Run(opened, Wish(5), False, None, 2, lambda *_: None)
    assert run._start(0) == "a worker"
    assert started[0]["num_gpus"] == 1
    has["GPU"] = 1.0
    with pytest.raises(UnavailableError, match="2 workers need a GPU each, and the cluster has 1 now"):
        run._start(0)
    assert len(started) == 1


def test_commands_take_a_cluster(cluster: Any, world: World, tmp_path: Path, semrec: Any) -> None:
    index = tmp_path / "index"
    data = ("--dataset", str(world.made.root), "--output", str(index), "--set", "device.kind=cpu")
    built = semrec("build", *data, "--shards", "2", "--ray", "auto", "--json").document
    assert (built["titles"], built["users"]) == (301, 40)
    assert re.search(r"^bytes beside shards +\d", semrec("info", str(index)).out, re.MULTILINE)
    summary = semrec("recommend", str(index), "--all-users", "--out", str(tmp_path / "out"), "--ray", "auto", "--json")
    assert summary.document["users_with_k"] == 40
    address = f"ray://auto{index}"
    everybody = ("recommend", address, "--all-users", "--out", str(tmp_path / "lists.parquet"))
    assert semrec(*everybody, "--json").document == summary.document, "one file, by this process"
    assert pq.read_table(tmp_path / "lists.parquet").to_pylist() == _rows(tmp_path / "out")
    assert "names a cluster already" in semrec(*everybody, "--ray", "auto").err
    for command in ("info", "verify", "warm"):
        told = semrec(command, address)
        assert (told.code, "a path is expected, and --ray ADDRESS" in told.err) == (2, True)
    found = semrec("similar", address, "m00010", "-k", "3", "--json").document
    expected = Recommender.open(world.whole).similar("m00010", 3).as_dict()
    assert found["results"] == expected["results"]
    assert "--shards 2 --ray auto rebuilds it so" in semrec("build", str(index)).err
    assert semrec("build", str(index), "--shards", "3", "--ray", "auto", "--json").document["shards"] == 3
    assert semrec("build", str(index), "--output", str(tmp_path / "one"), "--json").document["shards"] is None
    assert semrec("rollback", str(index)).code == 0
    assert semrec("build", *data, "--shards", "2").code == 2
    assert semrec("build", *data, "--shards", "two", "--ray", "auto").code == 2
    assert "is in 2 shards" in semrec("similar", str(index), "m00010").err
    assert "--ray goes with --all-users" in semrec("recommend", str(index), "--user", "user_000", "--ray", "auto").err
