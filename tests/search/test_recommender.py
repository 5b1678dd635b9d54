"""Recommender: a title, users or vectors in, ranked titles out, the same ones as brute force gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_python
from numpy.typing import NDArray

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import AmbiguousTitleError, DataError, MissingPackageError, NotFoundError, UsageError
from semrec_faiss.index.build.run import build_index

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

TITLES, DIM, USERS, COPIES = 400, 24, 25, 30


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any], clusters: Any) -> Any:
    """400 titles, of which the last 30 are the vector of title 3 again; 25 users who have seen three titles each."""
    vectors = clusters(TITLES, DIM, seed=4)
    vectors[-COPIES:] = vectors[3]
    return make_folder(tmp_path_factory.mktemp("data") / "made", vectors=vectors, users=USERS)


def open_index(folder: Path, output: Path, index: dict[str, Any] | None = None) -> Recommender:
    """Build an index on the CPU and open it."""
    values = {
        "dataset": str(folder),
        "output": str(output),
        "index": index or {"type": "flat"},
        "device": {"kind": "cpu"},
    }
    build_index(config_from_dict(values))
    return Recommender.open(output)


@pytest.fixture(scope="module")
def exact(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A flat index of the made folder."""
    return open_index(made.root, tmp_path_factory.mktemp("index") / "flat")


KINDS: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 8}, "search": {"nprobe": 3}},
    "ivf_sq": {"type": "ivf_sq", "build": {"nlist": 8}, "search": {"nprobe": 3}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 8}},
    "hnsw": {"type": "hnsw"},
}


@pytest.fixture(scope="module", params=KINDS)
def any_kind(request: pytest.FixtureRequest, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """An index of every type over the made folder."""
    return open_index(made.root, tmp_path_factory.mktemp("index") / request.param, KINDS[request.param])


def check_ranking(rows: NDArray[Any], scores: NDArray[Any], allowed_scores: NDArray[np.float64]) -> None:
    """Hold one answer against the true scores of all titles, -inf where a title must not be returned."""
    assert len(set(rows.tolist())) == len(rows)
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, allowed_scores[rows], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-allowed_scores)[: len(rows)], rtol=0, atol=1e-5)


# --- similar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 10, 100, TITLES - 1])
def test_similar_is_brute_force_without_the_title_itself(exact: Recommender, made: Any, k: int) -> None:
    for row in (0, 3, 17, 200, TITLES - COPIES, TITLES - 1):
        answer = exact.similar(made.media_ids[row], k)
        scores = made.unit @ made.unit[row]
        scores[row] = -np.inf
        assert answer.returned == k
        check_ranking(answer.rows, answer.scores, scores)
        assert (answer.requested, answer.matching, answer.exact) == (k, TITLES - 1, True)
        assert answer.query == {"media_id": made.media_ids[row], "title": made.titles[row]}


def test_copies_of_the_title_are_results_but_it_is_not(exact: Recommender, made: Any) -> None:
    """Thirty titles score as the title itself does, so that it need not be among the first that are found."""
    copies = {3, *range(TITLES - COPIES, TITLES)}
    for row in (3, TITLES - COPIES, TITLES - 1):
        for k in (1, 5, COPIES, COPIES + 5):
            answer = exact.similar(made.media_ids[row], k)
            assert answer.returned == k
            assert row not in answer.rows
            assert len(copies & set(answer.rows.tolist())) == min(k, COPIES)


@pytest.mark.parametrize("k", [1, 10, TITLES - 1, TITLES, TITLES + 100])
def test_similar_keeps_its_promises_with_every_type(any_kind: Recommender, made: Any, k: int) -> None:
    for row in (3, 50, TITLES - 2):
        answer = any_kind.similar(made.media_ids[row], k)
        assert (answer.requested, answer.matching) == (k, TITLES - 1)
        assert answer.returned == len(answer) == len(answer.rows) == min(k, TITLES - 1)
        assert row not in answer.rows
        assert len(set(answer.rows.tolist())) == answer.returned
        assert (answer.rows >= 0).all()
        assert (np.diff(answer.scores) <= 0).all()
        assert np.isfinite(answer.scores).all()


