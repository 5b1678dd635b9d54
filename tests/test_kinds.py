"""What was given in the place of something else is told with the command that makes that of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Semrec

from semrec_faiss.kinds import kind_of, what_instead


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """A thing of each kind, none of them whole."""
    found = {
        "index": tmp_path / "index",
        "data folder": tmp_path / "films",
        "table": tmp_path / "films.csv",
        "config file": tmp_path / "films.yaml",
        "bundle": tmp_path / "films.tar.zst",
    }
    (found["data folder"] / "data" / "embeddings" / "media").mkdir(parents=True)
    found["index"].mkdir()
    for path in (found["index"] / "CURRENT", found["table"], found["config file"], found["bundle"]):
        path.write_text("key: value\n")
    return found


def test_an_index_near_a_path_is_named(semrec: Semrec, given: dict[str, Path], tmp_path: Path) -> None:
    index = given["index"]
    (index / "gen-000001").mkdir()
    assert f"fix: give an index near it: {index}\n" in semrec("info", index / "gen-000001").err
    for name in "abc":
        shutil.copytree(index, tmp_path / "many" / name)
    refused = semrec("verify", tmp_path / "many").err
    assert (
        f"many is not an index directory\n  fix: give an index near it: {tmp_path}/many/a, {tmp_path}/many/b" in refused
    )
    (tmp_path / "empty").mkdir()
    assert "fix: semrec build CONFIG --output INDEX makes one\n" in semrec("info", tmp_path / "empty").err


def test_a_path_with_blanks_is_told_as_a_shell_takes_it(semrec: Semrec, tmp_path: Path) -> None:
    (tmp_path / "my films" / "media").mkdir(parents=True)
    refused = semrec("info", tmp_path / "my films")
    assert f"fix: semrec build --dataset '{tmp_path}/my films' --output INDEX makes" in refused.err
    refused = semrec("similar", tmp_path / "no index", "Alien")
    assert f"fix: semrec build CONFIG --output '{tmp_path}/no index' makes one" in refused.err


def test_things_are_told_apart(given: dict[str, Path], tmp_path: Path) -> None:
    assert {kind: kind_of(path) for kind, path in given.items()} == {kind: kind for kind in given}
    (tmp_path / "films.npy").touch()
    (tmp_path / "media.parquet").mkdir()
    for name in ("films.npy", "media.parquet", "nothing.csv", "x" * 5_000, "."):
        assert kind_of(tmp_path / name) is None
    assert what_instead(given["index"], "index") is None


FOLDER = "makes a data folder of it"


@pytest.mark.parametrize(
    ("command", "wanted", "fixes"),
    [
        (
            "info PATH",
            "an index",
            {
                "data folder": "semrec build --dataset PATH --output INDEX makes an index of it",
                "table": f"semrec dataset import PATH FOLDER {FOLDER}, and semrec build --dataset FOLDER --output INDEX"
                " makes an index",
                "config file": "semrec build PATH --output INDEX makes an index by it",
                "bundle": "semrec unbundle PATH INDEX makes an index of it",
            },
        ),
        (
            "build PATH",
            "a config file",
            {
                "data folder": "give it as --dataset PATH, beside a config or without; semrec build --dataset PATH"
                " --output INDEX makes an index of it",
                "table": f"semrec dataset import PATH FOLDER {FOLDER}, and semrec build --dataset FOLDER --output INDEX"
                " makes an index",
            },
        ),
        (
            "dataset check PATH",
            "a data folder",
            {
                "table": f"semrec dataset import PATH FOLDER {FOLDER}",
                "index": "give the data folder that it was built of; semrec build PATH builds it again of it",
            },
        ),
    ],
)
def test_commands_say_how_to_go_on(
    semrec: Semrec, given: dict[str, Path], command: str, wanted: str, fixes: dict[str, str]
) -> None:
    for kind, fix in fixes.items():
        path = str(given[kind])
        refused = semrec(*command.replace("PATH", path).split())
        told = f"error: {path} is {'an' if kind == 'index' else 'a'} {kind}, not {wanted}\n  fix: {fix}\n"
        assert (refused.code, refused.out, refused.err) == (4, "", told.replace("PATH", path))
