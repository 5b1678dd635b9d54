"""Series told by titles: what is one, what is none, and how a download's films get theirs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.data.movielens.franchise import franchises


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("Toy Story", ["Toy Story (1995)", "Toy Story 2 (1999)", "Toy Story 3 (2010)"]),
        ("The Godfather", ["Godfather, The (1972)", "Godfather: Part II, The (1974)", "Godfather III, The (1990)"]),
        (
            "Star Wars",
            [
                "Star Wars: Episode IV - A New Hope (1977)",
                "Star Wars: Episode II - Attack of the Clones (2002)",
                "Star Wars: The Clone Wars (2008)",
            ],
        ),
        (
            "Mission: Impossible",
            [
                "Mission: Impossible II (2000)",
                "Mission: Impossible (1996)",
                "Mission: Impossible - Ghost Protocol (2011)",
            ],
        ),
        ("Naked Gun", ["Naked Gun (1988)", "Naked Gun 2 1/2: The Smell of Fear (1991)"]),
        ("Kill Bill", ["Kill Bill: Vol. 1 (2003)", "Kill Bill: Vol. 2 (2004)"]),
        ("Karate Kid", ["Karate Kid (1984)", "Karate Kid, Part Two (1986)"]),
        ("Die Hard", ["Die Hard (1988)", "Die Hard 2 (1990)", "Die Hard: With a Vengeance (1995)"]),
        (
            "The Hobbit",
            [
                "Hobbit: An Unexpected Journey, The (2012)",
                "Hobbit: The Desolation of Smaug, The (2013)",
                "The Hobbit: The Battle of the Five Armies (2014)",
            ],
        ),
        ("Airplane!", ["Airplane II: The Sequel (1982)", "Airplane! (1980)"]),
        ("Highlander", ["Highlander (a.k.a. There Is 1) (1986)", "Highlander III: The Sorcerer (a.k.a. X 2) (1994)"]),
    ],
)
def test_films_numbered_alike_are_of_one_series(name: str, titles: list[str]) -> None:
    others = ["Heat (1995)", "Twelve Monkeys (a.k.a. 12 Monkeys) (1995)"]
    assert franchises([others[0], *titles, others[1]]) == [None, *[name] * len(titles), None]


@pytest.mark.parametrize(
    "titles",
    [
        ["Toy Story 2 (1999)"],
        ["Apollo 13 (1995)", "Apollo 18 (2011)"],
        ["Richard III (1955)", "Richard III (1995)"],
        ["Heat (1986)", "Heat (1995)"],
        ["District (2000)", "District 9 (2009)"],
        ["Movie (2000)", "Movie 43 (2013)"],
        ["Batman: Year One (2011)", "Batman: Gotham Knight (2008)", "Batman: Bad Blood (2016)"],
        ["Louis Theroux: One (2001)", "Louis Theroux: Another (2002)"],
        ["Two (1990)", "Part Two (1991)", "2 (1992)", "II (1993)"],
        [],
        ["", " ", "(1999)", ": ", " - ", "2", ", The"],
    ],
)
def test_what_is_less_than_certain_is_none(titles: list[str]) -> None:
    assert franchises(titles) == [None] * len(titles)


@given(st.lists(st.text(alphabet="Aa 2I:-,()é", max_size=14), max_size=6))
def test_any_titles_are_read(titles: list[str]) -> None:
    found = franchises(titles)
    assert len(found) == len(titles)
    assert all(name is None or found.count(name) > 1 for name in found)
