"""Paths: one rule wherever they come in, and nothing written but where the person who named it would look."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np
import pytest

from semrec_faiss import NotFoundError, Recommender, UsageError, Wanted, build, pick
from semrec_faiss.cli.options import FilePath
from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.data.text.encoder import find_model
from semrec_faiss.errors import ConfigError
from semrec_faiss.measure.sweep.config import Sweep
from semrec_faiss.paths import path_from
from semrec_faiss.search.export import export_all_users
from semrec_faiss.serve.settings import ServeConfig

pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders of such names are of other systems")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another folder to be in."""
    place = tmp_path / "home"
    monkeypatch.setenv("HOME", str(place))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return place


def test_the_home_folder_is_meant_wherever_a_path_comes_in(home: Path, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("dataset: ~/data\noutput: ~/index\n")
    config = load_config(tmp_path / "some.yaml", ["output=~/other"])
    assert (config.dataset.folder, config.output) == (home / "data", home / "other")
    assert config_from_dict({"dataset": {"folder": "~"}}).dataset.folder == home
    assert FilePath().convert("~/index", None, None) == home / "index"
    served = ServeConfig.model_validate({"index": "~/index", "keys": "~/keys"})
    assert (served.index, served.keys) == (home / "index", home / "keys")
    sweep = Sweep.model_validate({"name": "s", "dataset": "~/data", "grid": {"type": "flat"}, "results": "~/results"})
    assert (sweep.dataset, sweep.results) == ((home / "data",), home / "results")
    (home / "model").mkdir(parents=True)
    (home / "model" / "config.json").write_text("{}")
    assert find_model("~/model").location == str(home / "model")
    with pytest.raises(UsageError, match="the path is empty"):  # once the present folder
        find_model("")
    with pytest.raises(NotFoundError, match=f"{home}/results/s"):
        pick("~/results/s", Wanted())
    build(np.eye(3, dtype="float32"), output="~/index")
    assert Recommender.open("~/index").index.count == 3
    assert not list(Path().iterdir())


def test_a_folder_that_is_called_so_is_named_by_where_it_lies(home: Path) -> None:
    assert path_from("./~/index") == Path("~/index").absolute()
    assert path_from("here/~") == Path("here/~")
    assert path_from("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x").absolute()


@pytest.mark.parametrize("folder", ["s3:", "file:", "./~", "file:/a=b"])
def test_names_that_look_like_addresses_are_written_where_they_are(home: Path, folder: str) -> None:
    place = Path(folder).absolute()
    users = {"u": [1.0, 0.0, 0.0]}
    build(np.eye(3, dtype="float32"), users=users, output=f"{folder}/index")
    opened = Recommender.open(f"{folder}/index")
    assert opened.recommend("u", k=1).returned == 1
    export_all_users(opened, f"{folder}/lists.parquet", k=1)
    assert sorted(each.name for each in place.iterdir()) == ["index", "lists.parquet"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", r"the path is empty; write \. for the present folder"),
        ("s3://bucket/index", "s3://bucket/index is an address; a path on this machine is expected"),
        ("file:///tmp/index", "is an address"),
        ("a\0b", "holds a NUL character, which no path has"),
        ("caf\udce9/index", r"'caf\\udce9/index' holds bytes that are no UTF-8"),
    ],
)
def test_what_is_no_path_here_is_refused_wherever_it_comes_in(home: Path, path: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        FilePath().convert(path, None, None)
    with pytest.raises(ConfigError, match=said):
        config_from_dict({"output": path})
    with pytest.raises(UsageError, match=said):
        build(np.eye(3, dtype="float32"), output=path)
    with pytest.raises(UsageError, match=said):
        Recommender.open(path)
    assert not list(Path().iterdir())
