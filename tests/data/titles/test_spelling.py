"""Titles are found as people spell them; several are listed, and for none the nearest are."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.data.titles import spelling
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.spelling import TitleQuery
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import AmbiguousTitleError, NotFoundError
from tests.data.titles.made_titles import Entry, catalog_of, titled

SHELF = (
    "Toy Story (1995)",
    "Godfather, The (1972)",
    "Godfather: Part II, The (1974)",
    "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)",
    "Misérables, Les (1995)",
    "Misérables, Les (1998)",
    "Seven (a.k.a. Se7en) (1995)",
    "(500) Days of Summer (2009)",
    "Live and Let Die (1973)",
    "Avventura, L' (Adventure, The) (1960)",
    "WALL·E (2008)",
    "Spider-Man 2 (2004)",
    "Lock, Stock & Two Smoking Barrels (1998)",
    "Blade Runner 2049 (2017)",
    "2001: A Space Odyssey (1968)",
    "Wonder Woman 1984 (2020)",
    "8 1/2 (8½) (1963)",
    "$ (Dollars) (1971)",
    "!!!",
    "七人の侍 (1954)",
    "Сталкер (1979)",
    "El Norte (1984)",
    "Emma (1996)",
    "Emma (1996)",
    "Æon Flux (2005)",
    "Avatar: The Last Airbender (2005-2008)",
    "The Boat, Das (Boot, Das) (1981)",
    "Terminator 2: Judgment Day (1991)",
    "Star Wars: Episode V - The Empire Strikes Back (1980)",
    "Matrix, The (1999)",
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("shelf"), titled(*SHELF))


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("m3", SHELF[3]),
        ("Toy Story (1995)", "Toy Story (1995)"),
        ("toy story", "Toy Story (1995)"),
        ("  TOY-STORY ", "Toy Story (1995)"),
        ("toy story 1995", "Toy Story (1995)"),
        ("Toy Story, 1995", "Toy Story (1995)"),
        ("toy story [1995]", "Toy Story (1995)"),
        ("the godfather", "Godfather, The (1972)"),
        ("The Godfather (1972)", "Godfather, The (1972)"),
        ("godfather the", "Godfather, The (1972)"),
        ("Godfather, The", "Godfather, The (1972)"),
        ("godfather, the 1972", "Godfather, The (1972)"),
        ("godfather", "Godfather, The (1972)"),
        ("godfather 1972", "Godfather, The (1972)"),
        ("The Godfather: Part II", "Godfather: Part II, The (1974)"),
        ("amelie", SHELF[3]),
        ("AMÉLIE", SHELF[3]),
        ("Ame\u0301lie", SHELF[3]),
        ("le fabuleux destin d’amelie poulain", SHELF[3]),
        ("Amelie (Fabuleux destin d'Amélie Poulain, Le)", SHELF[3]),
        ("Amelie (Le fabuleux destin d'Amelie Poulain) (2001)", SHELF[3]),
        ("Les Misérables (1998)", "Misérables, Les (1998)"),
        ("les miserables 1995", "Misérables, Les (1995)"),
        ("se7en", "Seven (a.k.a. Se7en) (1995)"),
        ("seven", "Seven (a.k.a. Se7en) (1995)"),
        ("500 days of summer", "(500) Days of Summer (2009)"),
        ("live and let die", "Live and Let Die (1973)"),
        ("L'Avventura", SHELF[9]),
        ("the adventure", SHELF[9]),
        ("wall-e", "WALL·E (2008)"),
        ("spiderman 2", "Spider-Man 2 (2004)"),
        ("lock stock and two smoking barrels", "Lock, Stock & Two Smoking Barrels (1998)"),
        ("blade runner 2049", "Blade Runner 2049 (2017)"),
        ("2001 a space odyssey", "2001: A Space Odyssey (1968)"),
        ("wonder woman 1984", "Wonder Woman 1984 (2020)"),
        ("8½", "8 1/2 (8½) (1963)"),
        ("$", "$ (Dollars) (1971)"),
        ("dollars", "$ (Dollars) (1971)"),
        ("!!!", "!!!"),
        ("七人の侍", "七人の侍 (1954)"),
        ("СТАЛКЕР", "Сталкер (1979)"),
        ("norte", "El Norte (1984)"),
        ("Norte, El", "El Norte (1984)"),
        ("aeon flux", "Æon Flux (2005)"),
        ("avatar the last airbender (2005)", "Avatar: The Last Airbender (2005-2008)"),
        ("das boot", "The Boat, Das (Boot, Das) (1981)"),
    ],
)
def test_titles_are_found_as_people_spell_them(shelf: Catalog, query: str, title: str) -> None:
    assert SHELF[shelf.find(query)] == title


def test_the_same_name_in_several_years_asks_for_the_year(shelf: Catalog) -> None:
    with pytest.raises(AmbiguousTitleError, match="2 titles answer to 'les misérables'") as caught:
        shelf.find("les misérables")
    assert caught.value.candidates == ("Misérables, Les (1995) [m4]", "Misérables, Les (1998) [m5]")
    assert caught.value.media_ids == ("m4", "m5")
    assert all(candidate in caught.value.message for candidate in caught.value.candidates)
    assert caught.value.fix == "give the year in brackets after the title, or the media_id"


@pytest.mark.parametrize("query", ["Emma (1996)", "emma", "EMMA 1996"])
def test_the_same_title_and_year_twice_asks_for_the_id(shelf: Catalog, query: str) -> None:
    with pytest.raises(AmbiguousTitleError) as caught:
        shelf.find(query)
    assert caught.value.candidates == ("Emma (1996) [m22]", "Emma (1996) [m23]")
    assert caught.value.fix == "give the media_id"
    assert shelf.find("m23") == 23


def test_a_title_of_two_lines_has_one_in_a_message(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, titled("One\nTwo", "One Two", "One\r\nthree"))
    with pytest.raises(AmbiguousTitleError) as several:
        catalog.find("one two")
    assert several.value.message.splitlines()[1:] == ["  One Two [m0]", "  One Two [m1]"]
    with pytest.raises(NotFoundError) as none:
        catalog.find("one thre")
    assert none.value.message.splitlines()[1] == "  One three [m2]"
    assert none.value.candidates[0] == "One\r\nthree"


def test_ten_of_many_matches_are_listed(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, titled(*(f"Hamlet ({1900 + n})" for n in range(13))))
    with pytest.raises(AmbiguousTitleError, match="13 titles answer to 'hamlet'") as caught:
        catalog.find("hamlet")
    assert len(caught.value.candidates) == 10
    assert "… and 3 more" in caught.value.message


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("Toy Stroy", "Toy Story (1995)"),
        ("Terminatr 2", "Terminator 2: Judgment Day (1991)"),
        ("godfahter", "Godfather, The (1972)"),
        ("The Goodfather Part 2", "Godfather: Part II, The (1974)"),
        ("empire strikes back", "Star Wars: Episode V - The Empire Strikes Back (1980)"),
        ("teh matrix", "Matrix, The (1999)"),
        ("Toy Story (1996)", "Toy Story (1995)"),
        ("Стакер", "Сталкер (1979)"),
    ],
)
def test_typos_get_the_nearest_titles(shelf: Catalog, query: str, title: str) -> None:
    with pytest.raises(NotFoundError, match="no title answers to") as caught:
        shelf.find(query)
    assert not isinstance(caught.value, AmbiguousTitleError)
    assert 1 <= len(caught.value.candidates) <= 5
    assert title in caught.value.candidates[:2]
    assert all(candidate in caught.value.message for candidate in caught.value.candidates)
    named = zip(caught.value.candidates, caught.value.media_ids, strict=True)
    assert all(f"{candidate} [{media_id}]" in caught.value.message for candidate, media_id in named)
    titles = Titles(lambda: shelf)
    assert [SHELF[row] for row in titles.nearest(query, 5)] == list(caught.value.candidates)
    assert [f"m{row}" for row in titles.nearest(query, 2)] == list(caught.value.media_ids[:2])


@pytest.mark.parametrize(
    ("query", "title"),
    [("matrx", "The Matrix (1999)"), ("the matrx", "The Matrix (1999)"), ("die matrx", "Die Matrix (1999)")],
)
def test_an_article_in_front_hides_no_near_title(tmp_path: Path, query: str, title: str) -> None:
    # once a fault: of many titles only 200 were looked at closely, and those with "The" in front were not among them
    others = (f"Matr{one}{other}" for one in "bcdfghjklmnpqstvwz" for other in "bcdfghjklmnpqstvwz")
    shelf = titled(*others, "The Matrix (1999)", "Die Matrix (1999)")
    found = Titles(lambda: catalog_of(tmp_path, shelf))
    assert [record["title"] for record in found.records(found.nearest(query, 1))] == [title]


@pytest.mark.parametrize(
    "query", ["", " ", "???", "\0", "(1995)", "half \udc80", "x" * 100_000, "( " * 20_000, "%_'\"\\"]
)
def test_nothing_typed_escapes_as_another_error(shelf: Catalog, query: str) -> None:
    with pytest.raises(NotFoundError):
        shelf.find(query)
    assert len(Titles(lambda: shelf).nearest(query, 3)) <= 3


@pytest.mark.parametrize("query", ["zzzzqqqxw", "???", "%%% --", "кц", "ありま", "x" * 100_000])
def test_what_no_title_looks_like_gets_none(shelf: Catalog, query: str) -> None:
    """Once the first titles of all, or what shares two letters."""
    with pytest.raises(NotFoundError, match="and none looks like it") as caught:
        shelf.find(query)
    assert (caught.value.candidates, caught.value.media_ids) == ((), ())
    assert caught.value.fix == "give a title or a media_id"
    assert Titles(lambda: shelf).nearest(query, 3) == []


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("Белое слонце пустыни", "Белое солнце пустыни (1970)"),
        ("белоесолнце", "Белое солнце пустыни (1970)"),
        ("七人の待", "七人の侍 (1954)"),
        ("となりトトロ", "となりのトトロ (1988)"),
        ("باب الحديب", "باب الحديد (1958)"),
        ("!!?", "!!!"),
        ("$$", "$"),
    ],
)
def test_near_misses_of_any_script_are_told_by_characters(tmp_path: Path, query: str, title: str) -> None:
    """Their bytes are alike anyway: all of a script begin with the same ones."""
    others = [f"{a}{b}{c} {c}{a}" for a in "абвгде" for b in "жзикл" for c in "мнопр"]
    others += [f"{a}{b}の{c}" for a in "三四五六八九" for b in "姫城乱刀味" for c in "旅父母音空"]
    named = ["Белое солнце пустыни (1970)", "七人の侍 (1954)", "となりのトトロ (1988)", "باب الحديد (1958)", "!!!", "$"]
    titles = Titles(lambda: catalog_of(tmp_path, titled(*others, *named)))
    found = [record["title"] for record in titles.records(titles.nearest(query, 5))]
    assert found[0] == title


@pytest.mark.parametrize("query", ["flim_0534", "FILM_053", " film-0534", "film_00534"])
def test_a_mistyped_media_id_gets_the_nearest_ids(tmp_path: Path, query: str) -> None:
    """Once titles that look like it: Firm, Liam."""
    named = [("film_0534", "Heat"), ("film_0098", "Alien"), ("f9", "Film Stars"), ("0534", "Fifm 05"), ("5", "Flim")]
    catalog = catalog_of(tmp_path, [{"media_id": media_id, "title": title} for media_id, title in named])
    with pytest.raises(NotFoundError, match=r"the nearest are:\n  Heat \[film_0534\]") as caught:
        catalog.find(query)
    assert (caught.value.candidates[0], caught.value.media_ids[0]) == ("Heat [film_0534]", "film_0534")
    assert Titles(lambda: catalog).nearest(query, 1) == [0]
    with pytest.raises(NotFoundError, match=r"did you mean 'film_0534'\? ids look like 'film_0534', 'film_0098', 'f9'"):
        catalog.row_of(query)
    assert Titles(lambda: catalog).nearest("film strs", 1) == [2], "a mistyped title is nearer to a title"


def test_numbers_are_near_to_no_other_number(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, [{"media_id": f"{n}", "title": f"Film {'x' * n}"} for n in range(1000, 1005)])
    with pytest.raises(NotFoundError, match="and none looks like it"):
        catalog.find("1009")


def test_the_year_field_counts_where_the_title_has_none(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, titled("Heat", "Heat", "Ran", year=[1986, 1995, None]))
    assert catalog.find("Heat (1995)") == 1
    assert catalog.find("heat 1986") == 0
    assert catalog.find("ran (1985)") == 2, "its year is unknown, so it may be this one"
    with pytest.raises(AmbiguousTitleError) as caught:
        catalog.find("Heat")
    assert caught.value.candidates == ("Heat (1986) [m0]", "Heat (1995) [m1]")


def test_better_matches_go_first(tmp_path: Path) -> None:
    catalog = catalog_of(
        tmp_path, titled("It", "A", "a", "The Thing", "Thing", "Artist, The", "Adventure (Artist)", "m1")
    )
    assert catalog.find("m1") == 1, "an id before a title"
    assert catalog.find("A") == 1, "the very title before one in another case"
    assert catalog.find("thing") == 4, "the same words before the same without the article"
    assert catalog.find("the thing") == 3
    assert catalog.find("the artist") == 5, "a title's own name before one in brackets"
    assert catalog.find("artist") == 6


def test_a_number_finds_the_id_that_holds_it(tmp_path: Path) -> None:
    lines = [
        {"media_id": name, "title": title}
        for name, title in (
            ("ml_00000001", "Toy Story (1995)"),
            ("ml_00000021", "Get Shorty (1995)"),
            ("ml_00051662", "21 (2008)"),
            ("ml_00000007", "Sabrina (1995)"),
            ("tt0007", "Bond (2006)"),
            ("ml_00000010", "GoldenEye (1995)"),
            ("b2_005", "Nine Lives (2004)"),
        )
    ]
    catalog = catalog_of(tmp_path, lines)
    assert (catalog.find("1"), catalog.find("0010"), catalog.find("51662")) == (0, 5, 2)
    assert catalog.find("21") == 2, "a title before a number"
    many = "1" * 2_000_000  # digits, of which DuckDB makes no pattern
    for other in ("7", "100", "5", "0", "-1", "1.0", "٣", many):  # two ids, none, another number before it, no number
        with pytest.raises(NotFoundError):
            catalog.find(other)


words = st.sampled_from(
    ["the", "The", "le", "die", "l'", "Wonder", "woman", "wo", "man", "é", "e", "&", "and", "1984", "$", "½"]
)
glue = st.sampled_from([" ", " ", ", ", " (", ") ", "-", ""])


@st.composite
def titles(draw: st.DrawFn) -> str:
    text = "".join(draw(words) + draw(glue) for _ in range(draw(st.integers(1, 5))))
    return text + draw(st.sampled_from(["", " (1984)", " [2020]", " (1984-1990)", " 1984"]))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(shelved=st.lists(titles(), min_size=40, max_size=40), asked=st.lists(titles(), min_size=15, max_size=15))
def test_looking_in_sql_finds_what_comparing_all_titles_finds(
    tmp_path_factory: pytest.TempPathFactory, shelved: list[str], asked: list[str]
) -> None:
    years = [None if len(title) % 2 else 1984 for title in shelved]
    catalog = catalog_of(tmp_path_factory.mktemp("shelf"), titled(*shelved, year=years))
    for query in [*asked, *(title.swapcase() for title in shelved[:10])]:
        exact = [row for row, title in enumerate(shelved) if title == query]
        best = exact or TitleQuery(query).best_rows((row, title, years[row]) for row, title in enumerate(shelved))[1]
        try:
            found = [catalog.find(query)]
        except AmbiguousTitleError as error:
            found = [int(candidate.rpartition("[m")[2][:-1]) for candidate in error.candidates]
        except NotFoundError:
            found = []
        assert found == best[:10], query


@pytest.fixture(scope="module")
def movies(movielens: Path) -> Catalog:
    return Catalog.read(movielens / "media" / "metadata.jsonl", expect_count=9742)


@pytest.mark.parametrize(
    ("query", "media_id"),
    [
        ("Toy Story (1995)", "ml_00000001"),
        ("toy story", "ml_00000001"),
        ("the godfather", "ml_00000858"),
        ("godfather", "ml_00000858"),
        ("amelie", "ml_00004973"),
        ("Les Misérables (2012)", "ml_00099149"),
        ("la cite des enfants perdus", "ml_00000029"),
    ],
)
def test_movielens_titles_are_found(movies: Catalog, query: str, media_id: str) -> None:
    assert movies.media_ids([movies.find(query)]) == [media_id]


def test_movielens_les_miserables_asks_for_the_year(movies: Catalog) -> None:
    with pytest.raises(AmbiguousTitleError) as caught:
        movies.find("Les Misérables")
    assert [candidate.partition(" [")[0] for candidate in caught.value.candidates] == [
        f"Misérables, Les ({year})" for year in (1995, 1998, 2012, 2000)
    ]


@pytest.mark.parametrize(
    ("typo", "title"),
    [
        ("Toy Stroy", "Toy Story (1995)"),
        ("Terminatr 2", "Terminator 2: Judgment Day (1991)"),
        ("Shawshank Redemtion", "Shawshank Redemption, The (1994)"),
        ("pulp ficton", "Pulp Fiction (1994)"),
        ("star wars empire strikes back", "Star Wars: Episode V - The Empire Strikes Back (1980)"),
        ("the matirx", "Matrix, The (1999)"),
        ("raiders of the lost arc", "Raiders of the Lost Ark (Indiana Jones and the Raiders of the Lost Ark) (1981)"),
    ],
)
def test_movielens_typos(movies: Catalog, typo: str, title: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        movies.find(typo)
    assert title in caught.value.candidates


def mangled(title: str) -> str:
    name, _, article = title[: title.rindex(" (")].partition(", ")
    moved = f"{article} {name}" if article in ("The", "A", "An", "La", "Le", "Les") else title[: title.rindex(" (")]
    return f"{moved.upper().replace('-', ' ').replace(':', '')} {title[-6:]}"


def test_movielens_titles_are_found_in_capitals_with_the_article_moved(movies: Catalog) -> None:
    records: list[Entry] = movies.records(range(0, 9742, 60))
    checked = 0
    for row, record in zip(range(0, 9742, 60), records, strict=True):
        if record["title"].endswith(")") and record["year"] and record["title"][-6:] == f"({record['year']})":
            try:
                assert movies.find(mangled(record["title"])) == row
            except AmbiguousTitleError as error:
                assert f"{record['title']} [{record['media_id']}]" in error.candidates
            checked += 1
    assert checked > 150


def test_a_letter_before_a_bracket_is_held_against_few_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once against all with that letter in their name, or with a bracket: 1 to 3 s of 62,423 titles."""
    titles = [f"Tale of an Aardvark {n} (Saga {n}) (19{n:02d})" for n in range(100)] + ["A (1981)", "Oh (The A) (1990)"]
    catalog = catalog_of(tmp_path, titled(*titles))
    held: list[str] = []
    best_rows = TitleQuery.best_rows

    def noted(query: TitleQuery, found: list[tuple[int, str, int | None]]) -> tuple[int, list[int]]:
        held.extend(title for _, title, _ in found)
        return best_rows(query, found)

    monkeypatch.setattr(TitleQuery, "best_rows", noted)
    assert catalog.find("a (b)") == 100
    assert held == ["A (1981)", "Oh (The A) (1990)"]
    held.clear()
    assert catalog.finder.answering("saga 7").rows == [7] and held == [titles[7]]


