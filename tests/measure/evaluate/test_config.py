"""Sweep files that evaluate recommendations: what they may hold, and which profiles they spell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from semrec_faiss.config.profile import Profile
from semrec_faiss.errors import ConfigError
from semrec_faiss.measure.evaluate.config import EvaluationSweep, ProfileGrid
from semrec_faiss.measure.evaluate.plan import distinct_profiles, plain_form
from semrec_faiss.measure.sweep.config import Sweep
from semrec_faiss.measure.sweep_file import load_sweep_file

Load = Callable[..., EvaluationSweep]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a text to a sweep file and read it."""

    def read(text: str, *overrides: str) -> EvaluationSweep:
        path = tmp_path / "s.yaml"
        path.write_text(text, encoding="utf-8")
        loaded, _ = load_sweep_file(path, overrides)
        assert isinstance(loaded, EvaluationSweep)
        return loaded

    return read


PLAIN = """\
name: x
evaluate:
  index: indexes/ml
  grid: {interests: 2}
"""


def test_one_value_is_a_list_of_one_and_one_entry_a_grid_of_one(load: Load) -> None:
    sweep = load(PLAIN)
    assert sweep.evaluate.index == (Path("indexes/ml"),)
    assert sweep.evaluate.grid == (ProfileGrid(interests=(2,)),)
    assert (sweep.evaluate.by, sweep.evaluate.hold_out, sweep.evaluate.liked) == ("ndcg_at_10", 5, 4.0)
    assert sweep.folder == Path("results/x")
    assert load(PLAIN, "evaluate.by=recall_at_100", "results=other").evaluate.by == "recall_at_100"


def test_none_is_null_for_a_half_life_alone(load: Load) -> None:
    text = PLAIN.replace("{interests: 2}", "[{half_life_days: [none, 365], weights: [rating, liked]}]")
    (grid,) = load(text).evaluate.grid
    assert (grid.half_life_days, grid.weights) == ((None, 365.0), ("rating", "liked"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("interests: 2", "interest: 2", r"s.yaml:4: unknown key 'evaluate.grid.interest'; did you mean 'interests'\?"),
        ("interests: 2", "interests: [2, 65]", r"s.yaml:4: evaluate.grid.interests.1: should be less .* 64, not 65"),
        ("interests: 2", "interests: [2, 2]", r"s.yaml:4: evaluate.grid.interests: \[2, 2\] holds a value twice"),
        ("interests: 2", "interests: []", r"s.yaml:4: evaluate.grid.interests: .* at least 1"),
        ("interests: 2", "interests: 2.5", r"s.yaml:4: evaluate.grid.interests: should be a valid integer"),
        ("interests: 2", "popularity: yes", r"s.yaml:4: evaluate.grid.popularity: should be a valid number, not True"),
        ("interests: 2", "popularity: .nan", r"s.yaml:4: evaluate.grid.popularity: should be .*, not nan"),
        ("interests: 2", "half_life_days: 0", r"s.yaml:4: evaluate.grid.half_life_days: should be greater .* 0, not 0"),
        ("interests: 2", "merge: turn", r"s.yaml:4: evaluate.grid.merge: should be 'score' or 'turns', not 'turn'"),
        ("{interests: 2}", "[{pool: 0}]", r"s.yaml:4: evaluate.grid.0.pool: should be greater .* 1, not 0"),
        ("{interests: 2}", "[]", r"s.yaml:4: evaluate.grid: .* at least 1"),
        ("{interests: 2}", "7", r"s.yaml:4: evaluate.grid: "),
        ("indexes/ml", "[a/x, b/x]", r"s.yaml:3: evaluate.index: two indexes are called 'x'"),
        ("  index", "  by: ndcg\n  index", r"s.yaml:3: evaluate.by: should be one of hit_rate_at_10, .*, not 'ndcg'"),
        ("  index", "  holdout: 2\n  index", r"s.yaml:3: unknown key 'evaluate.holdout'; did you mean 'hold_out'\?"),
        ("  index", "  liked: .inf\n  index", r"s.yaml:3: evaluate.liked: should be a finite number, not inf"),
        ("  index", "  set: nprobe\n  index", r"s.yaml:3: evaluate.set: should hold KEY=VALUE, .*, not 'nprobe'"),
        ("evaluate:", "evalaute:", r"s.yaml:2: unknown key 'evalaute'; did you mean 'evaluate'\?"),
        ("name: x", "name: a/b", r"s.yaml:1: name: 'a/b' cannot be .*, and first a letter or a digit: 'a-b', say$"),
        ("name: x", "name: x\ntime_budget_s: 0", r"s.yaml:2: time_budget_s: should be greater than 0, not 0"),
    ],
)
def test_mistakes_are_told_with_file_and_line(load: Load, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(PLAIN.replace(old, new))


def test_all_mistakes_are_told_at_once(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"^3 mistakes in "):
        load(PLAIN.replace("interests: 2", "interests: 0, pools: 3, weights: left"))


def test_a_grid_too_large_is_refused(load: Load) -> None:
    values = list(range(1, 35))
    text = PLAIN.replace("{interests: 2}", f"{{interests: {values}, pool: {values}}}")
    with pytest.raises(ConfigError, match=r"s.yaml:2: evaluate: grid has 1,156 combinations; at most 1,000 are tried"):
        load(text)


def test_a_file_of_both_kinds_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"'evaluate' evaluates recommendations") as told:
        load(PLAIN + "dataset: data/demo\nk: 10\n")
    assert "s.yaml:5: 'dataset' belongs to a sweep of indexes" in str(told.value)
    assert "s.yaml:6: 'k' belongs to a sweep of indexes" in str(told.value)
    assert told.value.fix == "make two files of it, each with its own name"


