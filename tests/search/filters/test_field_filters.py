"""Words of any trade: values and spans of any field, columns that tell equal titles apart, ids and titles."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Semrec

import semrec_faiss
from semrec_faiss import Filter, Recommender, UsageError
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.search.filters.field_filters import (
    any_of_clause,
    any_of_from,
    parse_any_of,
    parse_max_per,
    parse_ranges,
)

COUNT = 30
SONGS = {
    "sku": [f"s{n:02d}" for n in range(COUNT)],
    "name": ["Intro" if n % 3 == 0 else "s01" if n == 29 else f"Song {n}" for n in range(COUNT)],
    "artist": [f"Artist {n % 10}" for n in range(COUNT)],
    "price": [Decimal(n) / 4 for n in range(COUNT)],
    "length": list(range(100, 100 + COUNT)),
    "released": [dt.date(2000 + n, 1, 1) for n in range(COUNT)],
    "sold": [dt.datetime(2020, 1 + n // 20, 1 + n % 20, 12) for n in range(COUNT)],
    "tags": [["fast", "loud"][: n % 3] for n in range(COUNT)],
}
VECTORS = np.random.default_rng(2).normal(size=(COUNT, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "index"
    semrec_faiss.build(VECTORS, pd.DataFrame(SONGS), output=path)
    return path


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({"any_of": {"artist": ["Artist 1", "Artist 2"]}}, lambda n: n % 10 in (1, 2)),
        ({"any_of": {"tags": "loud"}}, lambda n: n % 3 == 2),
        ({"any_of": {"length": [105, 107]}}, lambda n: n in (5, 7)),
        ({"any_of": {"price": [5, 1.25, "1.5"]}}, lambda n: n in (5, 6, 20)),
        ({"any_of": {"released": dt.date(2007, 1, 1)}}, lambda n: n == 7),
        ({"any_of": {"price": 0.3}}, lambda n: False),
        ({"ranges": {"price": (None, 100)}}, lambda n: True),
        ({"any_of": {"artist": "Artist 1", "tags": "fast"}}, lambda n: n % 10 == 1 and n % 3),
        ({"ranges": {"price": ("1.25", 3)}}, lambda n: 5 <= n <= 12),
        ({"ranges": {"length": (110.5, None)}}, lambda n: n > 10),
        ({"ranges": {"released": (None, "2009-12-31")}}, lambda n: n < 10),
        ({"ranges": {"released": ("2003", 2004)}}, lambda n: n in (3, 4)),  # once no date
        ({"ranges": {"released": ("2003-01", "2004-12")}}, lambda n: n in (3, 4)),
        (
            {"ranges": {"sold": ("2020-01-03", dt.date(2020, 1, 5))}},
            lambda n: 2 <= n <= 4,
        ),  # once not the last day's noon
        ({"ranges": {"sold": ("2020-02", "2020-02")}}, lambda n: 20 <= n < 40),
        ({"ranges": {"sold": (dt.datetime(2020, 1, 2), dt.datetime(2020, 1, 3))}}, lambda n: n == 1),
        ({"ranges": {"artist": ("Artist 8", "Artist 9")}}, lambda n: n % 10 >= 8),
    ],
)
def test_any_field_can_be_asked_for(index: Path, wanted: dict[str, Any], holds: Any) -> None:
    answers = Recommender.open(index).search(VECTORS[:1], COUNT, where=Filter(**wanted))
    assert {title.media_id for title in answers[0]} == {f"s{n:02d}" for n in range(COUNT) if holds(n)}


def test_fields_that_there_are_not_and_values_that_are_none_are_refused(index: Path) -> None:
    recommender = Recommender.open(index)
    for wanted, says in (
        ({"any_of": {"brand": "x"}}, "no field 'brand'"),
        ({"any_of": {"length": np.array(5)}}, "a list of texts or integers is expected"),
        ({"ranges": {"length": ("a", None)}}, "'a' is not a number"),
        ({"ranges": {"tags": (1, 2)}}, r"which has no order\nuse `any_of`, or `where`$"),
        ({"ranges": {"released": ("soon", None)}}, "soon"),
        ({"ranges": {"released": ("2003-02-30", None)}}, "2003-02-30"),
        ({"ranges": {"released": ("2004", "2003")}}, "2004 to 2003 is an empty span of 'released'"),
        ({"ranges": {"length": (None, None)}}, "a first and a last value"),
    ):
        with pytest.raises(UsageError, match=says):
            recommender.search(VECTORS[:1], 3, where=Filter(**wanted))


@pytest.mark.parametrize("value", [{"width": 3}, [{"width": 3}], [[3], [4]]])
def test_a_field_with_parts_is_refused_rather_than_never_found(value: Any) -> None:
    """What stands for such a value as a text is nobody's guess: no title answered, without a word."""
    shop = Recommender.from_arrays(
        VECTORS, pd.DataFrame({"sku": SONGS["sku"], "title": SONGS["name"], "size": [value] * COUNT})
    )
    for wanted in (Filter(any_of={"size": "3"}), Filter(ranges={"size": (1, 5)})):
        with pytest.raises(UsageError, match=r"the field 'size' has type .*\nuse `where`$"):
            shop.search(VECTORS[:1], 3, where=wanted)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["loud"], [0, 1, 3]),
        ([1], [3, 4, 5, 11]),
        ([1.0, "soft"], [1, 2, 3, 4, 5, 11]),
        (["1.50"], [6]),
        ([True], [7]),
        ([0], [12]),
        (["1e-400", "inf", "nan", "9007199254740993"], [13]),
        (["it's"], []),
    ],
)
def test_a_value_is_found_in_a_field_of_texts_lists_and_numbers(
    asked: list[Any], found: list[int], tmp_path: Path
) -> None:
    """Where one title had a text for tags and the others lists, those with the tag in a list were not found."""
    held = ["loud", ["loud", "soft"], ["soft"], ["loud", 1], 1, 1.0, 1.5, True, None, {"loud": 1}, [], "1", [0.0]]
    held += [2**53 + 1, 2**53]
    lines = "".join(json.dumps({"media_id": f"{n}", "title": "T", "tags": one}) + "\n" for n, one in enumerate(held))
    (tmp_path / "metadata.jsonl").write_text(lines)
    catalog = Catalog.read(tmp_path / "metadata.jsonl")
    clause = any_of_clause(catalog, "tags", list(any_of_from({"tags": asked})[0][1]))
    assert (catalog.fields["tags"], matching_rows(catalog, clause).tolist()) == ("JSON", found)


