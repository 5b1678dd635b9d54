"""Sweep files: what they may hold, where their mistakes are, and what a grid multiplies out to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.config.index_types import FlatIndex, HnswIndex, IvfFlatIndex
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.data.interactions.transformation_file import JSON_NAME
from semrec_faiss.errors import ConfigError, DataError, NotFoundError
from semrec_faiss.measure.sweep.grid import Combination, expand
from semrec_faiss.measure.sweep.plan import TrialsPlan, make_plan
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.measure.trials.plan_record import InvalidOne


def expanded(*entries: dict[str, Any]) -> tuple[list[Combination], list[InvalidOne]]:
    return expand(entries, YamlSource({"grid": list(entries)}))


def test_every_list_is_multiplied_out() -> None:
    valid, invalid = expanded(
        {"type": "ivf_flat", "device": ["cpu", "gpu"], "build": {"nlist": [8, 16]}, "search": {"nprobe": [1, 2, 4]}}
    )
    assert (len(valid), invalid) == (12, [])
    assert {(one.device.kind, one.index.build.nlist, one.index.search.nprobe) for one in valid} == {
        (kind, nlist, nprobe) for kind in ("cpu", "gpu") for nlist in (8, 16) for nprobe in (1, 2, 4)
    }


def test_gpus_are_one_value_and_lists_of_them_alternatives() -> None:
    one, _ = expanded({"type": "flat", "device": {"kind": "gpu", "gpus": [0, 1], "float16": [False, True]}})
    assert [(item.device.gpus, item.device.float16) for item in one] == [((0, 1), False), ((0, 1), True)]
    two, _ = expanded({"type": "flat", "device": {"kind": "gpu", "gpus": [[0], [0, 1]]}})
    assert [item.device.gpus for item in two] == [(0,), (0, 1)]
    both, _ = expanded({"type": "fused", "device": {"kind": "gpu", "gpus": [0, 1], "layout": ["shards", "replicas"]}})
    assert [item.device.layout for item in both] == ["shards", "replicas"]


def test_what_one_type_lacks_makes_its_combinations_invalid_with_the_reason() -> None:
    valid, invalid = expanded({"type": ["flat", "ivf_flat"], "search": {"nprobe": [1, 2]}})
    assert [type(one.index) for one in valid] == [IvfFlatIndex, IvfFlatIndex]
    assert [one.reason for one in invalid] == ["type flat has no search.nprobe"] * 2
    assert invalid[0].what == "type=flat, search={nprobe: 1}, device=auto"


def test_what_a_device_cannot_do_makes_its_combinations_invalid() -> None:
    valid, invalid = expanded({"type": ["flat", "hnsw"], "device": ["cpu", "gpu"]})
    assert [(type(one.index), one.device.kind) for one in valid] == [
        (FlatIndex, "cpu"),
        (FlatIndex, "gpu"),
        (HnswIndex, "cpu"),
    ]
    assert "type hnsw runs on CPU only" in invalid[0].reason


def test_the_same_combination_twice_is_told() -> None:
    valid, invalid = expanded({"type": "flat"}, {"type": ["flat", "hnsw"]})
    assert [type(one.index) for one in valid] == [FlatIndex, HnswIndex]
    assert invalid == [InvalidOne(what="flat on auto", reason="the grid names it twice")]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"type": []}, "index.type"),
        ({"type": "ivf_flat", "search": {"nprobe": []}}, "index.search.nprobe"),
        ({"type": "flat", "device": []}, "device.kind"),
        ({"type": "flat", "device": {"kind": "gpu", "layout": []}}, "device.layout"),
    ],
)
def test_a_list_without_alternatives_is_a_mistake(entry: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: should hold at least 1 alternative, not \[\]"):
        expanded({"type": "hnsw"}, entry)


SWEEP = """name: tiny
dataset: {dataset}
queries: {{titles: 10, users: 0}}
grid:
  - {{type: flat}}
  - type: ivf_flat
    search:
      nprobe: [1, 2]