def test_the_other_kind_is_read_as_ever(repo: Path) -> None:
    loaded, _ = load_sweep_file(repo / "configs" / "sweep-demo.yaml")
    assert isinstance(loaded, Sweep)


def test_the_file_that_is_shipped_spells_distinct_profiles(repo: Path) -> None:
    loaded, _ = load_sweep_file(repo / "configs" / "sweep-evaluate.yaml")
    assert isinstance(loaded, EvaluationSweep)
    profiles, invalid = distinct_profiles(loaded.evaluate.grid, Profile(), 4.0)
    assert Profile() == profiles[0]
    assert len(profiles) > 100
    assert not invalid
    assert yaml.safe_load((repo / "configs" / "sweep-evaluate.yaml").read_text())["name"] == loaded.name


@pytest.mark.parametrize(
    ("given", "plain", "reason"),
    [
        (Profile(merge="turns"), Profile(), "one interest has one list, which nothing is merged with"),
        (Profile(liked=3.5), Profile(), "its weights are those of all ratings"),
        (Profile(weights="liked", liked=3.5), Profile(weights="liked", liked=3.5), ""),
        (Profile(pool=50), Profile(), "without popularity no pool is reordered"),
        (
            Profile(popularity=1, pool=7),
            Profile(popularity=1, pool=100),
            "a pool holds the 100 titles of a list at least",
        ),
        (Profile(interests=2, merge="turns"), Profile(interests=2, merge="turns"), ""),
        (Profile(popularity=0.5, pool=200), Profile(popularity=0.5, pool=200), ""),
    ],
)
def test_plain_forms(given: Profile, plain: Profile, reason: str) -> None:
    assert plain_form(given) == (plain, reason)


def test_combinations_that_say_the_same_are_tried_once_and_told_why() -> None:
    grid = ProfileGrid(interests=(1, 2), merge=("score", "turns"), popularity=(0.0, 0.5), pool=(500,))
    profiles, invalid = distinct_profiles([grid, ProfileGrid(interests=(2,))], Profile(), 3.5)
    assert profiles == [
        Profile(),
        Profile(popularity=0.5, pool=500),
        Profile(interests=2),
        Profile(interests=2, popularity=0.5, pool=500),
        Profile(interests=2, merge="turns"),
        Profile(interests=2, merge="turns", popularity=0.5, pool=500),
    ]
    told = {one.what: one.reason for one in invalid}
    assert told["merge=turns, popularity=0.5, pool=500"] == (
        "the same as popularity=0.5, pool=500: one interest has one list, which nothing is merged with"
    )
    assert told["pool=500"] == "the same as defaults: without popularity no pool is reordered"
    assert len(told) == 5
