"""similar, recommend, similar-users, explain: exit codes and every line that they print, worked out by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Ended, Semrec

from semrec_faiss import build
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.folder.database import session
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.recommender import Recommender

# Unit vectors whose inner products are short decimals.
FILMS: list[tuple[str, tuple[float, float], int | None, list[str] | None, str | None]] = [
    ("Alien (1979)", (1, 0), 1979, ["Horror", "Sci-Fi"], "Alien"),
    ("Aliens (1986)", (0.96, 0.28), 1986, ["Action", "Sci-Fi"], "Alien"),
    ("Heat [director's cut] (1995)", (0.8, 0.6), 1995, ["Crime"], None),
    ("Rock 'n' Roll High School (1979)", (0.6, 0.8), 1979, ["Rock 'n' Roll"], None),
    ("L'Âge d'or (1930)", (0, 1), 1930, [], None),
    ("七人の侍 (1954)", (-0.6, 0.8), 1954, ["Drama"], None),
    ("Untold", (-0.8, 0.6), None, None, None),
    ("Alien³ (1992)", (0.28, 0.96), 1992, ["Sci-Fi"], "Alien"),
]
# ann has seen Alien; bob all but Heat and Alien³; eve nothing.
TASTES = {"ann": (1.0, 0.0), "bob": (0.0, 1.0), "eve": (0.6, 0.8)}
SEEN = {"ann": [0], "bob": [0, 1, 3, 4, 5, 6]}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films in two dimensions, three users."""
    root = tmp_path_factory.mktemp("films")
    for part in ("media", "users"):
        (root / part).mkdir()
    np.save(root / "media" / "content_vectors.npy", np.array([film[1] for film in FILMS]))
    with (root / "media" / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number, (title, _, year, genres, franchise) in enumerate(FILMS):
            known = {"media_id": f"f{number}", "title": title, "year": year, "genres": genres, "franchise": franchise}
            file.write(json.dumps({name: value for name, value in known.items() if value is not None}) + "\n")
    np.save(root / "users" / "preference_vectors.npy", np.array(list(TASTES.values())))
    (root / "users" / "user_ids.json").write_text(json.dumps(list(TASTES)), encoding="utf-8")
    with duckdb.connect(":memory:") as connection:
        connection.execute("CREATE TABLE seen (user_id VARCHAR, media_id VARCHAR)")
        pairs = [(user, f"f{row}") for user, rows in SEEN.items() for row in rows]
        connection.executemany("INSERT INTO seen VALUES (?, ?)", pairs)
        connection.execute("COPY seen TO $1 (FORMAT parquet)", [str(root / "users" / "seen.parquet")])
    build_index(config_from_dict({"dataset": str(root), "output": str(root / "index"), "device": "cpu"}))
    return root / "index"


def titles_of(ended: Ended) -> list[str]:
    return [result["media_id"] for result in ended.document["results"]]


# What is printed


def test_similar_as_text(semrec: Semrec, index: Path) -> None:
    ended = semrec("similar", index, "alien (1979)", "-k", "4")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [
        "Similar to Alien (1979):",
        "1. Aliens (1986) 96.0% similar Action, Sci-Fi",
        "2. Heat [director's cut] (1995) 80.0% similar Crime",
        "3. Rock 'n' Roll High School (1979) 60.0% similar Rock 'n' Roll",
        "4. Alien³ (1992) 28.0% similar Sci-Fi",
    ]


def test_similar_as_json(semrec: Semrec, index: Path) -> None:
    document = semrec("similar", index, "f0", "-k", "2", "--json").document
    assert document.pop("elapsed_ms") > 0
    scores = [result.pop("score") for result in document["results"]]
    np.testing.assert_allclose(scores, [0.96, 0.8], atol=1e-6)
    assert document == {
        "query": {"media_id": "f0", "title": "Alien (1979)"},
        "requested": 2,
        "matching": 7,
        "returned": 2,
        "strategy": "index",
        "exact": True,
        "results": [
            {
                "rank": 1,
                "media_id": "f1",
                "title": "Aliens (1986)",
                "year": 1986,
                "genres": ["Action", "Sci-Fi"],
                "franchise": "Alien",
            },
            {
                "rank": 2,
                "media_id": "f2",
                "title": "Heat [director's cut] (1995)",
                "year": 1995,
                "genres": ["Crime"],
                "franchise": None,
            },
        ],
    }


def test_fewer_than_asked_for_is_said(semrec: Semrec, index: Path) -> None:
    ended = semrec("similar", index, "f0", "-k", "5", "--genre", "sci-fi")
    assert ended.code == 0
    assert ended.lines == [
        "Similar to Alien (1979):",
        "1. Aliens (1986) 96.0% similar Action, Sci-Fi",
        "2. Alien³ (1992) 28.0% similar Sci-Fi",
        "2 of 5 requested: 2 titles match",
    ]
    assert semrec("similar", index, "f0", "--where", "false").lines == [
        "Similar to Alien (1979):",
        "0 of 10 requested: 0 titles match",
    ]


def test_a_value_that_no_title_has_is_named_with_the_nearest(semrec: Semrec, index: Path) -> None:
    for options, notes in (
        (["franchise=Alein"], ["no title has the franchise 'Alein'; did you mean 'Alien'?"]),
        (["Genres=scifi"], ["no title has the Genres 'scifi'; did you mean 'Sci-Fi'?"]),
        (
            ["franchise=Zorro", "year=3000"],
            ["no title has the franchise 'Zorro'", "no title has the year '3000'; year goes from 1930 to 1995"],
        ),
        (["franchise=Alien", "year=1995"], []),
    ):
        ended = semrec("similar", index, "f0", *(word for option in options for word in ("--any-of", option)))
        assert (ended.code, ended.err.splitlines()) == (0, [f"note: {note}" for note in notes])
        assert ended.lines[1:] == ["0 of 10 requested: 0 titles match"]
    some = semrec("similar", index, "f0", "--any-of", "franchise=Alein", "--any-of", "franchise=Alien")
    assert some.err == "" and "Aliens (1986)" in some.out
    as_json = semrec("similar", index, "f0", "--any-of", "franchise=Alein", "--json")
    assert as_json.document["matching"] == 0 and "did you mean 'Alien'?" in as_json.err
    assert as_json.document["notes"] == ["no title has the franchise 'Alein'; did you mean 'Alien'?"]
    late = semrec(
        "similar", index, "f0", "--year", "3000..", "--where", "franchise = 'Alein' AND year > 1900", "--json"
    )
    assert late.document["notes"] == [
        "no title satisfies franchise = 'Alein'; did you mean 'Alien'?",
        "no title's year is from 3000 on; year goes from 1930 to 1995",
    ]
    assert late.err.splitlines() == [f"note: {note}" for note in late.document["notes"]]
    many = semrec("similar", index, "f0", *(word for n in range(30) for word in ("--any-of", f"franchise=X{n}")))
    assert len(many.err.splitlines()) == 20


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ([], [1, 2, 3, 7, 4, 5, 6]),
        (["--where", "year < 1980"], [3, 4, 5]),
        (["--where", "NOT year < 1980"], [1, 2, 7]),
        (["--where", "year IS NULL OR 'Crime' IN genres"], [2, 6]),
        (["--genre", "Rock 'n' Roll"], [3]),
        (["--genre", "Sci-Fi", "--genre", "Action"], [1]),
        (["--any-genre", "Crime", "--any-genre", "drama"], [2, 5]),
        (["--not-genre", "Sci-Fi"], [2, 3, 4, 5, 6]),
        (["--not-genre", "Sci-Fi", "--not-genre", "Drama"], [2, 3, 4, 6]),
        (["--year", "1979..1992"], [1, 3, 7]),
        (["--year", "1986"], [1]),
        (["--year", "1987.."], [2, 7]),
        (["--year", "..1954"], [4, 5]),
        (["--exclude", "Aliens (1986)", "--exclude", "f2"], [3, 7, 4, 5, 6]),
        (["--year", "1979..", "--not-genre", "Crime", "--where", "title LIKE 'Alien%'", "--exclude", "f7"], [1]),
        (["--max-per", "franchise=1"], [1, 2, 3, 4, 5, 6]),
        (["--max-per-franchise", "1", "-k", "3"], [1, 2, 3]),
        (["--max-per", "year=1", "--year", "1900..2000"], [1, 2, 3, 7, 4, 5]),
        # 0.5 · score - 0.5 · nearest chosen: Aliens first, then Untold (-0.8 + 0.6), 七人の侍 and Âge d'or after it
        (["--diversity", "1", "-k", "2"], [1, 6]),
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "overfetch", "subset", "selector"])
def test_wishes(semrec: Semrec, index: Path, options: list[str], rows: list[int], strategy: str) -> None:
    ended = semrec("similar", index, "f0", "--json", "--strategy", strategy, *options)
    assert titles_of(ended) == [f"f{row}" for row in rows]
    assert ended.document["returned"] == len(rows)
    assert ended.err == ""


