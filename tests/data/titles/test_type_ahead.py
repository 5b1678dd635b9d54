"""Titles as one types."""

from __future__ import annotations

import pytest

from semrec_faiss.data.titles.type_ahead import TypeAhead

TITLES = [
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "Amélie (2001)",
    "A Story of Toys",
    "Les Misérables",
    "Tootsie",
    "Mystory",
]


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        ("toy", [0, 1, 3]),
        ("TOY STORY 2", [1]),
        ("story", [0, 3, 1, 6]),
        ("amel", [2]),
        ("Amélie", [2]),
        ("miser", [4]),
        ("to", [5, 0, 1, 3, 6]),
        ("2001", [2]),
        ("zzz", []),
        ("", []),
        ("?!", []),
    ],
)
def test_beginnings_come_first_then_words_then_anything(typed: str, rows: list[int]) -> None:
    assert TypeAhead(TITLES).find(typed, 10) == rows


def test_no_more_than_asked_for_and_a_word_that_goes_over_two_titles_is_none() -> None:
    ahead = TypeAhead(["One Two", "Three"])
    assert ahead.find("two three", 5) == []
    assert TypeAhead([f"Film {number}" for number in range(9000)]).find("film 8", 4) == [8, 80, 81, 82]
    assert TypeAhead([]).find("x", 3) == []


def test_titles_that_hold_it_many_times_count_once() -> None:
    """Once a fault: places were counted, and of titles that hold a letter often few were looked at."""
    titles = TypeAhead([*["banana " * 30] * 100, "ban"])
    assert titles.find("an", 2) == [100, 0]
