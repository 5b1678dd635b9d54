"""Splits and baselines by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError
from semrec_faiss.measure.evaluate.baselines import Liked, by_chance, liked_together, most_popular, top
from semrec_faiss.measure.evaluate.holdout import Ratings, Split, hold_out_latest, padded
from semrec_faiss.measure.evaluate.protocols import cold_titles, global_time, new_users, shared_out
from semrec_faiss.measure.quality.held_out_metrics import per_user


def ratings(*users: list[tuple[int, float, int]], seed: int = 0) -> Ratings:
    """(title row, rating, time) of each user, in any order."""
    rows = [sorted(user) for user in users]
    flat = [one for user in rows for one in user]
    return Ratings.of(
        History(
            np.concatenate(([0], np.cumsum([len(user) for user in rows]))),
            np.array([row for row, _, _ in flat], np.int32),
            np.array([rating for _, rating, _ in flat], np.float32),
            np.array([time for _, _, time in flat], np.int64),
        ),
        seed,
    )


THREE = ratings(
    [(0, 5, 30), (1, 4, 10), (2, 1, 40), (3, 4.5, 20), (4, 4, 21)],
    [(1, 4, 5), (0, 5, 6)],
    [(5, 3.5, 1), (0, 3, 2), (1, 5, 3), (2, 4, 4)],
)


def whole(table: Ratings) -> Split:
    """Everything known and nothing left out."""
    return Split(table, table, np.arange(table.users), np.empty((table.users, 0), np.int64))


def test_ratings_are_in_the_order_of_time() -> None:
    assert THREE.rows.tolist() == [1, 3, 4, 0, 2, 1, 0, 5, 0, 1, 2]
    assert THREE.user_of.tolist() == [0] * 5 + [1] * 2 + [2] * 4
    picked = THREE.of_users(np.array([2, 0]))
    assert picked.rows.tolist() == [5, 0, 1, 2, 1, 3, 4, 0, 2]
    assert picked.offsets.tolist() == [0, 4, 9]


def test_ties_in_time_are_shuffled_by_the_seed() -> None:
    same = [(row, 5.0, 7) for row in range(40)]
    orders = [ratings(same, seed=seed).rows.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(40)) != orders[0]


def test_scores_that_say_nothing_find_what_chance_finds() -> None:
    """All-zero scores list titles by row: where ties went by row too, what was left out was never among the first."""
    random = np.random.default_rng(5)
    drawn = [random.choice(50, 25, replace=False).tolist() for _ in range(400)]
    table = ratings(*[[(row, 5.0, 7) for row in rows] for rows in drawn])
    split = hold_out_latest(table, 5, 4.0)
    lists = np.full((400, 10), -1, np.int64)
    for place, user in enumerate(split.users.tolist()):
        unseen = np.setdiff1d(np.arange(50), split.known.rows[split.known.part(user)])
        lists[place, : len(unseen[:10])] = unseen[:10]
    zero, chance = (per_user(rows, split.held_out)["recall"] for rows in (lists, by_chance(split, 50, 10, 3)))
    spread = np.std(zero - chance) / np.sqrt(400)
    assert abs(zero.mean() - chance.mean()) < 4 * spread


def test_the_latest_liked_titles_and_all_since_are_left_out() -> None:
    split = hold_out_latest(THREE, 2, 4.0)
    assert split.users.tolist() == [0]
    assert split.held_out.tolist() == [[4, 0]]
    assert split.rest.rows.tolist() == [1, 3, 1, 0, 5, 0, 1, 2], "title 2 was rated after the first that is left out"
    assert split.rest.offsets.tolist() == [0, 2, 4, 8]
    split = hold_out_latest(THREE, 1, 4.0)
    assert split.users.tolist() == [0, 1, 2]
    assert split.held_out.tolist() == [[0], [0], [2]]
    assert split.rest.ratings.tolist() == [4, 4.5, 4, 4, 3.5, 3, 5]
    with pytest.raises(
        UsageError, match="no user has more than 9 titles that count as liked: rated 4 or better, or seen"
    ):
        hold_out_latest(THREE, 9, 4.0)


def test_a_lenient_split_keeps_what_was_liked_less() -> None:
    split = hold_out_latest(THREE, 2, 4.0, strict=False)
    assert split.held_out.tolist() == [[4, 0]]
    assert split.rest.rows.tolist() == [1, 3, 2, 1, 0, 5, 0, 1, 2]


def test_without_ratings_what_is_seen_is_liked_and_without_times_nothing_is_late() -> None:
    history = History(np.array([0, 2]), np.array([3, 7], np.int32), None, np.array([9, 8]))
    assert hold_out_latest(Ratings.of(history, 0), 1, 4.0).held_out.tolist() == [[3]]
    with pytest.raises(UsageError, match="does not know when"):
        Ratings.of(History(np.array([0, 1]), np.array([3], np.int32)), 0)


tables = st.lists(
    st.lists(
        st.tuples(st.integers(0, 19), st.sampled_from([1.0, 3.0, 4.0, 5.0]), st.integers(0, 30)),
        min_size=1,
        max_size=15,
        unique_by=lambda one: one[0],
    ),
    min_size=2,
    max_size=25,
)


@pytest.mark.slow
@given(tables, st.integers(1, 3), st.integers(0, 3))
def test_no_split_knows_what_it_must_not(told: list[list[tuple[int, float, int]]], held_out: int, seed: int) -> None:
    table = ratings(*told, seed=seed)
    try:
        latest = hold_out_latest(table, held_out, 4.0)
    except UsageError:
        assert all(sum(stars >= 4 for _, stars, _ in user) <= held_out for user in told)
        return
    stars = {(user, row): star for user, own in enumerate(told) for row, star, _ in own}
    times = {(user, row): at for user, own in enumerate(told) for row, _, at in own}
    for split in [latest, *global_time(table, latest), *new_users(latest, seed), *cold_titles(table, 20, 4.0, seed)]:
        for user, titles in zip(split.users.tolist(), split.held_out.tolist(), strict=True):
            wanted = [row for row in titles if row >= 0]
            known = split.known.rows[split.known.part(user)].tolist()
            assert wanted and not set(wanted) & set(known)
            assert all(stars[user, row] >= 4 for row in wanted)
            assert any(stars[user, row] >= 4 for row in known), "a vector can be made of what is known"
            mine = split.rest.rows[split.rest.part(user)].tolist()
            assert not set(mine) & set(wanted)
            assert set(mine) <= set(known), "what is learned of a user is part of what is known"
    for split in global_time(table, latest):
        first = min(
            times[user, row]
            for user, titles in zip(split.users.tolist(), split.held_out.tolist(), strict=True)
            for row in titles
        )
        assert (split.rest.times < first).all(), "nobody's future is known"
    folds = new_users(latest, seed)
    for split in folds:
        assert all(split.rest.part(user).start == split.rest.part(user).stop for user in split.users.tolist())
    for split in cold_titles(table, 20, 4.0, seed):
        assert split.candidates is not None
        assert not split.candidates[split.rest.rows].any()
        assert split.candidates[split.held_out[split.held_out >= 0]].all()


def test_blocks_of_the_clock_by_hand() -> None:
    """Twenty users whose liked titles left out begin one after the other: two a block, the first block left out."""
    table = ratings(*[[(0, 5.0, 10 * user), (1, 5.0, 10 * user + 5)] for user in range(20)])
    splits = global_time(table, hold_out_latest(table, 1, 4.0))
    assert [split.users.tolist() for split in splits] == [[2 * block, 2 * block + 1] for block in range(1, 10)]
    # Of block 1 the first title left out was rated at 25: before it stand users 0 and 1, and user 2's first.
    assert splits[0].rest.times.tolist() == [0, 5, 10, 15, 20]
    assert splits[0].known.rows[splits[0].known.part(3)].tolist() == [0], "one's own past is known to the end"


def test_users_are_drawn_over_all_splits() -> None:
    splits = [Split(THREE, THREE, np.arange(3), np.arange(6).reshape(3, 2)) for _ in range(4)]
    assert shared_out(splits, 12, 0) is splits
    drawn = shared_out(splits, 5, 0)
    assert sum(len(split.users) for split in drawn) == 5
    for split in drawn:
        assert split.held_out.tolist() == [[2 * user, 2 * user + 1] for user in split.users.tolist()]


def test_lists_are_padded() -> None:
    assert padded([np.array([3, 1]), np.array([], np.int64), np.array([2])]).tolist() == [[3, 1], [-1, -1], [2, -1]]
    assert padded([]).shape == (0, 0)


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
    lists = most_popular(liked, whole(THREE), 4)
    assert lists.tolist() == [[-1] * 4, [2, 3, 4, -1], [3, 4, -1, -1]]


def test_liked_together_is_the_summed_cosine_of_columns() -> None:
    random = np.random.default_rng(0)
    matrix = random.random((30, 12)) < 0.3
    matrix[:, 5] = False
    table = ratings(*[[(int(row), 5.0, 1) for row in np.flatnonzero(user)] for user in matrix])
    wide = matrix.astype(np.float64)
    counts = wide.sum(axis=0)
    cosine = (wide.T @ wide) / np.maximum(np.sqrt(np.outer(counts, counts)), 1e-9)
    lists = liked_together(Liked(table, 4.0, 12), whole(table), 4.0, 3)
    for user in range(30):
        scores = cosine[matrix[user]].sum(axis=0)
        scores[matrix[user]] = 0
        expected = [int(row) for row in np.lexsort((np.arange(12), -np.round(scores, 12)))[:3] if scores[row] > 1e-12]
        found = [row for row in lists[user].tolist() if row >= 0]
        np.testing.assert_allclose(scores[found], scores[expected], atol=1e-12)
        assert not matrix[user][found].any()