def test_the_account_is_a_small_table(semrec: Semrec, index: Path) -> None:
    ended = semrec("similar", index, "f0", "-k", "2", "--year", "1979..", "--strategy", "subset", "--explain")
    facts, header, *stages = ended.lines[3:]
    assert facts.startswith("requested 2 · matching 4 · returned 2 · strategy subset · exact · ")
    assert facts.endswith(" ms")
    assert header == "stage queries titles a query ms"
    assert [line.split()[:3] for line in stages] == [["filter", "1", "5"], ["subset", "1", "5"]]
    plain = semrec("recommend", index, "--user", "eve", "--explain").lines
    assert any("strategy index · exact" in line for line in plain)


def test_recommend_as_text(semrec: Semrec, index: Path) -> None:
    ended = semrec("recommend", index, "--user", "bob", "--user", "ann", "-k", "3")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [
        "For bob:",
        "1. Alien³ (1992) 96.0% similar Sci-Fi",
        "2. Heat [director's cut] (1995) 60.0% similar Crime",
        "2 of 3 requested: 2 titles match",
        "For ann:",
        "1. Aliens (1986) 96.0% similar Action, Sci-Fi",
        "2. Heat [director's cut] (1995) 80.0% similar Crime",
        "3. Rock 'n' Roll High School (1979) 60.0% similar Rock 'n' Roll",
    ]


