"""Recommending by a profile, likeness in an index of inner products, and explanations that add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from conftest import Semrec

import semrec_faiss
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, USER_VECTORS
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from semrec_faiss.errors import ConfigError, DataError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.measure.evaluate.evaluator import EvaluationProtocol, Evaluator
from semrec_faiss.measure.evaluate.holdout import Split
from semrec_faiss.measure.evaluate.lists import ListMaker
from semrec_faiss.search.export import export_all_users, what_lists_depend_on
from semrec_faiss.search.profile import profile_search
from semrec_faiss.search.profile.interests import interest_vectors
from semrec_faiss.search.profile.merging import merged
from semrec_faiss.search.profile.profile_search import SEED, ProfileSearch
from semrec_faiss.search.profile.taste import Taste, said_once
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.wish import Wish


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    """The place of a text folder, a learned folder and its index; the last of 41 users likes nothing."""
    root = tmp_path_factory.mktemp("served")
    made = make_folder(root / "texts", titles=150, dim=16)
    random = np.random.default_rng(2)
    rows = []
    for user in range(40):
        near = np.argsort(-(made.unit @ made.unit[random.integers(140)]))[:60]
        for row in random.choice(near[near < 140], 15, replace=False):
            rows.append((f"u{user:02d}", made.media_ids[row], float(random.integers(2, 6)), int(random.integers(9999))))
    rows.append(("u40", made.media_ids[3], 1.0, 5))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE seen (user_id VARCHAR, media_id VARCHAR, rating DOUBLE, timestamp BIGINT)")
        connection.executemany("INSERT INTO seen VALUES (?, ?, ?, ?)", rows)
        connection.execute(f"COPY seen TO '{root / 'seen.parquet'}' (FORMAT parquet)")
    learn_folder(
        root / "texts", root / "data", LearnSettings(rank=12, directions=8), interactions=root / "seen.parquet"
    )
    build(root, "index")
    return root


def build(root: Path, name: str, **more: Any) -> Recommender:
    index = {"type": "flat", "normalize": False}
    values = {"dataset": str(root / "data"), "output": str(root / name), "index": index, "device": "cpu", **more}
    build_index(config_from_dict(values))
    return Recommender.open(root / name)


@pytest.mark.slow
def test_the_index_keeps_what_was_learned(learned: Path) -> None:
    recommender = Recommender.open(learned / "index")
    profile = recommender.saved.config.profile
    assert profile == Profile(weights="liked", half_life=10.0)
    texts = np.load(learned / "texts" / MEDIA_VECTORS)
    made = recommender.saved.transformation
    assert made is not None
    new = made.title_vectors(texts[140:])  # nobody has rated these
    np.testing.assert_allclose(new, recommender.index.vectors(np.arange(140, 150)), atol=1e-6)
    stored = np.load(learned / "data" / USER_VECTORS)
    np.testing.assert_allclose(recommender.users.vectors, stored, atol=1e-6)
    assert recommender.users.without_likes.tolist() == [40]
    assert verify(learned / "index").manifest.users == 41


def test_a_users_list_is_that_of_the_weighted_mean(learned: Path) -> None:
    recommender = Recommender.open(learned / "index")
    titles = recommender.index.vectors(np.arange(150)).astype(np.float64)
    history = recommender.users.history
    for user in (0, 7, 39):
        part = slice(*history.offsets[user : user + 2])
        assert history.ratings is not None and history.timestamps is not None
        stars, times = history.ratings[part], history.timestamps[part]
        liked = [(at, row) for at, row, star in zip(times, history.rows[part], stars, strict=True) if star >= 4]
        weights = {row: 0.5 ** (sum(other > at for other, _ in liked) / 10) for at, row in liked}
        vector = sum(weight * titles[row] for row, weight in weights.items()) / sum(weights.values())
        scores = titles @ vector
        scores[history.rows[part]] = -np.inf
        answer = recommender.recommend(f"u{user:02d}", 6)
        np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:6], rtol=1e-4, atol=1e-7)
        assert "popular" not in answer.query


def test_who_likes_nothing_gets_the_popular_titles_and_is_told_so(learned: Path) -> None:
    recommender = Recommender.open(learned / "index")
    history = recommender.users.history
    assert history.ratings is not None
    likes = np.bincount(history.rows[history.ratings >= 4], minlength=150)
    order = [row for row in np.lexsort((np.arange(150), -likes)).tolist() if row != 3]
    answers = recommender.recommend(["u05", "u40"], 8)
    assert [answer.query["popular"] for answer in answers] == [False, True]
    assert answers.to_arrow()["query_popular"].unique().to_pylist() == [False, True]
    assert answers[1].rows.tolist() == order[:8]
    assert answers[1].scores.tolist() == likes[order[:8]].tolist()
    assert answers[0].rows.tolist() == recommender.recommend("u05", 8).rows.tolist()
    dramas = recommender.recommend("u40", 3, where="'Drama' IN genres", exclude=["m00005"])
    assert dramas.rows.tolist() == [row for row in order if row % 5 == 0 and row != 5][:3]
    assert dramas.matching == 29
    assert recommender.recommend("u40", 3, profile={"interests": 4}).query["popular"]
    assert recommender.recommend("u40", 2, include_seen=True).matching == 150


@pytest.mark.parametrize("merge", ["score", "turns"])
@pytest.mark.parametrize(("interests", "popularity"), [(3, 0.0), (1, 0.4), (3, 0.05)])
def test_interests_and_popularity_by_brute_force(
    rated_index: Any, interests: int, popularity: float, merge: str
) -> None:
    recommender = Recommender.open(rated_index.path)
    changes = {"interests": interests, "popularity": popularity, "merge": merge}
    search = ProfileSearch(recommender.searcher, recommender.users)
    likes = np.log1p(search.liked_by(4.0))
    for user in range(0, 40, 7):
        weighed = search.weighed(np.array([user]), Profile())
        rows, weights = weighed.rows, weighed.weights
        np.testing.assert_allclose(weights, [(star - 1) / 4 for _, star, _ in sorted(rated_index.ratings[user])])
        vectors, _ = interest_vectors(recommender.index.vectors(rows), weights, interests, SEED)
        scores = recommender.index.prepare(vectors) @ rated_index.unit.T + popularity * likes / likes.max()
        scores[:, rows] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        values = np.take_along_axis(scores, order, axis=1).astype(np.float64)
        (expected,), _ = merged(order, values, np.array([len(order)]), 9, merge)
        answer = recommender.recommend(recommender.users.ids[user], 9, profile=changes)
        best = scores.max(axis=0)
        np.testing.assert_allclose(best[answer.rows], best[expected], atol=1e-5)
        np.testing.assert_allclose(answer.scores, best[answer.rows], atol=1e-5)
        if merge == "score":
            assert (np.diff(answer.scores) <= 1e-6).all()
        varied = recommender.recommend(recommender.users.ids[user], 5, profile=changes, max_per={"year": 1})
        assert len({result.year for result in varied}) == 5


@pytest.mark.parametrize("merge", ["score", "turns"])
@pytest.mark.parametrize("wish", [{}, {"where": "'Drama' IN genres"}, {"diversity": 0.3}, {"max_per": {"year": 1}}])
def test_many_users_are_answered_as_one_by_one(learned: Path, merge: str, wish: dict[str, Any]) -> None:
    recommender = Recommender.open(learned / "index")
    profile = {"interests": 3, "popularity": 0.02, "merge": merge}
    together = recommender.recommend(recommender.users.ids, 12, profile=profile, **wish)
    for user, answer in zip(recommender.users.ids, together, strict=True):
        alone = recommender.recommend(user, 12, profile=profile, **wish)
        assert alone.rows.tolist() == answer.rows.tolist()
        assert alone.scores.tolist() == answer.scores.tolist()
        assert (alone.matching, alone.query.get("popular", False)) == (answer.matching, answer.query["popular"])


@pytest.mark.parametrize(
    "changes",
    [{"interests": 4}, {"popularity": 0.3, "pool": 120}, {"interests": 2, "merge": "turns", "half_life": 3.0}],
)
def test_what_is_evaluated_is_what_is_recommended(rated_index: Any, changes: dict[str, Any]) -> None:
    """The lists that `semrec evaluate` makes of everything known are those that `semrec recommend` gives."""
    recommender = Recommender.open(rated_index.path)
    ratings = Evaluator(rated_index.path, (), EvaluationProtocol())._ratings
    everybody = np.arange(40)
    split = Split(ratings, ratings, everybody, np.empty((40, 0), np.int64))
    lists = ListMaker(recommender.index, 4.0, SEED).lists(split, Profile(**changes))
    answers = recommender.recommend(recommender.users.ids, 10, profile=changes)
    same = [answer.rows.tolist() == own[:10].tolist() for answer, own in zip(answers, lists, strict=True)]
    assert np.mean(same) > 0.9, "near-ties aside"


def test_an_index_serves_the_profile_it_was_built_with(learned: Path, tmp_path: Path) -> None:
    profile = {"weights": "liked", "interests": 3, "popularity": 0.01, "half_life": 5.0}
    recommender = build(learned, "varied", profile=profile)
    plain = Recommender.open(learned / "index")
    asked = ["u01", "u17", "u40"]
    served, changed = recommender.recommend(asked, 7), plain.recommend(asked, 7, profile=profile)
    assert [one.rows.tolist() for one in served] == [one.rows.tolist() for one in changed]
    assert plain.recommend("u01", 7).rows.tolist() != served[0].rows.tolist()
    export_all_users(recommender, tmp_path / "all.parquet", 7)
    export_all_users(plain, tmp_path / "changed.parquet", 7, profile=profile)
    for name in ("all", "changed"):
        found = duckdb.sql(f"SELECT media_id FROM '{tmp_path / name}.parquet' WHERE user_id = 'u17' ORDER BY rank")
        assert [one for (one,) in found.fetchall()] == [result.media_id for result in served[1]]
    one = recommender.recommend_for(Taste(likes=["m00001", "m00002", "m00050", "m00051"]), 5)
    assert one.returned == 5
    assert not {1, 2, 50, 51} & set(one.rows.tolist())


def test_profiles_that_cannot_be_are_told(learned: Path, rated_index: Any, make_folder: Any, tmp_path: Path) -> None:
    recommender = Recommender.open(learned / "index")
    for profile, message in (
        ({"interests": 0}, "profile's interests: .* not 0"),
        ({"centre": "user"}, "the profile has no setting 'centre'"),
        (7, "the profile is 7"),
    ):
        with pytest.raises(UsageError, match=message):
            recommender.recommend("u01", profile=profile)
    with pytest.raises(ConfigError, match="holds learned vectors"):
        build_index(
            config_from_dict({"dataset": str(learned / "data"), "output": str(tmp_path / "x"), "device": "cpu"})
        )
    made = make_folder(tmp_path / "bare", titles=60, users=3)
    (made.root / "users" / "seen.parquet").unlink()
    values = {"dataset": str(made.root), "output": str(tmp_path / "x"), "device": "cpu"}
    with pytest.raises(ConfigError, match="does not know what its users have seen"):
        build_index(config_from_dict(values | {"profile": {"interests": 2}}))
    build_index(config_from_dict(values))
    with pytest.raises(UsageError, match="does not know what its users have seen"):
        Recommender.open(tmp_path / "x").recommend("user_000", profile={"interests": 2})
    changed = np.load(learned / "data" / MEDIA_VECTORS)
    other = tmp_path / "other"
    (other / "media").mkdir(parents=True)
    for path in (learned / "data" / "media").iterdir():
        (other / "media" / path.name).write_bytes(path.read_bytes())
    np.save(other / MEDIA_VECTORS, changed * 2)
    with pytest.raises(DataError, match="holds other vectors than"):
        build_index(config_from_dict({"dataset": str(other), "output": str(tmp_path / "y")}))


def test_a_taste_is_weighed_as_the_index_weighs(learned: Path, rated_index: Any) -> None:
    said = Taste(likes=["a"], dislikes=["b"], ratings={"c": 5, "d": 3})
    assert dict(said.weights()) == {"a": 1, "b": -0.5, "c": 1, "d": 0.5}
    assert dict(said.weights(Profile(weights="liked"))) == {"a": 1, "b": -0.5, "c": 1, "d": 0}
    recommender = Recommender.open(learned / "index")
    titles = recommender.index.vectors(np.arange(150))
    answer = recommender.recommend_for(Taste(ratings={"m00007": 4, "m00009": 5, "m00020": 2}), 4)
    scores = titles @ ((titles[7] + titles[9]) / 2)
    scores[[7, 9, 20]] = -np.inf
    np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:4], rtol=1e-5)


@pytest.mark.parametrize(("by", "columns"), [("whole", slice(None)), ("people", slice(0, 12)), ("text", slice(12, 20))])
def test_alike_is_what_points_the_same_way(learned: Path, by: Any, columns: slice) -> None:
    recommender = Recommender.open(learned / "index")
    block = recommender.index.vectors(np.arange(150))[:, columns].astype(np.float64)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    for row in (0, 33, 149):
        cosines = block @ block[row]
        cosines[row] = -np.inf
        answer = recommender.similar(f"m{row:05d}", 10, by=by)
        np.testing.assert_allclose(answer.scores, np.sort(cosines)[::-1][:10], atol=1e-5)
        assert (answer.exact, answer.strategy, answer.matching) == (True, "cosine", 149)
        dramas = recommender.similar(f"m{row:05d}", 10, by=by, where="'Drama' IN genres", diversity=0.2)
        assert all(found % 5 == 0 and found != row for found in dramas.rows.tolist())
        assert recommender.similar(f"m{row:05d}", 500, by=by).returned == 149


def test_users_are_alike_whose_vectors_point_the_same_way(learned: Path) -> None:
    """By inner products, as it was, whoever likes much was like everybody."""
    recommender = Recommender.open(learned / "index")
    vectors = recommender.users.vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    products, ids = vectors @ vectors.T, recommender.users.ids
    cosines = products / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -np.inf)
    np.fill_diagonal(products, -np.inf)
    for user in (0, 17, 39, 40):
        for k in (1, 10, 99):
            found = recommender.similar_users(ids[user], k)
            best = np.argsort(-cosines[user], kind="stable")[: min(k, 40)]
            assert [one.user_id for one in found] == [ids[row] for row in best]
            np.testing.assert_allclose([one.score for one in found], cosines[user][best], atol=1e-6)
    assert any((np.argsort(-products[user])[:10] != np.argsort(-cosines[user])[:10]).any() for user in (0, 17, 39))


def test_parts_are_those_of_learned_vectors(rated_index: Any) -> None:
    with pytest.raises(UsageError, match="have no part 'text'"):
        Recommender.open(rated_index.path).similar("m00001", by="text")
    with pytest.raises(UsageError, match="not by 'plot'"):
        Recommender.open(rated_index.path).similar("m00001", by="plot")


@pytest.mark.parametrize("normalize", [False, True])
def test_points_add_up_to_the_score(learned: Path, rated_index: Any, tmp_path: Path, normalize: bool) -> None:
    if normalize:  # an ordinary index with a profile
        dataset = str(rated_index.path.parent / "data")
        build_index(
            config_from_dict(
                {"dataset": dataset, "output": str(tmp_path / "i"), "device": "cpu", "profile": {"weights": "centred"}}
            )
        )
        recommender = Recommender.open(tmp_path / "i")
    else:
        recommender = Recommender.open(learned / "index")
    for user in recommender.users.ids[:5]:
        best = recommender.recommend(user, 1)
        told = recommender.explain(user, best[0].media_id, 4)
        assert told.score == pytest.approx(float(best.scores[0]), rel=1e-4)
        assert told.other_points is not None
        named = [one.points or 0.0 for one in told.contributions]
        assert sum(named) + told.other_points == pytest.approx(told.score, rel=1e-4)
        assert named == sorted(named, reverse=True)
        whole = recommender.explain(user, best[0].media_id, 1000)
        assert whole.other_points == pytest.approx(0, abs=1e-9)
        assert sum(one.share or 0 for one in whole.contributions) == pytest.approx(1, rel=1e-4)
        if normalize:
            assert told.text_points is None
        else:
            row = int(best.rows[0])
            vector = recommender.users.vectors[recommender.users.rows_of([user])[0]]
            expected = float(vector[12:] @ recommender.index.vectors([row])[0, 12:])
            assert told.text_points == pytest.approx(expected, rel=1e-3)
    if not normalize:
        nobody = recommender.explain("u40", "m00010")
        assert (nobody.other_points, nobody.text_points) == (None, None)


def test_more_than_the_mean_is_told_and_is_no_similarity(rated_index: Any, semrec: Semrec, tmp_path: Path) -> None:
    """Popularity and interests order lists, but an explanation is of the mean; a score with popularity is no cosine."""
    dataset, index = rated_index.path.parent / "data", tmp_path / "i"
    more = ["--set", "profile.interests=2", "--set", "profile.popularity=0.6"]
    assert semrec("build", "--dataset", dataset, "--output", index, *more).code == 0
    recommender = Recommender.open(index)
    user = recommender.users.ids[0]
    told = recommender.explain(user, "m00001")
    note = "the user's list is ordered by 2 interests and popularity too; this is by the mean of what the user has seen"
    assert (told.note, told.as_dict()["note"]) == (note, note)
    code, out, err = semrec("explain", index, user, "m00001")
    assert (code, err) == (0, f"note: {note}\n")
    assert f"it is number {told.served_rank} of this user's list, with a score of {told.served_score:.4g}\n" in out
    first = recommender.recommend(user, 1)[0]
    assert f"1. {first.title} {first.score:.4g}" in semrec("recommend", index, "--user", user, "-k", 1).lines[1]
    without = semrec("recommend", index, "--user", user, "-k", 1, "--popularity", 0).lines[1]
    assert "% similar" in without
    assert "note" not in Recommender.open(rated_index.path).explain(user, "m00001").as_dict()


@pytest.mark.parametrize("merge", ["score", "turns"])
@pytest.mark.parametrize(("interests", "popularity"), [(3, 0.0), (1, 0.4), (3, 0.1)])
def test_an_explanation_tells_the_place_in_the_list(
    learned: Path, tmp_path: Path, interests: int, popularity: float, merge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same place and score that `recommend` gives, for the first of a list and for what is far beyond it."""
    monkeypatch.setattr(profile_search, "LEAST_LIST", 30)
    monkeypatch.setattr(profile_search, "FIRST_PLACES", 7)
    profile = {"weights": "liked", "interests": interests, "popularity": popularity, "merge": merge, "pool": 60}
    recommender = build(learned, str(tmp_path / "i"), profile=profile)
    most = 60 if popularity else 150
    for user in ("u01", "u17"):
        listed = recommender.recommend(user, most)
        first = recommender.recommend(user, 10)
        assert first.rows.tolist() == listed.rows[:10].tolist()
        for rank in (1, 2, 8, 41, len(listed)):
            told = recommender.explain(user, listed[rank - 1].media_id, 1)
            assert told.served_rank == rank
            if (merge, popularity) == ("turns", 0.0):  # a longer list knows of more interests that would list a title
                assert told.served_score is not None and told.served_score <= float(listed.scores[rank - 1])
            else:
                assert told.served_score == float(listed.scores[rank - 1])
            assert told.note is not None and "not among" not in told.note
        seen = set(recommender.users.history_of(int(user[1:])).rows.tolist())
        for row in sorted(set(range(150)) - set(listed.rows.tolist()) - seen)[:2]:
            told = recommender.explain(user, f"m{row:05d}", 1)
            assert (told.served_rank, told.served_score) == (None, None)
            assert told.note is not None and "it is not among the first 60 of it" in told.note
            assert "served_rank" not in told.as_dict()
        row = min(seen)  # which is found where it would be, were it not seen
        served = recommender.explain(user, f"m{row:05d}", 1)
        others = [f"m{other:05d}" for other in sorted(seen - {row})]
        without = recommender.recommend(user, most, include_seen=True, exclude=others).rows.tolist()
        assert served.seen
        assert served.served_rank == (without.index(row) + 1 if row in without else None)


