"""How good recommendations are: splits, profiles, baselines and metrics by hand, and a whole run by brute force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.cli.exit import exit_code_of
from semrec_faiss.cli.main import cli
from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError
from semrec_faiss.measure.evaluate import lists as list_maker
from semrec_faiss.measure.evaluate.baselines import Liked, liked_together, most_popular, top
from semrec_faiss.measure.evaluate.document import Evaluation, evaluate_index
from semrec_faiss.measure.evaluate.evaluator import METRICS
from semrec_faiss.measure.evaluate.holdout import Ratings, leave_out_latest
from semrec_faiss.measure.evaluate.lists import ListMaker
from semrec_faiss.measure.evaluate.taste_profile import Profile, interest_vectors, merge_lists, rating_weights
from semrec_faiss.measure.quality.coverage import coverage
from semrec_faiss.measure.quality.held_out_metrics import found_at, novelty, per_user
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restriction import Exclusions, Restriction
from semrec_faiss.search.topk import restricted_top_k

NAN = float("nan")
DAY = 86_400


def ratings(*users: list[tuple[int, float, int]]) -> Ratings:
    """(title row, rating, time) of each user, in any order."""
    rows = [sorted(user) for user in users]
    flat = [one for user in rows for one in user]
    return Ratings.of(
        History(
            np.concatenate(([0], np.cumsum([len(user) for user in rows]))),
            np.array([row for row, _, _ in flat], np.int32),
            np.array([rating for _, rating, _ in flat], np.float32),
            np.array([time for _, _, time in flat], np.int64),
        )
    )


THREE = ratings(
    [(0, 5, 30), (1, 4, 10), (2, 1, 40), (3, 4.5, 20), (4, 4, 20)],
    [(1, 4, 5), (0, 5, 6)],
    [(5, 3.5, 1), (0, 3, 2), (1, 5, 3), (2, 4, 4)],
)


def test_ratings_are_in_the_order_of_time_and_ties_of_rows() -> None:
    assert THREE.rows.tolist() == [1, 3, 4, 0, 2, 1, 0, 5, 0, 1, 2]
    assert THREE.user_of.tolist() == [0] * 5 + [1] * 2 + [2] * 4


def test_the_latest_liked_titles_are_left_out_of_users_who_like_more_than_those() -> None:
    split = leave_out_latest(THREE, 2, 4.0)
    assert split.users.tolist() == [0]
    assert split.held.tolist() == [[4, 0]]
    assert split.rest.rows.tolist() == [1, 3, 2, 1, 0, 5, 0, 1, 2]
    assert split.rest.offsets.tolist() == [0, 3, 5, 9]
    split = leave_out_latest(THREE, 1, 4.0)
    assert split.users.tolist() == [0, 1, 2]
    assert split.held.tolist() == [[0], [0], [2]]
    assert split.rest.ratings.tolist() == [4, 4.5, 4, 1, 4, 3.5, 3, 5]
    with pytest.raises(UsageError, match="no user has more than 9 titles rated 4 or better"):
        leave_out_latest(THREE, 9, 4.0)


def test_without_ratings_what_is_seen_is_liked_and_without_times_nothing_is_late() -> None:
    history = History(np.array([0, 2]), np.array([3, 7], np.int32), None, np.array([9, 8]))
    assert leave_out_latest(Ratings.of(history), 1, 4.0).held.tolist() == [[3]]
    with pytest.raises(UsageError, match="does not know when"):
        Ratings.of(History(np.array([0, 1]), np.array([3], np.int32)))


def test_metrics_by_hand() -> None:
    rows = np.array([[4, 9, 7, 1], [5, 6, 2, -1], [8, 3, 0, 2]])
    held = np.array([[7, 4, 11], [1, 3, 4], [2, 90, 91]])
    assert found_at(rows, held).tolist() == [
        [True, False, True, False], [False] * 4, [False, False, False, True],
    ]  # fmt: skip
    best = 1 + 1 / np.log2(3) + 1 / 2
    expected = {
        "hit_rate": [1, 0, 1],
        "recall": [2 / 3, 0, 1 / 3],
        "ndcg": [(1 + 1 / 2) / best, 0, (1 / np.log2(5)) / best],
        "mrr": [1, 0, 1 / 4],
    }
    found = per_user(rows, held)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(per_user(rows[:, :1], held)["recall"], [1, 0, 0])  # one place can hold one title
    assert coverage(rows, 100) == 0.1
    seen_by = np.array([3, 0, 1])
    np.testing.assert_allclose(novelty(np.array([[0, 1], [2, -1]]), seen_by, 3), [(0 + 2) / 2, 1.0])
    assert np.isnan(novelty(np.array([[-1]]), seen_by, 3)).all()


def test_top_is_a_sort_with_ties_by_row() -> None:
    random = np.random.default_rng(3)
    for size in range(1, 40):
        scores = random.integers(0, 6, size).astype(np.float64)
        for k in (1, 3, size, size + 4):
            expected = np.lexsort((np.arange(size), -scores))[:k]
            assert top(scores, k).tolist() == expected.tolist()


def test_most_popular_leaves_out_what_is_seen_and_what_nobody_likes() -> None:
    liked = Liked(THREE, 4.0, 8)
    assert liked.counts.tolist() == [2, 3, 1, 1, 1, 0, 0, 0]
    lists = most_popular(liked, THREE, np.array([0, 1, 2]), 4)
    assert lists.tolist() == [[-1] * 4, [2, 3, 4, -1], [3, 4, -1, -1]]


def test_liked_together_is_the_summed_cosine_of_columns() -> None:
    random = np.random.default_rng(0)
    matrix = random.random((30, 12)) < 0.3
    matrix[:, 5] = False
    table = ratings(*[[(int(row), 5.0, 1) for row in np.flatnonzero(user)] for user in matrix])
    wide = matrix.astype(np.float64)
    counts = wide.sum(axis=0)
    cosine = (wide.T @ wide) / np.maximum(np.sqrt(np.outer(counts, counts)), 1e-9)
    lists = liked_together(Liked(table, 4.0, 12), table, np.arange(30), 3)
    for user in range(30):
        scores = cosine[matrix[user]].sum(axis=0)
        scores[matrix[user]] = 0
        expected = [int(row) for row in np.lexsort((np.arange(12), -np.round(scores, 12)))[:3] if scores[row] > 1e-12]
        found = [row for row in lists[user].tolist() if row >= 0]
        np.testing.assert_allclose(scores[found], scores[expected], atol=1e-12)
        assert not matrix[user][found].any()


def test_weights_by_hand() -> None:
    stars, times = np.array([5.0, 3.0, 0.5, NAN]), np.array([0, 10, 20, 30]) * DAY

    def weights(**profile: Any) -> list[float]:
        return rating_weights(stars, times, Profile(**profile)).tolist()

    assert weights() == [1, 0.5, 0, 0.5]
    assert weights(centre="user") == [2.125, 0.125, -2.375, 0.125]
    assert weights(centre="positive") == [2.125, 0.125, 0, 0.125]
    assert weights(half_life_days=10) == [1 / 8, 0.5 / 4, 0, 0.5]
    alike = rating_weights(np.full(3, 4.0), times[:3], Profile(centre="user"))
    assert alike.tolist() == [0.75] * 3


def test_one_interest_is_the_weighted_mean() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    found, heaviness = interest_vectors(vectors, np.array([1.0, -0.5, 0.25]), 1, 0)
    np.testing.assert_allclose(found, [[1.25, -0.25]])
    assert heaviness.tolist() == [1.25]
    for weights in ([0.0, 0.0, 0.0], [0.0, -1.0, 0.0]):
        assert interest_vectors(vectors, np.array(weights), 3, 0)[0].shape == (0, 2)
    assert interest_vectors(np.array([[1, 0], [-1, 0]], np.float32), np.ones(2), 1, 0)[0].shape == (0, 2)


def test_interests_are_the_clusters_heaviest_first() -> None:
    random = np.random.default_rng(1)
    centres = np.eye(3, 16, dtype=np.float32)
    labels = np.repeat([0, 1, 2], [4, 10, 6])
    vectors = centres[labels] + 0.05 * random.standard_normal((20, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, heaviness = interest_vectors(vectors, np.where(labels == 0, 1.0, 0.25), 3, 7)
    assert heaviness.tolist() == [4.0, 2.5, 1.5]
    for mean, label in zip(found, (0, 1, 2), strict=True):
        own = vectors[labels == label].astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), own / np.linalg.norm(own), atol=1e-6)
    few, _ = interest_vectors(vectors[:5], np.ones(5), 8, 7)
    assert len(few) == 2  # two titles an interest at least


def test_lists_of_interests_become_one() -> None:
    rows = np.array([[3, 1, 4, -1], [1, 5, 9, 2]])
    scores = np.array([[0.9, 0.8, 0.1, -np.inf], [0.85, 0.5, 0.4, 0.3]])
    assert merge_lists(rows, scores, 8, "score").tolist() == [3, 1, 5, 9, 2, 4, -1, -1]
    assert merge_lists(rows, scores, 5, "turns").tolist() == [3, 1, 5, 4, 9]
    assert merge_lists(rows[:0], scores[:0], 2, "score").tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"interest": "3"}, "there is no setting 'interest'; there are half_life_days"),
        ({"interests": "0"}, "interests is 0; it must be from 1 to 64"),
        ({"interests": "2.5"}, "interests is '2.5'; a whole number is expected"),
        ({"half_life_days": "0"}, "half_life_days is 0.0; it must be above 0, or none"),
        ({"half_life_days": "nan"}, "half_life_days is nan"),
        ({"centre": "left"}, "centre is 'left'; it must be none, user or positive"),
        ({"merge": "none"}, "merge is 'none'"),
        ({"popularity": "-1"}, "popularity is -1.0"),
        ({"pool": "0"}, "pool is 0"),
    ],
)
def test_profiles_that_cannot_be(values: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Profile.from_text(values)


def test_profiles_are_spelled() -> None:
    profile = Profile.from_text({"half_life_days": "30", "interests": "4"})
    assert profile == Profile(half_life_days=30.0, interests=4)
    assert profile.describe() == "half_life_days=30, interests=4"
    assert Profile.from_text({"half_life_days": "none"}).describe() == "defaults"


@pytest.fixture
def index(rated_index: Any) -> tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]]:
    """The index, the unit vectors and (row, rating, time) of each user."""
    return rated_index.path, rated_index.unit, rated_index.ratings


def test_a_whole_run_is_what_brute_force_gives(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    path, unit, told = index
    document = evaluate_index(Evaluation(path, held=2, liked=3.5))
    hits, found = [], []
    for own in told:
        by_time = sorted(own, key=lambda one: (one[2], one[0]))
        liked = [row for row, star, _ in by_time if star >= 3.5]
        if len(liked) <= 2:
            continue
        held = set(liked[-2:])
        rest = [(row, star) for row, star, _ in by_time if row not in held]
        vector = sum((star - 1) / 4 * unit[row] for row, star in rest)
        scores = unit @ vector
        scores[[row for row, _ in rest]] = -np.inf
        first = np.argsort(-scores)[:10].tolist()
        hits.append(float(bool(held & set(first))))
        found.append(len(held & set(first)) / 2)
    ours = document["methods"]["recommender"]["at_10"]
    assert document["protocol"]["users_evaluated"] == len(hits)
    assert ours["hit_rate"]["mean"] == pytest.approx(np.mean(hits), abs=1e-6)
    assert ours["recall"]["mean"] == pytest.approx(np.mean(found), abs=1e-6)
    assert ours["hit_rate"]["interval"]["low"] < ours["hit_rate"]["mean"] < ours["hit_rate"]["interval"]["high"]
    assert 0.3 < np.mean(hits) < 1, "users like what is near, so that the run has something to find"
    difference = document["differences"]["most_popular"]["recall_at_10"]["mean"]
    popular = document["methods"]["most_popular"]["at_10"]["recall"]["mean"]
    assert difference == pytest.approx(ours["recall"]["mean"] - popular, abs=2e-6)


def test_a_profile_is_chosen_on_other_titles_than_it_is_judged_by(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    path = index[0]
    grid = {"interests": ["1", "3"], "popularity": ["0", "0.2"], "merge": ["score", "turns"]}
    document = evaluate_index(Evaluation(path, held=2, liked=3.5, grid=grid))
    assert len(document["grid"]) == 8
    best = max(document["grid"], key=lambda one: one["ndcg_at_10"])
    assert document["profile"] == best["profile"]
    assert set(METRICS) <= set(best)
    chosen = Profile(**document["profile"])
    alone = evaluate_index(Evaluation(path, held=2, liked=3.5, profile=chosen))
    assert alone["methods"]["recommender"] == document["methods"]["recommender"]
    assert alone["grid"] is None
    again = evaluate_index(Evaluation(path, held=2, liked=3.5, grid=grid))
    assert [again[name] for name in ("grid", "methods")] == [document[name] for name in ("grid", "methods")]


def test_the_prior_brings_up_what_is_liked(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    """With a weight that drowns all similarity the lists are those of the most popular, ties aside."""
    document = evaluate_index(Evaluation(index[0], held=2, liked=3.5, profile=Profile(popularity=1000.0)))
    ours, popular = (document["methods"][name]["at_10"] for name in ("recommender", "most_popular"))
    assert abs(ours["hit_rate"]["mean"] - popular["hit_rate"]["mean"]) < 0.2
    assert ours["novelty"]["mean"] < evaluate_index(Evaluation(index[0], held=2, liked=3.5))["methods"]["recommender"][
        "at_10"]["novelty"]["mean"]  # fmt: skip


def test_a_pool_of_an_exact_index_is_what_its_search_finds(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    vectors = Recommender.open(index[0]).index
    queries = vectors.prepare(np.random.default_rng(0).standard_normal((7, vectors.dim)))
    seen = Exclusions.of([[3, 9], [], list(range(100)), [0], [5], [6, 149], list(range(150))])
    for fetch in (1, 60, vectors.count):
        rows, scores = ListMaker(vectors, 4.0, 0).find(queries, seen, fetch, is_pool=True)
        found = restricted_top_k(vectors, queries, fetch, Restriction(vectors.count, None, seen))
        assert np.array_equal(rows, np.sort(rows, axis=1)) or fetch == vectors.count
        for mine, theirs in zip(rows, found.rows, strict=True):
            assert set(mine[mine >= 0].tolist()) == set(theirs[theirs >= 0].tolist())
        assert np.array_equal(np.isneginf(scores), rows < 0)
        there = rows >= 0
        own = np.einsum(
            "qd,qkd->qk", queries, vectors.vectors(np.maximum(rows, 0).ravel()).reshape(*rows.shape, vectors.dim)
        )
        np.testing.assert_allclose(scores[there], own[there], atol=1e-6)


def test_users_are_taken_in_blocks_of_so_many_queries(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list_maker._blocks(np.array([0, 3, 3, 5, 20, 21, 22]), 5)
    assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 4), (4, 6)]
    plan = Evaluation(index[0], held=2, liked=3.5, profile=Profile(interests=3, popularity=0.2))
    at_once = evaluate_index(plan)["methods"]
    monkeypatch.setattr(list_maker, "BLOCK_CELLS", 1000)
    assert evaluate_index(plan)["methods"] == at_once
    monkeypatch.setattr(list_maker, "SCANNED_BYTES", 0)  # by the index's own search
    assert evaluate_index(plan)["methods"] == at_once


def test_the_command(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def semrec(*arguments: str) -> tuple[int, str, str]:
        given = ["evaluate", str(index[0]), "--hold-out", "2", *arguments]
        code = exit_code_of(lambda: cli.main(args=given, prog_name="semrec", standalone_mode=False), debug=False)
        return (code, *capsys.readouterr())

    saved = tmp_path / "e.json"
    code, out, _ = semrec("--grid", "interests=1,2", "--grid", "half-life-days=none,30", "--out", str(saved))
    assert code == 0
    assert out.startswith("4 profiles, on the titles liked before those left out, best by ndcg at 10:\n")
    assert [line.split()[0] for line in out.splitlines() if " 10 " in line][:1] == ["recommender"]
    document = json.loads(saved.read_text())
    assert document["protocol"]["held_out"] == 2
    difference = document["differences"]["most_popular"]["ndcg_at_10"]
    low, high = (difference["interval"][bound] for bound in ("low", "high"))
    line = f"ndcg at 10 less that of most popular, paired by user: {difference['mean']:+.3f} [{low:+.3f} {high:+.3f}]"
    assert line in out.splitlines()
    code, out, _ = semrec("--json", "--users", "5")
    assert json.loads(out)["protocol"]["users_evaluated"] == 5
    for wrong in (("--grid", "interests"), ("--grid", "x=1"), ("--by", "x"), ("--grid", "pool=1", "--grid", "pool=2")):
        code, out, err = semrec(*wrong)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