def test_recommend_as_json(semrec: Semrec, index: Path) -> None:
    one = semrec("recommend", index, "--user", "ann", "-k", "2", "--json")
    assert one.document["query"] == {"user_id": "ann"}
    assert titles_of(one) == ["f1", "f2"]
    two = semrec("recommend", index, "--user", "ann", "--user", "eve", "-k", "2", "--json").document
    assert list(two) == ["answers"]
    found = [(a["query"]["user_id"], a["matching"], [r["media_id"] for r in a["results"]]) for a in two["answers"]]
    assert found == [("ann", 7, ["f1", "f2"]), ("eve", 8, ["f3", "f2"])]
    seen = semrec("recommend", index, "--user", "ann", "-k", "2", "--include-seen", "--json")
    assert titles_of(seen) == ["f0", "f1"]
    assert seen.document["matching"] == 8


def test_recommend_for_a_taste(semrec: Semrec, index: Path) -> None:
    liked = semrec("recommend", index, "--like", "L'Âge d'or (1930)", "-k", "2")
    assert liked.lines == [
        "For you:",
        "1. Alien³ (1992) 96.0% similar Sci-Fi",
        "2. Rock 'n' Roll High School (1979) 80.0% similar Rock 'n' Roll",
    ]
    # (0, 1) - 0.5 · (1, 0): 七人の侍 scores 1.1, Untold 1.0, Alien³ 0.82, over √1.25
    mixed = semrec("recommend", index, "--like", "f4", "--dislike", "f0", "-k", "3", "--json")
    assert mixed.document["query"] == {"taste": {"L'Âge d'or (1930)": 1.0, "Alien (1979)": -0.5}}
    assert titles_of(mixed) == ["f5", "f6", "f7"]
    scores = [result["score"] for result in mixed.document["results"]]
    np.testing.assert_allclose(scores, np.array([1.1, 1.0, 0.82]) / np.sqrt(1.25), atol=1e-6)
    # (5 - 1) / 4 of (1, 0) and (1 - 1) / 4 of (0, 1)
    rated = semrec("recommend", index, "--rate", "Alien (1979)=5", "--rate", "f4=1", "-k", "2", "--json")
    assert titles_of(rated) == ["f1", "f2"]
    assert rated.document["matching"] == 6


def test_similar_users(semrec: Semrec, index: Path) -> None:
    ended = semrec("similar-users", index, "ann")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == ["Similar to ann:", "1. eve 60.0% similar", "2. bob 0.0% similar"]
    document = semrec("similar-users", index, "eve", "-k", "1", "--json").document
    assert document["results"][0].pop("score") == pytest.approx(0.8)
    assert document == {"query": {"user_id": "eve"}, "results": [{"rank": 1, "user_id": "bob"}]}


