"""What errors say of a caller's own text: its beginning and how long it is, whatever it is and wherever it comes in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import Semrec

from semrec_faiss import Filter, Recommender, SemrecError, load_config
from semrec_faiss.errors import UsageError, quoted

LONG = "x" * 3_000_000

BEGINNING = "'" + "x" * 60 + "…' (3,000,000 characters)"


@pytest.fixture(scope="module")
def songs() -> Recommender:
    """Three titles, two of which one user knows."""
    titles = {"media_id": ["a", "b", "c"], "title": ["Intro", "Waltz", "March"], "brand": ["x", "y", "y"]}
    return Recommender.from_arrays(np.eye(3, dtype="float32"), titles, users={"eve": [1.0, 0.5, 0.0]})


@pytest.mark.parametrize(
    "ask",
    [
        lambda songs: songs.similar(LONG),
        lambda songs: songs.recommend(LONG),
        lambda songs: songs.similar_users(LONG),
        lambda songs: songs.similar("Intro", where=f"title = 'a' OR '{LONG}'"),
        lambda songs: songs.similar("Intro", where=Filter(years=LONG)),
        lambda songs: songs.similar("Intro", where=Filter(any_of={LONG: "a"})),
        lambda songs: songs.similar("Intro", where=Filter(ranges={LONG: (1, 2)})),
        lambda songs: songs.similar("Intro", max_per={LONG: 1}),
        lambda songs: songs.similar("Intro", max_per={"brand": LONG}),
        lambda songs: songs.similar("Intro", strategy=LONG),
        lambda songs: load_config("flat", [LONG]),
        lambda songs: load_config("flat", [f"{LONG}=1"]),
        lambda songs: load_config("flat", [f"index.type={LONG}"]),
        lambda songs: load_config(LONG),
        lambda songs: Recommender.open(LONG),
    ],
)
def test_no_error_repeats_a_long_text(songs: Recommender, ask: Callable[[Recommender], object]) -> None:
    with pytest.raises(SemrecError) as caught:
        ask(songs)
    assert len(str(caught.value)) < 2_500
    assert "characters" in str(caught.value)


def test_a_value_is_quoted_whole_where_it_is_short_and_with_its_length_where_it_is_not(songs: Recommender) -> None:
    assert [quoted(value) for value in ("x" * 60, [1], LONG)] == ["'" + "x" * 60 + "'", "[1]", BEGINNING]
    assert quoted(list(range(1000))) == str(list(range(1000)))[:60] + "… (4,890 characters)"
    with pytest.raises(SemrecError, match="no title answers to 'xxx") as caught:
        songs.similar(LONG)
    assert BEGINNING in caught.value.message


def test_of_a_long_line_the_middle_is_left_out() -> None:
    error = UsageError("a\n" + "b" * 1200 + "\nc", fix="d" * 2000)
    first, line, last = error.message.split("\n")
    assert (first, last) == ("a", "c")
    assert line == "b" * 500 + " … (200 characters left out) … " + "b" * 500
    assert error.fix is not None
    assert "(1,000 characters left out)" in error.fix
    assert str(error) == f"{error.message}\n{error.fix}"


@pytest.mark.parametrize("arguments", [("{}",), ("similar", "i", "--{}"), ("similar", "i", "-k", "{}")])
def test_mistakes_of_the_command_line_are_told_as_shortly(semrec: Semrec, arguments: tuple[str, ...]) -> None:
    told = semrec(*(each.format("x" * 100_000) for each in arguments))
    assert told.code == 2
    assert "characters" in told.err
    assert len(told.err) < 2_500
