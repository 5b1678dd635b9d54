"""build, info, verify, rollback and doctor, as a person or a script meets them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import Semrec

from semrec_faiss import Change, Recommender, update_index
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_front, build_index
from semrec_faiss.index.build.source import TitleRange
from semrec_faiss.index.generations import manifest as manifest_module
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.shards import Place, Shard, ShardList
from semrec_faiss.index.saved.facts import facts_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    media = tmp_path / "data" / "media"
    media.mkdir(parents=True)
    vectors = np.random.default_rng(5).standard_normal((60, 16)).astype(np.float32)
    np.save(media / "content_vectors.npy", vectors)
    titles = [{"media_id": f"m{i}", "title": f"Film {i} ({1950 + i})", "year": 1950 + i} for i in range(60)]
    (media / "metadata.jsonl").write_text("".join(json.dumps(title) + "\n" for title in titles))
    return tmp_path / "data"


@pytest.fixture
def config(tmp_path: Path, folder: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"dataset: {folder}\nindex: {{type: flat}}\ndevice: cpu\noutput: {tmp_path / 'index'}\n")
    return path


def test_build_then_info_then_verify(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    built = semrec("build", config, "--json")
    assert built.code == 0, built.err
    facts = json.loads(built.out)
    assert (facts["type"], facts["titles"], facts["dim"], facts["users"]) == ("flat", 60, 16, 0)
    assert (facts["generation"], facts["previous"]) == ("gen-000001", None)
    info = json.loads(semrec("info", tmp_path / "index", "--json").out)
    assert info == {name: value for name, value in facts.items() if name != "build_seconds"}
    verified = semrec("verify", tmp_path / "index", "--json")
    assert verified.code == 0
    found = json.loads(verified.out)
    assert (found["verified"], found["titles"], found["known_answers"]) == (True, 60, 3)
    assert found["files"] == len(facts["files"]) == 7


def test_whose_data_they_are_is_told_where_only_the_output_is_given(
    config: Path, folder: Path, tmp_path: Path, semrec: Semrec
) -> None:
    """Once the demo's films took the place of somebody's own titles, without a word."""
    told = f"note: it is built of {folder}, which {config} names; --dataset names another\n"
    assert told in semrec("build", config, "--output", tmp_path / "other").err
    for options in ((), ("--dataset", folder), ("--dataset", folder, "--output", tmp_path / "other")):
        assert "built of" not in semrec("build", config, *options).err


def test_a_folder_that_is_no_index_does_not_hide_the_config_of_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semrec: Semrec
) -> None:
    """Once a fault: after `dataset learn tables learned`, `build learned` said that learned is no index directory."""
    monkeypatch.chdir(tmp_path)
    folder.rename("flat")
    built = semrec("build", "flat", "--dataset", "flat", "--output", "index")
    assert built.code == 0, built.err
    Path("flat").rename("data")
    Path("index").rename("flat")
    again = semrec("build", "flat", "--dataset", "data", "--json")
    assert (again.code, again.document["generation"]) == (0, "gen-000002"), "an index is built again, as ever"
    for path, kind in ((Path("data"), "data folder"), (Path("data") / "media", "folder")):
        refused = semrec("build", path, "--output", "other")
        assert (refused.code, f"{path} is a {kind}, not a config file" in refused.err) == (4, True)


def test_compact_tells_whether_there_was_anything_to_do(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    index = tmp_path / "index"
    assert semrec("build", config).code == 0
    held = {"generation": "gen-000001", "titles": 60, "users": 0}
    assert semrec("compact", index, "--json").document == held | {"compacted": False}
    assert semrec("compact", index).out == f"{index} is at gen-000001, in one piece as before: 60 titles, 0 users\n"
    assert update_index(index, Change(remove_titles=["m7"])).segments == 1
    held = {"generation": "gen-000003", "titles": 59, "users": 0}
    assert semrec("compact", index, "--json").document == held | {"compacted": True}
    missing = semrec("compact", tmp_path / "none")
    assert (missing.code, missing.err.splitlines()[0]) == (4, f"error: index {tmp_path}/none does not exist")


@pytest.fixture
def sharded(folder: Path, tmp_path: Path) -> Path:
    """An index in four shards of 15 titles: by 3 directions, by none, with its manifest lost, on another machine."""
    values = {"dataset": str(folder), "device": "cpu"}

    def write(_: str, count: int, fields: Mapping[str, str]) -> ShardList:
        shards = []
        for number, first in enumerate(range(0, count, 15)):
            own = {
                "output": str(tmp_path / f"index/shards/{number}"),
                "index": {"build": {"directions": 3 * (not number)}},
            }
            ref = build_index(config_from_dict(values | own), part=TitleRange(first, first + 15, fields)).ref
            node = "10.0.0.7" if number == 3 else None
            place = Place(node=node, generation=ref)
            shards.append(Shard(folder=f"shards/{number}", first=first, titles=15, places=(place,)))
            if number >= 2:
                (tmp_path / f"index/shards/{number}" / ref.name / "MANIFEST.json").unlink()
        return ShardList(shards=tuple(shards))

    build_front(config_from_dict(values | {"output": str(tmp_path / "index")}), write, strict=True)
    return tmp_path / "index"


def test_info_tells_each_shards_directions_as_it_does_those_of_an_index_in_one_piece(
    sharded: Path, semrec: Semrec
) -> None:
    own = semrec("info", sharded / "shards/0", "--json").document
    assert own["screened"]["directions"] == 3
    document = semrec("info", sharded, "--json").document
    assert (document["shards"], document["screening"], document["screened"]) == (4, None, None)
    assert document["each_shard"] == [
        {"titles": 15, "nodes": [], "screening": own["screening"], "screened": own["screened"]},
        {"titles": 15, "nodes": [], "screening": None, "screened": None},
        {"titles": 15, "nodes": []},
        {"titles": 15, "nodes": ["10.0.0.7"]},
    ]
    assert own["each_shard"] is None
    fields = {"media_id": "VARCHAR", "title": "VARCHAR"}
    assert document["fields"] == own["fields"] and fields.items() <= document["fields"].items()
    told = semrec("info", sharded).lines
    assert f"fields {', '.join(document['fields'])}" in told
    told = [line.split(maxsplit=2) for line in semrec("info", sharded).lines if line.startswith("shard ")]
    assert told == [
        ["shard", "0", f"15 titles: {own['screening']}"],
        ["shard", "1", "15 titles: no directions"],
        ["shard", "2", "15 titles: its manifest cannot be read"],
        ["shard", "3", "15 titles: on 10.0.0.7, which alone can tell more"],
    ]


def test_the_list_of_generations_says_of_which_bytes_lie_beside_shards(sharded: Path, semrec: Semrec) -> None:
    """Once the few bytes of the front were told as if they were all; and a list that is damaged hides no generation."""
    (found,) = semrec("info", sharded, "--all", "--json").document["generations"]
    assert found["shards"] == 4
    size = f"{found['bytes'] / 1000:.1f} KB beside shards"
    told = f"* gen-000001 flat, 60 titles, 0 users, {size}, {found['created']}"
    assert semrec("info", sharded, "--all").lines == [told]
    own = semrec("info", sharded / "shards/0", "--all", "--json").document["generations"][0]
    assert own["shards"] is None
    (sharded / "gen-000001/shards.json").write_text("{")
    assert semrec("info", sharded, "--all").out.startswith("* gen-000001  ")
    assert "shards.json" in semrec("info", sharded, "--all", "--json").document["generations"][0]["damaged"]


def test_a_shard_whose_manifest_may_not_be_read_hides_no_other(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it lies in a folder of another user: once `semrec info` and `/v1/index` told nothing of the rest."""
    read, refused = manifest_module.read_small, sharded / "shards/0"

    def refusing(path: Path, *rest: int) -> bytes:
        if refused in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *rest)

    monkeypatch.setattr(manifest_module, "read_small", refusing)
    _, detail = facts_of("index", IndexDirectory(sharded).current())
    assert detail["each_shard"][:2] == [
        {"titles": 15, "nodes": []},
        {"titles": 15, "nodes": [], "screening": None, "screened": None},
    ]


