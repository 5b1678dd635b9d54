"""An index in shards answers as one of all titles does: the same rows and scores, bit for bit, and the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from semrec_faiss import AmbiguousTitleError, Filter, NotFoundError, Recommender, SemrecError, Taste, UsageError
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.shards import read_shards
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.answers.batch import Answers
from tests.cluster.worlds import World

Pair = tuple[Recommender, Recommender]


@pytest.fixture(scope="module")
def pair(cluster: Any, world: World) -> Iterator[Pair]:
    """The same titles in one piece and in three shards."""
    build_shards(config_from_dict(world.config | {"output": str(world.sharded)}), 3)
    with ClusterRecommender.open(world.sharded) as sharded:
        yield Recommender.open(world.whole), sharded


QUESTIONS: dict[str, Callable[[Recommender], Answer | Answers]] = {
    "similar": lambda one: one.similar("m00010", 12),
    "similar by name": lambda one: one.similar("film 150", 5),
    "near the seam": lambda one: one.similar("m00100", 40),
    "more than there are": lambda one: one.similar("m00300", 400),
    "a user": lambda one: one.recommend("user_003", 10),
    "all users": lambda one: one.recommend([f"user_{number:03d}" for number in range(40)], 50),
    "seen titles too": lambda one: one.recommend(["user_000", "user_001"], 10, include_seen=True),
    "where": lambda one: one.similar("m00010", 10, where="year < 1970 AND 'Crime' IN genres"),
    "nothing matches": lambda one: one.similar("m00010", 10, where="year < 1000 AND title = 'Film 300 (1950'"),
    "no value matches": lambda one: one.similar(
        "m00010",
        where=Filter(any_of={"genres": ["Crimm", "Crimw"], "note": "x"}, years=(3000, None), where="year > 1"),  # type: ignore[arg-type]
    ),
    "each matches, not both": lambda one: one.similar("m00010", where="media_id = 'm00001' AND title LIKE 'Film 300%'"),
    "one matches": lambda one: one.similar("m00010", 10, where="media_id = 'm00011'"),
    "excluded": lambda one: one.similar("m00010", 10, exclude=["m00072", "Film 294", "m00213"]),
    "excluded and filtered": lambda one: one.recommend(["user_000", "user_009"], 10, where="year > 1960", exclude="5"),
    "varied": lambda one: one.similar("m00010", 10, diversity=0.5),
    "at most two a year": lambda one: one.recommend(["user_004", "user_005"], 12, max_per={"year": 2}),
    "at most one a note, varied": lambda one: one.similar("m00020", 8, diversity=0.3, max_per={"note": 1}),
    "a taste": lambda one: one.recommend_for(Taste(likes=["m00001", "m00299"], dislikes=["m00100"]), 9),
    "vectors": lambda one: one.search(np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 16), 7),
    "profile": lambda one: one.recommend(["user_001", "user_002"], 10, profile={"interests": 2, "popularity": 0.1}),
    "profile by turns": lambda one: one.recommend(
        ["user_007", "user_008"], 10, profile={"interests": 3, "merge": "turns"}, where="year > 1955", diversity=0.2
    ),
    "subset": lambda one: one.similar("m00010", 10, where="year < 1990", strategy="subset"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_those_of_one_index(pair: Pair, question: str) -> None:
    expected, found = map(QUESTIONS[question], pair)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert np.array_equal(found.matching, expected.matching)
    assert found.exact == expected.exact
    assert _told(found) == _told(expected)


def _told(answers: Answer | Answers) -> Any:
    """What an answer says in JSON, but for how long it took and by which way."""
    documents = answers.as_dict()
    each = documents.get("answers", [documents])
    return [{key: value for key, value in one.items() if key not in ("elapsed_ms", "strategy")} for one in each]


def test_ties_stand_in_row_order_across_shards(cluster: Any, world: World, tmp_path: Any) -> None:
    from conftest import make_data_folder

    copies = np.tile(np.eye(3, 16, dtype=np.float32), (20, 1))
    made = make_data_folder(tmp_path / "data", vectors=copies)
    build_shards(config_from_dict(world.config | {"dataset": str(made.root), "output": str(tmp_path / "index")}), 2)
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        found = sharded.search(np.eye(3, 16, dtype=np.float32), 20)
    for query, rows in enumerate(found.rows):
        assert rows.tolist() == list(range(query, 60, 3))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (lambda one: one.similar("Fulm 10"), NotFoundError),
        (lambda one: one.similar("film"), NotFoundError),
        (lambda one: one.similar(""), NotFoundError),
        (lambda one: one.recommend("nobody"), NotFoundError),
        (lambda one: one.similar("m00001", where="yaer < 3"), UsageError),
        (lambda one: one.similar("m00001", where="year <"), UsageError),
        (lambda one: one.similar("m00001", max_per={"franchise": 1}), UsageError),
        (lambda one: one.similar("m00001", max_per={"genres": 1}), UsageError),
        (lambda one: one.similar("m00001", exclude=["Fulm 10"]), NotFoundError),
        (lambda one: one.similar("m00001", 0), UsageError),
        (lambda one: one.search(np.ones((1, 3), np.float32)), UsageError),
        (lambda one: one.titles.media_id_of("nothing", "media_id"), NotFoundError),
        (lambda one: one.titles.media_id_of("nothing", "title"), NotFoundError),
        (lambda one: one.similar("m00001", by="people"), UsageError),
    ],
)
def test_mistakes_are_told_in_the_same_words(pair: Pair, question: Any, kind: type[SemrecError]) -> None:
    told = []
    for one in pair:
        with pytest.raises(kind) as caught:
            question(one)
        assert isinstance(caught.value, SemrecError)
        told.append((caught.value.message, caught.value.fix, getattr(caught.value, "candidates", ())))
    assert told[0] == told[1]


def test_shards_say_why_nothing_matches(pair: Pair) -> None:
    _, sharded = pair
    found = sharded.similar("m00010", where="title = 'Film 300 (1950' AND year > 2019")
    assert found.notes == (
        "no title satisfies title = 'Film 300 (1950'; did you mean 'Film 300 (1970)'?",
        "no title satisfies year > 2019; year goes from 1950 to 2019",
    )


def test_genres_are_looked_for_in_all_shards(pair: Pair) -> None:
    for wanted in (Filter(genres=("crime",), years=(1960, None)), Filter(not_genres=("Drama", "comedy"))):
        expected, found = (one.similar("m00010", 9, where=wanted) for one in pair)
        np.testing.assert_array_equal(found.rows, expected.rows)
        assert found.matching == expected.matching
    with pytest.raises(UsageError, match="no title has the genre 'Crmie'"):
        pair[1].similar("m00010", where=Filter(genres=("Crmie",)))


def test_names_are_decided_at_the_front(cluster: Any, world: World, tmp_path: Any) -> None:
    """One shard knows the text as a title, another as an id, a third only by spelling; two share a name."""
    from conftest import make_data_folder

    made = make_data_folder(tmp_path / "data", titles=8)
    path = made.root / "media" / "metadata.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    names = ["Heat", "The Heat (1995)", "heat!", "m00003x", "Twin (1990)", "A", "Twin (1990)", "B"]
    for row, name in enumerate(names):
        lines[row] = lines[row].replace(f'"{made.titles[row]}"', f'"{name}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = world.config | {"dataset": str(made.root)}
    from semrec_faiss.index.build.run import build_index

    build_index(config_from_dict(config | {"output": str(tmp_path / "whole")}))
    build_shards(config_from_dict(config | {"output": str(tmp_path / "index")}), 2)
    whole = Recommender.open(tmp_path / "whole")
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        for text, row in {"Heat": 0, "the heat": 1, "heat!": 2, "m00003": 3, "3": 3, "m00003x": 3, "(a)": 5}.items():
            assert whole.titles.find(text) == sharded.titles.find(text) == row, text
            assert whole.titles.known(text) == sharded.titles.known(text), text
        for text, rows in {"twin": (4, 6), "HEAT": (0, 2)}.items():
            told = []
            for one in (whole, sharded):
                with pytest.raises(AmbiguousTitleError) as caught:
                    one.titles.find(text)
                told.append(str(caught.value))
                assert [name[-7:-1] for name in caught.value.candidates] == [f"m{row:05d}" for row in rows]
            assert told[0] == told[1]


def test_explanations_and_neighbours_are_the_same(pair: Pair) -> None:
    whole, sharded = pair
    assert sharded.explain("user_000", "Film 7", 3) == whole.explain("user_000", "Film 7", 3)
    assert sharded.similar_users("user_000", 5) == whole.similar_users("user_000", 5)
    assert sharded.similar("m00010", 4, by="whole").to_arrow() == whole.similar("m00010", 4).to_arrow()


def test_the_manifest_lists_the_shards(pair: Pair, world: World) -> None:
    generation = IndexDirectory(world.sharded).current()
    listed = read_shards(generation)
    assert listed is not None
    assert listed.starts.tolist() == [0, 100, 200, 301]
    for shard in listed.shards:
        own = IndexDirectory(world.sharded / shard.folder).current()
        assert [place.generation for place in shard.places] == [own.ref]
        assert own.manifest.count == shard.titles
    with pytest.raises(UsageError, match="is in 3 shards, which a cluster answers for together"):
        Recommender.open(world.sharded)
    opened = Recommender.open(f"ray://auto{world.sharded}")
    assert isinstance(opened, ClusterRecommender)
    assert opened.similar("m00010").rows.tolist() == pair[0].similar("m00010").rows.tolist()
    opened.close()
    with pytest.raises(UsageError, match="is not in shards"):
        ClusterRecommender.open(world.whole)


def test_a_build_again_keeps_the_shards_of_the_one_before(pair: Pair, world: World, tmp_path: Any) -> None:
    config = config_from_dict(world.config | {"output": str(tmp_path / "index")})
    names = [build_shards(config, number).generation.name for number in (3, 2, 1)]
    kept = sorted(path.name for path in (tmp_path / "index" / "shards").iterdir())
    assert kept == names[1:]
    listed = read_shards(IndexDirectory(tmp_path / "index").rollback())
    assert listed is not None
    assert [shard.folder for shard in listed.shards] == [f"shards/{names[1]}/{at:05d}" for at in range(2)]
    with pytest.raises(UsageError, match="shards is 302; a number from 1 to 301"):
        build_shards(config, 302)
    with pytest.raises(UsageError, match="shards is 0"):
        build_shards(config, 0)
    assert sorted(path.name for path in (tmp_path / "index" / "shards").iterdir()) == names[1:]


def test_of_itself_a_build_makes_a_shard_a_machine(pair: Pair, world: World, tmp_path: Any) -> None:
    """Both nodes of the cluster are of this one."""
    built = build_shards(config_from_dict(world.config | {"output": str(tmp_path / "index")}), "auto").generation
    listed = read_shards(built)
    assert listed is not None
    assert [shard.folder for shard in listed.shards] == [f"shards/{built.name}/00000"]
