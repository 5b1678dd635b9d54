"""``semrec bench``: its table, its JSON file, and the exit codes of --check."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.measure.bench import search as search_bench
from semrec_faiss.measure.bench.search_record import SearchResults
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.instruments.environment import stamp_of_this_run

TINY = ["--titles", "500", "--users", "50", "--dim", "16", "--repeats", "2"]


def timing(median_ms: float) -> dict[str, Any]:
    return {"median_ms": median_ms, "p95_ms": median_ms, "min_ms": median_ms, "times_ms": [median_ms]}


@cache
def one_stamp() -> Stamp:
    """Two would have two seconds now and then."""
    return stamp_of_this_run([])


def document(*, met: bool | None, cores: float | None = 0.1) -> SearchResults:
    """Return the results of one batch and one promise."""
    ours = {"ratio": 1.25, "added_ms": 0.5, **timing(2.5)}
    names = ("vector_index", "recommender", "recommender_with_titles")
    limits = dict.fromkeys(("copy_bytes_per_s", "read_bytes_per_s", "float32_flops_per_s", "float16_flops_per_s"), 1.0)
    limit = {"queries": 1000, "limit_ms": 0.5, "bound_by": "memory", "raw_faiss_gap": 4.0, "recommender_gap": 5.0}
    reason = "no reason" if met is None else None
    promise = Criterion.judge(
        0, "help", "semrec --help", None if met is None else 0.125 if met else 0.375, 0.25, "s", reason=reason
    )
    return SearchResults.whole(
        environment=one_stamp(),
        load_average_at_start=None,
        others_used_cores=cores,
        data={"titles": 62_423, "users": 0, "dim": 384, "made_by": None, "seed": None},
        index={"type": "flat"},
        device={"name": "cpu", "kind": "cpu", "gpus": [], "float16": False},
        k=10,
        search=[
            {"queries": 1000, "rounds": 1, "raw_faiss": timing(2.0), "largest_score_difference": 0.0}
            | dict.fromkeys(names, ours)
        ],
        faiss_defaults=None,
        agreement_with_cpu=None,
        gpu_memory=None,
        processes={"similar_gpu": None, "help": timing(1.0), "similar_cpu": timing(1.0)},
        memory={"build_flat": None, "read_users": None},
        floor={**limits, "by": "made up", "batches": [limit]},
        promises=[promise],
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[search_bench.SearchBench]:
    """Replace measuring by a made-up document; what was asked for is kept."""
    asked: list[search_bench.SearchBench] = []

    def bench_search(bench: search_bench.SearchBench, progress: object) -> SearchResults:
        asked.append(bench)
        return document(met=bench.repeats != 3)

    monkeypatch.setattr(search_bench, "bench_search", bench_search)
    return asked


def test_table_and_promises(measured: list[search_bench.SearchBench], tmp_path: Path, semrec: Semrec) -> None:
    result = semrec("bench", "search", "--out", str(tmp_path))
    assert result.code == 0
    lines = result.lines
    assert lines[0] == "flat index of 62,423 titles × 384 on cpu, median ms:"
    assert lines[2] == "1,000 2.000 2.500 ×1.250 2.500 ×1.250 2.500 ×1.250 0.500 ×5.00"
    assert lines[5] == "✓ semrec --help 0.125 s at most 0.250 s"
    assert result.err == f"wrote {tmp_path / 'bench-search-cpu.json'}\n"
    assert json.loads((tmp_path / "bench-search-cpu.json").read_text(encoding="utf-8")) == document(met=True).as_json()


@pytest.mark.parametrize(("cores", "named"), [(0.12, True), (0.1, False), (None, False)])
def test_a_busy_machine_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: float | None, named: bool, semrec: Semrec
) -> None:
    monkeypatch.setattr(search_bench, "bench_search", lambda *_: document(met=True, cores=cores))
    assert ("kept 0.1 cores busy during the run" in semrec("bench", "search", "--out", str(tmp_path)).err) is named


def test_options_reach_the_plan(measured: list[search_bench.SearchBench], tmp_path: Path, semrec: Semrec) -> None:
    semrec(
        "bench",
        "search",
        *TINY,
        "--type",
        "ivf_flat",
        "--device",
        "cpu",
        "--set",
        "index.search.nprobe=5",
        "--out",
        str(tmp_path),
    )
    (plan,) = measured
    assert (plan.titles, plan.users, plan.dim, plan.repeats, plan.index) == (500, 50, 16, 2, None)
    assert plan.config.device.kind == "cpu"
    assert plan.config.index.model_dump()["search"]["nprobe"] == 5


def test_an_index_keeps_its_shape_and_takes_settings(
    measured: list[search_bench.SearchBench], tmp_path: Path, semrec: Semrec
) -> None:
    index = str(tmp_path / "index")
    semrec("bench", "search", index, "--device", "cpu", "--set", "index.search.nprobe=5", "--out", str(tmp_path))
    (plan,) = measured
    assert plan.index == Path(index)
    assert plan.settings == ("index.search.nprobe=5", "device.kind=cpu")
    refused = semrec("bench", "search", index, "--dim", "16")
    assert "--dim shapes an index that is built for the run" in refused.err


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--check"], 1)])
def test_a_missed_promise_ends_with_1_only_when_checked(
    measured: list[search_bench.SearchBench], tmp_path: Path, options: list[str], code: int, semrec: Semrec
) -> None:
    result = semrec("bench", "search", "--repeats", "3", "--out", str(tmp_path), *options)
    assert result.code == code
    assert "✗ semrec --help" in " ".join(result.out.split())


def test_promises_kept_or_not_measured_pass_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, semrec: Semrec
) -> None:
    monkeypatch.setattr(search_bench, "bench_search", lambda *_: document(met=None))
    result = semrec("bench", "search", "--check", "--out", str(tmp_path))
    assert result.code == 0
    assert "– semrec --help not measured no reason" in " ".join(result.out.split())


def test_json_goes_to_stdout_too(measured: list[search_bench.SearchBench], tmp_path: Path, semrec: Semrec) -> None:
    result = semrec("bench", "search", "--json", "--out", str(tmp_path))
    assert result.document == document(met=True).as_json()


@pytest.mark.slow
def test_a_whole_run_on_an_index_of_ones_own(tmp_path: Path) -> None:
    data, index = tmp_path / "data", tmp_path / "index"
    write_synthetic(data, titles=500, users=50, dim=16)
    asked = {"index": {"type": "ivf_flat", "build": {"nlist": 4}}, "device": {"kind": "cpu"}}
    build_index(config_from_dict(asked).of(data).model_copy(update={"output": index}))
    command = [sys.executable, "-m", "semrec_faiss", "bench", "search", str(index), "--repeats", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'out' / 'bench-search-cpu-ivf_flat.json'}" in done.stderr.splitlines()
    written = json.loads((tmp_path / "out" / "bench-search-cpu-ivf_flat.json").read_text(encoding="utf-8"))
    assert written["environment"]["command"] == "semrec bench search .../index --repeats 2 --out .../out"
    assert written["data"] == {"titles": 500, "users": 50, "dim": 16, "made_by": None, "seed": None}
    assert written["memory"]["read_users"]["dtype"] == "float64"
    assert written["floor"]["batches"] is None
    assert {"faiss_defaults", "floor.batches", "data.made_by", "data.seed"} <= set(written["not_measured"])
    assert str(tmp_path) not in json.dumps(written)


@pytest.mark.parametrize(
    "asked, told",
    [
        (["--float16", "--originals"], "--float16 and --originals are measured apart"),
        (["--originals", "--gpus", "0,1"], "--originals and several --gpus are measured apart"),
        (["--gpus", "0,1", "--spectrum", "text"], "several --gpus and --spectrum text are measured apart"),
    ],
)
def test_what_bench_gpu_does_not_measure_together_is_refused(
    asked: list[str], told: str, tmp_path: Path, semrec: Semrec
) -> None:
    """All but one of them was ignored."""
    ended = semrec("bench", "gpu", *asked, "--out", tmp_path)
    assert ended.code == 2 and told in ended.err
    assert not list(tmp_path.iterdir())