def test_explain(semrec: Semrec, index: Path) -> None:
    # bob's seen titles beside Heat (0.8, 0.6): Rock 0.96, Aliens 0.936, Alien 0.8, Âge d'or 0.6, 七人 0, Untold -0.28
    ended = semrec("explain", index, "bob", "heat [director's cut] (1995)", "-k", "3")
    assert (ended.code, ended.err) == (0, "")
    whole = 0.96 + 0.936 + 0.8 + 0.6
    assert ended.lines == [
        "Heat [director's cut] (1995) for bob: 60.0% similar, it is number 2 of 2 titles not seen",
        "nearest of the 6 titles seen, with their share of all similarity:",
        f"Rock 'n' Roll High School (1979) 96.0% similar {0.96 / whole:.1%}",
        f"Aliens (1986) 93.6% similar {0.936 / whole:.1%}",
        f"Alien (1979) 80.0% similar {0.8 / whole:.1%}",
    ]
    seen = semrec("explain", index, "ann", "f0").lines
    assert seen[0] == "Alien (1979) for ann: 100.0% similar, has seen it; it would be number 1 of 8 titles not seen"
    document = semrec("explain", index, "eve", "f3", "--json").document
    assert document.pop("score") == pytest.approx(1.0)
    assert document == {
        "user_id": "eve",
        "media_id": "f3",
        "title": "Rock 'n' Roll High School (1979)",
        "rank": 1,
        "of": 8,
        "seen": False,
        "seen_titles": 0,
        "contributions": [],
    }


def test_explain_by_a_profile_speaks_of_texts_only_where_vectors_were_learned(
    semrec: Semrec, rated_index: Any, tmp_path: Path
) -> None:
    data = rated_index.path.parent / "data"
    assert semrec("build", "--dataset", data, "--output", tmp_path / "i", "--set", "profile.weights=rating").code == 0
    user = Recommender.open(tmp_path / "i").users.ids[0]
    lines = semrec("explain", tmp_path / "i", user, "m00001", "-k", "1").lines
    assert lines[1].endswith("titles seen bring to that score:") and lines[2] == "points share"
    named, others, together = (float(line.split()[-2 + at]) for line, at in zip(lines[3:], (0, 1, 1), strict=True))
    assert named + others == pytest.approx(together, rel=1e-3)


# Once a fault: shares of a score below 0 told a title that adds to it by a negative number, and later by a dash.
def test_explain_tells_no_shares_of_a_score_below_zero(semrec: Semrec, tmp_path: Path) -> None:
    plays = {"user": ["eve", "eve"], "item": ["a", "b"], "rating": [4.0, 5.0]}
    build(
        np.float32([[1, 0], [0, 1], [0.6, -0.8]]),
        {"media_id": ["a", "b", "c"], "title": ["A", "B", "C"]},
        interactions=plays,
        config={"profile": {"weights": "rating"}},
        output=tmp_path / "i",
    )
    # The mean weighs A by 3/4 and B by 4/4: 0.6 of the first, less 0.8 of the second, by its length of 1.25.
    assert semrec("explain", tmp_path / "i", "eve", "C").lines == [
        "C for eve: cosine -0.2800, it is number 1 of 1 titles not seen",
        "what the 2 titles seen bring to that score (it is not above 0, so that no shares of it are told):",
        "points",
        "A +0.36",
        "B -0.64",
        "all others +0",
        "together -0.28",
    ]
    told = semrec("explain", tmp_path / "i", "eve", "C", "--json").document
    assert [(one["media_id"], one["share"]) for one in told["contributions"]] == [("a", None), ("b", None)]


# Once a fault: what is not similar at all was told with a share of 0.0% of all similarity.
def test_explain_of_a_title_that_nothing_seen_is_like_tells_no_shares(semrec: Semrec, tmp_path: Path) -> None:
    build(
        np.float32([[1, 0], [-0.6, 0.8]]),
        {"media_id": ["a", "b"], "title": ["A", "B"]},
        users={"eve": np.float32([1, 0])},
        interactions={"user": ["eve"], "item": ["a"]},
        output=tmp_path / "i",
    )
    assert semrec("explain", tmp_path / "i", "eve", "B").lines == [
        "B for eve: cosine -0.6000, it is number 1 of 1 titles not seen",
        "nearest of the 1 titles seen, none of which is similar:",
        "A cosine -0.6000",
    ]


# Once a fault: that a user has seen nothing is not that the index does not know.
def test_explain_for_a_user_who_has_seen_nothing(semrec: Semrec, index: Path) -> None:
    assert "does not know" not in semrec("explain", index, "eve", "f3").out


# All users


def read(path: Path) -> list[Any]:
    with session() as connection:
        return connection.execute("SELECT user_id, rank, media_id FROM read_parquet($1)", [str(path)]).fetchall()


EXPORTED = [
    *(("ann", 1, "f1"), ("ann", 2, "f2"), ("ann", 3, "f3")),
    *(("bob", 1, "f7"), ("bob", 2, "f2")),
    *(("eve", 1, "f3"), ("eve", 2, "f2"), ("eve", 3, "f7")),
]
SUMMARY = {
    "users": 3,
    "users_with_k": 2,
    "users_short": 1,
    "titles_recommended": 4,
    "titles": 8,
    "repeats": 0,
    "seen_leaks": 0,
    "resumed_users": 0,
}


