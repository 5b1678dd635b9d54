"""Metadata fields that an update brings, or whose types it widens, are those of an index built anew, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index

TITLES = 20


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"media_id": f"m{number}", "title": f"Film {number}", **fields}


def write(root: Path, records: list[dict[str, Any]]) -> Path:
    (root / "media").mkdir(parents=True)
    (root / "media/metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    vectors = [np.random.default_rng(int(each["media_id"][1:])).normal(size=8) for each in records]
    np.save(root / "media/content_vectors.npy", np.array(vectors, np.float32))
    return root


def build(data: Path, output: Path) -> Path:
    build_index(config_from_dict({"dataset": str(data), "output": str(output), "index": {"type": "flat"}}))
    return output


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a new field": ({"year": 1950}, {"year": 1960, "prize": "Palme d'Or"}),
    "a leading one": ({"stars": 2.5}, {"year": 1960, "genres": ["Drama"]}),
    "decimals": ({"votes": 7, "marks": [1, 2]}, {"votes": 0.5, "marks": [0.5, None]}),
    "beside what no double holds": ({"votes": 2**60 + 1, "marks": [-(2**60) - 1]}, {"votes": 0.5, "marks": [3.5]}),
    "texts beside numbers": ({"seat": 7}, {"seat": "7b"}),
    "true, which is not a number": ({"x": 1, "y": [1, 0]}, {"x": True, "y": [True, False]}),
    "numbers, which are not true": ({"x": {"y": True}}, {"x": {"y": 1}}),
    "objects": ({"crew": {"by": ["A"], "n": 1}}, {"crew": {"by": [], "of": None}}),
    "a list beside a text": ({"tag": "a"}, {"tag": ["a", "b"]}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_records_and_filters_are_those_of_a_rebuild_before_it_is_compacted(name: str, tmp_path: Path) -> None:
    old, new = CHANGES[name]
    before, since = [record(number, **old) for number in range(TITLES)], [record(100, **new), record(3, **new)]
    index = build(write(tmp_path / "data", before), tmp_path / "index")
    update_index(index, Change(write(tmp_path / "change", since)), compact_at=None)
    merged = [each for each in before if each["media_id"] != "m3"] + since
    rebuilt = Recommender.open(build(write(tmp_path / "merged", merged), tmp_path / "rebuilt"))
    updated = Recommender.open(index)
    rows = np.arange(TITLES + 1)
    expected = [json.loads(line) for line in rebuilt.titles.lines(rows)]
    lines = updated.titles.lines(rows)
    assert [json.loads(line) for line in lines] == expected
    assert updated.titles.fields == rebuilt.titles.fields
    columns = [each.titles.columns(rows).to_pylist() for each in (updated, rebuilt)]
    assert columns[0] == columns[1]
    assert updated.titles.find("m7") == rebuilt.titles.find("m7") == 6
    for where in (f"{field} IS NULL" for field in {**old, **new}):
        assert updated.search(np.ones(8), where=where)[0].matching == sum(
            each[where.split()[0]] is None for each in expected
        )
    compact_index(index)
    assert Recommender.open(index).titles.lines(rows) == lines
    assert Recommender.open(index).titles.fields == rebuilt.titles.fields
