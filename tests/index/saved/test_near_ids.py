"""Who mistypes a user's id is offered what was meant, if anything is near, and no list of all ids is read for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import Change, NotFoundError, update_index
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.near_ids import TYPED, of_the_same_number, one_slip_away
from semrec_faiss.index.saved.saved_index import SavedIndex


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    root = tmp_path_factory.mktemp("near")
    make_folder(root / "data", titles=20, users=150)
    build_index(config_from_dict({"dataset": str(root / "data"), "output": str(root / "index"), "device": "cpu"}))
    return root / "index"


def _offered(index: Path, *user_ids: str) -> tuple[str | None, tuple[str, ...]]:
    users = SavedIndex(index).users
    assert users is not None
    with pytest.raises(NotFoundError) as caught:
        users.rows_of(user_ids)
    assert "ids" not in vars(users) and "_known" not in vars(users)
    return caught.value.fix, caught.value.candidates


LIKE = "ids look like 'user_000', 'user_001', 'user_002'"


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("User_042", "user_042"),
        (" user_042", "user_042"),
        ("usre_042", "user_042"),
        ("userr_042", "user_042"),
        ("usr_042", "user_042"),
        ("üser_042", "user_042"),
        ("user_0042", "user_042"),
        ("42", "user_042"),
        ("0", "user_000"),
        ("USER_00000042", "user_042"),
    ],
)
def test_an_id_that_is_a_slip_away_is_offered(index: Path, typed: str, first: str) -> None:
    fix, candidates = _offered(index, typed)
    assert fix == f"did you mean {first!r}? {LIKE}"
    assert candidates[0] == first and len(candidates) <= 5


@pytest.mark.parametrize(
    "typed", ["nobody", "", "170", "9" * 100_000, "film_42", "u" * 100_000, "\ud800user_042", "user_042 or user_043"]
)
def test_of_what_no_id_is_near_to_none_is_offered(index: Path, typed: str) -> None:
    assert _offered(index, typed) == (LIKE, ())


def test_of_several_none_is_offered(index: Path) -> None:
    assert _offered(index, "user_042", "usre_042", "usr_042") == (LIKE, ())


def test_users_that_updates_brought_are_near_too(index: Path, tmp_path: Path) -> None:
    own = shutil.copytree(index, tmp_path / "index")
    (tmp_path / "change/users").mkdir(parents=True)
    (tmp_path / "change/users/user_ids.json").write_text('["newcomer"]')
    np.save(tmp_path / "change/users/preference_vectors.npy", np.ones((1, 16)))
    update_index(own, Change(tmp_path / "change"))
    assert _offered(own, "newcommer") == (f"did you mean 'newcomer'? {LIKE}", ("newcomer",))


def test_ids_that_are_numbers_have_no_other_of_the_same_number_but_zeros() -> None:
    assert of_the_same_number("7", ["1", "2"]) == []
    assert of_the_same_number("007", ["1", "2"]) == ["7"]
    assert of_the_same_number("7", ["ann", "u1", "v01", "1" * 100_000]) == ["u7", "v07"]


def test_every_slip_of_one_character_is_thought_of() -> None:
    slips = one_slip_away("ab")
    assert slips[:4] == ["AB", "ba", "b", "a"]
    assert {"xb", "ax", "xab", "axb", "abx", "a-b", "a_"} <= set(slips)
    assert "ab" not in slips and "" not in one_slip_away("a") and len(slips) == len(set(slips))
    assert one_slip_away("x" * TYPED) and not one_slip_away("x" * (TYPED + 1))
