"""semrec sweep with a file that evaluates recommendations, and what reads its results, as they are typed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import made_records
import pytest
import yaml
from conftest import Ended, Semrec

from semrec_faiss.cli.main import cli
from semrec_faiss.cli.measure.live import drawn
from semrec_faiss.cli.measure.sweep_evaluate import picture_of
from semrec_faiss.cli.process.exit import exit_code_of
from semrec_faiss.measure.evaluate.run import ProfileState


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rated_index: Any) -> Path:
    """A folder with a sweep file."""
    folder = tmp_path_factory.mktemp("sweep")
    values = {
        "name": "tiny",
        "results": str(folder / "results"),
        "evaluate": {
            "index": str(rated_index.path),
            "hold_out": 2,
            "liked": 3.5,
            "grid": {"interests": [1, 2], "merge": ["score", "turns"]},
        },
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def swept(place: Path) -> Path:
    """The results of the sweep."""
    code = exit_code_of(
        lambda: cli.main(["sweep", str(place / "sweep.yaml")], "semrec", standalone_mode=False), debug=False
    )
    assert code == 0
    return place / "results" / "tiny"


@pytest.mark.parametrize("forced", ["", "1"])
def test_dry_run_lists_profiles_and_those_that_are_none_of_their_own(
    semrec: Semrec, place: Path, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)  # as services that build for others set it
    ran = semrec("sweep", place / "sweep.yaml", "--dry-run", "--name", "fresh")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "index  profile",
        "index  defaults                  to do",
        "index  interests=2               to do",
        "index  interests=2, merge=turns  to do",
        "not tried, since another does the same (1):",
        "  merge=turns  the same as defaults: one interest has one list, which nothing is merged with",
        "3 profiles, 3 of them to do",
    ]
    assert not (place / "results" / "fresh").exists()
    document = json.loads(semrec("sweep", place / "sweep.yaml", "--dry-run", "--name", "fresh", "--json").out)
    assert [one["state"] for one in document["trials"]] == ["to do"] * 3
    assert document["estimated_seconds"] is None
    assert document["invalid"][0]["what"] == "merge=turns"


@pytest.mark.slow
def test_it_prints_as_evaluate_does_and_goes_on_where_it_was(
    semrec: Semrec, place: Path, swept: Path, rated_index: Any
) -> None:
    ran = semrec("sweep", place / "sweep.yaml")
    assert ran.code == 0
    document = json.loads((swept / "evaluation.json").read_text())
    evaluation = document["evaluations"][0]
    alone = semrec(*evaluation["command"].split()[1:])
    assert ran.out.startswith("3 profiles, on the titles liked before those left out, best by ndcg at 10:\n")
    table = [line for line in alone.out.splitlines() if line.startswith("most popular")]
    assert len(table) == 5, "at 10 and at 100, and by three other protocols"
    printed = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert all(" ".join(line.split()) in printed for line in table)
    assert f"the same again: {evaluation['command']}" in ran.out.splitlines()
    assert ran.out.splitlines()[-1] == "3 profiles: 0 done now, 3 in all"
    assert f"now try: semrec report {swept}" in ran.err
    again = json.loads(semrec("sweep", place / "sweep.yaml", "--json").out)
    assert again["evaluation"] == document
    assert (again["measured_now"], len(again["trials"]), again["left_for_want_of_time"]) == (0, 3, [])
    states = json.loads(semrec("sweep", place / "sweep.yaml", "--dry-run", "--json").out)
    assert [one["state"] for one in states["trials"]] == ["measured"] * 3


@pytest.mark.slow
def test_a_budget_leaves_the_rest_and_says_so(semrec: Semrec, place: Path) -> None:
    given = ("sweep", place / "sweep.yaml", "--name", "short", "--set", "time_budget_s=1e-9")
    ran = semrec(*given)
    assert ran.code == 0
    assert "2 left for want of time; the winner is chosen when none is:" in ran.out
    assert "3 profiles: 1 done now, 1 in all" in ran.out
    assert semrec("report", place / "results" / "short").code == 0


def test_report_writes_the_page(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    ran = semrec("report", swept, "--out", tmp_path)
    assert ran.code == 0
    assert [Path(line).name for line in ran.out.splitlines()] == [
        "report.html",
        "summary.csv",
        "methods-index.png",
        "profiles-index.png",
    ]
    assert "Recommendations: tiny" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_commands_for_the_other_kind_of_sweep_refuse_it(semrec: Semrec, place: Path, swept: Path) -> None:
    for given in (("pick", swept), ("check-regression", swept, swept), ("report", "--compare", swept, swept)):
        ran = semrec(*given)
        assert (ran.code, ran.out) == (2, ""), given
        assert "holds an evaluation of recommendations, not a sweep of indexes" in ran.err
        assert f"`semrec report {swept}` shows it" in ran.err
    ran = semrec("sweep", place / "sweep.yaml", "--prune")
    assert ran.code == 2
    assert "--prune is for sweeps of indexes" in ran.err
    for option in (("--dataset", "data/demo"), ("--slice", "genres")):
        ran = semrec("sweep", place / "sweep.yaml", *option)
        assert ran.code == 2
        assert "belongs to a sweep of indexes" in ran.err


def test_what_is_not_there_or_cannot_be_evaluated_is_told(semrec: Semrec, place: Path, tmp_path: Path) -> None:
    def given(*settings: str) -> Ended:
        return semrec("sweep", place / "sweep.yaml", "--name", "no", *(f"--set=evaluate.{one}" for one in settings))

    ran = given(f"index={tmp_path / 'nowhere'}")
    assert (ran.code, ran.out) == (4, "")
    assert "nowhere" in ran.err
    ran = given("hold_out=20")
    assert (ran.code, ran.out) == (2, "")
    assert "no user has more than 20 titles" in ran.err
    ran = given("set=index.search.nprobes=2")
    assert ran.code == 2
    assert "nprobes" in ran.err
    assert not (place / "results" / "no").exists()


def test_a_terminal_sees_how_far_it_is() -> None:
    from rich.console import Console

    best = [made_records.profile(f"interests={n}", 0.5 - n / 100) for n in range(1, 12)]
    state = ProfileState(12, 3, "ml: interests=4", ("searching", 5, 9), best, 100.0)
    console = Console(file=io.StringIO(), width=90)
    console.print(drawn(state, picture_of("ndcg_at_10")(state)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "profile 4 of 12, about 2 min left\nml: interests=4 · searching 5/9" in shown
    assert "0.4900" in shown
    assert "interests=8 " in shown
    assert "interests=9" not in shown
