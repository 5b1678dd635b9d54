"""Pipes, devices and sockets where a file is expected are refused at once; lists are read of pipes that are written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec

from semrec_faiss.cli.index import id_lists
from semrec_faiss.cli.index.id_lists import ids_in
from semrec_faiss.config.shipped import find_config
from semrec_faiss.data.exchange.opening import open_ann_file
from semrec_faiss.data.folder.layout import open_vectors
from semrec_faiss.data.folder.parquet import parquet_parts
from semrec_faiss.data.interactions.source import write_seen
from semrec_faiss.data.movielens.download import check_there
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.errors import UsageError
from semrec_faiss.index.generations.bundle import unbundle_index

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")


@pytest.fixture(params=["pipe", "device", "socket"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies there is read without end, or waited for."""
    place = Path("special.csv")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    if request.param == "pipe":
        os.mkfifo(place)
    elif request.param == "device":
        place.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))
    return place


def opened(path: Path) -> None:
    with open_ann_file(path):
        pass


# Once a fault: most of these waited for a pipe, and some filled the memory with zeros.
@pytest.mark.parametrize(
    "read",
    [
        find_config,
        opened,
        open_vectors,
        parquet_parts,
        lambda path: write_seen(path, path.with_name("seen.parquet")),
        check_there,
        find_files,
        lambda path: unbundle_index(path, path.with_name("index")),
    ],
)
def test_what_is_no_file_is_refused_at_once(special: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(UsageError, match=r"special\.csv is a (pipe|device|socket); .* is expected") as caught:
        read(special)
    assert caught.value.fix == "write it to a file, and give that"
    assert [path.name for path in Path().iterdir()] == ["special.csv"]


def test_a_list_that_nobody_writes_or_that_has_no_end_is_refused(special: Path, semrec: Semrec) -> None:
    with pytest.raises(UsageError, match=r"special\.csv cannot be read: it is a (pipe that nobody|device|socket)"):
        ids_in(special)
    ended = semrec("update", "nowhere", "--remove-titles", special.absolute())
    assert ended.code == 2 and "special.csv cannot be read: it is a" in ended.err


def test_an_id_or_json_in_the_place_of_a_list_is_told_how_it_is_given(tmp_path: Path) -> None:
    """Once a fault: JSON was one id, which nothing has, and nothing was removed."""
    with pytest.raises(UsageError, match=r"there is no file m00003\n.*<\(echo m00003\)"):
        ids_in(Path("m00003"))
    for text in ('["a", "b"]', ' {"ids": ["a"]}\n', "[\n1\n]"):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(UsageError, match=r"list\.json holds JSON; one id a line is expected\n<\(jq -r '\.\[\]' "):
            ids_in(tmp_path / "list.json")
    (tmp_path / "list.json").write_text("[a]\n{b\n")
    assert ids_in(tmp_path / "list.json") == ("[a]", "{b")


def test_lists_are_read_of_files_and_of_pipes_that_somebody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfone\r\n\n two \nthree")
    assert ids_in(tmp_path / "list") == ("one", " two ", "three")
    assert ids_in(Path(os.devnull)) == ()
    os.mkfifo(tmp_path / "named")
    reading = os.open(tmp_path / "named", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "named", os.O_WRONLY)
    os.close(reading)
    threading.Timer(0.2, lambda: (os.write(writing, b"a\nb"), os.close(writing))).start()
    assert ids_in(tmp_path / "named") == ("a", "b"), "who writes has not begun when it is opened"
    program = (
        "from semrec_faiss.cli.index.id_lists import ids_in; import pathlib; print(ids_in(pathlib.Path('/dev/stdin')))"
    )
    for given, expected in (("x\ny\n", "('x', 'y')\n"), ("", "()\n")):
        ran = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True, text=True, check=False)
        assert (ran.stdout, ran.stderr) == (expected, "")
    monkeypatch.setattr(id_lists, "MOST_BYTES", 8)
    with pytest.raises(UsageError, match="larger than 8 bytes"):
        ids_in(tmp_path / "list")
