"""Lists that may hold so many titles of a kind: full whenever they can be, whatever they are scored by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semrec_faiss
from semrec_faiss import Recommender, Taste
from semrec_faiss.search import searcher
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.profile import profile_search
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

COUNT, CLOSE = 300, 200
"""All titles; the first so many are one series and lie close together: no pool of the nearest goes past them."""

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "interests": {"profile": {"interests": 3}},
    "turns": {"profile": {"interests": 3, "merge": "turns"}},
    "popularity": {"profile": {"popularity": 0.3, "pool": 100}},
    "lengths count": {"index": {"normalize": False}},
}


@pytest.fixture(scope="module", params=WAYS)
def films(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(COUNT, 12))
    vectors[:CLOSE] = vectors[0] + 0.01 * vectors[:CLOSE]
    vectors *= random.uniform(0.5, 2, size=(COUNT, 1))
    titles = {
        "media_id": [f"m{row}" for row in range(COUNT)],
        "title": [f"Film {row}" for row in range(COUNT)],
        "series": ["one" if row < CLOSE else None for row in range(COUNT)],
    }
    seen = [
        (f"u{user}", f"m{row}", 5.0 if user else 1.0) for user in range(9) for row in random.choice(CLOSE, 9, False)
    ]
    users, items, ratings = zip(*seen, strict=True)
    interactions = {"user": users, "item": items, "rating": ratings}
    config = {"profile": {}} | WAYS[request.param]
    output: Path = tmp_path_factory.mktemp("varied") / "index"
    made = vectors.astype(np.float32)
    return semrec_faiss.build(made, titles, interactions=interactions, config=config, output=output)


def of_each_series(ranking: Answer, most: int, k: int) -> Sequence[int]:
    """Take the first k of a ranking of all titles that so many of a series leave."""
    counts: Counter[str] = Counter()
    chosen = []
    for result in ranking:
        series = result.fields.get("series")
        if series is None or counts[series] < most:
            counts[series or ""] += 1
            chosen.append(int(result.media_id[1:]))
    return chosen[:k]


@pytest.mark.parametrize(("most", "k"), [(1, 10), (3, 101), (2, 250)])
def test_a_list_is_full_where_titles_are_left(films: Recommender, most: int, k: int, request: Any) -> None:
    limit = {"series": most}
    answers = [
        films.similar("m0", k, max_per=limit),
        films.recommend_for(Taste(likes=["m1", "m250"]), k, max_per=limit),
    ]
    wholes = [films.similar("m0", COUNT), films.recommend_for(Taste(likes=["m1", "m250"]), COUNT)]
    # Of "u0" nothing is liked: popular titles.
    answers += [films.recommend(user, k, max_per=limit) for user in ("u0", "u1", "u2")]
    wholes += [films.recommend(user, COUNT) for user in ("u0", "u1", "u2")]
    for answer, whole in zip(answers, wholes, strict=True):
        expected = of_each_series(whole, most, k)
        assert len(answer) == len(expected) and answer.matching == whole.matching
        assert [result.fields.get("series") for result in answer].count("one") <= most
        if "popularity" not in request.node.callspec.id:  # which reorders a pool: that of all titles is a larger one
            assert answer.rows.tolist() == list(expected)


def test_a_batch_gives_each_user_the_same(films: Recommender) -> None:
    users = [f"u{user}" for user in range(9)]
    for answer, user in zip(films.recommend(users, 8, max_per={"series": 1}), users, strict=True):
        assert answer.rows.tolist() == films.recommend(user, 8, max_per={"series": 1}).rows.tolist()
        assert len(answer) == 8 and sum(result.fields.get("series") is not None for result in answer) <= 1


@pytest.mark.parametrize("films", ["interests"], indirect=True)
def test_pools_of_varied_lists_are_fetched_in_blocks_too(films: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u{user}" for user in range(9)]
    expected = films.recommend(users, 8, diversity=0.5).rows
    cells, run = [], Searcher.run

    def counted(own: Searcher, queries: Any, wish: Wish, exclusions: Any = None) -> Any:
        cells.append(len(queries) * wish.k)
        return run(own, queries, wish, exclusions)

    monkeypatch.setattr(profile_search, "BLOCK_CELLS", 500)
    monkeypatch.setattr(Searcher, "run", counted)
    assert films.recommend(users, 8, diversity=0.5).rows.tolist() == expected.tolist()
    assert 0 < max(cells) <= 500


@pytest.mark.parametrize("films", ["interests"], indirect=True)
def test_pools_that_grow_are_fetched_for_fewer_users_at_once(
    films: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: only the first pools were within the bound; later ones are four times as large, and again."""
    users = [f"u{user}" for user in range(9)]
    cells, sizes, run, choose = [], [], Searcher.run, searcher.choose_varied

    def counted(own: Searcher, queries: Any, wish: Wish, exclusions: Any = None) -> Any:
        cells.append(len(queries) * wish.k)
        return run(own, queries, wish, exclusions)

    def chosen(index: Any, queries: Any, pool: Any, *more: Any) -> Any:
        sizes.append(pool.rows.size)
        return choose(index, queries, pool, *more)

    monkeypatch.setattr(Searcher, "run", counted)
    monkeypatch.setattr(searcher, "choose_varied", chosen)
    alone = [films.recommend(user, 8, max_per={"series": 1}).rows.tolist() for user in users]
    most, largest = max(cells), max(sizes)
    films.recommend(users, 8, max_per={"series": 1})
    assert max(cells) > most and max(sizes) > largest
    monkeypatch.setattr(profile_search, "BLOCK_CELLS", 4 * films.titles.count)
    monkeypatch.setattr(searcher, "POOL_CELLS", largest)
    cells.clear()
    sizes.clear()
    assert films.recommend(users, 8, max_per={"series": 1}).rows.tolist() == alone
    assert max(cells) <= 4 * films.titles.count
    assert max(sizes) <= largest


def test_titles_alike_by_cosine_are_varied_by_cosine(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    vectors = (random.normal(size=(60, 5)) * random.uniform(0.1, 30, size=(60, 1))).astype(np.float32)
    films = semrec_faiss.build(vectors, config={"index": {"normalize": False}}, output=tmp_path / "index")
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    for weight in (0.2, 0.5, 0.9):
        chosen: list[int] = []
        for _ in range(12):  # the pool is of 60, so of all
            nearest = (unit @ unit[chosen].T).max(axis=1) if chosen else np.zeros(60)
            worth = (1 - weight) * (unit @ unit[7]) - weight * nearest
            worth[[7, *chosen]] = -np.inf
            chosen.append(int(worth.argmax()))
        assert films.similar("7", 12, diversity=weight).rows.tolist() == chosen
