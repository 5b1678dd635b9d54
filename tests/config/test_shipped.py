"""Configs by name: those that semrec ships are found wherever it runs, and a file of one's own comes first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.config import shipped
from semrec_faiss.config.reading import load_config
from semrec_faiss.config.schema import Config
from semrec_faiss.config.shipped import find_config
from semrec_faiss.errors import ConfigError, NotFoundError
from semrec_faiss.measure.guide.config import CompareSettings, Prices, load_settings
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.serve.settings import read_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["ivf_flat", "ivf_flat.yaml", "configs/ivf_flat.yaml", "configs/ivf_flat"])
def test_a_shipped_config_is_found_from_anywhere(name: str, repo: Path) -> None:
    assert find_config(Path(name)).samefile(repo / "configs" / "ivf_flat.yaml")
    assert load_config(name).index.type == "ivf_flat"


def test_a_file_of_that_name_comes_first(elsewhere: Path) -> None:
    (elsewhere / "flat").write_text("index: {type: hnsw}\n")
    assert load_config("flat").index.type == "hnsw"


@pytest.mark.parametrize("name", ["none", "other/flat.yaml", "flat.yml", "configs", "../flat", "x" * 5000])
def test_another_name_is_told_with_the_names_there_are(name: str, repo: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as caught:
        load_config(name)
    types = ("flat", "fused", "hnsw", "ivf_flat", "ivf_pq", "ivf_sq", "learned")
    assert caught.value.candidates == types
    assert str(caught.value.fix).endswith(f"the name of a config that semrec ships: {', '.join(types)}")
    loaded = [load_config(config).index.type for config in types]
    assert loaded == ["flat", "fused", "hnsw", "ivf_flat", "ivf_pq", "ivf_sq", "flat"]


def test_only_files_of_the_kind_that_is_wanted_are_named() -> None:
    """Once costs and sweeps were offered to build and to memory, which refuse them."""
    for read, names in (
        (load_sweep_file, "sweep-demo, sweep-evaluate, sweep-gpu"),
        (partial(load_settings, CompareSettings), "compare"),
        (partial(load_settings, Prices), "costs"),
    ):
        with pytest.raises(NotFoundError) as caught:
            read(Path("nothing"))
        assert caught.value.fix == f"give a file, or the name of a config that semrec ships: {names}"
    with pytest.raises(NotFoundError) as caught:
        read_settings(Path("nothing"), {"index": "here"})
    assert (caught.value.fix, caught.value.candidates) == ("give a file", ())


def test_a_folder_is_not_told_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is a folder, not a config file\ngive a file"):
        load_config(tmp_path)


@pytest.mark.parametrize(("mistyped", "meant"), [("flta", "flat"), ("sweep_demo", "sweep-demo"), ("ivf-pq", "ivf_pq")])
def test_the_nearest_name_is_offered(mistyped: str, meant: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        load_config(mistyped)
    assert str(caught.value.fix).startswith(f"did you mean {meant!r}? give a file, or")


SWEEP, CONFIG = "a sweep, which `semrec sweep` takes", "an index's config, which `semrec build` takes"


@pytest.mark.parametrize(
    ("read", "name", "kind"),
    [
        (load_config, "sweep-demo", SWEEP),
        (load_config, "sweep-evaluate", SWEEP),
        (load_config, "compare", "the questions of a comparison, which `semrec compare --config` takes"),
        (load_config, "costs", "the prices of a comparison, which `semrec compare --costs` takes"),
        (load_sweep_file, "flat", CONFIG),
        (partial(load_settings, CompareSettings), "flat", CONFIG),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is(read: Callable[..., Any], name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match="mistakes in") as caught:
        read(find_config(Path(name)))
    assert caught.value.fix == f"the file reads like {kind}"


def test_a_stray_key_is_only_a_mistake(elsewhere: Path) -> None:
    (elsewhere / "mine.yaml").write_text("index: flat\ngrid: {}\n")
    with pytest.raises(ConfigError, match="unknown key 'grid'") as caught:
        load_config("mine.yaml")
    assert caught.value.fix is None


def test_an_installation_carries_them(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "in_the_wheel").mkdir()
    (elsewhere / "in_the_wheel" / "mine.yaml").write_text("index: {type: hnsw}\n")
    monkeypatch.setattr(shipped, "FOLDERS", (elsewhere / "in_the_wheel", elsewhere / "none"))
    assert load_config("mine").index.type == "hnsw"


def test_without_a_file_every_key_has_its_default() -> None:
    assert load_config(None) == Config()
    assert load_config(None, ["index.type=hnsw"]).index.type == "hnsw"