def test_an_explanation_tells_when_the_list_is_of_popular_titles_or_not_exact(learned: Path, tmp_path: Path) -> None:
    recommender = Recommender.open(learned / "index")
    listed = recommender.recommend("u40", 10)
    told = recommender.explain("u40", listed[4].media_id)
    assert (told.served_rank, told.served_score) == (5, float(listed.scores[4]))
    assert told.note is not None and "of the titles that most users like" in told.note
    assert recommender.explain("u03", listed[4].media_id).note is None
    settings = {"type": "ivf_flat", "normalize": False, "build": {"nlist": 8}, "search": {"nprobe": 2}}
    recommender = build(learned, str(tmp_path / "lists"), profile={"interests": 2}, index=settings)
    told = recommender.explain("u03", "m00010")
    assert (told.served_rank, told.note is not None) == (None, True)


def test_the_commands(learned: Path, semrec: Semrec) -> None:
    index = learned / "index"
    code, out, _ = semrec("recommend", index, "--user", "u40", "-k", 3)
    assert code == 0
    assert "these are the titles that most users like" in out and "liked by " in out and "similar" not in out
    code, out, _ = semrec("recommend", index, "--user", "u03", "--interests", 4, "--half-life", "none", "--json")
    served = Recommender.open(index).recommend("u03", profile={"interests": 4, "half_life": None})
    assert [one["media_id"] for one in json.loads(out)["results"]] == [result.media_id for result in served]
    assert semrec("recommend", index, "--like", "m00001", "--interests", 4)[0] == 2
    code, out, _ = semrec("similar", index, "m00001", "--by", "text", "-k", 2)
    assert out.startswith("Similar to Film 1 (1951):")
    code, out, _ = semrec("explain", index, "u03", "m00001")
    assert "all others" in out and "together" in out
    build(learned, "again")
    code, out, _ = semrec("build", learned / "again", "--set", "profile.half_life=5", "--set", "profile.interests=2")
    assert code == 0
    profile = Recommender.open(learned / "again").saved.config.profile
    assert profile == Profile(weights="liked", half_life=5.0, interests=2)