def test_a_title_is_found_however_it_is_spelled(exact: Recommender, made: Any) -> None:
    asked = exact.similar("m00017", 5)
    for spelling in ("Film 17 (1967)", "film 17 (1967)", "  FILM, 17 ", "Film 17"):
        answer = exact.similar(spelling, 5)
        assert answer.query == asked.query
        assert answer.rows.tolist() == asked.rows.tolist()


def test_an_unknown_title_names_the_nearest(exact: Recommender) -> None:
    with pytest.raises(NotFoundError) as caught:
        exact.similar("Flim 17 (1967)")
    assert caught.value.exit_code == 4
    assert "Film 17 (1967)" in caught.value.candidates
    assert 1 <= len(caught.value.candidates) <= 5


def test_a_title_that_several_carry_lists_them(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    folder = make_folder(tmp_path / "data", titles=40)
    path = folder.root / "media" / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, title in ((5, "Emma (1996)"), (9, "Emma (2020)"), (12, "Twice (1999)"), (13, "Twice (1999)")):
        lines[row] |= {"title": title, "year": int(title[-5:-1])}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recommender = open_index(folder.root, tmp_path / "index")
    with pytest.raises(AmbiguousTitleError) as caught:
        recommender.similar("emma")
    assert len(caught.value.candidates) == 2
    assert all("Emma" in candidate for candidate in caught.value.candidates)
    assert recommender.similar("emma (2020)", 1).query["media_id"] == "m00009"
    with pytest.raises(AmbiguousTitleError) as caught:
        recommender.similar("Twice (1999)")
    assert {"m00012", "m00013"} == {part for text in caught.value.candidates for part in text.strip("]").split("[")[1:]}
    assert recommender.similar("m00013", 1).query["media_id"] == "m00013"


# --- recommend ------------------------------------------------------------------------------------------------------


def user_scores(made: Any, number: int, *, include_seen: bool) -> NDArray[np.float64]:
    """A user's true scores of all titles; -inf for those that the user has seen."""
    scores = made.unit @ made.user_vectors[number]
    if not include_seen:
        scores[[made.media_ids.index(media_id) for media_id in made.seen[made.user_ids[number]]]] = -np.inf
    return np.asarray(scores)


@pytest.mark.parametrize("k", [1, 10, 150])
def test_recommend_is_brute_force_without_what_was_seen(exact: Recommender, made: Any, k: int) -> None:
    answers = exact.recommend(made.user_ids, k)
    assert len(answers) == USERS
    for number, answer in enumerate(answers):
        assert answer.query == {"user_id": made.user_ids[number]}
        assert answer.returned == k
        assert answer.exact
        check_ranking(answer.rows, answer.scores, user_scores(made, number, include_seen=False))
        assert not set(made.seen[made.user_ids[number]]) & {result.media_id for result in answer}
        assert (answer.requested, answer.matching) == (k, TITLES - 3)


def test_recommend_may_keep_what_was_seen(exact: Recommender, made: Any) -> None:
    for number, answer in enumerate(exact.recommend(made.user_ids, 12, include_seen=True)):
        check_ranking(answer.rows, answer.scores, user_scores(made, number, include_seen=True))
        assert answer.matching == TITLES


def test_a_batch_recommends_as_single_users_do(any_kind: Recommender, made: Any) -> None:
    asked = [made.user_ids[number] for number in (4, 0, 17, 4, 24)]
    batch = any_kind.recommend(asked, 8)
    assert [answer.query["user_id"] for answer in batch] == asked
    for user_id, answer in zip(asked, batch, strict=True):
        single = any_kind.recommend(user_id, 8)
        np.testing.assert_allclose(single.scores, answer.scores, rtol=0, atol=1e-5)
        apart = np.abs(np.diff(np.append(single.scores, -1))) > 1e-4
        np.testing.assert_array_equal(single.rows[1:][apart[1:] & apart[:-1]], answer.rows[1:][apart[1:] & apart[:-1]])
        assert (single.requested, single.matching, single.strategy, single.exact) == (
            answer.requested,
            answer.matching,
            answer.strategy,
            answer.exact,
        )
    assert batch[0].rows.tolist() == batch[3].rows.tolist()


def test_every_title_that_is_left_is_recommended(any_kind: Recommender, made: Any) -> None:
    answer = any_kind.recommend("user_007", TITLES + 5)
    assert (answer.requested, answer.matching, answer.returned) == (TITLES + 5, TITLES - 3, TITLES - 3)
    left = {result.media_id for result in answer}
    assert left == set(made.media_ids) - set(made.seen["user_007"])


def test_no_users_no_answers(exact: Recommender) -> None:
    assert len(exact.recommend([])) == 0
    assert exact.recommend([]).as_dict() == {"answers": []}


def test_unknown_users_are_named(exact: Recommender) -> None:
    with pytest.raises(NotFoundError, match="'nobody'") as caught:
        exact.recommend(["user_001", "nobody", "user_002"])
    assert "user_000" in str(caught.value)
    with pytest.raises(NotFoundError, match=r"'x0'.*'x4', …"):
        exact.recommend([f"x{number}" for number in range(9)])


def test_an_index_without_users_says_how_to_add_them(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    recommender = open_index(make_folder(tmp_path / "data", titles=40).root, tmp_path / "index")
    with pytest.raises(NotFoundError, match="no users") as caught:
        recommender.recommend("user_001")
    assert "preference_vectors.npy" in str(caught.value.fix)


# --- search ---------------------------------------------------------------------------------------------------------


def test_search_is_brute_force(exact: Recommender, made: Any) -> None:
    queries = np.random.default_rng(3).normal(size=(9, DIM)) * 7
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    answers = exact.search(queries, 11)
    for position, answer in enumerate(answers):
        check_ranking(answer.rows, answer.scores, made.unit @ unit[position])
        assert answer.query == {"position": position}
        assert (answer.requested, answer.matching, answer.returned) == (11, TITLES, 11)
    one = exact.search(queries[4], 11)
    assert len(one) == 1
    assert one[0].rows.tolist() == answers[4].rows.tolist()


@pytest.mark.parametrize(
    ("vectors", "kind"),
    [
        (np.ones(DIM + 1), UsageError),
        (np.ones((2, DIM - 1)), UsageError),
        (np.ones((1, 2, DIM)), UsageError),
        (np.zeros(DIM), DataError),
        (np.full((3, DIM), np.nan), DataError),
        ("a title", UsageError),
        (None, UsageError),
        (3.0, UsageError),
        # Once a fault: ragged lists ended in ValueError.
        ([[1.0] * DIM, [1.0]], UsageError),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(exact: Recommender, vectors: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        exact.search(vectors)


@pytest.mark.parametrize("k", [0, -1, True, False, 1.5, "3", None, np.float64(2)])
def test_a_k_that_is_no_count_is_refused_everywhere(exact: Recommender, k: Any) -> None:
    asks: list[Callable[[], Any]] = [
        lambda: exact.similar("m00003", k),
        lambda: exact.recommend("user_001", k),
        lambda: exact.recommend(["user_001", "user_002"], k),
        lambda: exact.search(np.ones(DIM), k),
    ]
    for ask in asks:
        with pytest.raises(UsageError, match="k is"):
            ask()


def test_numpy_numbers_are_a_k(exact: Recommender) -> None:
    for k in (np.int64(6), np.uint8(6)):
        assert exact.similar("m00003", k).returned == 6
        assert exact.recommend("user_001", k).returned == 6
        assert exact.search(np.ones(DIM), k)[0].returned == 6
        assert json.dumps(exact.similar("m00003", k).as_dict())


# --- answers --------------------------------------------------------------------------------------------------------


def test_results_carry_the_metadata_of_their_rows(exact: Recommender, made: Any) -> None:
    lines = [
        json.loads(line) for line in (made.root / "media" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for answer in (exact.similar("m00017", 20), exact.recommend("user_003", 20), exact.search(made.unit[9], 20)[0]):
        assert [result.rank for result in answer] == list(range(1, 21))
        for result, row, score in zip(answer.results, answer.rows.tolist(), answer.scores.tolist(), strict=True):
            assert (result.media_id, result.title, result.score) == (lines[row]["media_id"], lines[row]["title"], score)
            assert (result.year, result.genres) == (lines[row]["year"], lines[row]["genres"])
            assert result.fields["note"] == lines[row]["note"]
            assert result.as_dict() == {"rank": result.rank, **lines[row], "score": score}


def test_metadata_is_read_when_it_is_first_looked_at(exact: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = exact.titles.lines

    def lines(rows: Any) -> Any:
        read.extend(int(row) for row in rows)
        return real(rows)

    monkeypatch.setattr(exact.titles, "lines", lines)
    fresh = Recommender(exact.saved)
    answers = fresh.search(np.eye(DIM), 7)
    assert read == []
    answer = answers[5]
    titles = [result.title for result in answer]
    assert set(answer.rows.tolist()) <= set(read)
    assert [result.title for result in answers[6]] != titles
    assert sorted(read) == sorted({row for one in answers for row in one.rows.tolist()}), "a title is read once"


@pytest.mark.slow
def test_a_question_about_a_title_loads_no_database(exact: Recommender) -> None:
    code = (
        "import sys; from semrec_faiss import Recommender; recommender = Recommender.open(sys.argv[1]);"
        " answer = recommender.similar('m00021', 3); assert len(answer.results) == 3;"
        " sys.exit('duckdb' in sys.modules)"
    )
    path = exact.saved.generation.folder.parent
    done = run_python("-c", code, path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_result_that_is_changed_does_not_change_later_answers(exact: Recommender) -> None:
    # Once a fault: the fields of results were those that a cache kept.
    first = exact.similar("m00021", 3)
    genres = list(first.results[0].genres)
    first.results[0].fields["genres"].append("spoilt")
    first.as_dict()["results"][0]["genres"].append("spoilt")
    first.as_dict()["query"]["title"] = "spoilt"
    again = exact.similar("m00021", 3)
    assert again.results[0].genres == genres
    assert again.query["title"] == "Film 21 (1971)"


def test_an_answer_as_json_is_as_designed(exact: Recommender) -> None:
    answer = exact.similar("m00017", 3)
    document = json.loads(json.dumps(answer.as_dict(), allow_nan=False))
    assert list(document)[:4] == ["query", "requested", "matching", "returned"]
    assert document["query"] == {"media_id": "m00017", "title": "Film 17 (1967)"}
    assert (document["requested"], document["matching"], document["returned"]) == (3, TITLES - 1, 3)
    assert document["exact"] is True
    assert document["strategy"] == answer.strategy
    assert document["elapsed_ms"] > 0
    assert list(document["results"][0])[:4] == ["rank", "score", "media_id", "title"]
    assert [result["media_id"] for result in document["results"]] == [result.media_id for result in answer]
    several = json.loads(json.dumps(exact.recommend(["user_001", "user_002"], 2).as_dict()))
    assert list(several) == ["answers"]
    assert [one["query"]["user_id"] for one in several["answers"]] == ["user_001", "user_002"]


def test_answers_are_a_sequence(exact: Recommender) -> None:
    answers = exact.search(np.eye(DIM)[:5], 2)
    assert len(answers) == 5
    assert [answer.query["position"] for answer in answers] == [0, 1, 2, 3, 4]
    assert answers[-1].query == answers[4].query
    assert [answer.query["position"] for answer in answers[1:4:2]] == [1, 3]
    for position in (5, -6):
        with pytest.raises(IndexError):
            answers[position]


def test_answers_are_a_table(exact: Recommender) -> None:
    pandas = pytest.importorskip("pandas")
    frame = exact.recommend(["user_001", "user_002"], 3).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["query_user_id"].tolist() == ["user_001"] * 3 + ["user_002"] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 2
    assert {"media_id", "title", "score", "year", "genres", "runtime", "note"} <= set(frame.columns)
    one = exact.similar("m00017", 4)
    assert one.to_pandas()["media_id"].tolist() == [result.media_id for result in one]
    assert one.table()[0]["query_title"] == "Film 17 (1967)"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_table_library_is_told_with_its_command(
    exact: Recommender, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingPackageError, match=f"{library} is not installed") as caught:
        getattr(exact.similar("m00017", 1), f"to_{library}")()
    assert f"pip install {library}" in str(caught.value.fix)


def test_answers_can_be_compared_and_printed(exact: Recommender) -> None:
    one, other = exact.similar("m00017", 3), exact.similar("m00018", 3)
    assert (one == other) is False
    assert one == one
    assert "m00017" in repr(one)


# --- threads --------------------------------------------------------------------------------------------------------


def test_threads_get_what_one_gets(any_kind: Recommender, made: Any) -> None:
    serial = [any_kind.similar(media_id, 5) for media_id in made.media_ids[:60]]
    fresh = Recommender(any_kind.saved)
    with ThreadPoolExecutor(8) as pool:
        similar = pool.map(lambda title: fresh.similar(title, 5).as_dict(), made.titles[:60])
        users = pool.map(lambda user_id: fresh.recommend(user_id, 5).as_dict(), made.user_ids * 2)
        for one, other in zip(serial, similar, strict=True):
            assert [result["media_id"] for result in other["results"]] == [result.media_id for result in one]
        for user_id, document in zip(made.user_ids * 2, users, strict=True):
            assert document["query"] == {"user_id": user_id}
            assert document["returned"] == 5


# --- real titles ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A flat index of MovieLens."""
    return open_index(movielens, tmp_path_factory.mktemp("films") / "index")


@pytest.mark.slow
def test_toy_story_has_its_sequels_first(films: Recommender) -> None:
    titles = [result.title for result in films.similar("toy story 1995", 5)]
    assert {"Toy Story 2 (1999)", "Toy Story 3 (2010)"} <= set(titles)
    assert "Toy Story (1995)" not in titles
    assert films.similar("the godfather", 1).query["title"] == "Godfather, The (1972)"


@pytest.mark.slow
def test_similar_films_are_those_of_brute_force(films: Recommender, movielens: Path) -> None:
    vectors = np.load(movielens / "media" / "content_vectors.npy").astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(0, len(vectors), 400):
        answer = films.similar(films.catalog.media_ids([row])[0], 10)
        scores = vectors @ vectors[row]
        scores[row] = -np.inf
        check_ranking(answer.rows, answer.scores, scores)


@pytest.mark.slow
def test_all_users_of_movielens_at_once(films: Recommender, movielens: Path) -> None:
    ids = json.loads((movielens / "users" / "user_ids.json").read_text())
    ids = ids["user_ids"] if isinstance(ids, dict) else ids
    vectors = np.load(movielens / "media" / "content_vectors.npy").astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users = np.load(movielens / "users" / "preference_vectors.npy")
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    answers = films.recommend(ids, 10)
    assert len(answers) == len(ids) == 610
    for number in range(0, 610, 30):
        check_ranking(answers[number].rows, answers[number].scores, vectors @ users[number])
        single = films.recommend(ids[number], 10)
        np.testing.assert_allclose(single.scores, answers[number].scores, rtol=0, atol=1e-5)
