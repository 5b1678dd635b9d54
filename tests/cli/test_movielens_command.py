"""dataset movielens and synth on the command line: what they print, and the exit codes of what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Semrec
from numpy.typing import NDArray

from semrec_faiss.data import convert_movielens as movielens
from semrec_faiss.data.text import embed
from semrec_faiss.data.text.encoder import DEFAULT_MODEL, ModelSource


class FakeEncoder:
    device = "cpu"
    batch_size = 8

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text), 1, 2] for text in texts], np.float32)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Put a fake in the place of text models; collects what is asked of them."""
    calls: list[tuple[str, dict[str, object]]] = []

    def load(source: ModelSource, **options: object) -> FakeEncoder:
        calls.append((source.name, options))
        return FakeEncoder()

    monkeypatch.setattr(movielens, "check_available", lambda source: None)
    monkeypatch.setattr(embed, "load_encoder", load)
    return calls


@pytest.fixture
def download(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Crime\n2,Alien (1979),Horror\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,9\n1,2,3,8\n2,1,0.5,7\n")
    return folder


def test_a_download_becomes_a_data_folder(
    semrec: Semrec, asked: list[tuple[str, dict[str, object]]], download: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed, err = semrec("dataset", "movielens", download, out)
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in printed.splitlines()] == [
        f"made {out}",
        "titles 2",
        "media_id MovieLens' movieId with ml_ and zeros in front: 1 is ml_00000001; 1 finds it too",
        "tags read 0",
        "ratings read 3",
        "users 1; 1 users left out: they rated nothing above 1",
        f"vectors 2 × 3 float32 by {DEFAULT_MODEL}",
    ]
    assert asked == [(DEFAULT_MODEL, {"batch_size": None, "device": None})]
    code, printed, _ = semrec(
        *("dataset", "movielens", download, out, "--overwrite", "--json", "--dtype", "float16", "--model", "m"),
        *("--batch-size", "3", "--device", "cpu"),
    )
    document = json.loads(printed)
    assert (document["titles"], document["users_left_out"], document["embedding"]["dtype"]) == (2, 1, "float16")
    assert document["embedding"]["path"] == str(out / "media/content_vectors.npy")
    assert asked[1] == ("m", {"batch_size": 3, "device": "cpu"})
    assert semrec("dataset", "check", out)[0] == 0


def test_without_vectors_no_model_is_asked_for_and_everybody_stays(
    semrec: Semrec, asked: list[tuple[str, dict[str, object]]], download: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    printed = semrec("dataset", "movielens", download, out, "--without-vectors").lines
    assert printed[-2] == "users 2"  # whoever rated nothing above 1 has a history all the same
    assert printed[-1].startswith("vectors none; semrec dataset learn makes them")
    assert asked == []
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert made == ["media/metadata.jsonl", "users/seen.parquet", "users/user_ids.json"]
    learned = tmp_path / "learned"
    assert semrec("dataset", "learn", out, learned, "--rank", "1").code == 0
    assert semrec("dataset", "check", learned).code == 0
    assert semrec("build", "learned", "--dataset", learned, "--output", tmp_path / "index").code == 0
    alike = ("similar", tmp_path / "index", "1", "--by")
    assert semrec(*alike, "people").code == 0
    refused = semrec(*alike, "text")
    assert (refused.code, "learned of what people did alone" in refused.err) == (2, True), "every title had score 0"


def test_exit_codes(semrec: Semrec, asked: object, download: Path, tmp_path: Path) -> None:
    assert semrec("dataset", "movielens", tmp_path / "nothing", tmp_path / "out")[0] == 4
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    code, _, err = semrec("dataset", "movielens", download, tmp_path / "full")
    assert (code, "is not empty" in err) == (2, True)
    with (download / "ratings.csv").open("a") as file:
        file.write("3,1,4.0")
    code, printed, err = semrec("dataset", "movielens", download, tmp_path / "out")
    assert (code, printed) == (3, "")
    assert "ratings.csv:5: the file ends in the middle of this line" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "ml"]


def test_synth_tells_its_speed_beside_the_disks(semrec: Semrec, tmp_path: Path) -> None:
    code, out, err = semrec(
        *("dataset", "synth", tmp_path / "x", "--titles", 300, "--users", 5, "--dim", 16, "--dtype", "float16")
    )
    assert (code, out) == (0, f"made {tmp_path / 'x'}: 300 titles and 5 users of 16 dimensions\n")
    assert re.fullmatch(r"[\d.]+ KB in [\d.]+ s, [\d.]+ [KMG]B/s\n", err)
    assert np.load(tmp_path / "x/media/content_vectors.npy").dtype == np.float16
    code, out, _ = semrec("dataset", "synth", tmp_path / "y", "--titles", 300, "--users", 0, "--dim", 16, "--json")
    document = json.loads(out)
    assert document["bytes"] == sum(path.stat().st_size for path in (tmp_path / "y").rglob("*") if path.is_file())
    assert document["bytes_per_second"] > 0
    assert (document["titles"], document["users"], document["dim"], document["dtype"]) == (300, 0, 16, "float32")
    assert document["environment"]["versions"]["numpy"] == np.__version__
    assert document["peak_memory_bytes"] > document["bytes"]
