"""Filters as a person asks for them, and a clause asked for again that costs no database."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.filters import filter as selection
from semrec_faiss.search.filters.filter import Filter, Selections, parse_years
from semrec_faiss.search.recommender import Recommender


@pytest.fixture(scope="module")
def index(world: Any, make_index: Callable[..., VectorIndex]) -> VectorIndex:
    """The exact index of the world's titles."""
    return make_index(world.titles, {"type": "flat"})


@pytest.fixture
def selections(world: Any, index: VectorIndex) -> Selections:
    """An empty cache."""
    return Selections(world.catalog, index)


def chosen(selections: Selections, **parts: Any) -> list[int]:
    found = selections.get(Filter(**parts))
    assert found is not None
    assert np.flatnonzero(found.mask).tolist() == found.rows.tolist()
    return found.rows.tolist()


def rows_where(world: Any, holds: Callable[[dict[str, Any]], Any]) -> list[int]:
    return [row for row, entry in enumerate(world.entries) if holds(entry)]


def genres_of(entry: dict[str, Any]) -> set[str]:
    return set(entry["genres"] or ())


def catalog_of(folder: Path, entries: list[dict[str, Any]]) -> Catalog:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"media_id": f"m{n}", "title": f"T{n}"} | entry) for n, entry in enumerate(entries)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Catalog.read(folder / "metadata.jsonl")


# What is asked for


def test_shorthands_say_what_they_mean(world: Any, selections: Selections) -> None:
    assert chosen(selections, genres=("Drama", "Comedy")) == rows_where(
        world, lambda e: {"Drama", "Comedy"} <= genres_of(e)
    )
    assert chosen(selections, any_genres=("Drama", "Sci-Fi")) == rows_where(
        world, lambda e: genres_of(e) & {"Drama", "Sci-Fi"}
    )
    # What has no genres at all has not this one either.
    assert chosen(selections, not_genres=("Drama",)) == rows_where(world, lambda e: "Drama" not in genres_of(e))
    in_the_nineties = rows_where(world, lambda e: e["year"] is not None and 1990 <= e["year"] <= 1999)
    assert chosen(selections, years=(1990, 1999)) == in_the_nineties
    assert chosen(selections, years=(None, 1960)) == rows_where(world, lambda e: e["year"] and e["year"] <= 1960)
    assert chosen(selections, years=(2020, None)) == rows_where(world, lambda e: e["year"] and e["year"] >= 2020)
    assert chosen(
        selections,
        where="rating >= 4 OR ok -- or, not bracketed",
        genres=("Drama",),
        any_genres=("Comedy", "Sci-Fi"),
        not_genres=("Film-Noir",),
        years=(1970, None),
    ) == rows_where(
        world,
        lambda e: (
            ((e["rating"] or 0) >= 4 or e["ok"])
            and "Drama" in genres_of(e)
            and genres_of(e) & {"Comedy", "Sci-Fi"}
            and "Film-Noir" not in genres_of(e)
            and (e["year"] or 0) >= 1970
        ),
    )


@pytest.mark.parametrize("name", ["Rock 'n' Roll", "rock 'N' roll", "日本映画", "SCI-FI"])
def test_genres_with_quotes_and_in_any_case(world: Any, selections: Selections, name: str) -> None:
    exact = next(genre for genre in ("Rock 'n' Roll", "日本映画", "Sci-Fi") if genre.casefold() == name.casefold())
    expected = rows_where(world, lambda e: exact in genres_of(e))
    assert 0 < len(expected) < len(world.entries)
    assert chosen(selections, genres=(name,)) == expected
    assert chosen(selections, any_genres=(name,)) == expected
    assert chosen(selections, not_genres=(name,)) == sorted(set(range(len(world.entries))) - set(expected))


def test_nothing_asked_for_is_everything(selections: Selections) -> None:
    assert selections.get(Filter()) is None
    assert selections.get(Filter(years=(None, None))) is None


def test_an_unknown_genre_names_the_nearest(selections: Selections) -> None:
    for part in ("genres", "any_genres", "not_genres"):
        with pytest.raises(UsageError) as caught:
            selections.get(Filter(**{part: ("Drama", "scifi")}))
        assert caught.value.message == "no title has the genre 'scifi'"
        assert caught.value.candidates == ("Sci-Fi",)
        offered = "did you mean 'Sci-Fi'? genres: Comedy, Drama, Film-Noir, Rock 'n' Roll, Sci-Fi, 日本映画"
        later = "; to leave it out as soon as a title has it: where NOT coalesce('scifi' IN genres, false)"
        assert caught.value.fix == offered + later * (part == "not_genres")
    with pytest.raises(UsageError) as caught:
        selections.get(Filter(genres=("') OR true --",)))
    assert caught.value.message == 'no title has the genre "\') OR true --"'
    assert str(caught.value.fix).startswith("genres: ") and caught.value.candidates == ()


