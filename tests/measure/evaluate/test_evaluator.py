"""How good recommendations are: metrics by hand and by ranx, and whole runs by brute force."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended, Semrec
from numpy.typing import NDArray

import semrec_faiss
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from semrec_faiss.errors import ConfigError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.measure.evaluate import document as evaluation_document
from semrec_faiss.measure.evaluate import lists as list_maker
from semrec_faiss.measure.evaluate.document import Evaluation
from semrec_faiss.measure.evaluate.evaluator import BESIDE
from semrec_faiss.measure.evaluate.holdout import padded
from semrec_faiss.measure.evaluate.lists import ListMaker
from semrec_faiss.measure.quality.coverage import coverage
from semrec_faiss.measure.quality.held_out_metrics import found_at, novelty, per_user
from semrec_faiss.measure.quality.metrics import difference_interval
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.topk import restricted_top_k


def evaluate_index(plan: Evaluation) -> dict[str, Any]:
    """What `semrec evaluate` writes."""
    return evaluation_document.evaluate_index(plan).as_json()


def test_metrics_by_hand() -> None:
    rows = np.array([[4, 9, 7, 1], [5, 6, 2, -1], [8, 3, 0, 2]])
    held_out = np.array([[7, 4, 11], [1, 3, 4], [2, 90, 91]])
    assert found_at(rows, held_out).tolist() == [
        [True, False, True, False],
        [False] * 4,
        [False, False, False, True],
    ]
    best = 1 + 1 / np.log2(3) + 1 / 2
    expected = {
        "hit_rate": [1, 0, 1],
        "recall": [2 / 3, 0, 1 / 3],
        "ndcg": [(1 + 1 / 2) / best, 0, (1 / np.log2(5)) / best],
        "mrr": [1, 0, 1 / 4],
    }
    found = per_user(rows, held_out)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(per_user(rows[:, :1], held_out)["recall"], [1, 0, 0])  # one place can hold one title
    assert coverage(rows, 100) == 0.1
    seen_by = np.array([3, 0, 1])
    np.testing.assert_allclose(novelty(np.array([[0, 1], [2, -1]]), seen_by, 3), [(0 + 2) / 2, 1.0])
    assert np.isnan(novelty(np.array([[-1]]), seen_by, 3)).all()


def numbers(text: str) -> list[list[int]]:
    return [[int(number) for number in line.split()] for line in text.strip().splitlines()]


RANX_LISTS = numbers(
    """
    38 11 18 10 23 28 4 36 34 27
    27 1 5 13 21 36 3 38 29 28
    15 17 33 24 21 36 6 27 1 5
    24 7 37 33 1 11 31 26 38 29
    23 9 14 30 21 7 39 3 5 37
    36 3 20 21 8 7 30 15 0 16
    29 14 3 7 22 1 20 39 25 31
    15 1 13 38 5 35 17 26 2 32
    """
)
RANX_HELD = numbers(
    """
    25 15 19 6 8 10 1 36 30 0 2
    3
    28 39 0 38 15 31 10 19 17 35 30 16
    3
    39 26 13 31 4 33 32 28 36 22 1
    36 13 22 5 29 30 20 31 27 21
    25 12 5 13 1 16 20 9 32
    22 20 36 15 12 7 13 24 4
    """
)
RANX = {
    "hit_rate": [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0],
    "ndcg": [
        0.164219586306,
        0.333333333333,
        0.358954210172,
        0.0,
        0.073363922099,
        0.498289935916,
        0.232829191192,
        0.352568324122,
    ],
    "mrr": [0.25, 0.142857142857, 1.0, 0.0, 0.142857142857, 1.0, 0.166666666667, 1.0],
    "recall": [0.181818181818, 1.0, 0.166666666667, 0.0, 0.090909090909, 0.4, 0.333333333333, 0.222222222222],
}
"""hit_rate@10, ndcg@10, mrr@10 and recall@10 of ranx 0.3 for these lists, each gain 1."""


def test_metrics_are_those_of_ranx() -> None:
    found = per_user(np.array(RANX_LISTS), padded([np.array(own) for own in RANX_HELD]))
    for name in ("hit_rate", "ndcg", "mrr"):
        np.testing.assert_allclose(found[name], RANX[name], atol=1e-10, err_msg=name)
    # ranx divides by all that should be found, also by what ten places cannot hold.
    sizes = np.array([len(own) for own in RANX_HELD])
    np.testing.assert_allclose(found["recall"] * np.minimum(sizes, 10) / sizes, RANX["recall"], atol=1e-10)


def test_a_difference_of_nothing_is_certain() -> None:
    nothing = difference_interval(np.zeros(40))
    assert (nothing.low, nothing.high) == (0, 0)
    random = np.random.default_rng(0)
    drawn = random.normal(0.02, 0.1, 400)
    found = difference_interval(drawn, seed=1)
    half = 1.96 * drawn.std() / 20  # the normal approximation
    assert found.low == pytest.approx(drawn.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(drawn.mean() + half, abs=0.15 * half)


@pytest.mark.slow
def test_learned_vectors_on_movielens(movielens: Path, tmp_path: Path) -> None:
    """What README and results promise, with room for another machine's arithmetic."""
    settings = LearnSettings()
    report = learn_folder(movielens, tmp_path / "ml", settings, interactions=movielens / "ratings.csv")
    assert (report.titles, report.interactions, report.users) == (9742, 100_836, 610)
    values = {"dataset": str(tmp_path / "ml"), "output": str(tmp_path / "index"), "device": "cpu"}
    build_index(config_from_dict(values | {"index": {"normalize": False}}))
    document = evaluate_index(Evaluation(tmp_path / "index"))
    ours, beside = document["methods"]["recommender"]["at_10"], document["beside"]
    assert ours["ndcg"]["mean"] > 0.1
    assert ours["hit_rate"]["mean"] > 0.39
    assert ours["coverage"] > 0.09
    assert document["differences"]["liked_together"]["ndcg_at_10"]["interval"]["low"] > 0.015
    means = {name: beside[name]["methods"]["recommender"]["at_10"]["ndcg"]["mean"] for name in BESIDE}
    assert means["global_time"] > 0.06
    assert means["new_users"] > 0.1
    assert means["cold_titles"] > 0.2
    nearest = [result.title for result in Recommender.open(tmp_path / "index").similar("Toy Story (1995)", 5)]
    assert nearest[:2] == ["Toy Story 2 (1999)", "Toy Story 3 (2010)"]


