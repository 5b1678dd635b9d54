"""Every mistake in metadata.jsonl names file and line; the first ten are told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.data.folder.metadata_lines import inspect_metadata
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError
from tests.data.titles.made_titles import Entry, write_lines


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        Catalog.read(path, **options)
    return caught.value.message


FILMS: list[Entry] = [
    {"media_id": "ml_1", "title": "Toy Story (1995)", "year": 1995, "genres": ["Animation", "Comedy"], "rating": 3.9},
    {"media_id": "ml_2", "title": 'He said "No, no"\nand left', "year": None, "genres": [], "rating": 4},
    {"media_id": "ml_3", "title": "Le Fabuleux Destin d'Amélie 😀", "seen": True, "tags": ["a", None]},
    {"media_id": "ml_4", "title": "Toy Story (1995)", "year": 1995, "genres": None, "extra": {"a": [1, {"b": None}]}},
]

GOOD = '{"media_id": "a", "title": "A"}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'media_id': 1}", "not JSON: Expecting property name"),
        ('{"media_id": "b", "title": "B"', "not JSON: Expecting ',' delimiter at column 31"),
        ('{"media_id": "b", "title": "B"} x', "not JSON: Extra data"),
        ('["b", "B"]', 'a JSON object is expected, not a list (["b", "B"])'),
        ('"b"', 'a JSON object is expected, not the string "b"'),
        ("null", "a JSON object is expected, not null"),
        ("", "the line is empty"),
        (" \t", "the line is empty"),
        ('{"media_id": "b"}', "title is missing"),
        ('{"media_id": "b", "title": null}', "title is missing"),
        ('{"media_id": "b", "title": " "}', 'title is the string " "; a non-empty string is expected'),
        ('{"media_id": "b", "title": 12}', "title is 12; a non-empty string is expected"),
        ('{"title": "B"}', "media_id is missing"),
        ('{"media_id": "", "title": "B"}', 'media_id is the string ""; a non-empty string or'),
        ('{"media_id": 1.5, "title": "B"}', "media_id is 1.5; a non-empty"),
        ('{"media_id": true, "title": "B"}', "media_id is true; a non-empty"),
        ('{"media_id": 9223372036854775808, "title": "B"}', "media_id is 9223372036854775808; a non-empty"),
        ('{"media_id": "a", "title": "B"}', "media_id 'a' is also on line 1"),
        ('{"media_id": "b", "title": "B", "year": "1995"}', 'year is the string "1995"; an integer or null'),
        ('{"media_id": "b", "title": "B", "year": 1995.0}', "year is 1995.0; an integer or null"),
        ('{"media_id": "b", "title": "B", "year": true}', "year is true; an integer or null"),
        ('{"media_id": "b", "title": "B", "year": 1e99}', "year is 1e+99; an integer or null"),
        ('{"media_id": "b", "title": "B", "genres": "Drama"}', 'genres is the string "Drama"; a list of strings'),
        ('{"media_id": "b", "title": "B", "genres": ["Drama", null]}', 'genres is a list (["Drama", null]); a list'),
        ('{"media_id": "b", "title": "B", "x": NaN}', "NaN is not JSON; write null"),
        ('{"media_id": "b", "title": "B", "x": [-Infinity]}', "-Infinity is not JSON; write null"),
        ('{"media_id": "b", "title": "B", "x": {"y": 1e999}}', "the number 1e999 is too large"),
        ('{"media_id": "b", "title": "B", "x": 1' + "0" * 5000 + "}", "not usable: Exceeds the limit"),
        ('{"media_id": "b", "title": "B", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"media_id": "b", "title": "B", "title": "C"}', "the key 'title' occurs twice"),
        ('{"media_id": "b", "title": "B", "x": {"y": 1, "y": 2}}', "the key 'y' occurs twice"),
        (b'{"media_id": "b", "title": "Am\xe9lie"}', "not UTF-8: byte 0xe9 at position 30"),
        ('{"media_id": "b", "title": "\\ud83d"}', "\\ud83d is half of a surrogate pair"),
        ('{"media_id": "b", "title": "B", "x": [{"\\uDE00": 1}]}', "\\ude00 is half of a surrogate pair"),
        ('{"media_id": "b", "title": "B", "": 1}', "the field name '' is empty or holds control characters"),
        ('{"media_id": "b", "title": "B", "a\\u0000b": 1}', "the field name 'a\\x00b' is empty or holds control"),
        (
            '{"media_id": "b", "title": "B", "_Semrec_Row": 1}',
            "the field name '_Semrec_Row' is kept for the row number",
        ),
        ('{"media_id": "b", "title": "B", "Title": "C"}', "the field names 'title' and 'Title' differ only in case"),
        ('{"media_id": "b", "title": "B", "x": 1, "X": 2}', "the field names 'x' and 'X' differ only in case"),
    ],
)
def test_a_mistake_names_its_file_and_line(tmp_path: Path, line: str | bytes, problem: str) -> None:
    path = write_lines(tmp_path / "metadata.jsonl", [GOOD, line, GOOD.replace('"a"', '"c"')])
    assert error_of(path).startswith(f"{path}:2: {problem}")


def test_fields_that_differ_in_case_on_different_lines_collide(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "m.jsonl", [f'{{"media_id": {n}, "title": "t", "{name}": 1}}' for n, name in enumerate("xyX")]
    )
    assert error_of(path) == f"{path}:3: the field names 'x' and 'X' differ only in case; rename one"


def test_too_many_field_names_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", [f'{{"media_id": {n}, "title": "t", "f{n}": 1}}' for n in range(1000)])
    assert error_of(path).startswith(f"{path}:999: more than 1,000 different field names")


def test_ten_mistakes_are_told_at_once_in_order(tmp_path: Path) -> None:
    lines = [GOOD, *["{}"] * 3, GOOD, *["x"] * 20]
    message = error_of(write_lines(tmp_path / "m.jsonl", lines), expect_count=3).splitlines()
    # Two a line for three lines, twenty lines, a repeated id and the count.
    assert message[0] == f"{tmp_path / 'm.jsonl'} has 28 mistakes:"
    assert [line.split(":")[1] for line in message[1:11]] == ["2", "2", "3", "3", "4", "4", "6", "7", "8", "9"]
    assert message[11:] == ["… and 18 more"]


def test_every_repeated_id_names_its_first_line(tmp_path: Path) -> None:
    ids = ["a", "b", "1", "a", 1, "a"]
    path = write_lines(tmp_path / "m.jsonl", [json.dumps({"media_id": media_id, "title": "t"}) for media_id in ids])
    assert error_of(path).splitlines()[1:] == [
        f"{path}:4: media_id 'a' is also on line 1",
        f"{path}:5: media_id '1' is also on line 3",
        f"{path}:6: media_id 'a' is also on line 1",
    ]


def test_a_count_that_differs_from_the_vectors_names_both_files(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "metadata.jsonl", [GOOD])
    assert error_of(path, expect_count=1234) == (
        f"{path}:1: the file ends after 1 line, but there are 1,234 vectors in {tmp_path / 'content_vectors.npy'}"
    )


def test_files_without_titles_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", b"\xef\xbb\xbf"):
        (tmp_path / "m.jsonl").write_bytes(content)
        assert error_of(tmp_path / "m.jsonl") == f"{tmp_path / 'm.jsonl'}:1: the file has no titles"
    assert error_of(tmp_path / "missing.jsonl").startswith(f"{tmp_path / 'missing.jsonl'}: cannot read the metadata")
    assert error_of(tmp_path).startswith(f"{tmp_path}: cannot read the metadata")


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_byte_is_data_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "metadata.jsonl"
    content = bytearray(b"\n".join(json.dumps(entry).encode() for entry in FILMS))
    content[position % len(content)] = value
    path.write_bytes(bytes(content))
    try:
        catalog = Catalog.read(path)
    except DataError as error:
        assert str(path) in error.message
    else:
        assert [record["media_id"] for record in catalog.records(range(catalog.count))] == [
            str(json.loads(line)["media_id"]) for line in path.read_bytes().split(b"\n")
        ]


def test_the_fix_for_repeated_ids_is_about_ids(tmp_path: Path) -> None:
    first = json.dumps({"media_id": "a", "title": "A"})
    for second, fix in (
        ({"media_id": "a", "title": "B"}, "give every title a media_id of its own"),
        ({"media_id": "a"}, "a line is a JSON object with at least media_id and title, one for each vector"),
    ):
        path = write_lines(tmp_path / "m.jsonl", [first, json.dumps(second)])
        with pytest.raises(DataError) as caught:
            Catalog.read(path)
        assert caught.value.fix == fix


def test_ids_that_repeat_are_told_with_what_mends_them(tmp_path: Path) -> None:
    """Once a fault: the fix told of the shape of a line, which was right."""
    path = write_lines(tmp_path / "m.jsonl", [GOOD, GOOD])
    with pytest.raises(DataError, match="is also on line 1") as told:
        inspect_metadata(path)
    assert told.value.fix == "give every title a media_id of its own"