def test_all_users(semrec: Semrec, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "recs.parquet"
    ended = semrec("recommend", index, "--all-users", "--out", out, "-k", "3")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [f"{name.replace('_', ' ')} {value}" for name, value in SUMMARY.items()]
    # eve's Heat and Alien³ (0.96 and 0.936) are both in her list of three
    assert read(out) == EXPORTED
    as_json = semrec("recommend", index, "--all-users", "--out", out, "-k", "2", "--include-seen", "--json")
    assert as_json.document == SUMMARY | {
        "users_with_k": 3,
        "users_short": 0,
        "titles_recommended": 6,
        "seen_leaks": None,
    }
    filtered = semrec("recommend", index, "--all-users", "--out", out, "--genre", "Drama", "--json").document
    assert (filtered["users_with_k"], filtered["users_short"], filtered["titles_recommended"]) == (0, 3, 1)
    assert read(out) == [("ann", 1, "f5"), ("eve", 1, "f5")]
    ended = semrec("recommend", index, "--all-users", "--out", out, "-k", "9", "--include-seen")
    told = dict(line.rsplit(" ", 1) for line in ended.lines)
    assert (told["users with k"], told["users short"]) == ("0", "3"), "there are eight titles"
    assert "seen leaks not counted" in ended.lines
    assert [path.name for path in out.parent.iterdir()] == ["recs.parquet"]
    none = semrec("recommend", index, "--all-users", "--out", tmp_path / "none.parquet", "--where", "year > 3000")
    assert (none.code, none.err.startswith("note: no title satisfies year > 3000; year goes from ")) == (0, True)


def test_a_title_with_ends_of_lines_and_colours_is_printed_on_one_line(semrec: Semrec, tmp_path: Path) -> None:
    """Once a fault: a tab in a title made two lines of a row, and the title of a heading was printed as it is."""
    titles = ["A\nfilm\r", "Tabs\tand \x1b[31mred", "a nul\x00"]
    build(np.eye(3, dtype=np.float32) + 0.1, {"media_id": list("abc"), "title": titles}, output=tmp_path / "index")
    shown = semrec("similar", tmp_path / "index", "a").out.splitlines()
    assert shown[0] == "Similar to A film :" and len(shown) == 4
    assert {" ".join(line.split()[1:-2]) for line in shown[1:3]} == {"Tabs and [31mred", "a nul"}


def test_lists_that_were_made_otherwise_are_told_when_they_are_replaced(
    semrec: Semrec, index: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "recs.parquet", tmp_path / "other"

    def told(*options: object, index: Path = index) -> str:
        ended = semrec("recommend", index, "--all-users", "--out", out, *options)
        assert ended.code == 0
        return str(ended.err)

    def note(how: str) -> str:
        return f"note: {out} held other lists, {how}; they are replaced\n"

    assert told("-k", 3, "--where", "year < 2000") == ""
    assert told("-k", 3, "--where", "year < 2000") == "", "the same again is no surprise"
    assert told("-k", 4) == note("made with k 3, filter.where 'year < 2000'")
    assert told("-k", 4, "--include-seen", "--year", "1980..") == note("made with no filter.years, include_seen False")
    assert told("-k", 4) == note("made with filter.years [1980, None], include_seen True")
    shutil.copytree(index, other)
    assert told("-k", 4, index=other) == note(f"made with index {index.name!r}")
    pq.write_table(pq.read_table(out).replace_schema_metadata(), out)
    assert told("-k", 4, index=other) == note("of which nothing more is known")


# What goes wrong


def expect(ended: Ended, code: int, *said: str) -> None:
    assert ended.code == code
    assert ended.out == ""
    for text in said:
        assert text in ended.err
    assert ended.err.startswith(("error: ", "Usage: "))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--genre", "Dramma"], 2, ["error: no title has the genre 'Dramma'\n", "fix: did you mean 'Drama'? genres: "]),
        (
            ["--not-genre", "x"],
            2,
            ["no title has the genre 'x'", "Action, Crime, Drama, Horror, Rock 'n' Roll, Sci-Fi"],
        ),
        (["--year", "1999..1990"], 2, ["'1999..1990' is an empty span of years", "1990..1999"]),
        (["--year", "nineties"], 2, ["'nineties' is not a span of years", "1990..1999"]),
        (["--year", ".."], 2, ["'..' is an empty span of years"]),
        # Once a fault: an empty span counts as none given
        (["--year", ""], 2, ["'' is not a span of years"]),
        (
            ["--where", "yaer > 1990"],
            2,
            ['Referenced column "yaer"', '"year"', "\n  yaer > 1990\n  ^^^^\n", "fix: fields: "],
        ),
        (["--where", "year > 1990 AND ("], 2, ["not one SQL expression", "year > 1990 AND (\n"]),
        (["--where", "year"], 2, ["gives BIGINT, not true or false"]),
        # Once a fault: an empty expression counts as none given
        (["--where", ""], 2, ["the filter is empty"]),
        (["--where", " "], 2, ["the filter is empty"]),
        (["--where", "1990) OR (1=1"], 2, ["not one SQL expression", "\n  1990) OR (1=1\n      ^"]),
        (["--where", "true; DROP TABLE titles"], 2, ["not one SQL expression"]),
        (["--where", "random() < 0.5"], 2, ["calls random(), which is not allowed"]),
        (["--where", "year IN (SELECT 1)"], 2, ["holds a subquery"]),
        (["--exclude", "Alienn"], 4, ["Alienn"]),
        (["--max-per", "nope=1"], 2, ["no field 'nope'", "fields: media_id, title"]),
        (["--max-per", "genres=1"], 2, ["holds lists", "fix: fields of one value: media_id, title, year"]),
        (["--max-per", "franchise=0"], 2, ["'0' is not a whole number from 1 on"]),
        (["--max-per-franchise", "0"], 2, ["0 is not a whole number from 1 on."]),
        (["--max-per", "year=1", "--max-per", "year=2"], 2, ["'year=2' is a second one of its field"]),
        (["--max-per", "franchise=1", "--max-per-franchise", "2"], 2, ["'franchise=2' is a second one of its field"]),
        (["--range", "year=1990..1980"], 2, ["1990 to 1980 is an empty span of 'year'", "1980 to 1990"]),
        (["--range", "title=b..a"], 2, ["b to a is an empty span of 'title'"]),
        (["--range", "year=nan..1990"], 2, ["'nan' is not a number"]),
        (["--diversity", "1.5"], 2, ["1.5 is not a number from 0 to 1.\n  fix: --diversity 1\n"]),
        (["--diversity", "-1e-9"], 2, ["-1e-9 is not a number from 0 to 1.\n  fix: --diversity 0\n"]),
        (["--diversity", "much"], 2, ["'much' is not a number from 0 to 1."]),
        (["--diversity", "nan"], 2, ["'nan' is not a finite number."]),
        (["--diversity", "-1"], 2, ["-1"]),
        (["-k", "0"], 2, ["'-k' / '--count': 0 is not a whole number from 1 on.\n  fix: -k 1\n"]),
        (["-k", "many"], 2, ["'many' is not a whole number from 1 on.\n"]),
        (["-k", "1,000"], 2, ["'1,000' is not a whole number from 1 on.\n  fix: -k 1000\n"]),
        (["-k", "1e3"], 2, ["'1e3' is not a whole number from 1 on.\n  fix: -k 1000\n"]),
        (["-k", "1.0"], 2, ["'1.0' is not a whole number from 1 on.\n  fix: -k 1\n"]),
        (["-k", "-1e3"], 2, ["'-1e3' is not a whole number from 1 on.\n  fix: -k 1\n"]),
        (["-k", "10,00"], 2, ["'10,00' is not a whole number from 1 on.\n"]),
        (["-k", "1e999999"], 2, ["'1e999999' is not a whole number from 1 on.\n"]),
        (["--strategy", "fastest"], 2, ["'fastest' is not one of 'auto', 'overfetch', 'subset', 'selector'"]),
        (["--set", "index.search.nprobe=3"], 2, ["nprobe"]),
        (["--set", "index.type=hnsw"], 2, ["fixed when the index is built"]),
        (["--set", "profile.interests=3"], 2, ["fixed when the index is built"]),
        (["--set", "index.serach.nprobe=3"], 2, ["unknown key 'index.serach'; did you mean 'search'?"]),
        (["--set", "zzz=3"], 2, ["unknown key 'zzz'", "known here: dataset, device"]),
        (["--set", ""], 2, ["--set '' is not of the form KEY.KEY=VALUE"]),
        (["--show", "nope"], 2, ["no field 'nope'", "--show one of: "]),
        (["--nope"], 2, ["No such option"]),
    ],
)
@pytest.mark.parametrize("command", ["similar", "recommend"])
def test_options_that_cannot_work(
    semrec: Semrec, index: Path, command: str, options: list[str], code: int, said: list[str]
) -> None:
    subject = ["f0"] if command == "similar" else ["--user", "ann"]
    expect(semrec(command, index, *subject, *options), code, *said)


