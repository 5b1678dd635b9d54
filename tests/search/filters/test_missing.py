"""Where nothing matches, it is told which conditions no title satisfies by itself, and what titles have instead."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import semrec_faiss
from semrec_faiss import Filter, Recommender
from semrec_faiss.data.titles.filters.parts import MOST_WRITTEN, parts_of
from semrec_faiss.errors import SemrecError
from semrec_faiss.search.answers.notes import notes_on
from semrec_faiss.search.filters import missing
from semrec_faiss.search.filters.missing import MOST_LOOKED_UP, conditions, instead_of, together
from semrec_faiss.search.restricted.found import CountedLater

COUNT = 30
SONGS = {
    "media_id": [f"s{n:02d}" for n in range(COUNT)],
    "title": [f"Song {n}" for n in range(COUNT)],
    "artist": ["Björk" if n % 2 else "Acme" for n in range(COUNT)],
    "price": [Decimal(n) / 4 for n in range(COUNT)],
    "length": [100.5 + n for n in range(COUNT)],
    "released": [dt.date(2000 + n, 1, 1) for n in range(COUNT)],
    "tags": [["fast", "loud"][: n % 3] for n in range(COUNT)],
    "year": [9 + n for n in range(COUNT)],  # whose texts are in another order than the numbers
    "label": [None] * COUNT,
}
VECTORS = np.random.default_rng(2).normal(size=(COUNT, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def songs() -> Recommender:
    return semrec_faiss.Recommender.from_arrays(VECTORS, SONGS)


def noted(songs: Recommender, **wanted: Any) -> list[str]:
    found = songs.similar("s01", 3, where=Filter(**wanted))
    assert found.matching == 0
    return list(found.notes)


YEARS = "; year goes from 9 to 38"


@pytest.mark.parametrize(
    ("wanted", "notes"),
    [
        ({"years": (3000, None)}, [f"no title's year is from 3000 on{YEARS}"]),
        ({"years": (None, 3)}, [f"no title's year is up to 3{YEARS}"]),
        ({"ranges": {"Price": ("7.26", 9)}}, ["no title's Price is from 7.26 to 9; price goes from 0.00 to 7.25"]),
        ({"ranges": {"price": (1.1, 1.2)}}, ["no title's price is from 1.1 to 1.2; price goes from 0.00 to 7.25"]),
        ({"ranges": {"length": (None, -1)}}, ["no title's length is up to -1; length goes from 100.5 to 129.5"]),
        (
            {"ranges": {"released": ("2031", None)}},
            ["no title's released is from 2031 on; released goes from 2000-01-01 to 2029-01-01"],
        ),
        ({"ranges": {"artist": ("x", None)}}, ["no title's artist is from x on"]),
        ({"any_of": {"year": 7}}, [f"no title has the year '7'{YEARS}"]),
        ({"any_of": {"tags": "lout"}}, ["no title has the tags 'lout'; did you mean 'loud'?"]),
        ({"any_of": {"artist": ["Bjork"]}}, ["no title has the artist 'Bjork'; did you mean 'Björk'?"]),
        ({"where": "year >= 3000"}, [f"no title satisfies year >= 3000{YEARS}"]),
        ({"where": "  3000<titles.year "}, [f"no title satisfies 3000<titles.year{YEARS}"]),
        ({"where": "artist = 'Acne'"}, ["no title satisfies artist = 'Acne'; did you mean 'Acme'?"]),
        (
            {"where": "lower(artist) IN ('acne')"},
            ["no title satisfies lower(artist) IN ('acne'); did you mean 'Acme'?"],
        ),
        ({"where": "artist IN ('Acne', 'x')"}, ["no title satisfies artist IN ('Acne', 'x')"]),
        ({"where": "artist LIKE 'Bjö_'"}, ["no title satisfies artist LIKE 'Bjö_'"]),
        (
            {"where": "'Björk' = artist AND (('fats' IN tags)\n and  (year + 1) * 2 > 99 ) AND true"},
            [
                "no title satisfies 'fats' IN tags; did you mean 'fast'?",
                f"no title satisfies (year + 1) * 2 > 99{YEARS}",
            ],
        ),
        ({"where": "(artist = 'Acne' OR year > 99) AND year > 1"}, ["no title satisfies artist = 'Acne' OR year > 99"]),
        ({"where": "artist = 'Acne' OR artist = 'x'"}, ["no title satisfies artist = 'Acne' OR artist = 'x'"]),
        ({"where": "year > 20 AND year < 15"}, []),  # each by itself has titles
        ({"where": "false"}, []),
        ({"where": "label = 'x'"}, ["no title satisfies label = 'x'"]),
        (
            {"where": "year > 99", "any_of": {"artist": ["Acme", "Acne"]}, "years": (8, 8)},
            [
                f"no title satisfies year > 99{YEARS}",
                "no title has the artist 'Acne'; did you mean 'Acme'?",
                f"no title's year is from 8 to 8{YEARS}",
            ],
        ),
    ],
)
def test_each_condition_that_no_title_satisfies_is_named(
    songs: Recommender, wanted: dict[str, Any], notes: list[str]
) -> None:
    assert noted(songs, **wanted) == notes


def test_nothing_is_noted_where_a_title_matches_or_all_are_excluded(songs: Recommender) -> None:
    assert songs.similar("s01", where="year > 9 OR artist = 'Acne'").notes == ()
    alone = songs.similar("s01", where="media_id = 's02'", exclude=["s02"])
    assert (alone.matching, alone.notes) == (0, ())


def test_what_matches_is_not_counted_where_a_title_was_found(songs: Recommender) -> None:
    """Once a fault: type fused counts when somebody asks, and every filtered question of many users did."""

    def found(row: int) -> CountedLater:
        rows, scores, nothing = np.array([[-1], [row]]), np.zeros((2, 1), np.float32), np.zeros(2, np.int64)
        return CountedLater(rows, scores, nothing, True, "masked", count=lambda: counted.append(row) or nothing)

    counted: list[int] = []
    wanted = Filter(where="artist = 'Acne'")
    assert (notes_on(found(4), wanted, songs.searcher), counted) == ((), [])
    assert (len(notes_on(found(-1), wanted, songs.searcher)), counted) == (1, [-1])


def test_of_many_conditions_the_first_are_looked_up(songs: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    matching_rows = missing.matching_rows

    def counted(catalog: Any, clause: str) -> Any:
        looked_up.append(clause)
        return matching_rows(catalog, clause)

    monkeypatch.setattr(missing, "matching_rows", counted)
    where = " AND ".join(f"year > {100 + n}" for n in range(500))
    assert len(noted(songs, where=where, any_of={"artist": [f"a{n}" for n in range(1000)]})) == MOST_LOOKED_UP
    assert len(looked_up) == MOST_LOOKED_UP


def test_long_conditions_are_cut(songs: Recommender) -> None:
    (note,) = noted(songs, where=f"media_id IN ({', '.join(repr(f'x{n}') for n in range(5000))})")
    assert len(note) < MOST_WRITTEN + 50 and note.endswith("…")


def test_an_answer_is_no_worse_where_its_notes_cannot_be_made(
    songs: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise SemrecError("too late")

    monkeypatch.setattr(missing, "parts_of", refused)
    assert noted(songs, where="year > 99") == []


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(years=(3000, None), any_of={"artist": "Acne", "tags": "fats"}),  # type: ignore[arg-type]
        Filter(ranges={"price": (100, None), "released": (None, 1999)}, where="year < 9 AND artist = 'x'"),  # type: ignore[arg-type]
    ],
)
def test_what_parts_of_the_titles_tell_is_what_all_of_them_do(songs: Recommender, wanted: Filter) -> None:
    """The years 9 to 38 are in another order as texts, and one part's least may be another's greatest."""
    parts = [range(0, 4), range(4, 29), range(29, COUNT)]
    of_each = [
        Recommender.from_arrays(VECTORS[rows], {name: [values[row] for row in rows] for name, values in SONGS.items()})
        for rows in parts
    ]
    for condition in conditions(songs.catalog, wanted):
        told = [instead_of(part.catalog, condition) for part in of_each]
        assert together(songs.catalog, condition, told) == instead_of(songs.catalog, condition) is not None
        assert together(songs.catalog, condition, [*told[:2], None]) is None


def test_the_words_of_a_clause_are_those_that_were_written(songs: Recommender) -> None:
    written = "length BETWEEN 1 AND 2 AND artist NOT LIKE '%é%' AND released >= DATE '2001-01-01' AND NOT (year = 1)"
    assert [part.written for part in parts_of(songs.catalog, written)] == [
        "length BETWEEN 1 AND 2",
        "artist NOT LIKE '%é%'",
        "released >= DATE '2001-01-01'",
        "NOT (year = 1)",
    ]
