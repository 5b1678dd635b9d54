"""`dataset.fields`: fields of the data that play a part under another name, in JSON lines and in tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.errors import ConfigError, DataError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender

SHOP = [
    {"sku": "a", "name": "Intro", "released": 1999, "tags": ["Rock"], "brand": "Ace", "title": "Ms.", "price": 5.0},
    {"sku": "b", "name": "Intro", "released": 2004, "tags": ["Rock", "Jazz"], "brand": "Ace", "price": 9.5},
    {"sku": "c", "name": "Waltz", "released": 2010, "tags": ["Jazz"], "brand": "Bee", "price": 20.0},
    {"sku": "d", "name": "March", "released": None, "tags": None, "brand": None, "price": 1.0},
]
PARTS = {"media_id": "sku", "title": "name", "year": "released", "genres": "tags", "franchise": "brand"}


def lines_of(folder: Path, rows: list[dict[str, object]] = SHOP) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table_of(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(SHOP), folder / "metadata.parquet")
    return folder / "metadata.parquet"


@pytest.mark.parametrize("written", [lines_of, table_of])
def test_fields_play_their_part_and_filters_know_them_by_both_names(tmp_path: Path, written: object) -> None:
    catalog = Catalog.read(written(tmp_path), parts=PARTS)
    assert list(catalog.fields)[:5] == ["media_id", "title", "year", "genres", "franchise"]
    assert catalog.records([0, 2]) == [
        {
            "media_id": "a",
            "title": "Intro",
            "year": 1999,
            "genres": ["Rock"],
            "franchise": "Ace",
            "original_title": "Ms.",
            "price": 5.0,
        },
        {
            "media_id": "c",
            "title": "Waltz",
            "year": 2010,
            "genres": ["Jazz"],
            "franchise": "Bee",
            "original_title": None,
            "price": 20.0,
        },
    ]
    for where in (
        "released > 2000 AND brand = 'Ace'",
        "year > 2000 AND Franchise = 'Ace'",
        "'Jazz' IN tags AND year < 2005",
    ):
        assert matching_rows(catalog, where).tolist() == [1]
    wanted = Filter(genres="jazz", years=(2005, None), any_of={"Brand": "Bee"}, ranges={"released": (2000, 2010)})
    assert matching_rows(catalog, *wanted.clauses(catalog)).tolist() == [2]
    assert matching_rows(catalog, "brand LIKE 'A_e' AND levenshtein(Brand, 'Acd') = 1").tolist() == [0, 1]
    with pytest.raises(UsageError, match="brnd"):
        matching_rows(catalog, "brnd = 'Ace'")


def test_mistakes_are_told_in_the_words_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no title has the field 'relased', which is said to be year"):
        Catalog.read(lines_of(tmp_path), parts=PARTS | {"year": "relased"})
    with pytest.raises(DataError, match="no title has the field 'brnd', which is said to be franchise"):
        Catalog.read(table_of(tmp_path), parts=PARTS | {"franchise": "brnd"})
    wrong = [SHOP[0] | {"name": " "}, SHOP[1] | {"released": "long ago"}, SHOP[2] | {"sku": "a"}]
    with pytest.raises(DataError) as refused:
        Catalog.read(lines_of(tmp_path, wrong), parts=PARTS)
    told = str(refused.value)
    assert '1: name, which is title, is the string " "; a non-empty string is expected' in told
    assert '2: released, which is year, is the string "long ago"; an integer or null is expected' in told
    assert "3: media_id 'a' is also on line 1" in told
    with pytest.raises(ConfigError, match=r"'name' cannot play two parts"):
        config_from_dict({"dataset": {"folder": "x", "fields": {"title": "name", "year": "name"}}})


def test_the_shorthands_follow_and_an_update_speaks_the_same_words(tmp_path: Path, semrec: Semrec) -> None:
    folder = tmp_path / "shop"
    (folder / "media").mkdir(parents=True)
    lines_of(folder / "media")
    np.save(folder / "media" / "content_vectors.npy", np.eye(4, 4, dtype=np.float32) + 0.5)
    config = tmp_path / "shop.yaml"
    config.write_text(
        f"dataset:\n  folder: {folder}\n  fields: {{media_id: sku, title: name, year: released, genres: tags}}\n",
        encoding="utf-8",
    )
    index = str(tmp_path / "index")
    assert semrec("build", config, "--output", index, "--set", "dataset.fields.franchise=brand").code == 0

    def ids(*options: str) -> list[str]:
        found = semrec("similar", index, "d", "--json", *options)
        assert found.code == 0, found.err
        return [one["media_id"] for one in json.loads(found.out)["results"]]

    assert ids() == ["a", "b", "c"]
    assert ids("--genre", "jazz", "--year", "2000..2005") == ids("--range", "released=2000..2005") == ["b"]
    assert ids("--any-of", "brand=Bee") == ids("--any-of", "franchise=Bee") == ids("--where", "brand = 'Bee'") == ["c"]
    assert ids("--max-per", "brand=1") == ids("--max-per-franchise", "1") == ["a", "c"]
    shown = semrec("similar", index, "d", "-k", "1", "--show", "brand, released").out.splitlines()[1]
    assert shown.split() == ["1.", "Intro", *shown.split()[2:-2], "Ace", "1999"]
    fresh = tmp_path / "fresh"
    (fresh / "media").mkdir(parents=True)
    lines_of(fresh / "media", [{"sku": "e", "name": "Encore", "released": 2020, "brand": "Bee"}])
    np.save(fresh / "media" / "content_vectors.npy", np.full((1, 4), 0.5, np.float32))
    assert semrec("update", index, fresh).code == 0
    assert ids("--max-per", "brand=1") == ["e", "a"]
    opened = Recommender.open(index)
    assert opened.catalog.records([4])[0]["franchise"] == "Bee"
    assert [one.media_id for one in opened.similar("d", where="released >= 2010")] == ["e", "c"]
    build_index(opened.saved.config.model_copy(update={"output": tmp_path / "again"}))  # what the manifest keeps
    assert Recommender.open(tmp_path / "again").similar("d", where="brand = 'Bee'").results[0].media_id == "c"