def test_numbers_out_of_range_are_told_with_the_range_in_words(semrec: Semrec, index: Path) -> None:
    for option, number, told in (
        ("--interests", "65", "65 is not a whole number from 1 to 64.\n  fix: --interests 64\n"),
        ("--half-life", "0", "0 is not a number above 0."),
        ("--popularity", "1000.00001", "1000.00001 is not a number from 0 to 1000."),
    ):
        expect(semrec("recommend", index, "--user", "ann", option, number), 2, told)
    expect(semrec("tune", index, "--recall", "1.5"), 2, "1.5 is not a number above 0, up to 1.")


def test_the_device_may_be_set_as_in_a_config(semrec: Semrec, index: Path) -> None:
    ended = semrec("similar", index, "f0", "-k", "1", "--set", "device=cpu")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == semrec("similar", index, "f0", "-k", "1", "--set", "device.kind=cpu").lines


def test_titles_that_cannot_be_found(semrec: Semrec, index: Path) -> None:
    expect(semrec("similar", index, "Aliem (1979)"), 4, "Aliem (1979)", "Alien (1979)")
    expect(semrec("recommend", index, "--like", "No such film"), 4, "No such film")
    expect(semrec("explain", index, "ann", "No such film"), 4, "No such film")


@pytest.mark.parametrize("arguments", [["recommend", "--user"], ["similar-users"], ["explain"]])
def test_users_that_cannot_be_found(semrec: Semrec, index: Path, arguments: list[str]) -> None:
    command, *option = arguments
    title = ["f0"] if command == "explain" else []
    expect(
        semrec(command, index, *option, "nobody", *title),
        4,
        "error: no user 'nobody' among the index's 3 users",
        "fix: ids look like 'ann', 'bob', 'eve'",
    )
    near = semrec(command, index, *option, "Eva", *title)
    expect(near, 4, "error: no user 'Eva'", "fix: ids look like 'ann'")
    near = json.loads(semrec(command, index, *option, "EVE", *title, "--json").out)
    assert near["candidates"] == ["eve"]
    assert near["fix"] == "did you mean 'eve'? ids look like 'ann', 'bob', 'eve'"


