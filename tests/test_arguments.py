"""Public arguments: one is a list of one, an integer is its text, and anything else is a UsageError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semrec_faiss import (
    Change,
    Filter,
    IndexWriter,
    Recommender,
    SemrecError,
    Taste,
    Wanted,
    build,
    compact_index,
    evaluate_index,
    load_config,
    pick,
    update_index,
)
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.export import export_all_users

TITLES, DIM = 30, 8


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """Titles 0 to 29 and users 0 to 5 by integer ids; each user has seen the title of the same number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root: Path = tmp_path_factory.mktemp("arguments")
    rng = np.random.default_rng(9)
    for name in ("media", "users"):
        (root / "data" / name).mkdir(parents=True)
    np.save(root / "data/media/content_vectors.npy", rng.standard_normal((TITLES, DIM)).astype(np.float32))
    entries = [
        {"media_id": str(row), "title": f"Film {row}", "year": 1990 + row, "genres": ["Drama"] if row % 2 else ["D"]}
        for row in range(TITLES)
    ]
    (root / "data/media/metadata.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))
    np.save(root / "data/users/preference_vectors.npy", rng.standard_normal((6, DIM)))
    (root / "data/users/user_ids.json").write_text(json.dumps(list(range(6))))
    seen = {"user_id": [str(user) for user in range(6)], "media_id": [str(user) for user in range(6)]}
    pq.write_table(pa.table(seen), root / "data/users/seen.parquet")
    config = {"dataset": str(root / "data"), "output": str(root / "index"), "index": {"type": "flat"}}
    build_index(config_from_dict(config))
    return Recommender.open(root / "index")


def ids(answer: Any) -> list[str]:
    return [result.media_id for result in answer]


def test_one_text_is_a_list_of_one(numbered: Recommender) -> None:
    without = ids(numbered.similar("7", TITLES, exclude="12"))
    assert sorted(map(int, without)) == [row for row in range(TITLES) if row not in (7, 12)]
    drama = ids(numbered.similar("7", TITLES, where=Filter(genres="Drama")))
    assert sorted(map(int, drama)) == [row for row in range(1, TITLES, 2) if row != 7]
    likes = numbered.recommend_for(Taste(likes="12", dislikes="3"), TITLES)
    assert likes.query["taste"] == {"Film 12": 1.0, "Film 3": -0.5}
    assert sorted(map(int, ids(likes))) == [row for row in range(TITLES) if row not in (12, 3)]
    assert Filter(any_genres="Drama", not_genres="D") == Filter(any_genres=("Drama",), not_genres=["D"])
    where = Path(numbered.saved.generation.folder.parent)
    assert Recommender.open(where, "device.kind=cpu").similar(7).query["title"] == "Film 7"


def test_integers_are_their_text(numbered: Recommender) -> None:
    assert ids(numbered.similar(7)) == ids(numbered.similar("7"))
    assert ids(numbered.similar(np.int64(7), exclude=[12, "13"])) == ids(numbered.similar("7", exclude=("12", 13)))
    assert ids(numbered.recommend(3)) == ids(numbered.recommend("3"))
    assert [answer.query for answer in numbered.recommend(np.arange(3))] == [{"user_id": str(i)} for i in range(3)]
    assert [ids(answer) for answer in numbered.recommend([3])] == [ids(numbered.recommend("3"))]
    assert numbered.recommend_for(Taste(ratings={4: 5})).query["taste"] == {"Film 4": 1.0}
    assert numbered.similar_users(2) == numbered.similar_users("2")
    assert numbered.explain(2, 5) == numbered.explain("2", "5")
    with pytest.raises(NotFoundError, match="'77'"):
        numbered.recommend([3, 77])


def test_a_uuid_is_its_text(tmp_path: Path) -> None:
    users, titles = [UUID(int=at) for at in range(2)], [UUID(int=at) for at in range(9, 12)]
    frame = {"media_id": list(map(str, titles)), "title": ["A", "B", "C"]}
    vectors = np.eye(3, 4, dtype=np.float32)
    build(vectors, frame, output=tmp_path / "index")
    with IndexWriter(tmp_path / "index") as writer:
        writer.put_users(users, vectors[:2])
    recommender = Recommender.open(tmp_path / "index")
    assert ids(recommender.recommend(users[1], 1)) == [str(titles[1])]
    assert [ids(one) for one in recommender.recommend(users, 1)] == [[str(one)] for one in titles[:2]]
    assert ids(recommender.similar(titles[0], 2, exclude=[titles[1]])) == [str(titles[2])]


def test_unknown_users_of_an_index_that_was_built_without_any_are_named(tmp_path: Path) -> None:
    """Once a fault: a traceback, where all users came by updates."""
    vectors = np.eye(3, 4, dtype=np.float32)
    build(vectors, {"media_id": ["a", "b", "c"], "title": ["A", "B", "C"]}, output=tmp_path / "index")
    with IndexWriter(tmp_path / "index") as writer:
        writer.put_users(["here"], vectors[:1])
    recommender = Recommender.open(tmp_path / "index")
    assert ids(recommender.recommend("here", 1)) == ["a"]
    for unknown in ("nobody", ["nobody", "noone"], ["here", "nobody"]):
        with pytest.raises(NotFoundError, match="'nobody'"):
            recommender.recommend(unknown, 1)
    with pytest.raises(DataError, match="'nobody'"), IndexWriter(tmp_path / "index", strict=True) as writer:
        writer.append_seen(user_id=["nobody"], media_id=["a"])


def test_an_unknown_argument_is_named_and_those_that_there_are(numbered: Recommender) -> None:
    with pytest.raises(TypeError, match=r"'any_of'; a question takes k, where, .* any_of as where=Filter\(any_of=…\)"):
        numbered.similar("7", any_of={"genres": ["D"]})
    with pytest.raises(TypeError, match=r"'range'; a question takes k, where, .* ranges as where=Filter\(ranges=…\)"):
        numbered.similar("7", range={"year": (5, 10)})
    for name, meant in {"filter": "where", "wher": "where", "top": "k", "limit": "k", "top_k": "k"}.items():
        with pytest.raises(TypeError, match=rf"'{name}'; a question takes k, where, .*; did you mean {meant}\?$"):
            numbered.recommend("3", **{name: 3})
    with pytest.raises(TypeError, match=r"no argument 'zzz'; a question takes k, where, .* max_per, strategy$"):
        numbered.similar("7", zzz=3)


def test_several_titles_or_users_are_asked_for_one_by_one(numbered: Recommender) -> None:
    for ask, several in ((numbered.similar, "similar(title)"), (numbered.similar_users, "similar_users(user)")):
        with pytest.raises(UsageError, match=rf"a text or an integer is expected\nfor each .*{re.escape(several)} for"):
            ask(["3", "4"])
    with pytest.raises(UsageError, match=r"a text or an integer is expected$"):
        numbered.similar(3.5)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda r: r.similar(True), "the title is True"),
        (lambda r: r.similar(7.0), "the title is 7.0"),
        (lambda r: r.similar(["7"]), "the title is"),
        (lambda r: r.recommend({"3": 1}), "user_ids is"),
        (lambda r: r.recommend([None]), "one of user_ids is None"),
        (lambda r: r.recommend("3", include_seen="no"), "include_seen is 'no'"),
        (lambda r: r.similar("7", where=3), "where is 3"),
        (lambda r: r.similar("7", exclude=3.5), "exclude is 3.5"),
        (lambda r: r.similar("7", diversity="0.5"), "diversity is '0.5'"),
        (lambda r: r.similar("7", diversity=float("nan")), "diversity is nan"),
        (lambda r: r.similar("7", max_per={"year": 1.5}), "at most 1.5"),
        (lambda r: r.similar("7", max_per=["year"]), "max_per is"),
        (lambda r: r.similar("7", strategy=["auto"]), "unknown strategy"),
        (lambda r: r.similar("7", 2.5), "k is 2.5"),
        (lambda r: r.recommend_for("7"), "the taste is '7'"),
        (lambda r: r.recommend_for(Taste(likes=7.5)), "likes is 7.5"),
        (lambda r: r.recommend_for(Taste(ratings={"7": "5"})), "the rating of '7' is '5'"),
        (lambda r: Filter(years="1990..1999"), "years is '1990..1999'"),
        (lambda r: Filter(years=(1999, 1990)), "1999 to 1990"),
        (lambda r: r.search_text("a heist", model=3), "model is 3"),
        (lambda r: r.search("7"), "queries are"),
        (lambda r: Recommender.open(3), "the index is 3"),
        (lambda r: Recommender.open("nowhere", [3.5]), "one of settings is 3.5"),
    ],
)
def test_a_wrong_type_is_named(numbered: Recommender, ask: Callable[[Recommender], Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(numbered)
    assert said in caught.value.message


def test_a_where_of_another_type_is_answered_with_a_filter(numbered: Recommender) -> None:
    with pytest.raises(UsageError, match=r"a text is expected\nwhere=\"year < 1980\", say, or where=Filter\(genres="):
        numbered.similar("7", where={"genres": ["Crime"]})


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(
        [object(), len, b"7", np.zeros(0), np.zeros((2, DIM)), np.array("7"), np.float32(2), {1, 2}, ...]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
METHODS = {
    "similar": ["7", 5],
    "recommend": ["3", 5],
    "recommend_for": [Taste(likes="7"), 5],
    "search": [np.ones(DIM), 5],
    "search_text": ["a heist", 5],
    "similar_users": ["3", 5],
    "explain": ["3", "7", 5],
}
NAMED = ["where", "exclude", "diversity", "max_per", "strategy", "include_seen", "model"]
TAKES = {
    "recommend": NAMED[:6],
    "search_text": [*NAMED[:5], "model"],
    "similar_users": [],
    "explain": [],
}


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_given_the_answer_is_an_answer_or_an_error_of_ours(numbered: Recommender, data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(METHODS)))
    arguments = list(METHODS[name])
    named: dict[str, Any] = {}
    wish = TAKES.get(name, NAMED[:5])
    if wish and data.draw(st.booleans()):
        named[data.draw(st.sampled_from(wish))] = data.draw(anything)
    else:
        arguments[data.draw(st.integers(0, len(arguments) - 1))] = data.draw(anything)
    try:
        getattr(numbered, name)(*arguments, **named)
    except SemrecError as error:
        assert str(error)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_tastes_and_filters_refuse_what_they_do_not_understand(data: Any) -> None:
    kind, names = data.draw(
        st.sampled_from(
            [
                (Taste, ["likes", "dislikes", "ratings"]),
                (Filter, ["where", "genres", "any_genres", "not_genres", "years"]),
            ]
        )
    )
    try:
        made = kind(**{data.draw(st.sampled_from(names)): data.draw(anything)})
    except SemrecError as error:
        assert str(error)
    else:
        if kind is Filter:
            hash(made)


def test_an_export_refuses_wrong_types(numbered: Recommender, tmp_path: Path) -> None:
    for bad in ({"k": "3"}, {"include_seen": 1}, {"where": 3}, {"exclude": 3.5}):
        with pytest.raises(UsageError):
            export_all_users(numbered, tmp_path / "lists.parquet", **bad)
    with pytest.raises(UsageError, match="a path is expected"):
        export_all_users(numbered, 3)
    assert list(tmp_path.iterdir()) == []


def a_column_of(*values: Any) -> np.ndarray:
    """Make what numpy makes of a column of a frame."""
    column = np.empty(len(values), object)
    column[:] = [None if value is None else np.array(value, np.float32) for value in values]
    return column


def test_a_column_of_vectors_is_an_array_of_them(numbered: Recommender) -> None:
    vectors = np.eye(2, DIM, dtype=np.float32) + 1
    found = numbered.search(a_column_of(*vectors), 1)
    assert [answer.results for answer in found] == [answer.results for answer in numbered.search(vectors, 1)]


class Odd:
    """What numpy cannot take, as a tensor with a gradient or of bfloat16."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("call detach first")


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (Odd(), "not an array of numbers: call detach first"),
        ([[1.0] * DIM, [1.0]], "not an array of numbers: .*inhomogeneous"),
        (a_column_of([1.0] * DIM, [1.0]), "not an array of numbers: all input arrays must have the same shape"),
        (a_column_of([1.0] * DIM, None), "not an array of numbers: "),
        (np.ma.masked_array(np.ones((2, DIM), np.float32), mask=np.eye(2, DIM, dtype=bool)), "hold 2 masked values"),
    ],
)
def test_vectors_that_are_no_numbers_are_refused(numbered: Recommender, vectors: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        numbered.search(vectors, 1)
    with pytest.raises(UsageError, match=says):
        Recommender.from_arrays(vectors)


def test_a_masked_array_without_masked_values_is_an_array(numbered: Recommender) -> None:
    vectors = np.ones((2, DIM), np.float32)
    found = numbered.search(np.ma.masked_array(vectors, mask=False), 1)
    assert found[0].results == numbered.search(vectors, 1)[0].results


def test_whole_numbers_beyond_64_bits_and_columns_of_another_kind_are_refused() -> None:
    vectors = np.ones((2, DIM), np.float32)
    with pytest.raises(UsageError, match="metadata cannot be read as a table"):
        Recommender.from_arrays(vectors, {"media_id": ["a", "b"], "title": ["A", "B"], "x": [2**70, 1]})
    told = (
        "Conversion failed for column price with type object: Could not convert 'cheap' with type str: tried to convert"
    )
    with pytest.raises(UsageError, match=f"metadata cannot be read as a table: {told}"):
        Recommender.from_arrays(
            np.eye(2, dtype="float32"), pd.DataFrame({"media_id": ["a", "b"], "price": [1.5, "cheap"]})
        )
    with pytest.raises(
        DataError, match=r"^metadata: column media_id has type DOUBLE; a text or a whole number is expected"
    ):
        Recommender.from_arrays(vectors, {"media_id": [0.5, 1.5], "title": ["A", "B"]})


def test_paths_may_be_texts(numbered: Recommender, tmp_path: Path) -> None:
    index = str(numbered.saved.generation.folder.parent)
    (tmp_path / "media").mkdir()
    (tmp_path / "media/metadata.jsonl").write_text('{"media_id": "7", "title": "Another name"}\n')
    counted = update_index(index, Change(str(tmp_path)), dry_run=True)
    assert (counted.titles.new, counted.titles.changed, counted.title_count) == (0, 1, TITLES)
    assert load_config("flat", "index.normalize=false") == load_config(Path("flat"), ["index.normalize=false"])


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda index: Change(folder=3), r"folder is 3 \(int\); a path is expected"),
        (lambda index: Change(seen=["a"]), r"seen is \['a'\] \(list\); a path is expected"),
        (lambda index: update_index(3, Change(where="year < 3")), "the index is 3"),
        (lambda index: update_index(index, "changes"), "the change is str"),
        (lambda index: update_index(index, Change(remove_titles="1"), compact_at=3), "compact_at is 3; .* from 0 to 1"),
        (lambda index: update_index(index, Change(remove_titles="1"), wait=-1), "wait is -1; it must be at least 0"),
        (lambda index: compact_index(index, wait="a minute"), "wait is 'a minute'"),
        (lambda index: IndexWriter(None), "the index is None"),
        (lambda index: Recommender.open(index, batcher=3), "the batcher is int"),
        (lambda index: Recommender.open(index, follow="yes"), "follow is 'yes'"),
        (lambda index: load_config(3), "the config is 3"),
        (Recommender, r"the index is .*; an open one is expected\nRecommender.open\(path\)"),
        (lambda index: export_all_users("idx", "a.parquet"), r"the index is 'idx' \(str\); an open one is expected"),
        (lambda index: evaluate_index("idx"), r"the plan is 'idx' \(str\)\ngive an Evaluation: Evaluation\(index\)"),
        (lambda index: pick("results", 0.9), r"what is wanted is 0.9 \(float\)\ngive a Wanted: Wanted\(recall=0.95\)"),
        (lambda index: Wanted(recall=3), "recall is 3; it must be from 0 to 1"),
        (lambda index: Wanted(p95_ms="5"), "p95_ms is '5'"),
    ],
)
def test_what_is_no_path_no_change_and_no_limit_is_refused(
    call: Callable[[Path], object], what: str, numbered: Recommender
) -> None:
    with pytest.raises(UsageError, match=what):
        call(numbered.saved.generation.folder.parent)