def test_who_rates_nothing_where_others_do_likes_nothing_whatever_the_profile() -> None:
    """A title that is seen and not rated counts as one rated 3, in a user's vector and in what is searched by."""
    did = [{"user": "rates", "item": f"row_{row}", "rating": 5.0} for row in range(4)]
    did += [{"user": "watches", "item": f"row_{row}", "rating": None} for row in (5, 6, 7, 8)]
    vectors = np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)
    profile = {"weights": "liked", "half_life": None}
    recommender = Recommender.from_arrays(vectors, interactions=did, config={"profile": profile})
    for changes in ({}, {"interests": 2}, {"popularity": 0.1}):
        answer = recommender.recommend("watches", 3, profile=profile | changes)
        assert (answer.query["popular"], answer.rows.tolist()) == (True, [0, 1, 2])
    without = [one | {"rating": None} for one in did]
    recommender = Recommender.from_arrays(vectors, interactions=without, config={"profile": profile})
    for changes in ({}, {"interests": 2}, {"popularity": 0.1}):
        assert "popular" not in recommender.recommend("watches", 3, profile=profile | changes).query


def test_a_column_of_ratings_without_one_is_as_good_as_none(tmp_path: Path) -> None:
    """Everything was seen and nothing liked: popularity counted nobody, and an evaluation refused the index."""
    users = [user for user in ("ann", "bob", "eve") for _ in range(9)]
    items = [f"row_{row % 13}" for row in range(27)]
    did = {"user": users, "item": items, "time": [1_700_000_000 + at for at in range(27)]}
    vectors = np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)
    told = []
    for more in ({}, {"rating": pa.nulls(27, pa.float64())}):
        index = tmp_path / f"index{len(told)}"
        config = {"profile": {"weights": "liked", "popularity": 0.2}}
        recommender = semrec_faiss.build(vectors, interactions=did | more, config=config, output=index)
        counts = ProfileSearch(recommender.searcher, recommender.users).liked_by(4.0)
        assert counts.tolist() == [3] + [2] * 12 + [0] * 17
        lists = recommender.recommend(["ann", "bob", "eve"], 5)
        split = Evaluator(index, ["device.kind=cpu"], EvaluationProtocol(held_out=3)).latest
        told.append([lists.rows.tolist(), lists.scores.tolist(), split.held_out.tolist()])
    assert told[0] == told[1]