@pytest.mark.parametrize("arguments", [["similar", "f0"], ["recommend", "--user", "a"], ["similar-users", "a"]])
def test_an_index_that_is_not_there(semrec: Semrec, tmp_path: Path, arguments: list[str]) -> None:
    command, *rest = arguments
    expect(semrec(command, tmp_path / "nope", *rest), 4, "nope")
    assert not (tmp_path / "nope").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say for whom: --user ID, or --like TITLE (--dislike, --rate), or --all-users --out FILE"),
        (["--user", "ann", "--like", "f0"], "--user and --like (--dislike, --rate) say for whom in different ways"),
        (["--user", "ann", "--all-users", "--out", "x.parquet"], "--user and --all-users say for whom in different"),
        (
            ["--like", "f0", "--all-users", "--out", "x.parquet"],
            "--rate) and --all-users say for whom in different ways",
        ),
        (["--all-users"], "--all-users and --out FILE go together"),
        (["--user", "ann", "--out", "x.parquet"], "--all-users and --out FILE go together"),
        (["--rate", "Alien (1979)"], "--rate 'Alien (1979)' is not of the form TITLE=STARS"),
        (["--rate", "=3"], "is not of the form TITLE=STARS"),
        (["--rate", "Alien (1979)=good"], "is not of the form TITLE=STARS"),
        (["--rate", "Alien (1979)=6"], "the rating of 'Alien (1979)' is 6.0; ratings go from 0.5 to 5.0"),
        (["--rate", "Alien (1979)=nan"], "ratings go from 0.5 to 5.0"),
        (["--rate", "Alien (1979)=1"], "the likes and dislikes cancel out"),
        (["--rate", "f0=5", "--rate", "f0=1"], "'f0' is rated 5.0 and 1.0"),
        (["--like", "f0", "--like", "f1", "--dislike", "f0"], "'f0' is liked and disliked"),
        (["--user", "ann", "--workers", "2"], "--workers goes with --ray"),
        (["--all-users", "--out", "x.parquet", "--explain"], "--explain and --show are of answers that are shown"),
        (["--all-users", "--out", "x.parquet", "--show", "year"], "--explain and --show are of answers that are shown"),
        (["--all-users", "--out", "x.csv"], "x.csv promises another format; lists are written as Parquet"),
        (["--all-users", "--out", "x.json"], "x.json promises another format"),
        (["--all-users", "--out", "x.npy"], "x.npy promises another format"),
    ],
)
def test_recommend_for_nobody_or_two(
    semrec: Semrec, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    expect(semrec("recommend", index, *options), 2, said)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_written(semrec: Semrec, index: Path, tmp_path: Path) -> None:
    expect(semrec("recommend", index, "--all-users", "--out", tmp_path), 2, "is a directory", "recs.parquet")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    expect(semrec("recommend", index, "--all-users", "--out", tmp_path / "file" / "x"), 2, "is a file", "fix: ")
    expect(semrec("recommend", index, "--all-users", "--out", tmp_path / "x", "--where", "yaer = 1"), 2, "yaer")
    # Once a fault: the last one leaves a folder of blocks
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_index_without_users(semrec: Semrec, make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", titles=40)
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    for arguments in (["recommend", "--user", "a"], ["similar-users", "a"], ["explain", "a", "m00001"]):
        command, *rest = arguments
        expect(semrec(command, tmp_path / "index", *rest), 4, "holds no users", "users/preference_vectors.npy")
    out = tmp_path / "recs.parquet"
    expect(semrec("recommend", tmp_path / "index", "--all-users", "--out", out), 4, "holds no users")
    assert not out.exists()


# An undecodable byte of the command line reaches Python as half a character.
@pytest.mark.slow
def test_the_process_ends_with_the_code_and_no_traceback(index: Path) -> None:
    base = [sys.executable, "-m", "semrec_faiss", "similar", str(index)]
    for arguments, code in (
        (["f0", "--year", "1980.."], 0),
        (["f0", "--where", "yaer > 1990"], 2),
        (["Aliem (1979)"], 4),
        (["f0", "--where", b"title = '\xff'"], 2),
    ):
        result = subprocess.run([*base, *arguments], capture_output=True, check=False)
        assert result.returncode == code, result.stderr.decode()
        assert (result.stdout == b"") is (code != 0)
        assert b"Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("serve", "run", "index", "--max-results", "250,000"), "a whole number.\n  fix: --max-results 250000\n"),
        (("dataset", "synth", "out", "--titles", "1e6"), "a whole number from 1 on.\n  fix: --titles 1000000\n"),
        (("bench", "gpu", "--titles", "many"), "a whole number"),
        (("build", "flat", "--replicas", "0,5"), "a whole number from 1 on."),
    ],
)
def test_a_number_with_commas_or_a_power_is_told_in_digits(command: tuple[str, ...], told: str, semrec: Semrec) -> None:
    """As semrec itself prints it, 1,000,000 was told to be no valid integer range."""
    ended = semrec(*command)
    assert (ended.code, ended.out) == (2, "")
    assert f"{command[-1]!r} is not {told}" in ended.err