@pytest.fixture
def index(rated_index: Any) -> tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]]:
    """The index, the unit vectors and (row, rating, time) of each user."""
    return rated_index.path, rated_index.unit, rated_index.ratings


def test_a_whole_run_is_what_brute_force_gives(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    path, unit, told = index
    document = evaluate_index(Evaluation(path, held_out=2, liked=3.5))
    hits, found = [], []
    for own in told:
        by_time = sorted(own, key=lambda one: (one[2], one[0]))
        liked = [row for row, star, _ in by_time if star >= 3.5]
        if len(liked) <= 2:
            continue
        held_out = set(liked[-2:])
        cut = min(at for row, _, at in by_time if row in held_out)
        rest = [(row, star) for row, star, at in by_time if at < cut]
        vector = sum((star - 1) / 4 * unit[row] for row, star in rest)
        scores = unit @ vector
        scores[[row for row, _ in rest]] = -np.inf
        first = np.argsort(-scores)[:10].tolist()
        hits.append(float(bool(held_out & set(first))))
        found.append(len(held_out & set(first)) / 2)
    ours = document["methods"]["recommender"]["at_10"]
    assert document["protocol"]["users_evaluated"] == len(hits)
    assert ours["hit_rate"]["mean"] == pytest.approx(np.mean(hits), abs=1e-6)
    assert ours["recall"]["mean"] == pytest.approx(np.mean(found), abs=1e-6)
    assert ours["hit_rate"]["interval"]["low"] < ours["hit_rate"]["mean"] < ours["hit_rate"]["interval"]["high"]
    assert 0.3 < np.mean(hits) < 1, "users like what is near, so that the run has something to find"
    difference = document["differences"]["most_popular"]["recall_at_10"]["mean"]
    popular = document["methods"]["most_popular"]["at_10"]["recall"]["mean"]
    assert difference == pytest.approx(ours["recall"]["mean"] - popular, abs=2e-6)


# Once a fault: minutes went by without a word, and each split began to count from nothing.
def test_progress_tells_how_many_splits_are_judged_and_every_step_to_its_end(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    evaluation_document.evaluate_index(
        Evaluation(index[0], held_out=2, liked=3.5), lambda what, *far: told.setdefault(what, []).append(far)
    )
    assert all(steps[-1][0] == steps[-1][1] for steps in told.values())
    parts = [int(found[1]) for what in told if (found := re.search(r", part (\d+) of 20$", what))]
    assert parts == sorted(parts) and parts[0] == 1 and parts[-1] == 20
    assert {
        "popular titles, part 1 of 20",
        "titles by chance, part 1 of 20",
        "confidence intervals, part 20 of 20",
    } <= set(told)


def test_python_gets_what_the_command_writes(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]], semrec: Semrec, tmp_path: Path
) -> None:
    options = ("--hold-out", "2", "--liked", "3.5", "--users", "9", "--seed", "3", "--lenient", "--interests", "3")
    assert semrec("evaluate", index[0], *options, "--out", tmp_path / "found.json").code == 0
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    asked = semrec_faiss.Evaluation(
        str(index[0]), held_out=2, liked=3.5, users=9, seed=3, strict=False, changes={"interests": 3}
    )
    found = semrec_faiss.evaluate_index(asked).as_json()
    assert found.pop("environment").keys() == written.pop("environment").keys()
    assert found == written
    assert written["protocol"]["users_evaluated"] == 9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"index": 5}, "the index is 5 (int); a path is expected"),
        ({"held_out": 0}, "held_out is 0; it must be at least 1"),
        ({"users": 2.5}, "users is 2.5; a whole number is expected"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 2.14748e+09"),
        ({"liked": "4"}, "liked is '4' (str); a number is expected"),
        ({"strict": 1}, "strict is 1 (int); True or False is expected"),
        ({"changes": [3]}, "changes is [3] (list); a mapping is expected"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_at_once(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Evaluation(**({"index": "indexes/demo"} | wrong))


@pytest.mark.parametrize(("changes", "said"), [({"interest": 3}, "interests"), ({"interests": 0}, "interests")])
def test_a_setting_that_no_profile_has_is_refused(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate_index(Evaluation(index[0], changes=changes))


@pytest.mark.slow
def test_the_other_protocols_stand_beside_it_and_a_changed_profile_beside_the_given(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    document = evaluate_index(Evaluation(index[0], held_out=2, liked=3.5, changes={"interests": 3}))
    assert document["profile"] == Profile(interests=3).model_dump()
    assert document["build"] == f"semrec build {index[0]} --set profile.interests=3"
    assert set(document["beside"]) == set(BESIDE)
    for one in document["beside"].values():
        assert set(one["methods"]) == {"recommender", "most_popular", "liked_together", "by_chance"}
    plain = evaluate_index(Evaluation(index[0], held_out=2, liked=3.5))
    assert document["methods"]["recommender_as_given"] == plain["methods"]["recommender"]
    assert plain["build"] is None
    assert "recommender_as_given" not in plain["methods"]
    cold = plain["beside"]["cold_titles"]["methods"]
    assert cold["most_popular"]["at_10"]["hit_rate"]["mean"] == 0, "nobody has rated a cold title"
    assert cold["recommender"]["at_10"]["ndcg"]["mean"] > cold["by_chance"]["at_10"]["ndcg"]["mean"]
    assert plain["protocol"]["strict"]
    lenient = evaluate_index(Evaluation(index[0], held_out=2, liked=3.5, strict=False))
    assert lenient["methods"] != plain["methods"]
    for name in BESIDE:  # strict whatever the latest are
        assert lenient["beside"][name]["differences"] == plain["beside"][name]["differences"]


def test_the_prior_brings_up_what_is_liked(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    """With a weight that drowns all similarity the lists are those of the most popular, ties aside."""
    document = evaluate_index(Evaluation(index[0], held_out=2, liked=3.5, changes={"popularity": 1000.0}))
    ours, popular = (document["methods"][name]["at_10"] for name in ("recommender", "most_popular"))
    assert abs(ours["hit_rate"]["mean"] - popular["hit_rate"]["mean"]) < 0.2
    assert (
        ours["novelty"]["mean"]
        < evaluate_index(Evaluation(index[0], held_out=2, liked=3.5))["methods"]["recommender"]["at_10"]["novelty"][
            "mean"
        ]
    )


def test_a_pool_of_an_exact_index_is_what_its_search_finds(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
) -> None:
    vectors = Recommender.open(index[0]).index
    queries = vectors.prepare(np.random.default_rng(0).standard_normal((7, vectors.dim)))
    seen = Exclusions.of([[3, 9], [], list(range(100)), [0], [5], [6, 149], list(range(150))])
    for fetch, mask in ((1, None), (60, None), (vectors.count, None), (60, np.arange(vectors.count) % 3 > 0)):
        restriction = Restriction(vectors.count, mask, seen)
        rows, scores = ListMaker(vectors, 4.0, 0).find(queries, restriction, fetch, is_pool=True)
        found = restricted_top_k(vectors, queries, fetch, restriction)
        assert np.array_equal(rows, np.sort(rows, axis=1)) or fetch == vectors.count
        for mine, theirs in zip(rows, found.rows, strict=True):
            assert set(mine[mine >= 0].tolist()) == set(theirs[theirs >= 0].tolist())
        assert np.array_equal(np.isneginf(scores), rows < 0)
        there = rows >= 0
        own = np.einsum(
            "qd,qkd->qk", queries, vectors.vectors(np.maximum(rows, 0).ravel()).reshape(*rows.shape, vectors.dim)
        )
        np.testing.assert_allclose(scores[there], own[there], atol=1e-6)


@pytest.mark.slow
def test_users_are_taken_in_blocks_of_so_many_queries(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Evaluation(index[0], held_out=2, liked=3.5, changes={"interests": 3, "popularity": 0.2})
    at_once = evaluate_index(plan)["methods"]
    monkeypatch.setattr(list_maker, "BLOCK_CELLS", 1000)
    assert evaluate_index(plan)["methods"] == at_once
    monkeypatch.setattr(list_maker, "SCANNED_BYTES", 0)  # by the index's own search
    assert evaluate_index(plan)["methods"] == at_once


def test_the_command(
    index: tuple[Path, NDArray[np.float64], list[list[tuple[int, float, int]]]],
    tmp_path: Path,
    semrec: Semrec,
) -> None:
    def evaluate(*arguments: str) -> Ended:
        return semrec("evaluate", index[0], "--hold-out", "2", *arguments)

    saved = tmp_path / "e.json"
    code, out, _ = evaluate("--half-life-days", "30", "--interests", "2", "--out", str(saved))
    assert code == 0
    assert "left out (4 stars or more); profile: half_life_days=30, interests=2\n" in out.replace("\n", "\n", 1)
    assert "the rest of what each has rated; those in the index were not judged\n" in out
    assert [line.split()[0] for line in out.splitlines() if " 10 " in line][:1] == ["recommender"]
    assert out.endswith(f"semrec build {index[0]} --set profile.half_life_days=30.0 --set profile.interests=2\n")
    document = json.loads(saved.read_text())
    assert document["protocol"]["held_out"] == 2
    difference = document["differences"]["most_popular"]["ndcg_at_10"]
    low, high = (difference["interval"][bound] for bound in ("low", "high"))
    line = f"ndcg at 10 less that of most popular, paired by user: {difference['mean']:+.3f} [{low:+.3f} {high:+.3f}]"
    assert line in out.splitlines()
    cold = document["beside"]["cold_titles"]["users_evaluated"]  # once told as that many users, of fewer there are
    told = f"titles that nobody has rated ({cold} users, counted once for each draw of such titles):"
    assert told in out.splitlines()
    code, out, _ = evaluate("--json", "--users", "5")
    assert json.loads(out)["protocol"]["users_evaluated"] == 5
    for wrong in (("--half-life", "0"), ("--interests", "65"), ("--by", "x"), ("--half-life", "never")):
        code, out, err = evaluate(*wrong)
        assert (code, out) == (2, "")
        assert "error: " in err.lower()
    assert "fix: did you mean ndcg_at_10?" in evaluate("--by", "ndcg").err


def test_of_what_nobody_rated_all_counts_as_liked_and_the_command_says_so(tmp_path: Path, semrec: Semrec) -> None:
    vectors = np.random.default_rng(3).normal(size=(30, 8)).astype(np.float32)
    songs = {"sku": list(range(30)), "name": [f"Song {n}" for n in range(30)]}
    whens = [1.7e9 + n for n in range(60)]
    plays = {"customer": [n % 6 for n in range(60)], "sku": [n // 2 for n in range(60)], "when": whens}
    semrec_faiss.build(vectors, songs, interactions=plays, config="flat", output=tmp_path / "index")
    code, out, _ = semrec("evaluate", tmp_path / "index", "--hold-out", "2")
    assert code == 0
    assert "left out (nothing is rated: all that was seen counts as liked); profile: " in out
    assert "the rest of what each has seen; " in out