def test_many_likes_and_dislikes_are_not_each_held_against_all_others() -> None:
    """50,000 and as many over HTTP kept a thread for minutes."""
    compared = 0

    class Row(int):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return isinstance(other, int) and int(self) == int(other)

        __hash__ = int.__hash__

    names = [f"film_{number}" for number in range(400)]
    said_once(Taste(likes=names[:200], dislikes=names[200:]), [Row(number) for number in range(400)])
    assert compared < 400
    rows = [Row(7 if number == 300 else number) for number in range(400)]
    with pytest.raises(UsageError, match="'film_300' is liked and disliked"):
        said_once(Taste(likes=names[:200], dislikes=names[200:]), rows)


def test_settings_of_a_profile_count_in_an_index_without_one_also_where_they_are_the_defaults(tmp_path: Path) -> None:
    """Asked for weights by rating, or one interest, it served users' own vectors; for any other, their histories."""
    vectors = np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)
    did = {"user": ["eve"] * 3, "item": ["row_3", "row_4", "row_5"], "rating": [5.0, 3.0, 2.0]}
    recommender = semrec_faiss.build(vectors, interactions=did, users={"eve": -vectors[3]}, output=tmp_path / "index")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for profile, query in ((None, -unit[3]), ({}, -unit[3]), ({"interests": 1}, unit[3:6].T @ [1, 0.5, 0.25])):
        scores = unit @ (query / np.linalg.norm(query))
        scores[3:6] = -np.inf
        answer = recommender.recommend("eve", 27, profile=profile)
        assert answer.rows.tolist() == np.argsort(-scores)[:27].tolist()
        export_all_users(recommender, tmp_path / "lists.parquet", 27, profile=profile)
        listed = duckdb.sql(f"SELECT media_id FROM '{tmp_path / 'lists.parquet'}' ORDER BY rank").fetchall()
        assert [media_id for (media_id,) in listed] == [title.media_id for title in answer]
    saved, wish = recommender.saved, Wish.of(3)
    depends = [what_lists_depend_on(saved, wish, False, profile) for profile in (None, {}, {"interests": 1})]
    assert depends[0] == depends[1] != depends[2], "lists that were begun otherwise are not gone on with"