"""


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("nprobe: [1, 2]", "nprob: [1, 2]"), 8, "unknown key 'index.search.nprob'; did you mean 'nprobe'?"),
        (("nprobe: [1, 2]", "nprobe: [0, 2]"), 8, "should be greater than or equal to 1, not 0"),
        (("type: ivf_flat", "type: ivf_flatt"), 6, "unknown index type 'ivf_flatt'; did you mean 'ivf_flat'?"),
        (("- {type: flat}", "- {type: flat, device: tpu}"), 5, "should be 'auto', 'cpu' or 'gpu', not 'tpu'"),
        (("titles: 10", "title: 10"), 3, "unknown key 'queries.title'; did you mean 'titles'?"),
        (
            ("name: tiny", "name: ../tiny"),
            1,
            "name: '../tiny' cannot be the name of a folder of results",
        ),
        (("name: tiny", "nam: tiny\nname: tiny"), 1, "unknown key 'nam'; did you mean 'name'?"),
        (("name: tiny", "repeats: 1\nname: tiny"), 1, "repeats: should be greater than or equal to 2, not 1"),
        (("name: tiny", f"name: {'x' * 300}"), 1, "…' (300 characters) cannot be the name of a folder of results"),
        (("name: tiny", "k: [10, 10]\nname: tiny"), 1, "holds a value twice"),
        (("name: tiny", "filters: ['']\nname: tiny"), 1, "filters.0: should have at least 1 character"),
        (("name: tiny", "slice: ''\nname: tiny"), 1, "slice: should have at least 1 character"),
        (("dataset: data", "dataset: [a/x, b/x]"), 2, "two data folders are called 'x'"),
        (("name: tiny", "k: 3000\nname: tiny"), 1, "should be less than or equal to 2048, not 3000"),
        (("titles: 10, users: 0", "titles: 0, users: 0"), 3, "at least one title or user must be asked"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, change: tuple[str, str], line: int, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(dataset="data").replace(*change))
    with pytest.raises(ConfigError) as caught:
        sweep, source = load_sweep_file(path)
        expand(sweep.grid, source)
    assert f"{path}:{line}: " in str(caught.value)
    assert message in str(caught.value)


def test_all_mistakes_of_a_grid_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(dataset="data").replace("type: flat", "type: flatt").replace("nprobe", "nprob"))
    sweep, source = load_sweep_file(path)
    with pytest.raises(ConfigError, match="2 mistakes in"):
        expand(sweep.grid, source)


def planned(path: Path, text: str, *overrides: str) -> TrialsPlan:
    path.write_text(text)
    return make_plan(*load_sweep_file(path, overrides))


@pytest.fixture
def data(tmp_path: Path, make_folder: Callable[..., Any]) -> Path:
    return Path(make_folder(tmp_path / "data", titles=100, dim=8, users=5).root)


def test_what_the_data_cannot_have_is_invalid_with_the_reason(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data).replace("nprobe: [1, 2]", "nprobe: [1, 2, 50]\n    build: {nlist: [4, 200]}")
    plan = planned(tmp_path / "s.yaml", text)
    assert [(trial.label, trial.batch) for trial in plan.trials if trial.batch == 1] == [
        ("flat on cpu", 1),
        ("ivf_flat nlist=4 nprobe=1 on cpu", 1),
        ("ivf_flat nlist=4 nprobe=2 on cpu", 1),
    ]
    reasons = [one.reason for one in plan.invalid]
    assert reasons.count("index.build.nlist is 200, more than the 90 titles") == 3
    assert "nprobe 50 is more than the 4 lists: it is the same as 4" in reasons
    assert len(plan.invalid) == 4


def test_learned_vectors_keep_their_lengths(tmp_path: Path, data: Path) -> None:
    """Once they were measured at unit length, and what was picked could not be built."""
    (data / "media" / JSON_NAME).write_text("{}")
    grid = "grid: [{type: flat, normalize: [true, false]}, {type: hnsw}]"
    plan = planned(tmp_path / "s.yaml", f"name: learned\ndataset: {data}\nqueries: {{titles: 20, users: 0}}\n{grid}")
    assert {trial.index.normalize for trial in plan.trials} == {False}
    assert [one.reason for one in plan.invalid] == [
        f"{data} holds learned vectors, whose lengths tell how well a title is liked; index.normalize is true"
    ] * 2


def test_a_factory_that_faiss_does_not_know_is_invalid(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data).replace("type: flat", 'factory: ["IVF4,PQ7", "IVF4,Flat", "Nope"]')
    plan = planned(tmp_path / "s.yaml", text)
    assert [one.reason.partition(" in ")[0] for one in plan.invalid] == [
        "FAISS cannot make an index from 'IVF4,PQ7'",
        "FAISS cannot make an index from 'Nope'",
    ]


def test_automatic_settings_that_come_to_the_same_are_one_trial(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data).replace("nprobe: [1, 2]", "nprobe: 1\n    build: {nlist: [2, auto]}")
    plan = planned(tmp_path / "s.yaml", text)  # auto is 90 / 39 = 2 lists
    assert len(plan.trials) == 4
    assert [one.reason for one in plan.invalid] == ["over this data it is the same as another of the grid"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("queries.titles=51", "queries.titles is 51, but .* has 100 titles"),
        ("queries.users=6", "queries.users is 6, but .* has vectors of 5 users"),
    ],
)
def test_more_questions_than_there_are_is_a_mistake(tmp_path: Path, data: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path / "s.yaml", SWEEP.format(dataset=data), override)


def test_missing_and_broken_data_are_told(tmp_path: Path, data: Path) -> None:
    with pytest.raises(NotFoundError, match="no data folder"):
        planned(tmp_path / "s.yaml", SWEEP.format(dataset=tmp_path / "nope"))
    (data / "media" / "content_vectors.npy").write_bytes(b"no numpy")
    with pytest.raises(DataError, match=r"not a \.npy file"):
        planned(tmp_path / "s.yaml", SWEEP.format(dataset=data))


def test_digest_is_of_what_is_measured_and_not_of_where_it_lies(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data)
    first = planned(tmp_path / "s.yaml", text)
    data.rename(tmp_path / "elsewhere")
    moved = planned(tmp_path / "s.yaml", text.replace(str(data), str(tmp_path / "elsewhere")), "name=other")
    assert [one.digest for one in first.trials] == [one.digest for one in moved.trials]
    changed = [
        planned(tmp_path / "s.yaml", text.replace(str(data), str(tmp_path / "elsewhere")), override)
        for override in ("repeats=5", "k=3", "batch=7", "queries.seed=8", "slice=genres")
    ]
    for plan in changed:
        assert {one.digest for one in plan.trials}.isdisjoint(one.digest for one in first.trials)


def test_changed_data_is_another_trial(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data)
    before = {one.digest for one in planned(tmp_path / "s.yaml", text).trials}
    with (data / "media" / "metadata.jsonl").open("r+") as file:
        file.write('{"media_id": "M')
    assert before.isdisjoint(one.digest for one in planned(tmp_path / "s.yaml", text).trials)


def test_cheaper_settings_of_an_index_come_first(tmp_path: Path, data: Path) -> None:
    text = SWEEP.format(dataset=data).replace("nprobe: [1, 2]", "nprobe: [3, 1, 2]\n    build: {nlist: 4}")
    plan = planned(tmp_path / "s.yaml", text, "batch=[1]")
    assert [trial.effort[0] for trial in plan.trials] == [0, 1, 2, 3]
    groups = list(plan.groups(frozenset(trial.digest for trial in plan.trials)))
    assert [len(group) for group in groups] == [1, 3], "each index is built once"


@pytest.mark.parametrize("name", ["sweep-demo", "sweep-gpu"])
def test_shipped_sweeps_load_and_every_combination_of_theirs_can_be(repo: Path, name: str) -> None:
    sweep, source = load_sweep_file(repo / "configs" / f"{name}.yaml")
    valid, invalid = expand(sweep.grid, source)
    assert sweep.name == name
    assert len(valid) > 10
    assert invalid == []
