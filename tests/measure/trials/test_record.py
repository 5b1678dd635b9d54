"""Records that somebody or something has damaged: refused with line and field, never a winner and never a pass."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec

from semrec_faiss.errors import DataError
from semrec_faiss.measure.choose.pick import Wanted, pick
from semrec_faiss.measure.choose.regression import compare
from semrec_faiss.measure.documents.fields import Unsound, checked
from semrec_faiss.measure.trials.kind import PLAN
from semrec_faiss.measure.trials.plan_record import SWEEP_PLAN
from semrec_faiss.measure.trials.record import TRIAL_RECORD, TrialSettings
from semrec_faiss.measure.trials.results import SweepResults

Record = dict[str, Any]
Key = tuple[str | int, ...]

RESULTS = Path(__file__).resolve().parents[3] / "results"
OF_MEASURED = (
    "build",
    "load",
    "quality",
    "latency",
    "memory",
    "examples",
    "not_measured",
    "elapsed_s",
    "others_used_cores",
)
"""What a record has only where its trial was measured."""

GONE = object()
WRONG = [float("nan"), float("inf"), "x", None, [], {}, -1, 10**400, True, "\ud800", GONE]


def records_of(name: str) -> list[Record]:
    return [json.loads(line) for line in (RESULTS / name / "trials.jsonl").read_text("utf-8").splitlines()]


def chosen(name: str) -> list[Record]:
    """A trial without a filter, one with a filter, and one that failed."""
    records = records_of(name)
    plain = copy.deepcopy(next(one for one in records if one["index"]["type"] == "ivf_pq"))
    filtered = copy.deepcopy(next((one for one in records if one["filter"]), records[0]))
    failed = {key: value for key, value in records[-1].items() if key not in OF_MEASURED}
    for one in (plain, filtered):
        mean = one["latency"]["mean_ms"]
        same = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), mean)
        one["latency"] |= same | {"times_ms": [mean, mean]}
    return [plain, filtered, failed | {"status": "failed", "reason": "out of memory"}]


def mistake_in(record: Any, kind: Any = TRIAL_RECORD) -> str | None:
    """What is wrong with a record; None where all is well."""
    try:
        checked(kind, record)
    except Unsound as error:
        return str(error)
    return None


def mistake_in_plan(plan: Any) -> str | None:
    return mistake_in(plan, SWEEP_PLAN)


def digest_of(record: Record) -> str:
    settings = {name: record[name] for name in TrialSettings.model_fields}
    return TrialSettings.model_validate(settings).digest_in(record.get("format", "trial-1"))


def places(value: Any, at: Key = ()) -> Iterator[Key]:
    """Yield every place of a record, leaves and groups; of a list the first two."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


def changed(value: Any, at: Key, to: Any) -> Any:
    value = copy.deepcopy(value)
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    if to is GONE:
        del holder[at[-1]]
    else:
        holder[at[-1]] = to
    return value


def same(first: Any, second: Any) -> bool:
    return type(first) is type(second) and first == second


FREE = {
    "environment",
    "examples",
    "not_measured",
    "label",
    "reason",
    "data.name",
    "build.notes",
    "quality.strategy",
    "quality.by_popularity",
    "quality.by_slice",
    "quality.recall_interval.method",
    "latency.times_ms",
}
"""What is shown and not judged by: another text, or a list with one less, is as good."""

NOT_MEASURED = {"build.gpu_peak_bytes", "memory.gpu_peak_bytes", "others_used_cores"}
"""Null in some records, with the reason: a number in their place is as good."""


@pytest.mark.parametrize("name", ["sweep-demo", "sweep-gpu"])
def test_committed_ledgers_are_sound(name: str) -> None:
    records = records_of(name)
    assert [mistake_in(record) for record in records] == [None] * len(records)
    assert len(SweepResults.read(RESULTS / name).records) == len(records)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep-demo", "sweep-gpu"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_whatever_is_changed_in_a_record_is_noticed_unless_it_may_be_so(name: str, which: int) -> None:
    record = chosen(name)[which]
    assert mistake_in(record) is None
    passed = []
    for at in list(places(record))[1:]:
        for wrong in WRONG:
            broken = changed(record, at, wrong)
            mistake = mistake_in(broken)
            if mistake is None and not (wrong is not GONE and same(wrong, _value(record, at))):
                passed.append(".".join(map(str, at)))
    free = {place for place in passed if any(place == one or place.startswith(f"{one}.") for one in FREE)}
    assert set(passed) - free <= NOT_MEASURED


def _value(record: Any, at: Key) -> Any:
    for key in at:
        record = record[key]
    return record


@pytest.mark.parametrize("extra", ["", "data", "device", "latency", "quality", "memory", "build"])
def test_keys_that_a_later_version_adds_are_let_through(extra: str) -> None:
    record = chosen("sweep-demo")[0]
    (record[extra] if extra else record)["added later"] = [1]
    assert mistake_in(record | {"digest": digest_of(record)}) is None


def test_settings_are_those_of_the_digest() -> None:
    record = chosen("sweep-demo")[0]
    record["index"]["search"]["nprobe"] += 1
    assert str(mistake_in(record)).startswith("digest is not that of the settings beside it")


