"""Recommendations: what users have seen, tastes in place of users, why a title is recommended, who is alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import NotFoundError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search import explanation
from semrec_faiss.search import searcher as asking
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.profile.taste import Taste, taste_vector
from semrec_faiss.search.recommender import Recommender

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def recommender(library: Any) -> Recommender:
    """The library's exact index."""
    return Recommender.open(library.output)


APPROXIMATE: dict[str, dict[str, Any]] = {
    "ivf_sq": {"type": "ivf_sq", "build": {"nlist": 32}, "search": {"nprobe": 2}},
    "hnsw": {"type": "hnsw"},
}


@pytest.fixture(scope="module", params=["flat", *APPROXIMATE])
def any_kind(request: pytest.FixtureRequest, library: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """An index of the library, exact or not."""
    if request.param == "flat":
        return Recommender.open(library.output)
    output = tmp_path_factory.mktemp("index") / request.param
    settings = {"dataset": str(library.folder), "output": str(output), "device": "cpu"}
    build_index(config_from_dict(settings | {"index": APPROXIMATE[request.param]}))
    return Recommender.open(output)


def check(answer: Answer, world: Any, query: int, k: int, allowed: Mask) -> None:
    """Hold an answer against brute force over what is allowed: bool (titles,)."""
    rows = answer.rows
    assert (answer.requested, answer.matching) == (k, allowed.sum())
    assert len(rows) == answer.returned == min(k, int(allowed.sum()))
    assert len(set(rows.tolist())) == len(rows)
    assert allowed[rows].all()
    assert (np.diff(answer.scores) <= 0).all()
    if answer.exact:
        best = -np.sort(-np.where(allowed, world.scores[query], -np.inf))[: len(rows)]
        np.testing.assert_allclose(answer.scores, best, rtol=0, atol=1e-5)
        np.testing.assert_allclose(world.scores[query][rows], best, rtol=0, atol=1e-5)


# What has been seen


@pytest.mark.parametrize("k", [1, 10, 300])
def test_what_was_seen_is_left_out_and_k_is_kept(any_kind: Recommender, world: Any, library: Any, k: int) -> None:
    unseen = library.unseen(len(world.titles))
    assert sorted({len(rows) >= 2000 for rows in library.seen}) == [False, True]
    assert [unseen[user].sum() for user in (0, 1, 2)] == [len(world.titles), 3, 0]
    answers = any_kind.recommend(library.user_ids, k)
    for user, answer in enumerate(answers):
        check(answer, world, user, k, unseen[user])
        assert answer.query == {"user_id": library.user_ids[user]}
    assert answers[2].returned == 0
    assert answers[1].returned == min(k, 3)
    assert all(answer.returned == min(k, int(unseen[user].sum())) for user, answer in enumerate(answers))


def test_seen_titles_and_filters_together(any_kind: Recommender, world: Any, library: Any) -> None:
    unseen = library.unseen(len(world.titles))
    for where, holds in (
        ("'Drama' IN genres", lambda e: "Drama" in (e["genres"] or ())),
        (
            Filter(genres=("日本映画",), years=(1990, None)),
            lambda e: "日本映画" in (e["genres"] or ()) and (e["year"] or 0) >= 1990,
        ),
        ("place < 30", lambda e: e["place"] < 30),
        ("false", lambda _: False),
    ):
        mask = np.array([bool(holds(entry)) for entry in world.entries])
        excluded = [world.entries[5]["title"], world.entries[77]["media_id"]]
        answers = any_kind.recommend(library.user_ids, 12, where=where, exclude=excluded)
        mask[[5, 77]] = False
        for user, answer in enumerate(answers):
            check(answer, world, user, 12, mask & unseen[user])


def test_seen_titles_are_kept_on_demand(recommender: Recommender, world: Any, library: Any) -> None:
    everything = np.ones(len(world.titles), np.bool_)
    answers = recommender.recommend(library.user_ids, 25, include_seen=True)
    for user, answer in enumerate(answers):
        check(answer, world, user, 25, everything)
    assert any(set(answer.rows.tolist()) & set(library.seen[user]) for user, answer in enumerate(answers))


def test_a_batch_is_searched_in_one_pass(
    recommender: Recommender, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred users, twenty of whom have seen nearly everything, cost a handful of searches, not one each."""
    searches: list[int] = []
    batches: list[int] = []
    search, top_k = VectorIndex.unsettled, asking.restricted_top_k

    def counted(self: VectorIndex, queries: Any, k: int) -> Any:
        searches.append(len(queries))
        return search(self, queries, k)

    def counted_batch(index: Any, queries: Any, *rest: Any, **options: Any) -> Any:
        batches.append(len(queries))
        return top_k(index, queries, *rest, **options)

    monkeypatch.setattr(VectorIndex, "unsettled", counted)
    monkeypatch.setattr(asking, "restricted_top_k", counted_batch)
    light = library.user_ids[20:]
    recommender.recommend(light, 10)
    assert (batches, searches[0]) == ([180], 180)
    assert len(searches) <= 2
    searches.clear()
    recommender.recommend(library.user_ids, 10)
    assert batches == [180, 200]
    assert len(searches) <= 5
    assert searches[0] >= 199  # a user with nothing left is not searched for


def test_a_batch_recommends_as_single_users_do(any_kind: Recommender, library: Any) -> None:
    wishes: list[dict[str, Any]] = [{}, {"where": "year > 1990"}, {"include_seen": True}, {"exclude": ["m00003"]}]
    for wish in wishes:
        batch = any_kind.recommend(library.user_ids[:40], 10, **wish)
        for answer, user_id in zip(batch, library.user_ids, strict=False):
            single = any_kind.recommend(user_id, 10, **wish)
            assert (single.matching, single.returned) == (answer.matching, answer.returned)
            if answer.exact and single.exact:
                np.testing.assert_allclose(single.scores, answer.scores, rtol=0, atol=1e-5)
                differ = single.rows != answer.rows
                np.testing.assert_allclose(single.scores[differ], answer.scores[differ], rtol=0, atol=1e-5)
                assert differ.sum() <= len(differ) / 2


def test_users_may_be_asked_for_in_any_order_and_twice(recommender: Recommender, library: Any) -> None:
    asked = [library.user_ids[n] for n in (150, 1, 30, 150, 2)]
    answers = recommender.recommend(asked, 5)
    assert [answer.query["user_id"] for answer in answers] == asked
    assert answers[0].rows.tolist() == answers[3].rows.tolist()
    assert [answer.returned for answer in answers] == [5, 3, 5, 5, 0]


def test_an_excluded_title_that_does_not_exist(recommender: Recommender, library: Any) -> None:
    with pytest.raises(NotFoundError):
        recommender.recommend(library.user_ids[0], 5, exclude=["No such film"])
    with pytest.raises(NotFoundError):
        recommender.similar("Film 3", 5, exclude=["m00001", "No such film"])


def test_similar_leaves_out_itself_under_any_wish(recommender: Recommender, world: Any) -> None:
    for row in (0, 3, 700, 2099):  # some are copies of another
        mask = np.array([entry["place"] < 1500 for entry in world.entries])
        answer = recommender.similar(f"m{row:05d}", 20, where="place < 1500")
        mask[row] = False
        truth = world.titles.astype(np.float64) @ world.titles[row]
        best = -np.sort(-np.where(mask, truth, -np.inf))[:20]
        assert row not in answer.rows
        np.testing.assert_allclose(answer.scores, best, rtol=0, atol=1e-5)
        assert answer.matching == mask.sum()


# Tastes


@pytest.fixture(scope="module")
def small(make_index: Callable[..., VectorIndex]) -> Iterator[VectorIndex]:
    """Four titles in two dimensions: east, north, west, and between east and north."""
    yield make_index(np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]]), {"type": "flat"})


@pytest.mark.parametrize(
    ("taste", "rows", "vector"),
    [
        (Taste(likes=["e"]), [0], [1, 0]),
        (Taste(likes=["e", "n"]), [0, 1], [1 / math.sqrt(2), 1 / math.sqrt(2)]),
        (Taste(likes=["e", "b"]), [0, 3], [1.6 / math.hypot(1.6, 0.8), 0.8 / math.hypot(1.6, 0.8)]),
        # 1·(0, 1) - 0.5·(1, 0)
        (Taste(likes=["n"], dislikes=["e"]), [1, 0], [-0.5 / math.hypot(0.5, 1), 1 / math.hypot(0.5, 1)]),
        (Taste(dislikes=["e"]), [0], [-1, 0]),
        # weights (5 - 1) / 4 = 1, (3 - 1) / 4 = 0.5, (0.5 - 1) / 4 = -0.125
        (Taste(ratings={"e": 5.0, "n": 3.0}), [0, 1], [1 / math.hypot(1, 0.5), 0.5 / math.hypot(1, 0.5)]),
        (Taste(ratings={"n": 5.0, "e": 0.5}), [1, 0], [-0.125 / math.hypot(1, 0.125), 1 / math.hypot(1, 0.125)]),
        (Taste(likes=["n"], ratings={"e": 1.0}), [1, 0], [0, 1]),
    ],
)
def test_a_taste_is_a_weighted_mean(small: VectorIndex, taste: Taste, rows: list[int], vector: list[float]) -> None:
    made = taste_vector(small, rows, [weight for _, weight in taste.weights()])
    assert (made.dtype, made.shape) == (np.float32, (1, 2))
    np.testing.assert_allclose(made[0], vector, rtol=0, atol=1e-6)


def test_weights_are_those_of_the_data_folder() -> None:
    taste = Taste(likes=["a", "b"], dislikes=["c"], ratings={"d": 5, "e": 1, "f": 0.5, "g": 4.5})
    assert taste.weights() == [("a", 1), ("b", 1), ("c", -0.5), ("d", 1), ("e", 0), ("f", -0.125), ("g", 0.875)]


def test_tastes_without_a_direction(small: VectorIndex) -> None:
    for rows, weights in (([0, 2], [1.0, 1.0]), ([0], [0.0]), ([0, 0], [0.5, -0.5])):
        with pytest.raises(UsageError, match="cancel out"):
            taste_vector(small, rows, weights)


@pytest.mark.parametrize("stars", [0.49, 5.01, -1, float("nan"), float("inf")])
def test_ratings_out_of_range(stars: float) -> None:
    with pytest.raises(UsageError, match=r"ratings go from 0\.5 to 5\.0"):
        Taste(ratings={"a": stars}).weights()


def test_somebody_who_says_nothing() -> None:
    with pytest.raises(UsageError, match="nothing is liked, disliked or rated"):
        Taste().weights()


def test_recommending_for_a_taste(recommender: Recommender, world: Any) -> None:
    taste = Taste(likes=["Film 10", "m00020"], dislikes=["film 30"], ratings={"Film 40": 2})
    mean = world.titles[[10, 20, 30, 40]].astype(np.float64).T @ [1, 1, -0.5, 0.25]
    truth = world.titles.astype(np.float64) @ (mean / np.linalg.norm(mean))
    allowed = np.array([(entry["year"] or 0) > 1980 for entry in world.entries])
    allowed[[10, 20, 30, 40]] = False
    answer = recommender.recommend_for(taste, 30, where="year > 1980")
    assert answer.query == {"taste": {"Film 10": 1.0, "Film 20": 1.0, "Film 30": -0.5, "Film 40": 0.25}}
    assert answer.matching == allowed.sum()
    np.testing.assert_allclose(answer.scores, -np.sort(-truth[allowed])[:30], rtol=0, atol=1e-5)
    np.testing.assert_allclose(truth[answer.rows], answer.scores, rtol=0, atol=1e-5)
    assert allowed[answer.rows].all()


def test_a_title_that_is_liked_or_disliked_twice_counts_once(recommender: Recommender, world: Any) -> None:
    twice = recommender.recommend_for(
        Taste(likes=["Film 10", "m00010", "Film 10", "Film 20"], dislikes=["m00030", "Film 30"], ratings={"m00040": 3}),
        10,
    )
    mean = world.titles[[10, 20, 30, 40]].astype(np.float64).T @ [1, 1, -0.5, 0.5]
    truth = world.titles.astype(np.float64) @ (mean / np.linalg.norm(mean))
    truth[[10, 20, 30, 40]] = -np.inf
    assert twice.query == {"taste": {"Film 10": 1.0, "Film 20": 1.0, "Film 30": -0.5, "Film 40": 0.5}}
    assert twice.matching == len(world.titles) - 4
    np.testing.assert_allclose(twice.scores, -np.sort(-truth)[:10], rtol=0, atol=1e-5)


def test_a_title_rated_by_two_of_its_names_is_refused(recommender: Recommender) -> None:
    with pytest.raises(UsageError, match="'m00010' is rated twice"):
        recommender.recommend_for(Taste(likes=["Film 20"], ratings={"Film 10": 5, "m00010": 1, "Film 30": 2}))
    assert len(recommender.recommend_for(Taste(likes=["Film 10"], ratings={"m00010": 5}), 3)) == 3


def test_a_taste_is_told_whole_also_of_titles_with_one_name() -> None:
    """Once a fault: of two films called Emma one was told, and of a title that was liked and rated the rating."""
    films = {"media_id": ["e1", "e2", "h"], "title": ["Emma (1996)", "Emma (1996)", "Heat (1995)"]}
    made = Recommender.from_arrays(np.eye(3, dtype=np.float32), films)
    answer = made.recommend_for(Taste(likes=["e1", "h"], dislikes="e2", ratings={"h": 3}), 1)
    assert answer.query == {"taste": {"Emma (1996) [e1]": 1.0, "Heat (1995)": 1.5, "Emma (1996) [e2]": -0.5}}


def test_an_unknown_title_in_a_taste(recommender: Recommender) -> None:
    for taste in (Taste(likes=["No such film"]), Taste(dislikes=["No such film"]), Taste(ratings={"No such film": 3})):
        with pytest.raises(NotFoundError):
            recommender.recommend_for(taste)


# Why


def true_rank(world: Any, library: Any, user: int, row: int) -> tuple[int, int]:
    """The rank of a title among what the user has not seen: with near-ties below it, and with them above."""
    scores = world.scores[user]
    others = np.setdiff1d(np.arange(len(scores)), [*library.seen[user], row])
    above = (scores[others] > scores[row] + 1e-6).sum()
    return 1 + int(above), 1 + int((scores[others] > scores[row] - 1e-6).sum())


# A score is rounded one way alone and another in a block: compared across, a title may count itself.
def test_an_explanation_is_what_brute_force_says(recommender: Recommender, world: Any, library: Any) -> None:
    rng = np.random.default_rng(8)
    for user in (0, 1, 2, 3, 50, 199):
        for row in rng.permutation(len(world.titles))[:40].tolist():
            found = recommender.explain(library.user_ids[user], f"m{row:05d}", 4)
            seen = library.seen[user]
            assert (found.user_id, found.title) == (library.user_ids[user], f"Film {row}")
            assert found.score == pytest.approx(world.scores[user][row], abs=1e-5)
            low, high = true_rank(world, library, user, row)
            assert low <= found.rank <= high
            assert found.seen is (row in seen)
            assert found.seen_titles == len(seen)
            assert found.of == len(world.titles) - len(seen) + (row in seen)
            likeness = world.titles[seen].astype(np.float64) @ world.titles[row]
            positive = likeness[likeness > 0].sum()
            order = sorted((i for i in range(len(seen)) if seen[i] != row), key=lambda i, s=likeness: -s[i])[:4]
            assert len(found.contributions) == len(order)
            for one, position in zip(found.contributions, order, strict=True):
                assert one.similarity == pytest.approx(likeness[position], abs=1e-5)
                assert one.share == pytest.approx(max(0, likeness[position]) / positive, abs=1e-5)
                named = int(one.media_id[1:])
                assert named in seen
                assert world.titles[named] @ world.titles[row] == pytest.approx(likeness[position], abs=1e-5)
                assert one.title == f"Film {named}"


def test_contributions_worked_out_by_hand(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0.8, 0.6], [0.8, -0.6]])
    folder = make_folder(tmp_path / "data", vectors=vectors, users=1)
    np.save(folder.root / "users" / "preference_vectors.npy", np.array([[0.6, 0.8]]))
    seen = sorted(int(media_id[1:]) for media_id in folder.seen["user_000"])
    assert len(seen) == 3
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    for row in range(6):
        found = recommender.explain("user_000", f"m{row:05d}")
        cosines = {other: float(vectors[other] @ vectors[row]) for other in seen}
        whole = sum(max(0.0, cosine) for cosine in cosines.values())
        expected = sorted(
            ((c, other) for other, c in cosines.items() if other != row), key=lambda pair: (-pair[0], pair[1])
        )
        assert [(one.media_id, round(one.similarity, 6), round(one.share, 6)) for one in found.contributions] == [
            (f"m{other:05d}", round(c, 6), round(max(0.0, c) / (whole or 1.0), 6)) for c, other in expected
        ]
        user_scores = vectors @ [0.6, 0.8]
        unseen = [other for other in range(6) if other not in seen or other == row]
        assert found.rank == 1 + sum(user_scores[other] > user_scores[row] + 1e-9 for other in unseen)
        assert found.of == len(unseen)


@pytest.mark.parametrize("user", [0, 25, 60])
def test_the_rank_is_that_of_the_recommendation(recommender: Recommender, world: Any, library: Any, user: int) -> None:
    """Titles without a copy stand where explain says that they stand."""
    answer = recommender.recommend(library.user_ids[user], len(world.titles))
    copies = {*range(40), *range(len(world.titles) - 40, len(world.titles))}
    assert 0.6 * len(world.titles) < answer.returned
    near_ties = set(np.flatnonzero(np.abs(np.diff(answer.scores)) < 1e-6))
    checked = 0
    for place, row in enumerate(answer.rows.tolist()):
        if row in copies or {place, place - 1} & near_ties or place % 7:
            continue
        assert recommender.explain(library.user_ids[user], f"m{row:05d}").rank == place + 1
        checked += 1
    assert checked > 150


# Once a fault: of titles that score the same, all get the rank of the first; a list puts them in row order.
def test_equal_scores_rank_in_row_order(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    vectors = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [0.6, 0.8], [0, -1], [0, -1]])
    folder = make_folder(tmp_path / "data", vectors=vectors, users=1)
    np.save(folder.root / "users" / "preference_vectors.npy", np.array([[1.0, 0.0]]))
    (folder.root / "users" / "seen.parquet").unlink()
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    order = recommender.recommend("user_000", 7).rows.tolist()
    assert order == [1, 2, 3, 4, 0, 5, 6]
    assert [recommender.explain("user_000", f"m{row:05d}").rank for row in order] == [1, 2, 3, 4, 5, 6, 7]


def test_many_pieces_count_the_same(recommender: Recommender, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(library.user_ids[user], f"m{row:05d}") for user in (0, 5, 70) for row in (1, 500, 1999)]
    whole = [recommender.explain(*one).rank for one in asked]
    alike = [[one.user_id for one in recommender.similar_users(user, 30)] for user, _ in asked[::3]]
    monkeypatch.setattr(explanation, "SCAN_ROWS", 64)
    assert [recommender.explain(*one).rank for one in asked] == whole
    assert [[one.user_id for one in recommender.similar_users(user, 30)] for user, _ in asked[::3]] == alike


def test_an_index_that_knows_nothing_of_what_was_seen(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", titles=40, users=3)
    (folder.root / "users" / "seen.parquet").unlink()
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    found = recommender.explain("user_001", "m00003")
    assert (found.seen, found.seen_titles, found.contributions, found.of) == (False, None, (), 40)
    scores = folder.unit @ folder.user_vectors[1]
    assert found.rank == 1 + int((scores > scores[3]).sum())
    assert recommender.recommend("user_001", 40).returned == 40


def test_what_cannot_be_explained(recommender: Recommender, library: Any) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        recommender.explain("nobody", "m00003")
    with pytest.raises(NotFoundError, match="No such film"):
        recommender.explain(library.user_ids[0], "No such film")


# Once a fault: a negative k cuts the list from its end.
@pytest.mark.parametrize("k", [0, -1])
def test_a_number_of_contributions_below_one(recommender: Recommender, library: Any, k: int) -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        recommender.explain(library.user_ids[50], "m00003", k)


# Who is alike


@pytest.mark.parametrize("k", [1, 10, 198, 199, 5000])
def test_similar_users_are_those_of_brute_force(recommender: Recommender, world: Any, library: Any, k: int) -> None:
    scores = world.queries.astype(np.float64) @ world.queries.T.astype(np.float64)
    for user in (0, 7, 199):
        found = recommender.similar_users(library.user_ids[user], k)
        assert [one.rank for one in found] == list(range(1, min(k, 199) + 1))
        rows = [library.user_ids.index(one.user_id) for one in found]
        assert user not in rows
        assert len(set(rows)) == len(rows)
        best = -np.sort(-np.delete(scores[user], user))[:k]
        np.testing.assert_allclose([one.score for one in found], best, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[user][rows], best, rtol=0, atol=1e-5)


# FAISS's heap leaves ties in no order.
def test_users_of_the_same_taste_stand_in_row_order(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", titles=30, users=12, vectors=np.eye(4)[np.arange(30) % 4])
    tastes = np.eye(4)[[0, 1, 0, 2, 0, 1, 0, 3, 0, 0, 2, 0]]
    np.save(folder.root / "users" / "preference_vectors.npy", tastes)
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    order = [0, 2, 4, 6, 8, 9, 11, 1, 3, 5, 7, 10]
    for user in (0, 4, 11):
        expected = [row for row in order if row != user]
        for k in (1, 3, 6, 8, 11):
            found = recommender.similar_users(f"user_{user:03d}", k)
            assert [int(one.user_id[-3:]) for one in found] == expected[:k]
            assert [one.score for one in found] == [1.0] * min(k, 6) + [0.0] * (k - 6)


def test_similar_users_that_cannot_be_found(recommender: Recommender) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        recommender.similar_users("nobody")
    with pytest.raises(UsageError, match="k is 0; it must be at least 1"):
        recommender.similar_users("user '000'", 0)


def test_a_single_user_has_nobody(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", titles=30, users=1)
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    assert Recommender.open(tmp_path / "index").similar_users("user_000", 5) == []