def test_info_tells_the_profile_that_users_are_searched_by(tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: it was kept and shown nowhere, as if it had been ignored."""
    settings = ("profile.interests=4", "profile.half_life=10.0")
    options = [part for setting in settings for part in ("--set", setting)]
    built = semrec("build", "flat", "--dataset", "data/demo", "--output", tmp_path / "index", *options)
    assert built.code == 0, built.err
    assert re.search(r"^profile +half_life=10, interests=4$", built.out, re.MULTILINE)
    facts = json.loads(semrec("info", tmp_path / "index", "--json").out)
    assert facts["profile"] == "half_life=10, interests=4"
    assert facts["config"]["profile"] == Profile(interests=4, half_life=10.0).model_dump()


def test_a_file_is_no_folder_of_changes(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    assert semrec("build", config).code == 0
    (tmp_path / "new.parquet").write_bytes(b"PAR1")
    result = semrec("update", tmp_path / "index", tmp_path / "new.parquet")
    assert result.code == 2
    assert f"{tmp_path / 'new.parquet'} is a file; a folder of changes is expected" in result.err
    assert f"semrec dataset import {tmp_path / 'new.parquet'} FOLDER" in result.err
    missing = semrec("update", tmp_path / "index", tmp_path / "nothing")
    parts = [line for line in missing.err.splitlines() if line.startswith("  media/") or line.startswith("  users/")]
    assert len(parts) == 5
    assert len({re.match(r"  \S+ +", line).end() for line in parts}) == 1


def test_warm_tells_what_it_asks_and_what_is_left_of_it(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    built = json.loads(semrec("build", config, "--json").out)
    made = semrec("warm", tmp_path / "index", "-k", "3", "--json")
    assert made.code == 0, made.err
    facts = json.loads(made.out)
    assert (facts["generation"], facts["device"], facts["k"]) == ("gen-000001", "cpu", 3)
    assert facts["bytes_read"] == built["bytes"]
    assert [one["queries"] for one in facts["warmed"] if one["what"] == "titles"] == [64, 32, 16, 8, 4, 2, 1]
    shown = semrec("warm", tmp_path / "index")
    assert "On a CPU nothing is compiled" in shown.out
    assert semrec("warm", tmp_path / "nothing").code == 4
    with (tmp_path / "index" / "gen-000001" / "index.faiss").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    assert semrec("warm", tmp_path / "index").code == 5, "what it reads is held against its digests"


def test_output_and_dataset_options_override_the_config(
    config: Path, folder: Path, tmp_path: Path, semrec: Semrec
) -> None:
    result = semrec("build", config, "--output", tmp_path / "other", "--dataset", folder, "--json")
    assert result.code == 0
    assert json.loads(result.out)["index"] == str(tmp_path / "other")
    assert not (tmp_path / "index").exists()


def test_a_config_may_be_left_out_or_named(folder: Path, tmp_path: Path, semrec: Semrec) -> None:
    for name, kind in (((), "flat"), (("hnsw",), "hnsw")):
        result = semrec("build", *name, "--output", tmp_path / kind, "--dataset", folder, "--json", cwd=tmp_path)
        assert result.code == 0, result.err
        assert json.loads(result.out)["type"] == kind
    result = semrec("build")
    assert (result.code, "--dataset DIR" in result.err) == (2, True)


def test_set_chooses_another_type(config: Path, semrec: Semrec) -> None:
    result = semrec("build", config, "--set", "index.type=hnsw", "--set", "index.build.M=8", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["config"]["index"]["build"]["M"] == 8


def test_rollback_returns_to_the_previous_generation(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    assert semrec("build", config).code == 0
    missing = semrec("rollback", tmp_path / "index")
    assert missing.code == 4
    assert "no generation before gen-000001" in missing.err
    assert "fix: it is the only one there is" in missing.err
    assert semrec("build", config).code == 0
    result = semrec("rollback", tmp_path / "index", "--json")
    assert (result.code, json.loads(result.out)["generation"]) == (0, "gen-000001")
    assert json.loads(semrec("info", tmp_path / "index", "--json").out)["generation"] == "gen-000001"
    forward = semrec("rollback", tmp_path / "index", "--to", "gen-000002")
    assert (forward.code, "index is at gen-000002, built" in forward.out) == (0, True)
    listed = json.loads(semrec("info", tmp_path / "index", "--all", "--json").out)["generations"]
    assert [(one["generation"], one["in_use"]) for one in listed] == [("gen-000001", False), ("gen-000002", True)]
    shown = semrec("info", tmp_path / "index", "--all").out.splitlines()
    assert [line[:12] for line in shown] == ["  gen-000001", "* gen-000002"]
    assert [f"{one['bytes'] / 1000:.1f} KB, {one['created']}" for one in listed] == [
        line.split(" users, ")[1] for line in shown
    ]
    unknown = semrec("rollback", tmp_path / "index", "--to", "gen-000007")
    assert (unknown.code, "it has gen-000001, gen-000002" in unknown.err) == (4, True)


def test_config_mistakes_are_exit_code_2_and_leave_nothing(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    config.write_text(config.read_text().replace("flat", "flatt").replace("device: cpu", "device: {kind: tpu}"))
    result = semrec("build", config)
    assert result.code == 2
    assert "2 mistakes" in result.err
    assert f"{config}:2: unknown index type 'flatt'; did you mean 'flat'?" in result.err
    assert not (tmp_path / "index").exists()


def test_replicas_without_shards_are_refused(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    result = semrec("build", config, "--replicas", "2")
    assert (result.code, "--replicas goes with --shards" in result.err) == (2, True)
    assert not (tmp_path / "index").exists()


def test_bad_data_is_exit_code_3_and_leaves_nothing(config: Path, folder: Path, tmp_path: Path, semrec: Semrec) -> None:
    vectors = np.load(folder / "media" / "content_vectors.npy")
    vectors[17, 3] = np.nan
    np.save(folder / "media" / "content_vectors.npy", vectors)
    result = semrec("build", config)
    assert result.code == 3
    assert "content_vectors.npy[17" in result.err
    assert not list(tmp_path.glob("index/gen-*"))
    assert not list(tmp_path.glob("index/.building-*"))


def test_a_gpu_that_is_not_there_is_exit_code_6(config: Path, semrec: Semrec) -> None:
    from semrec_faiss.index.hardware.device import gpu_count

    if gpu_count():
        pytest.skip("this machine has a GPU")
    result = semrec("build", config, "--set", "device.kind=gpu")
    assert result.code == 6
    assert "GPU 0 was asked for, but FAISS sees 0" in result.err
    assert "fix:" in result.err


def test_a_changed_file_is_exit_code_5(config: Path, tmp_path: Path, semrec: Semrec) -> None:
    assert semrec("build", config).code == 0
    stored = tmp_path / "index" / "gen-000001" / "index.faiss"
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    for arguments in (("verify", tmp_path / "index"), ("similar", tmp_path / "index", "Film 3")):
        result = semrec(*arguments)
        assert result.code == 5
        assert "index.faiss has changed since it was written" in result.err
        assert result.out == ""


@pytest.mark.slow
def test_doctor_finds_this_faiss(semrec: Semrec) -> None:
    result = semrec("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.out)["checks"]}
    assert checks["faiss"]["state"] == "ok"
    assert checks["python"]["found"].startswith(".".join(map(str, sys.version_info[:2])))
    assert result.code == (6 if any(check["state"] == "problem" for check in checks.values()) else 0)


def test_doctor_names_the_pip_command_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from semrec_faiss.index import diagnosis

    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(diagnosis.metadata, "version", nothing)
    monkeypatch.setattr(diagnosis, "_gpus", lambda: diagnosis.Check("gpu", "ok", "FAISS sees 1"))
    checks = {check.name: check for check in diagnosis.diagnose()}
    assert checks["sentence-transformers"].fix == "pip install 'semrec-faiss[embed]'"
    assert checks["torch"].fix == "pip install 'semrec-faiss[gpu]'"
    assert {checks[name].state for name in ("torch", "nvidia-ml-py", "polars")} == {"missing"}
    # Without a driver the gpu extra would only bring faiss-gpu over faiss-cpu.
    monkeypatch.setattr(diagnosis, "_gpus", lambda: diagnosis.Check("gpu", "missing", "no NVIDIA driver"))
    checks = {check.name: check for check in diagnosis.diagnose()}
    assert checks["torch"].fix == diagnosis.CPU_TORCH
    assert "nvidia-ml-py" not in checks


def test_both_faiss_wheels_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from semrec_faiss.errors import MissingPackageError
    from semrec_faiss.index.hardware import device

    monkeypatch.setattr(device, "installed_faiss", lambda: {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"})
    device.load_faiss.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="both installed") as caught:
            device.load_faiss()
        assert caught.value.fix is not None
        assert caught.value.fix.startswith("pip uninstall -y faiss-cpu faiss-gpu && pip install")
    finally:
        device.load_faiss.cache_clear()


def test_neither_faiss_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from semrec_faiss.errors import MissingPackageError
    from semrec_faiss.index.hardware import device

    monkeypatch.setitem(sys.modules, "faiss", None)
    device.load_faiss.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="FAISS is not installed") as caught:
            device.load_faiss()
        assert caught.value.fix is not None
        assert "pip install 'semrec-faiss[cpu]'" in caught.value.fix
    finally:
        device.load_faiss.cache_clear()


def test_ids_to_remove_are_taken_as_they_are(config: Path, folder: Path, tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: blanks around an id were dropped, so that another title of that name was removed."""
    ids = ["m1", "m1 ", " m1", "m1\u2028", "M1", "cafe\u0301", "caf\u00e9", *(f"n{number}" for number in range(53))]
    lines = (json.dumps({"media_id": media_id, "title": f"Film {row}"}) + "\n" for row, media_id in enumerate(ids))
    (folder / "media" / "metadata.jsonl").write_text("".join(lines))
    assert semrec("build", config).code == 0
    (tmp_path / "gone.txt").write_bytes("\ufeffm1 \r\n\r\ncafe\u0301\nm1\u2028\nm1\t\n".encode())
    done = semrec("update", tmp_path / "index", "--remove-titles", tmp_path / "gone.txt", "--json")
    assert done.code == 0, done.err
    counts = json.loads(done.out)["titles"]
    assert (counts["removed"], counts["unknown"]) == (3, 1)
    left = Recommender.open(tmp_path / "index").titles
    assert [each["media_id"] for each in left.records(range(4))] == ["m1", " m1", "M1", "caf\u00e9"]