@pytest.mark.parametrize("name", ["sweep-demo", "sweep-gpu"])
def test_whatever_is_changed_in_a_plan_is_noticed_or_harmless(name: str) -> None:
    plan = json.loads((RESULTS / name / PLAN).read_text("utf-8"))
    plan["trials"] = plan["trials"][:2]
    assert mistake_in_plan(plan) is None
    for at in (
        ("sweep", "k", 0),
        ("sweep", "batch"),
        ("sweep", "dataset", 0),
        ("trials",),
        ("trials", 1, "digest"),
        ("sweep", "queries", "titles"),
        ("environment", "versions"),
        ("environment", "gpus"),
        ("invalid",),
    ):
        for wrong in (None, float("nan"), {"a": 1}, GONE) if at[-1] != 0 else (None, -1.5, "\ud800"):
            assert mistake_in_plan(changed(plan, at, wrong)) is not None, (at, wrong)
    assert mistake_in_plan([plan]) == "it is not a JSON object"


@pytest.fixture
def damaged(tmp_path: Path) -> Any:
    """Write a copy of a sweep whose second record was changed, and return its folder and the line's place."""

    def make(at: Key, wrong: Any) -> Path:
        folder = tmp_path / "damaged"
        shutil.copytree(RESULTS / "sweep-demo", folder)
        records = records_of("sweep-demo")
        records[1] = changed(records[1], at, wrong)
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "trials.jsonl").write_text(text, "utf-8")
        return folder

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "wrong", "told"),
    [
        (("latency", "p50_ms"), float("nan"), "latency.p50_ms: should be a finite number, not nan"),
        (("latency", "qps"), float("inf"), "latency.qps: should be a finite number, not inf"),
        (("latency", "p95_ms"), "x", "latency.p95_ms: should be a valid number, not 'x'"),
        (("quality", "recall"), None, "quality.recall is null, and not_measured does not say why"),
        (("quality", "recall"), 1.5, "quality.recall: should be less than or equal to 1, not 1.5"),
        (("quality", "recall"), GONE, "quality.recall is missing"),
        (("memory",), [], "memory: should be a valid dictionary"),
        (("build", "index_bytes"), -1, "build.index_bytes: should be greater than or equal to 1, not -1"),
        (("index", "search"), None, "index.search: should be a group of settings, not None"),
        (("status",), "done", "status: should be 'measured' or 'failed', not 'done'"),
        (("k",), 3, "digest is not that of the settings beside it"),
        (("label",), "\ud800", "holds half of a character"),
    ],
)
def test_damaged_record_ends_every_command_with_3_and_names_file_line_and_field(
    damaged: Any, tmp_path: Path, semrec: Semrec, at: Key, wrong: Any, told: str
) -> None:
    folder, good = damaged(at, wrong), RESULTS / "sweep-demo"
    commands = [
        ["pick", folder, "--recall", "0.9", "--out", tmp_path / "pick.yaml"],
        ["report", folder, "--out", tmp_path / "out"],
        ["report", "--compare", good, folder, "--out", tmp_path / "out"],
        ["check-regression", good, folder],
        ["check-regression", folder, good],
    ]
    for command in commands:
        heard = semrec(*command)
        assert (heard.code, heard.out) == (3, ""), heard.err
        assert f"{folder / 'trials.jsonl'}:2 is not a record of a trial: " in heard.err
        assert told in heard.err
    assert not (tmp_path / "pick.yaml").exists()
    assert not (tmp_path / "out").exists()


def test_what_may_be_changed_is_read_and_judged(damaged: Any) -> None:
    unlucky = records_of("sweep-demo")[1]["quality"] | {"recall": 0, "recall_titles": 0, "recall_users": 0}
    results = SweepResults.read(damaged(("quality",), unlucky))
    choice = pick(results, Wanted(recall=0.5, batch=10))
    assert choice.winner is not None
    assert choice.winner.recall_or_0 > 0.5
    found = compare(SweepResults.read(RESULTS / "sweep-demo"), results, 0.1, 0.005)
    assert [change.number for change in found.regressions] == ["recall"]


def test_damaged_plan(damaged: Any) -> None:
    folder = damaged(("reason",), None)
    plan = json.loads((folder / PLAN).read_text("utf-8"))
    for broken, told in ((changed(plan, ("sweep", "k"), []), r"sweep\.k"), ({}, "name is missing")):
        (folder / PLAN).write_text(json.dumps(broken), "utf-8")
        with pytest.raises(DataError, match=rf"plan\.json is no plan of a sweep: {told}"):
            SweepResults.read(folder)
    (folder / PLAN).write_text("{", "utf-8")
    with pytest.raises(DataError, match="it is not JSON"):
        SweepResults.read(folder)


@pytest.mark.parametrize("at", [("others_used_cores",), ("latency", "warmups")])
@pytest.mark.parametrize("wrong", [None, GONE, -1, "x", float("nan")])
def test_what_the_first_format_did_not_have_is_not_lost_later(at: Key, wrong: Any) -> None:
    record = next(one for one in records_of("sweep-gpu") if one["others_used_cores"] is not None)
    assert (record["format"], mistake_in(record)) == ("trial-2", None)
    assert str(mistake_in(changed(record, at, wrong))).startswith(".".join(at))
