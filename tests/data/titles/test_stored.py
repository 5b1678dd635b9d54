"""Records and look-up without a database: the catalogue's titles, and no line shown that was not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.stored import StoredTexts, write_stored
from semrec_faiss.data.titles.titles import Titles, stored_records
from semrec_faiss.errors import AmbiguousTitleError, DamagedIndexError, DataError, NotFoundError

NAMES = [
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "Heat (1995)",
    "Heat (1986)",
    "Godfather, The (1972)",
    "The Godfather (1972)",
    "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)",
    "Professional, The (1981)",
    "Wonder Woman (1984)",
    "Wonder Woman 1984 (2020)",
    "É, L' (1960)",
    "…",
    "m03",
    "Solaris",
    "Solaris",
    "WALL·E (2008)",
    "七人の侍 (1954)",
    "Die Hard (1988)",
    "Hard (1998)",
    "A-Team, The (2010)",
]
ASKED = [
    *NAMES,
    *(
        "toy story",
        "TOY STORY 2",
        "heat",
        "heat 1995",
        "Heat (1986)",
        "the godfather",
        "godfather",
        "leon",
        "Le\u0301on",
    ),
    *("professional", "the professional 1981", "wonder woman 1984", "wonder woman", "e l", "...", "m03", "m02", "m99"),
    *(
        "solaris",
        "solaris (1972)",
        "walle",
        "WALL-E",
        "七人の侍",
        "die hard",
        "hard",
        "a team",
        "team",
        "",
        "toy stroy",
    ),
]


def store(folder: Path, texts: Any, count: int) -> StoredTexts:
    """Write and map texts."""
    with (
        (folder / "t.jsonl").open("wb") as lines,
        (folder / "t.index").open("wb") as index,
        (folder / "t.lookup").open("wb") as lookup,
    ):
        write_stored(texts, lines, index, lookup)
    return StoredTexts(folder / "t.jsonl", folder / "t.index", lambda: folder / "t.lookup", count)


def catalog_of(folder: Path, names: list[str]) -> Catalog:
    entries = [{"media_id": f"m{row:02}", "title": name, "nested": {"row": [row]}} for row, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return Catalog.read(folder / "metadata.jsonl")


def found(ask: Any, text: str) -> Any:
    """A row, or what the error says."""
    try:
        return ask(text)
    except (NotFoundError, AmbiguousTitleError) as error:
        return type(error), error.message, error.candidates


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("catalog"), NAMES)


@pytest.fixture(scope="module")
def titles(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Titles:
    stored = store(tmp_path_factory.mktemp("stored"), stored_records(catalog), len(NAMES))
    return Titles(lambda: catalog, stored, catalog.fields)


def test_records_are_those_of_the_catalogue(catalog: Catalog, titles: Titles) -> None:
    rows = [3, 0, 19, 3]
    assert titles.records(rows) == catalog.records(rows)
    assert [list(record) for record in titles.records(rows)] == [list(record) for record in catalog.records(rows)]
    assert titles.records([]) == []
    without = Titles(lambda: catalog)
    assert without.lines(rows) == titles.lines(rows)
    assert without.fields == titles.fields
    assert titles.fields == {
        "media_id": "VARCHAR",
        "title": "VARCHAR",
        "nested": "JSON",
    }
    for bad in ([20], [-1]):
        with pytest.raises(DataError, match="outside"):
            titles.lines(bad)
        with pytest.raises(DataError, match="outside"):
            without.lines(bad)


@pytest.mark.parametrize("text", ASKED)
def test_every_spelling_finds_what_the_catalogue_finds(catalog: Catalog, titles: Titles, text: str) -> None:
    assert found(titles.find, text) == found(catalog.find, text)
    row = found(titles.find, text)
    assert found(lambda asked: titles.found(asked)[0], text) == row
    if isinstance(row, int):
        assert titles.found(text) == (row, titles.records([row])[0]), "the record comes with it"


def test_what_is_spelled_rightly_needs_no_database(titles: Titles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(titles.catalog, "find", fail)
    asked = {"m07": 7, "Toy Story (1995)": 0, "toy story": 0, "heat 1995": 2, "die hard": 17, "walle": 15}
    assert {text: titles.find(text) for text in asked} == asked
    with pytest.raises(AssertionError):
        titles.find("heat")


title = st.text(st.sampled_from("Aa eéTth1290(),-’'&…七"), max_size=12).filter(lambda text: bool(text.strip()))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(title, min_size=1, max_size=6), asked=st.lists(title, min_size=1, max_size=6))
@pytest.mark.slow
def test_any_titles_are_found_as_the_catalogue_finds_them(
    names: list[str], asked: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    catalog = catalog_of(folder, names)
    titles = Titles(lambda: catalog, store(folder, stored_records(catalog), len(names)), catalog.fields)
    for text in [*names, *asked, *(name.upper() for name in names)]:
        assert found(titles.find, text) == found(catalog.find, text), text


def test_every_flipped_bit_of_a_record_is_refused(tmp_path: Path) -> None:
    written = [b'{"a":1}', b"", b'{"b":"\xc3\xa9"}']
    texts = [(line, [f"key {row}", "shared"]) for row, line in enumerate(written)]
    stored = store(tmp_path, texts, 3)
    assert stored.lines([2, 1, 0, 2]) == [written[2], written[1], written[0], written[2]]
    assert stored.rows_of("shared") == [0, 1, 2]
    assert stored.rows_of("key 1") == [1]
    assert stored.first_rows(["key 2", "nothing", "shared"]).tolist() == [2, -1, 0]
    for name in ("t.jsonl", "t.index"):
        whole = (tmp_path / name).read_bytes()
        for bit in range(8 * len(whole)):
            spoilt = bytearray(whole)
            spoilt[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(spoilt)
            damaged = StoredTexts(tmp_path / "t.jsonl", tmp_path / "t.index", lambda: tmp_path / "t.lookup", 3)
            refused = 0
            for row in range(3):
                try:
                    assert damaged.lines([row]) == [written[row]]
                except DamagedIndexError:
                    refused += 1
            assert refused >= 1, f"{name}, bit {bit}"
        (tmp_path / name).write_bytes(whole)


def test_lines_of_other_rows_are_refused(tmp_path: Path) -> None:
    stored = store(tmp_path, [(b"same length 1", []), (b"same length 2", [])], 2)
    index = (tmp_path / "t.index").read_bytes()
    assert stored.lines([0, 1]) == [b"same length 1", b"same length 2"]
    (tmp_path / "t.jsonl").write_bytes(b"same length 2\nsame length 1\n")
    first, second = index[8:12], index[20:24]
    (tmp_path / "t.index").write_bytes(index[:8] + second + index[12:20] + first)  # each sum goes with its line
    swapped = StoredTexts(tmp_path / "t.jsonl", tmp_path / "t.index", lambda: tmp_path / "t.lookup", 2)
    with pytest.raises(DamagedIndexError, match=r"t\.jsonl:1 has changed"):
        swapped.lines([0])