def test_a_text_is_taken_apart_once_however_many_titles_it_is_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 10,000 characters took 80 s of 62,423 titles."""
    asked = "a (aka b) " * 1000
    taken_apart: list[str] = []
    words = spelling.words

    def noted(text: str) -> list[str]:
        taken_apart.append(text)
        return words(text)

    monkeypatch.setattr(spelling, "words", noted)
    titles = [(row, f"Ab {row} (or b{row})", None) for row in range(500)]
    assert TitleQuery(asked).best_rows(titles) == (0, [])
    assert 1 <= sum(len(text) > 100 for text in taken_apart) < 10


@pytest.mark.parametrize("marks", ["\u0300\u0316", "\u0f73", "\uff9e\u0316", "\u05b0\u05b1\u05b2"])
def test_a_letter_of_many_marks_is_not_put_in_order_as_a_whole(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 marks on a command line took it minutes: they are ordered in the square of their number."""
    normalize, ordered = unicodedata.normalize, []

    def noted(form: str, text: str) -> str:
        ordered.append(len(normalize(form, text)) if len(text) > spelling.LONG else 0)
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", noted)
    for read in (spelling.words, spelling.caseless):
        assert read("a" + marks * 2000) == read("a" + marks * 2000 + marks)
        assert read("a" + marks * 2000 + " Amélie") != read("a" + marks * 2000)
    assert max(ordered) <= spelling.LONG


def test_long_texts_are_read_as_short_ones_are() -> None:
    short = "Ação à la Crème, Ṩ が ガ é Éǘ \u0f73 WALL·E; "
    assert spelling.words(short * 100) == spelling.words(short) * 100
    assert spelling.caseless(short * 100) == " ".join([spelling.caseless(short)] * 100)
