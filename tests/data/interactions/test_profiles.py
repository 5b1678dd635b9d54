"""Weights of what users have seen, by hand, and users as means of titles."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss.config.profile import LEARNED, Profile
from semrec_faiss.data.interactions.profiles import profile_weights, user_vectors, warn_of_scale, weight_matrix
from semrec_faiss.data.users import History

DAY = 86_400
NAN = float("nan")


def history(*users: list[tuple[int, float, int]]) -> History:
    """(title row, stars, time) of each user."""
    flat = [one for user in users for one in sorted(user)]
    return History(
        np.concatenate(([0], np.cumsum([len(user) for user in users]))).astype(np.int64),
        np.array([row for row, _, _ in flat], np.int32),
        np.array([stars for _, stars, _ in flat], np.float32),
        np.array([at for _, _, at in flat], np.int64),
    )


TWO = history(
    [(0, 5, 10), (1, 4, 40), (2, 1, 30), (3, 4.5, 20)],
    [(1, 3, 5 * DAY), (4, 3, 0)],
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 0.75, 0, 0.875, 0.5, 0.5]),
        # Means 3.625 and 3; the second user rates all alike.
        ({"weights": "centred"}, [1.375, 0.375, -2.625, 0.875, 0.5, 0.5]),
        ({"weights": "positive"}, [1.375, 0.375, 0, 0.875, 0.5, 0.5]),
        ({"weights": "liked"}, [1, 1, 0, 1, 0, 0]),
        ({"weights": "liked", "liked": 3.0}, [1, 1, 0, 1, 1, 1]),
        # Of the liked titles 1 is the latest, 3 the one before, then 0: what is not liked takes no place.
        ({"weights": "liked", "half_life": 1.0}, [0.25, 1, 0, 0.5, 0, 0]),
        ({"weights": "liked", "half_life": 2.0}, [0.5, 1, 0, 2**-0.5, 0, 0]),
        ({"half_life_days": 5.0}, [1, 0.75, 0, 0.875, 0.5, 0.25]),
    ],
)
def test_weights_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(profile_weights(TWO, Profile(**settings)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("stars", "settings", "told"),
    [
        ((0.5, 5), {}, None),
        ((0, 10), {}, "ratings go from 0 to 10, but weigh (rating - 1) / 4, which is meant for 0.5 to 5 stars: bring"),
        ((1, 5_000), {}, "ratings go from 1 to 5000, but weigh"),
        ((0, 10), {"weights": "liked"}, "ratings go from 0 to 10, but are liked from 4 on, which is"),
        ((0, 10), {"weights": "liked", "liked": 7.0}, None),
        ((0, 10), {"weights": "centred"}, None),
        ((NAN, NAN), {}, None),
    ],
)
def test_ratings_that_are_no_stars_are_told(
    stars: tuple[float, float], settings: dict[str, Any], told: str | None
) -> None:
    """Once a fault: plays from 1 on, of which one weighed nothing, and ratings up to 10 were taken for stars."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scale(history([(row, one, row) for row, one in enumerate(stars)]), Profile(**settings))
    assert [str(one.message)[: len(told or "")] for one in caught] == ([] if told is None else [told])


def test_titles_of_one_time_share_their_places() -> None:
    told = history([(0, 5, 7), (1, 5, 7), (2, 5, 7), (3, 5, 9)])
    weights = profile_weights(told, Profile(weights="liked", half_life=1.0))
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.25, 1])  # places 1, 2 and 3, 2 on average


def test_seen_without_a_rating_is_in_the_middle_and_without_any_ratings_all_is_liked() -> None:
    told = history([(0, NAN, 1), (1, 5, 2)])
    assert profile_weights(told, Profile()).tolist() == [0.5, 1]
    assert profile_weights(told, Profile(weights="liked")).tolist() == [0, 1]
    bare = History(np.array([0, 2]), np.array([0, 1], np.int32))
    assert profile_weights(bare, LEARNED).tolist() == [1, 1]
    of_some_users = history([(0, NAN, 1), (1, NAN, 1)])  # others have rated
    assert profile_weights(of_some_users, Profile()).tolist() == [0.5, 0.5]


def test_users_are_means_of_titles_and_those_who_like_nothing_the_mean_of_users() -> None:
    titles = np.array([[1, 0], [0, 1], [1, 1], [2, 0], [0, 3]], np.float32)
    told = history([(0, 5, 2), (1, 4, 1)], [(2, 1, 1)], [], [(3, 4, 1), (4, 1, 0)])
    before = told.rows.copy()
    (first, block, unknown), *more = user_vectors(told, titles, Profile(weights="liked", half_life=1.0))
    assert (first, more, unknown.tolist()) == (0, [], [False, True, True, False])
    own = np.array([2 / 3, 1 / 3])
    mean = (own + np.array([2, 0])) / 2
    np.testing.assert_allclose(block, [own, mean, mean, [2, 0]], rtol=1e-6)
    assert (told.rows == before).all(), "what is read is not changed"


@pytest.mark.parametrize("length", [1.0, 1e-4])
def test_a_user_whose_titles_cancel_out_but_for_rounding_gets_the_mean_of_users(length: float) -> None:
    titles = np.random.default_rng(2).normal(size=(4, 9)).astype(np.float32)
    titles[:3] = length * titles[0]
    told = history([(0, 5, 0), (1, 1, 0), (2, 3, 0)], [(0, 5, 0), (1, 4, 0), (2, 1, 0)], [(0, 5, 0), (3, 1, 0)])
    ((_, block, unknown),) = user_vectors(told, titles, Profile(weights="centred"))
    assert unknown.tolist() == [True, True, False]
    assert (block[0] == block[1]).all()
    np.testing.assert_allclose(block[0], block[2] / 3, rtol=1e-4)


users = st.lists(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0.5, 1, 3, 4, 5]), st.integers(0, 3)),
        max_size=8,
        unique_by=lambda one: one[0],
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
@given(
    users,
    st.sampled_from(["rating", "centred", "positive", "liked"]),
    st.sampled_from([None, 0.5, 3.0]),
    st.sampled_from([None, 1e-5]),
)
def test_all_users_at_once_are_weighed_as_each_alone(
    told: list[list[tuple[int, float, int]]], weights: Any, half_life: float | None, days: float | None
) -> None:
    profile = Profile(weights=weights, half_life=half_life, half_life_days=days)
    together = profile_weights(history(*told), profile)
    alone: list[NDArray[np.float64]] = [profile_weights(history(user), profile) for user in told]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-12)
    for user, own in zip(told, alone, strict=True):  # by the definition, in plain Python
        ranked = [at for (_, _, at), weight in zip(sorted(user), own, strict=True) if weight != 0]
        if weights == "liked" and half_life is not None and days is None:
            for (_, stars, at), weight in zip(sorted(user), own, strict=True):
                place = sum(other > at for other in ranked) + (sum(other == at for other in ranked) - 1) / 2
                assert weight == pytest.approx(0.5 ** (place / half_life) if stars >= 4 else 0)
    matrix = weight_matrix(history(*told), together, 10)
    np.testing.assert_allclose(
        np.abs(matrix).sum(axis=1).ravel(), [[float(bool((own != 0).any())) for own in alone]], rtol=1e-5
    )