def test_truth_values_are_named_as_in_json() -> None:
    """A field that holds both true and 1 is JSON, whose text is compared."""
    assert any_of_from({"x": True, "y": [np.False_, 1, "True"]}) == (("x", ("true",)), ("y", ("false", "1", "True")))


def test_options_are_read() -> None:
    assert parse_any_of(["a=1", "b=x=y", "a=2"]) == {"a": ("1", "2"), "b": ("x=y",)}
    assert parse_ranges(["a=1..2", "b=..3", "c=4..", "d=5"]) == {
        "a": ("1", "2"),
        "b": (None, "3"),
        "c": ("4", None),
        "d": ("5", "5"),
    }
    assert parse_max_per(["a=2"]) == {"a": 2}
    for read, text in ((parse_any_of, "a"), (parse_ranges, "a=.."), (parse_max_per, "a=0"), (parse_max_per, "=1")):
        with pytest.raises(UsageError):
            read([text])


def test_lists_tell_equal_titles_apart_and_show_what_is_asked_for(index: Path, semrec: Semrec) -> None:
    both = ("--any-of", "artist=Artist 3", "--any-of", "artist=Artist 6")
    text = semrec("similar", str(index), "Song 1", "-k", "20", *both).out
    assert text.count("Intro") == 2 and "Artist 3" in text and "Artist 6" in text
    text = semrec("similar", str(index), "Song 1", "-k", "1", "--range", "length=105", "--show", "price,released").out
    assert re.fullmatch(r"1\.  Song 5  cosine -0\.\d{4}  1\.25  2005-01-01", text.splitlines()[1])
    text = semrec("similar", str(index), "Song 1", "-k", "9", "--max-per", "artist=1", "--range", "length=..119").out
    assert len(text.splitlines()) == 10


def test_an_id_and_a_title_can_be_told_apart(index: Path, semrec: Semrec) -> None:
    assert "Similar to Song 1:" in semrec("similar", str(index), "s01", "-k", "1").out
    assert "another's title: --title 's01' means that one" in semrec("similar", index, "s01", "-k", "1").err
    assert semrec("similar", str(index), "--title", "s01", "-k", "1").out.startswith("Similar to s01:")
    assert semrec("similar", str(index), "--id", "s01", "-k", "1").out.startswith("Similar to Song 1:")
    assert semrec("similar", index, "--id", "Song 1").code == 4
    assert semrec("similar", index, "--title", "s02").code == 4
    assert semrec("similar", index, "a", "--id", "s01").code == 2
