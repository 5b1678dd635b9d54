"""Evaluated sweeps: ledger, resumption, digests, the choice, and that the winner is what `semrec evaluate` measures."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Semrec

from semrec_faiss import IndexWriter, Recommender
from semrec_faiss.config.profile import Profile
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.measure.choose.regression import compare
from semrec_faiss.measure.evaluate.config import EvaluationSweep
from semrec_faiss.measure.evaluate.evaluator import Evaluator
from semrec_faiss.measure.evaluate.plan import EvaluationPlan, make_evaluation_plan
from semrec_faiss.measure.evaluate.record import AnyProfile, MeasuredProfile, Summary, best_profile
from semrec_faiss.measure.evaluate.results import EvaluationResults
from semrec_faiss.measure.evaluate.run import (
    EvaluationOutcome,
    ProfileState,
    ranked,
    run_evaluation_sweep,
    seconds_left,
)
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.sweep.run import run_sweep
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.measure.trials.results import SweepResults

MakePlan = Callable[..., EvaluationPlan]


@pytest.fixture
def plan(tmp_path: Path, rated_index: Any) -> MakePlan:
    """Plan a sweep over the rated index; results go to tmp_path/results/tiny."""

    def make(*, top: dict[str, Any] | None = None, **changes: Any) -> EvaluationPlan:
        evaluate = {
            "index": str(rated_index.path),
            "hold_out": 2,
            "liked": 3.5,
            "grid": {"interests": [1, 3], "popularity": [0, 0.2], "merge": ["score", "turns"]},
        }
        values = {"name": "tiny", "results": str(tmp_path / "results"), "evaluate": evaluate | changes, **(top or {})}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        sweep, _ = load_sweep_file(path)
        assert isinstance(sweep, EvaluationSweep)
        return make_evaluation_plan(sweep, stamp=stamp_of_this_run(["sweep"]))

    return make


def run(plan: EvaluationPlan, **options: Any) -> EvaluationOutcome:
    return run_evaluation_sweep(plan, **options)


def lasting(record: AnyProfile) -> dict[str, Any]:
    return {name: value for name, value in record.as_json().items() if name not in ("elapsed_s", "environment")}


def lines(plan: EvaluationPlan) -> list[dict[str, Any]]:
    text = (plan.sweep.folder / "trials.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_a_profile_and_the_best_is_judged(plan: MakePlan, rated_index: Any) -> None:
    made = plan()
    outcome = run(made)
    labels = [trial.label for trial in made.trials]
    assert labels == [
        "defaults",
        "popularity=0.2",
        "interests=3",
        "interests=3, popularity=0.2",
        "interests=3, merge=turns",
        "interests=3, merge=turns, popularity=0.2",
    ]
    assert [record.label for record in outcome.records] == labels
    assert (outcome.measured_now, outcome.left) == (6, ())
    assert outcome.document is not None
    (evaluation,) = outcome.document.evaluations
    means = [record.at_10.ndcg.mean for record in outcome.records]
    best = outcome.records[means.index(max(means))]
    assert evaluation.profile == best.profile
    assert [one.metric("ndcg_at_10") for one in evaluation.grid] == means
    for record in outcome.records:
        told = record.at_10.ndcg
        assert told.interval.low < told.mean < told.interval.high
    saved = json.loads((made.sweep.folder / "evaluation.json").read_text())
    assert saved == outcome.document.as_json()
    assert saved["environment"]["command"] == "semrec sweep"
    text = (made.sweep.folder / "trials.jsonl").read_text() + (made.sweep.folder / "evaluation.json").read_text()
    assert "user_0" not in text, "results can be published: no user is named"


def test_the_command_told_measures_the_winner_again(plan: MakePlan, tmp_path: Path, semrec: Semrec) -> None:
    outcome = run(plan(users=15, seed=3, by="hit_rate_at_10", set=["device.kind=cpu"]))
    assert outcome.document is not None
    (evaluation,) = outcome.document.evaluations
    words = shlex.split(evaluation.command)
    assert words[-8:] == ["--liked", "3.5", "--users", "15", "--seed", "3", "--set", "device.kind=cpu"]
    told = semrec(*words[1:], "--out", tmp_path / "again.json")
    assert told.code == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["profile"] == evaluation.profile.model_dump()
    for name in ("recommender", "most_popular", "liked_together"):
        assert again["methods"][name] == evaluation.methods[name].as_json()
    assert again["protocol"] == evaluation.protocol.as_json()
    assert "hit rate at 10 less that of most popular" in told.out


def test_a_second_run_measures_nothing_and_a_new_value_its_own_profiles_alone(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(plan())
    files = [plan().sweep.folder / name for name in ("evaluation.json", "plan.json", "trials.jsonl")]
    before = [path.read_text() for path in files]
    monkeypatch.setattr(Evaluator, "judge", None)  # the winner is the same one, and known
    second = run(plan())
    assert second.measured_now == 0
    assert second.records == first.records
    assert [path.read_text() for path in files] == before, "stamps are those of the run that measured"
    monkeypatch.undo()
    more = run(plan(grid={"interests": [1, 3], "popularity": [0, 0.2, 0.9], "merge": ["score", "turns"]}))
    assert more.measured_now == 3
    assert [one["label"] for one in lines(plan())[6:]] == [
        "popularity=0.9",
        "interests=3, popularity=0.9",
        "interests=3, merge=turns, popularity=0.9",
    ]
    fewer = run(plan())
    assert (fewer.measured_now, len(fewer.records)) == (0, 6)


@pytest.mark.slow
def test_a_run_that_breaks_off_goes_on_and_ends_the_same(plan: MakePlan, tmp_path: Path) -> None:
    expected = run(plan(top={"name": "whole"}))

    class StoppedError(Exception):
        pass

    def stop(state: ProfileState) -> None:
        if state.done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(plan(), watch=stop)
    kept = lines(plan())
    assert len(kept) == 3
    assert not (plan().sweep.folder / "evaluation.json").exists()
    with (tmp_path / "results" / "tiny" / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"digest":"torn')  # what a process leaves that is killed while it writes
    resumed = run(plan())
    assert resumed.measured_now == 3
    assert lines(plan())[:3] == kept
    assert [lasting(one) for one in resumed.records] == [lasting(one) for one in expected.records]
    assert resumed.document is not None
    assert expected.document is not None
    assert resumed.document.evaluations == expected.document.evaluations


def test_what_is_left_for_want_of_time_leaves_the_choice_open(plan: MakePlan) -> None:
    short = run(plan(top={"time_budget_s": 1e-9}))
    assert (short.measured_now, len(short.left), short.document) == (1, 5, None)
    results = EvaluationResults.read(plan().sweep.folder)
    assert (len(results.measured), len(results.missing), results.document) == (1, 5, None)
    assert run(plan()).document is not None


def test_a_choice_among_fewer_profiles_is_not_that_of_more(plan: MakePlan) -> None:
    run(plan())
    run(plan(top={"time_budget_s": 1e-9}, grid={"interests": [1, 2, 3, 4]}))
    assert (plan().sweep.folder / "evaluation.json").exists()
    assert EvaluationResults.read(plan().sweep.folder).document is None


@pytest.mark.slow
def test_rerun_measures_again(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"interests": [2]}
    tried = Evaluator.try_profile

    def failing(self: Evaluator, profile: Profile, *rest: Any) -> Any:
        if profile.interests == 2:
            raise RuntimeError("Error: no clusters\nat line 9")
        return tried(self, profile, *rest)

    monkeypatch.setattr(Evaluator, "try_profile", failing)
    outcome = run(plan(grid=grid))
    assert [record.status for record in outcome.records] == ["measured", "failed"]
    assert outcome.records[1].reason.startswith("RuntimeError: ")
    assert outcome.document is not None
    assert outcome.document.evaluations[0].profile.interests == 1
    assert run(plan(grid=grid)).measured_now == 0
    monkeypatch.undo()
    assert run(plan(grid=grid), rerun="failed").measured_now == 1
    assert run(plan(grid=grid), rerun="all").measured_now == 2
    assert [one["status"] for one in lines(plan())] == ["measured", "failed", "measured", "measured", "measured"]


def test_digests_name_what_is_measured(plan: MakePlan, rated_index: Any, tmp_path: Path) -> None:
    def digests(**changes: Any) -> list[str]:
        return [trial.digest for trial in plan(grid={"interests": 2}, **changes).trials]

    usual = digests()
    assert len(set(usual)) == 2
    shutil.copytree(rated_index.path, tmp_path / "elsewhere")
    assert digests(index=str(tmp_path / "elsewhere")) == usual, "neither name nor place of the index"
    assert digests(by="recall_at_10") == usual, "nor what is chosen by"
    for change in ({"hold_out": 3}, {"liked": 4.0}, {"users": 30}, {"seed": 8}):
        assert not set(digests(**change)) & set(usual), change
    reader = Recommender.open(rated_index.path)
    with IndexWriter(tmp_path / "elsewhere") as writer:
        writer.append_seen(user_id=[reader.users.ids[0]], media_id=["m00001"], rating=[5.0], timestamp=[10**9])
    assert not set(digests(index=str(tmp_path / "elsewhere"))) & set(usual), "what an update brought counts, too"


def test_the_same_data_built_again_is_the_same_index(plan: MakePlan, rated_index: Any, tmp_path: Path) -> None:
    from semrec_faiss.config.reading import config_from_dict
    from semrec_faiss.index.build.run import build_index

    data = rated_index.path.parent / "data"
    build_index(config_from_dict({"dataset": str(data), "output": str(tmp_path / "again"), "device": "cpu"}))
    grid = {"interests": 2}
    again = plan(index=str(tmp_path / "again"), grid=grid)
    assert [trial.digest for trial in again.trials] == [trial.digest for trial in plan(grid=grid).trials]


@pytest.mark.slow
def test_each_index_has_its_own_winner(plan: MakePlan, rated_index: Any, tmp_path: Path) -> None:
    from semrec_faiss.config.reading import config_from_dict
    from semrec_faiss.index.build.run import build_index

    data = rated_index.path.parent / "data"
    index = {"type": "ivf_flat", "build": {"nlist": 3}, "search": {"nprobe": 1}}
    build_index(
        config_from_dict({"dataset": str(data), "output": str(tmp_path / "ivf"), "device": "cpu", "index": index})
    )
    made = plan(index=[str(rated_index.path), str(tmp_path / "ivf")], grid={"popularity": 0.2})
    outcome = run(made)
    assert [trial.what for trial in made.trials] == [
        "index: defaults",
        "index: popularity=0.2",
        "ivf: defaults",
        "ivf: popularity=0.2",
    ]
    assert outcome.document is not None
    assert [one.name for one in outcome.document.evaluations] == ["index", "ivf"]
    assert [one.index["exact"] for one in outcome.document.evaluations] == [True, False]


def test_indexes_that_hold_the_same_are_measured_once_and_shown_by_their_names(
    plan: MakePlan, rated_index: Any, tmp_path: Path
) -> None:
    shutil.copytree(rated_index.path, tmp_path / "twin")
    outcome = run(plan(index=[str(rated_index.path), str(tmp_path / "twin")], grid={"popularity": 0.2}))
    assert (outcome.measured_now, outcome.left) == (2, ())
    assert [record.index.name for record in outcome.records] == ["index", "index", "twin", "twin"]
    again = run(plan(index=str(tmp_path / "twin"), grid={"popularity": 0.2}))
    assert again.measured_now == 0
    results = EvaluationResults.read(plan().sweep.folder)
    assert [record.index.name for record in results.records] == ["twin", "twin"]
    assert results.document is not None
    assert [one.name for one in results.document.evaluations] == ["twin"]


def test_the_highest_mean_is_chosen_and_of_several_the_first(plan: MakePlan) -> None:
    outcome = run(plan(grid={"interests": [1, 2, 3]}))
    measured = [record for record in outcome.records if isinstance(record, MeasuredProfile)]

    def told(record: MeasuredProfile, ndcg: float, hits: float) -> MeasuredProfile:
        lists = record.at_10.as_json()
        means = {"ndcg": lists["ndcg"] | {"mean": ndcg}, "hit_rate": lists["hit_rate"] | {"mean": hits}}
        return MeasuredProfile.model_validate(record.as_json() | {"at_10": lists | means})

    records = [told(one, *means) for one, means in zip(measured, ((0.1, 0.5), (0.3, 0.2), (0.3, 0.6)), strict=True)]
    tried: dict[Profile, Summary] = {record.profile: record for record in records}
    assert best_profile(tried, "ndcg_at_10") == Profile(interests=2)
    assert best_profile(tried, "hit_rate_at_10") == Profile(interests=3)
    assert ranked(records, "ndcg_at_10") == [records[1], records[2], records[0]]


def test_time_left_is_told_by_profiles_of_as_many_interests(plan: MakePlan) -> None:
    trials = plan().trials
    (one, *_) = run(plan(grid={"interests": 1})).records

    def record(interests: int, seconds: float) -> AnyProfile:
        profile = Profile(interests=interests)
        return one.model_copy(update={"profile": profile, "elapsed_s": seconds})

    records = {"a": record(1, 2.0), "b": record(1, 4.0), "c": record(8, 30.0)}
    assert seconds_left(trials[:1], records) == 3.0  # one interest
    assert seconds_left(trials[2:3], records) == 12.0  # three, of which none is known: the mean of all
    assert seconds_left(trials, {}) is None
    assert seconds_left([], records) == 0


def test_progress_tells_what_is_tried_and_the_best_so_far(plan: MakePlan) -> None:
    seen: list[tuple[int, str, list[str]]] = []

    def watch(state: ProfileState) -> None:
        if not state.step[0]:
            seen.append((state.done, state.now, [one.label for one in state.best]))

    made = plan(grid={"popularity": 0.2})
    run(made, watch=watch)
    assert [(done, now) for done, now, _ in seen[:2]] == [(0, "index: defaults"), (1, "index: popularity=0.2")]
    assert [best for _, _, best in seen[:2]] == [[], ["defaults"]]
    assert seen[2][1].startswith("the winner on index: ")
    assert len(seen) == 3


def test_folders_of_one_kind_are_not_those_of_the_other(
    plan: MakePlan, tmp_path: Path, tiny_data: Any, tiny_plan: Callable[..., Any]
) -> None:
    made = plan(grid={"popularity": 0.2})
    run(made)
    with pytest.raises(UsageError, match=r"holds an evaluation of recommendations, not a sweep of indexes") as told:
        SweepResults.read(made.sweep.folder)
    assert "semrec report" in (told.value.fix or "")
    indexes = tiny_plan(tmp_path, tiny_data.root, filters=[], batch=1, grid=[{"type": "flat", "device": "cpu"}])
    with pytest.raises(UsageError, match=r"holds an evaluation of recommendations"):
        run_sweep(indexes, isolated=False)
    shutil.rmtree(made.sweep.folder)
    run_sweep(indexes, isolated=False)
    with pytest.raises(UsageError, match=r"holds a sweep of indexes"):
        run(plan(grid={"popularity": 0.2}))
    assert compare(SweepResults.read(indexes.sweep.folder), SweepResults.read(indexes.sweep.folder), 0.1, 0.1).pairs


def test_damage_is_told_with_file_and_field(plan: MakePlan) -> None:
    made = plan(grid={"popularity": 0.2})
    folder = made.sweep.folder
    with pytest.raises(NotFoundError, match=r"plan.json is not there"):
        EvaluationResults.read(folder)
    run(made)

    def broken(name: str, change: Callable[[dict[str, Any]], None], message: str) -> None:
        path = folder / name
        whole = path.read_text(encoding="utf-8")
        first, *rest = whole.splitlines() if name.endswith("l") else [whole]
        document = json.loads(first)
        change(document)
        path.write_text("\n".join([json.dumps(document), *rest]) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            EvaluationResults.read(folder)
        path.write_text(whole, encoding="utf-8")

    broken("trials.jsonl", lambda one: one["profile"].update(interests=5), "1 .*digest is not that of the settings")
    broken("trials.jsonl", lambda one: one["at_10"]["ndcg"].update(mean=2.0), "at_10.ndcg.mean: should be less than")
    broken("trials.jsonl", lambda one: one.pop("at_100"), "at_100 is missing")
    broken("trials.jsonl", lambda one: one["profile"].update(merge="no"), "profile.merge: should be 'score' or 'turns'")
    broken("evaluation.json", lambda one: one.update(by="x"), "evaluation.json is not whole: by: should be ")
    broken("evaluation.json", lambda one: one["evaluations"][0].pop("methods"), "evaluations.0.methods is missing")
    broken("plan.json", lambda one: one["trials"].append({}), "no plan of a sweep: trials.2.digest is missing")
    (folder / "evaluation.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"evaluation.json is not whole: it is not JSON"):
        EvaluationResults.read(folder)
    assert run(made).document is not None, "what is derived is written anew"
    assert EvaluationResults.read(folder).document is not None


@pytest.mark.slow
def test_the_winner_is_judged_again_only_where_it_is_another(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Profile] = []
    judge = Evaluator.judge

    def noting(self: Evaluator, chosen: Profile, *rest: Any) -> Any:
        judged.append(chosen)
        return judge(self, chosen, *rest)

    monkeypatch.setattr(Evaluator, "judge", noting)
    run(plan(grid={"popularity": 0.2}))
    run(plan(grid={"popularity": 0.2}))
    assert len(judged) == 1
    run(plan(grid={"popularity": 0.2}), rerun="all")
    assert judged == [judged[0]] * 2


def test_a_winner_that_is_not_the_ledgers_is_refused_and_one_by_another_metric_passed_over(plan: MakePlan) -> None:
    made = plan(grid={"interests": [1, 2], "popularity": [0.0, 0.5]})
    run(made)
    folder = made.sweep.folder
    path = folder / "evaluation.json"
    document = json.loads(path.read_text())
    assert EvaluationResults.read(folder).document is not None
    path.write_text(json.dumps(document | {"by": "hit_rate_at_100"}))
    assert EvaluationResults.read(folder).document is None
    others = [json.loads(line)["profile"] for line in (folder / "trials.jsonl").read_text().splitlines()]
    other = next(profile for profile in others if profile != document["evaluations"][0]["profile"])
    document["evaluations"][0]["profile"] = other
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"evaluation\.json is not whole: profile is not the best of trials\.jsonl"):
        EvaluationResults.read(folder)
    del document["evaluations"][0]["methods"]["recommender"]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="methods are"):
        EvaluationResults.read(folder)
