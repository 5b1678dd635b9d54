"""Titles that a question excludes: listed with what single queries exclude, or masked where they are too many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search import searcher as asking
from semrec_faiss.search.profile.taste import Taste
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.wish import Wish

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

INDEXES: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "screened": {"type": "flat", "build": {"directions": 8}},
    "every list": {"type": "ivf_flat", "build": {"nlist": 16}, "search": {"nprobe": 16}},
    "hnsw": {"type": "hnsw"},
}


@pytest.fixture(scope="module", params=INDEXES)
def any_kind(request: pytest.FixtureRequest, library: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    output = tmp_path_factory.mktemp("excluding") / "index"
    settings = {"dataset": str(library.folder), "output": str(output), "device": "cpu"}
    build_index(config_from_dict(settings | {"index": INDEXES[request.param]}))
    return Recommender.open(output)


@pytest.mark.parametrize("most", [1 << 14, 0], ids=["listed", "masked"])
@pytest.mark.parametrize("count", [1, 3, 60, 1500])
def test_what_is_excluded_is_in_no_list_and_the_best_others_are(
    any_kind: Recommender, world: Any, library: Any, count: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of all are excluded, beside what each has seen, which is partly the same, and a filter's titles."""
    monkeypatch.setattr(asking, "MOST_LISTED", most)
    users = [0, 1, 2, 5, 30, 31]
    excluded = np.argsort(-world.scores[30])[:count]
    names = [world.entries[row]["media_id"] for row in excluded]
    early = np.array([(entry["year"] or 9999) < 1990 for entry in world.entries])
    for where, filtered in ((None, np.ones(len(early), np.bool_)), ("year < 1990", early)):
        allowed = library.unseen(len(world.titles))[users] & filtered
        allowed[:, excluded] = False
        answers = any_kind.recommend([library.user_ids[user] for user in users], 8, where=where, exclude=names)
        assert answers.matching.tolist() == allowed.sum(axis=1).tolist()
        for user, its, answer in zip(users, allowed, answers, strict=True):
            assert answer.returned == min(8, its.sum()) == len(set(answer.rows.tolist()))
            assert its[answer.rows].all()
            if answer.exact:
                best = np.lexsort((np.arange(len(its)), -np.where(its, world.scores[user].astype(np.float32), -9)))
                expected = world.scores[user][best[: answer.returned]]
                np.testing.assert_allclose(answer.scores, expected, rtol=0, atol=1e-6)
        alone = any_kind.recommend(library.user_ids[30], 8, where=where, exclude=[*names, names[0]])
        assert (alone.rows.tolist(), alone.matching) == (answers[4].rows.tolist(), answers[4].matching)


@pytest.mark.parametrize("wish", [{}, {"where": "year < 1990"}, {"diversity": 0.5}, {"max_per": {"franchise": 1}}])
def test_lists_and_masks_find_the_same(
    wish: dict[str, Any], library: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.open(library.output)
    names = [entry["media_id"] for entry in world.entries[:40:3]]
    taste = Taste(likes=["m00006", "m00009"], dislikes=["m00200"])
    questions = {
        "a copy": lambda: recommender.similar("m02060", 12, exclude=names, **wish),
        "one that is excluded": lambda: recommender.similar("m00003", 12, exclude=names, **wish),
        "vectors": lambda: recommender.search(world.queries[:3], 12, exclude=names, **wish),
        "a taste": lambda: recommender.recommend_for(taste, 12, exclude=names, **wish),
        "a user": lambda: recommender.recommend(library.user_ids[40], 12, exclude=names, **wish),
    }
    for name, ask in questions.items():
        answers = []
        for most in (1 << 14, 0):
            monkeypatch.setattr(asking, "MOST_LISTED", most)
            answers.append(ask())
        listed, masked = answers
        assert np.array_equal(listed.rows, masked.rows), name
        np.testing.assert_array_equal(listed.scores, masked.scores)
        assert np.array_equal(listed.matching, masked.matching), name
        assert not np.isin(listed.rows, np.arange(0, 40, 3)).any()


def test_by_cosine_and_by_interests_too(library: Any, world: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    output = tmp_path_factory.mktemp("lengths") / "index"
    settings = {"dataset": str(library.folder), "output": str(output), "device": "cpu"}
    build_index(config_from_dict(settings | {"index": {"type": "flat", "normalize": False}}))
    recommender = Recommender.open(output)
    near = recommender.similar("m00000", 6)
    names = [result.media_id for result in near][::2]
    others = recommender.similar("m00000", 3, exclude=names)
    assert [result.media_id for result in others] == [result.media_id for result in near][1::2]
    assert others.matching == near.matching - 3
    for profile in ({"interests": 3}, {"liked": 6.0}):
        all_of_them = recommender.recommend(library.user_ids[25:28], 12, profile=profile)
        out = [result.media_id for result in all_of_them[0]][:5]
        fewer = recommender.recommend(library.user_ids[25:28], 7, profile=profile, exclude=out)
        assert [result.media_id for result in fewer[0]] == [result.media_id for result in all_of_them[0]][5:]
        assert fewer[0].matching == all_of_them[0].matching - 5
        assert not {result.media_id for answer in fewer for result in answer} & set(out)


def test_no_mask_is_made_but_for_too_many(library: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.open(library.output)
    searcher, names = recommender.searcher, [entry["media_id"] for entry in world.entries]
    few = searcher.restriction(Wish.of(exclude=names[:4]), 2)
    assert few.mask is None and few.exclusions is not None
    assert (few.exclusions.offsets.tolist(), few.exclusions.rows.tolist()) == ([0, 4, 8], [0, 1, 2, 3] * 2)
    filtered = searcher.restriction(Wish.of(where="year < 1990", exclude=names[:4]))
    assert filtered.mask is searcher.selections.get(Wish.of(where="year < 1990").filter).mask
    monkeypatch.setattr(asking, "MOST_LISTED", 400)
    for queries, allowed in ((100, None), (101, np.arange(4, len(names)))):
        mask = searcher.restriction(Wish.of(exclude=names[:4]), queries).mask
        assert (mask is None) if allowed is None else np.flatnonzero(mask).tolist() == allowed.tolist()


def test_of_an_approximate_index_the_batch_does_not_choose(world: Any, library: Any, tmp_path: Any) -> None:
    """What is found hangs on whether titles are listed or masked, and must not on who else is asked for."""
    settings = {"dataset": str(library.folder), "output": str(tmp_path / "index"), "device": "cpu"}
    build_index(config_from_dict(settings | {"index": {"type": "hnsw"}}))
    searcher = Recommender.open(tmp_path / "index").searcher
    names = [entry["media_id"] for entry in world.entries]
    for count, is_listed in ((163, True), (164, False)):
        for queries in (1, 5000):
            assert (searcher.restriction(Wish.of(exclude=names[:count]), queries).mask is None) is is_listed