@pytest.mark.parametrize(
    ("command", "fix"),
    [
        (("similar", "index", "toy", "story", "2"), '"toy story 2"'),
        (("search", "index", "a", "heist"), '"a heist"'),
        (("explain", "index", "ann", "Cabin", "Fever", "--count", "3"), '"Cabin Fever"'),
        (("recommend", "index", "ann"), "fix: --user ann\n"),
        (("recommend", "index", "ann", "bob"), "fix: --user ann --user bob\n"),
        (("build", "flat", "other"), None),
    ],
)
def test_what_is_left_over_is_told_where_it_belongs(semrec: Semrec, command: tuple[str, ...], fix: str | None) -> None:
    refused = semrec(*command)
    assert refused.code == 2 and "Got unexpected extra argument" in refused.err
    assert (fix in refused.err) if fix else "fix: " not in refused.err


def test_the_number_to_give_is_told_to_programs_too(semrec: Semrec) -> None:
    assert json.loads(semrec("similar", "index", "Alien", "-k", "0", "--json").out)["fix"] == "-k 1"


def test_an_index_that_comes_second_is_told_to_come_first(semrec: Semrec, index: Path) -> None:
    asked = (("similar", "Alien"), ("search", "a heist"), ("similar-users", "ann"), ("explain", "ann", "Alien"))
    asked += (("update", "changes"), ("append-seen", "since.parquet"))
    for command, first, *others in asked:
        refused = semrec(command, first, *others, index)
        assert (refused.code, refused.out) == (2, "")
        assert f"{first} is not an index, but {index} is\n" in refused.err
        assert f'fix: the index comes first: {index} "{first}"' in refused.err
    missing = semrec("similar", "nowhere", "Alien")
    assert (missing.code, "index nowhere does not exist" in missing.err) == (4, True)