@pytest.mark.parametrize("name", ["Kids' films", "Drama"])
def test_a_genre_that_comes_and_goes_is_left_out_as_the_error_says(
    world: Any, selections: Selections, name: str
) -> None:
    """Whoever leaves out what the last title with it takes along would be refused from then on."""
    with pytest.raises(UsageError) as caught:
        selections.get(Filter(not_genres="Kids' films"))
    where = str(caught.value.fix).rpartition(": where ")[2].replace("Kids'' films", name.replace("'", "''"))
    assert chosen(selections, where=where) == rows_where(world, lambda entry: name not in genres_of(entry))


def test_of_thousands_of_tags_an_error_names_some(tmp_path: Path, index: VectorIndex) -> None:
    catalog = catalog_of(tmp_path, [{"genres": [f"tag {n:04d}"]} for n in range(2_000)])
    with pytest.raises(UsageError) as caught:
        Selections(catalog, index).get(Filter(genres=("tga 0001",)))
    fix = str(caught.value.fix)
    assert fix.startswith("did you mean 'tag 0001'? genres: tag 0000, ") and fix.endswith(", … and 1,960 more")


def test_titles_without_such_a_field(tmp_path: Path, index: VectorIndex) -> None:
    bare = Selections(catalog_of(tmp_path, [{"length": 3}]), index)
    for wanted, field in ((Filter(genres=("Drama",)), "genres"), (Filter(years=(1990, None)), "year")):
        with pytest.raises(UsageError) as caught:
            bare.get(wanted)
        assert caught.value.message == f"the titles have no field {field!r}"
        assert str(caught.value.fix).startswith("fields: media_id, title, length; where one of them plays this part")
        assert str(caught.value.fix).endswith(f"build the index with --set dataset.fields.{field}=FIELD")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"release_year": 1990}, "release_year"),
        ({"Year built": 1990}, "'Year built'"),
        ({"year1": 1, "year2": 2}, "FIELD"),
    ],
)
def test_the_field_that_may_play_the_part_is_offered(
    tmp_path: Path, index: VectorIndex, fields: dict[str, int], told: str
) -> None:
    named = Selections(catalog_of(tmp_path, [fields]), index)
    with pytest.raises(UsageError) as caught:
        named.get(Filter(years=(1990, None)))
    assert str(caught.value.fix).endswith(f" --set dataset.fields.year={told}")


# Once a fault: `_Genres` keeps one of the spellings, whichever DuckDB gives last.
def test_genres_that_differ_in_case_only(tmp_path: Path, index: VectorIndex) -> None:
    names = ["Drama", "DRAMA", "drama", "Noir", "NOIR"]
    catalog = catalog_of(tmp_path, [{"genres": [name]} for name in names])
    for row, name in enumerate(names):
        assert chosen(Selections(catalog, index), genres=(name,)) == ([0, 1, 2] if row < 3 else [3, 4])


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("1990..1999", (1990, 1999)),
        ("1990..", (1990, None)),
        ("..1999", (None, 1999)),
        ("1994", (1994, 1994)),
        ("1994..1994", (1994, 1994)),
        ("-44..14", (-44, 14)),
        ("0..0", (0, 0)),
    ],
)
def test_spans_of_years(text: str, years: tuple[int | None, int | None]) -> None:
    assert parse_years(text) == years


