"""``semrec report FILE.json``: draws what was measured elsewhere, and writes nothing of what is not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, Semrec

MEASURED = REPO / "results" / "bench-gpu-h200.json"


def bench(**changes: Any) -> dict[str, Any]:
    """Return two batches of what `semrec bench gpu` measured once."""
    whole = json.loads(MEASURED.read_text(encoding="utf-8"))
    return whole | {"search": whole["search"][:2]} | changes


@pytest.mark.slow
def test_bench_gpu_becomes_a_picture(semrec: Semrec, tmp_path: Path) -> None:
    path = tmp_path / "bench-gpu-x.json"
    path.write_text(json.dumps(bench()), encoding="utf-8")
    ran = semrec("report", path)
    assert ran.code == 0, ran.err
    assert (tmp_path / "bench-gpu-x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "document",
    [
        {"test_1_similarity": {}},
        {"test_1_similarity": {}, "index": {"device": "../../evil"}},
        {"test_1_similarity": {}, "index": {"device": 3}},
        bench(search=[]),
        bench(search=[{"titles": 5}]),
        bench(environment=bench()["environment"] | {"gpus": []}),
        [1, 2],
    ],
)
def test_what_is_not_whole_is_bad_data_and_leaves_nothing(semrec: Semrec, tmp_path: Path, document: Any) -> None:
    path = tmp_path / "in" / "january.json"
    path.parent.mkdir()
    path.write_text(json.dumps(document), encoding="utf-8")
    ran = semrec("report", path, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (3, "")
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["january.json"]


@pytest.mark.parametrize(
    ("document", "told", "fix"),
    [
        ({"methods": {}, "protocol": {}}, "what `semrec evaluate` writes of one index", "that has the key evaluate"),
        ({"evaluations": []}, "the winners of a sweep", "semrec report in\n"),
        (
            {"environment": {"command": "semrec bench serve x"}},
            "what `semrec bench serve` writes",
            "`semrec bench gpu`",
        ),
    ],
)
def test_what_another_command_measured_is_told_for_what_it_is(
    semrec: Semrec, tmp_path: Path, document: Any, told: str, fix: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ev.json").write_text(json.dumps(document), encoding="utf-8")
    ran = semrec("report", "in/ev.json", cwd=tmp_path)
    assert (ran.code, ran.out) == (3, "")
    assert f"in/ev.json is {told}, of which no page is made\n" in ran.err and fix in ran.err


@pytest.mark.slow
def test_a_report_goes_to_no_file_and_to_no_index(semrec: Semrec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "CURRENT").write_text("gen-000001", encoding="utf-8")
    for out, told in (("file", "is a file; --out is a directory"), ("index", "is an index, whose files are its own")):
        ran = semrec("report", REPO / "results" / "sweep-demo", "--out", tmp_path / out)
        assert (ran.code, ran.out) == (2, "") and told in ran.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["CURRENT", "file", "index"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_limit_that_is_no_number_is_refused(semrec: Semrec, value: str) -> None:
    for arguments in (
        ("pick", "results/sweep-demo", "--recall", value),
        ("check-regression", "results/sweep-demo", "results/sweep-demo", "--recall-tolerance", value),
        ("memory", "configs/flat.yaml", "--titles", "1000", "--dim", "32", "--limit-gb", value),
    ):
        ran = semrec(*arguments, cwd=REPO)
        assert ran.code == 2, (arguments, ran.err)
        assert "finite" in ran.err or "range" in ran.err