@pytest.mark.parametrize(
    "text", ["", "..", "1999..1990", "1990-1999", "nineties", "1990...1999", "1990.5", "a..b", "9" * 5000]
)
def test_no_spans_of_years(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_years(text)
    assert "span of years" in caught.value.message
    assert caught.value.fix == "for example: 1990..1999, 1990.., ..1999 or 1994"


@pytest.mark.parametrize("years", [(10**30, None), (None, -(10**30)), (-(10**18), 10**18)])
def test_years_that_no_title_can_have(world: Any, selections: Selections, years: tuple[int | None, int | None]) -> None:
    first, last = years
    expected = rows_where(
        world,
        lambda e: e["year"] is not None and first_holds(first, e["year"]) and first_holds(e["year"], last),
    )
    assert chosen(selections, years=years) == expected


def first_holds(low: int | None, high: int | None) -> bool:
    return low is None or high is None or low <= high


# What is kept


@pytest.fixture
def queries(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the catalog's database is opened, by appending to a list."""
    opened: list[int] = []
    cursor = world.catalog.cursor

    def counted() -> Any:
        opened.append(len(opened))
        return cursor()

    monkeypatch.setattr(world.catalog, "cursor", counted)
    return opened


def test_a_repeated_filter_does_not_touch_the_database(selections: Selections, queries: list[int]) -> None:
    filters = [
        Filter(where="year > 1990"),
        Filter(genres=("Drama",)),
        Filter(where="year > 1990", genres=("Drama",), not_genres=("Comedy",), years=(None, 2000)),
    ]
    first = [selections.get(wanted) for wanted in filters]
    opened = len(queries)
    assert opened >= 3
    for _ in range(20):
        again = [selections.get(Filter(f.where, f.genres, f.any_genres, f.not_genres, f.years)) for f in filters]
        assert [id(one) for one in again] == [id(one) for one in first]
    assert len(queries) == opened
    selections.get(Filter(where="year > 1991"))
    assert len(queries) > opened


def test_what_is_not_understood_is_not_kept(selections: Selections, queries: list[int]) -> None:
    for _ in range(3):
        before = len(queries)
        with pytest.raises(UsageError):
            selections.get(Filter(where="yaer > 1990"))
        assert len(queries) > before


def test_the_cache_stays_under_its_bound(
    world: Any, index: VectorIndex, selections: Selections, queries: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Filter(where=f"place < {limit}") for limit in range(20, 2000, 20)]
    sizes = [len(world.titles) + 8 * n + 4 * index.dim * n for n in range(20, 2000, 20)]  # mask, rows, vectors
    bound = 900_000
    monkeypatch.setattr(selection, "CACHE_BYTES", bound)
    for number, one in enumerate(wanted):
        made = selections.get(one)
        assert made is not None
        assert made.gathered is not None
        assert made.bytes == sizes[number] == made.mask.nbytes + made.rows.nbytes + made.gathered.nbytes
        kept = list(selections._kept.values())
        assert sum(each.bytes for each in kept) <= bound
        assert kept[-1] is made
    assert list(selections._kept) == wanted[-len(selections._kept) :]
    room = bound - sum(each.bytes for each in selections._kept.values())
    assert 2 <= len(selections._kept) < 10
    assert room < sizes[-1 - len(selections._kept)], "more would have fitted"
    # The latest used stays, not the latest made.
    oldest = wanted[-len(selections._kept)]
    selections.get(oldest)
    selections.get(Filter(where="place < 1"))
    selections.get(Filter(where="place < 1990"))
    before = len(queries)
    selections.get(oldest)
    assert len(queries) == before


def test_a_single_filter_larger_than_the_bound_still_answers(
    selections: Selections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CACHE_BYTES", 10)
    for limit in (5, 500, 5):
        assert len(chosen(selections, where=f"place < {limit}")) == limit
        assert len(selections._kept) == 1


def test_too_many_vectors_are_not_kept(selections: Selections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "GATHERED_BYTES", 32 * 4 * 100)
    few, many = selections.get(Filter(where="place < 100")), selections.get(Filter(where="place < 101"))
    assert few is not None
    assert many is not None
    assert few.gathered is not None
    assert few.gathered.shape == (100, 32)
    assert many.gathered is None
    assert many.bytes == many.mask.nbytes + many.rows.nbytes


def test_vectors_are_gathered_for_a_filter_that_comes_back(world: Any, selections: Selections) -> None:
    made = selections.get(Filter(where="place < 100"))
    assert made is not None
    assert [made.gathers_soon(), made.gathers_soon(), made.gathers_soon()] == [False, True, True]
    np.testing.assert_array_equal(made.gathered, world.titles[made.rows])


@pytest.mark.slow
def test_many_threads_ask_for_many_filters(world: Any, selections: Selections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "CACHE_BYTES", 400_000)
    limits = [int(limit) for limit in np.random.default_rng(1).integers(0, 40, size=300) * 50]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda limit: len(chosen(selections, where=f"place < {limit}")), limits))
    assert sizes == limits
    assert sum(each.bytes for each in selections._kept.values()) <= 400_000


# Once a fault: lists are what a caller writes first, and they cannot be a key.
def test_a_filter_made_of_lists(world: Any, selections: Selections) -> None:
    wanted = Filter(genres=["Drama"], any_genres=["Comedy"], not_genres=["Sci-Fi"])
    found = selections.get(wanted)
    assert found is not None
    assert found.rows.tolist() == rows_where(
        world, lambda e: {"Drama", "Comedy"} <= genres_of(e) and "Sci-Fi" not in genres_of(e)
    )


def test_two_generations_do_not_share(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "index"
    found, names = [], []
    for word, titles in (("Old", 60), ("New", 90)):
        folder = make_folder(tmp_path / word, titles=titles, word=word, seed=len(word) + titles)
        build_index(config_from_dict({"dataset": str(folder.root), "output": str(output), "device": "cpu"}))
        recommender = Recommender.open(output)
        found.append(recommender)
        names.append(word)
    for _ in range(3):
        for recommender, word, titles in zip(found, names, (60, 90), strict=True):
            answer = recommender.search(np.ones(16), k=500, where="runtime >= 100")
            expected = {row for row in range(titles) if 60 + row % 120 >= 100}
            assert set(answer[0].rows.tolist()) == expected
            assert answer[0].matching == len(expected)
            assert all(result.title.startswith(word) for result in answer[0].results)
    assert found[0].searcher.selections._kept.keys() == found[1].searcher.selections._kept.keys()
    assert found[0].searcher.selections._kept is not found[1].searcher.selections._kept


def test_genres_in_another_unicode_form_are_found(tmp_path: Path, index: VectorIndex) -> None:
    names = ["Com\u00e9die", "Come\u0301die", "Noir", "COME\u0301DIE"]
    selections = Selections(catalog_of(tmp_path, [{"genres": [name]} for name in names]), index)
    for asked in (*names[:2], "com\u00e9die"):
        assert chosen(selections, genres=(asked,)) == [0, 1, 3]
        assert chosen(selections, any_genres=(asked, "noir")) == [0, 1, 2, 3]
        assert chosen(selections, not_genres=(asked,)) == [2]
