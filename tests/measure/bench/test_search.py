"""The benchmark's parts on made-up numbers, and one tiny run from data to document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import SemrecError, StorageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.index.hardware.gpu_memory import GpuState
from semrec_faiss.measure.bench.beside_faiss import RAW, blas_settings, rounds_of, row_of_batch
from semrec_faiss.measure.bench.promises import judge
from semrec_faiss.measure.bench.search import SearchBench, bench_search
from semrec_faiss.measure.bench.search_record import SearchResults
from semrec_faiss.measure.documents import results
from semrec_faiss.measure.documents.results import NotMeasured, device_name, save_results, settle
from semrec_faiss.measure.documents.stamp import Git
from semrec_faiss.measure.instruments import environment as environment_module
from semrec_faiss.measure.instruments import hardware_limit
from semrec_faiss.measure.instruments.environment import command_line, git_state, stamp_of_this_run
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits, measure_limits
from semrec_faiss.measure.instruments.processes import peak_bytes_of_process, semrec, time_process
from semrec_faiss.measure.instruments.timing import PairedTimings, Timing
from semrec_faiss.measure.quality.queries import made_up_queries
from semrec_faiss.search.recommender import Recommender

MB = 1_000_000


def made_up_document(**changes: Any) -> dict[str, Any]:
    """Return what `judge` looks at, every promise just kept."""
    ours = {**times(1.0), "ratio": 1.05, "added_ms": 0.2}
    names = ("vector_index", "recommender", "recommender_with_titles")
    batch = {"rounds": 1, "raw_faiss": times(1.0), "largest_score_difference": 0.0, **dict.fromkeys(names, ours)}
    beside = {"queries": 100, "rounds": 1, "faiss_defaults": times(1.0), "ours": times(1.0)}
    each = {**beside, "ratio_to_best": 1.0, "raw_faiss": times(1.0)}
    document: dict[str, Any] = {
        "environment": stamp_of_this_run([]).as_json(),
        "load_average_at_start": None,
        "others_used_cores": None,
        "data": {"titles": 1000, "users": 0, "dim": 100, "made_by": None, "seed": None},
        "index": {"type": "flat", "search": {}},
        "device": {"name": "cpu", "kind": "cpu", "gpus": [], "float16": False},
        "k": 10,
        "search": [{"queries": count, **batch} for count in (1, 1000)],
        "faiss_defaults": {**beside, "ratio": 0.35, "batches": [{**each, "ratio": 0.35}, {**each, "ratio": 1.0}]},
        "agreement_with_cpu": None,
        "gpu_memory": None,
        "processes": {"similar_gpu": None, "help": times(250.0), "similar_cpu": times(1500.0)},
        "memory": {
            "build_flat": {"vector_bytes": 400_000, "peak_bytes": 250_880_000},  # 2.2 × 1000 × 100 × 4 + 250 MB
            "read_users": {"dtype": "float64", "file_bytes": 7 * MB, "peak_bytes": 307 * MB},
        },
        "floor": None,
        "not_measured": {},
    }
    return document | changes


def times(median_ms: float) -> dict[str, Any]:
    return {"median_ms": median_ms, "p95_ms": median_ms, "min_ms": median_ms, "times_ms": [median_ms]}


def made_up(document: dict[str, Any]) -> SearchResults:
    return SearchResults.model_validate(document)


def verdicts(document: dict[str, Any]) -> dict[str, bool | None]:
    return {promise.name: promise.met for promise in judge(made_up(document))}


def test_promises_just_kept() -> None:
    assert verdicts(made_up_document()) == dict.fromkeys(
        (
            "thousand_queries_vector_index",
            "one_query_vector_index",
            "thousand_queries_recommender",
            "one_query_recommender",
            "hundred_queries",
            "faiss_as_it_comes",
            "help",
            "similar",
            "build_memory",
            "read_users_memory",
        ),
        True,
    )


@pytest.mark.parametrize(
    ("missed", "path", "value"),
    [
        ("hundred_queries", ("faiss_defaults", "ratio"), 0.3501),
        ("faiss_as_it_comes", ("faiss_defaults", "batches", 1, "ratio"), 1.01),
        ("help", ("processes", "help", "median_ms"), 250.1),
        ("similar", ("processes", "similar_cpu", "median_ms"), 1500.1),
        ("thousand_queries_vector_index", ("search", 1, "vector_index", "ratio"), 1.0501),
        ("one_query_recommender", ("search", 0, "recommender", "added_ms"), 0.2001),
        ("build_memory", ("memory", "build_flat", "peak_bytes"), 250_880_001),
        ("read_users_memory", ("memory", "read_users", "peak_bytes"), 307 * MB + 1),
    ],
)
def test_a_promise_just_missed(missed: str, path: tuple[Any, ...], value: float) -> None:
    document = json.loads(json.dumps(made_up_document()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    judged = verdicts(document)
    assert [name for name, met in judged.items() if met is not True] == [missed]
    assert judged[missed] is False


def test_what_was_not_measured_is_neither_met_nor_missed_and_says_why() -> None:
    reasons = {"faiss_defaults": "on a GPU", "memory.build_flat": "no data", "memory.read_users": "no users"}
    document = made_up_document(
        faiss_defaults=None, memory={"build_flat": None, "read_users": None}, not_measured=reasons
    )
    found = {promise.name: promise for promise in judge(made_up(document))}
    for name, reason in (
        ("hundred_queries", "on a GPU"),
        ("build_memory", "no data"),
        ("read_users_memory", "no users"),
    ):
        assert (found[name].measured, found[name].met, found[name].reason) == (None, None, reason)
    assert found["help"].met is True


def test_users_in_other_precision_and_refined_indexes_are_outside_the_promises() -> None:
    document = made_up_document()
    document["memory"]["read_users"]["dtype"] = "float32"
    document["index"] = {"type": "ivf_pq", "search": {"refine": 4}}
    found = {promise.name: promise for promise in judge(made_up(document))}
    assert found["read_users_memory"].reason == "the promise is about float64 users; these are float32"
    assert found["thousand_queries_recommender"].met is None
    assert "rescores" in str(found["thousand_queries_recommender"].reason)


def test_promise_as_a_limit_carries_both_numbers() -> None:
    results = made_up(made_up_document())
    results.promises = judge(results)
    assert results.as_json()["promises"][4] == {
        "name": "hundred_queries",
        "what": "100 queries on the CPU, to FAISS at its defaults",
        "measured": 0.35,
        "limit": 0.35,
        "unit": "x",
        "reason": None,
        "met": True,
    }


def test_settle_turns_gaps_into_null_with_a_reason() -> None:
    document = {"a": 1, "b": NotMeasured("no b"), "c": {"d": NotMeasured("no d"), "e": [2]}}
    assert settle(document) == {
        "a": 1,
        "b": None,
        "c": {"d": None, "e": [2]},
        "not_measured": {"b": "no b", "c.d": "no d"},
    }


def test_row_of_batch_puts_ours_beside_raw() -> None:
    raw, slower = Timing((2.0, 4.0, 8.0)), Timing((4.0, 6.0, 12.0))
    timings = {RAW: raw, "vector_index": raw, "recommender": slower, "recommender_with_titles": slower}
    row = row_of_batch(10, PairedTimings(timings), 1e-7).as_json()
    assert (row["queries"], row["rounds"], row["largest_score_difference"]) == (10, 3, 1e-7)
    assert row["raw_faiss"] == raw.told().as_json()
    assert (row["vector_index"]["ratio"], row["vector_index"]["added_ms"]) == (1.0, 0.0)
    assert (row["recommender"]["ratio"], row["recommender"]["added_ms"]) == (1.5, 2.0)
    assert row["recommender"]["times_ms"] == [4.0, 6.0, 12.0]


@pytest.mark.parametrize(("queries", "expected"), [(1, 200), (10, 100), (100, 40), (1000, 20), (10_000, 5), (7, 20)])
def test_rounds_follow_the_batch(queries: int, expected: int) -> None:
    assert rounds_of(queries, 20) == expected


def test_at_least_two_rounds() -> None:
    assert rounds_of(10_000, 2) == 2


def test_limit_is_the_larger_of_moving_bytes_and_computing() -> None:
    hardware = HardwareLimits(
        copy_bytes_per_s=20e9,
        read_bytes_per_s=10e9,
        float32_flops_per_s=100e9,
        float16_flops_per_s=400e9,
        int8_ops_per_s=800e9,
        by="made up",
    )
    # 1,001 × 250 × 4 + 120 bytes at 20 GB/s; 0.5 M operations take 0.005 ms
    one = hardware.limit(1, 1000, 250, 10).as_json()
    assert one == {"limit_ms": pytest.approx(0.05006, abs=1e-5), "bound_by": "memory"}
    assert hardware.limit(1000, 1000, 250, 10).as_json() == {"limit_ms": 5.0, "bound_by": "arithmetic"}
    halves = hardware.limit(1000, 1000, 250, 10, numbers="float16").as_json()
    assert halves == {"limit_ms": 1.25, "bound_by": "arithmetic"}
    many = hardware.limit(1000, 1000, 250, 10, numbers="int8").as_json()
    assert many == {"limit_ms": 0.625, "bound_by": "arithmetic"}
    earlier = hardware.model_copy(update={"int8_ops_per_s": None})
    assert earlier.limit(1000, 1000, 250, 10, numbers="int8").limit_ms == 1.25
    codes = hardware.limit(1, 10**6, 250, 10, numbers="int8", title_bytes=254).as_json()  # 254 million + 1,120 bytes
    assert codes == {"limit_ms": 12.70006, "bound_by": "memory"}


def test_a_gpu_without_int8_products_has_its_other_limits() -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("_int_mm: not supported")

    def made(*_: Any, **__: Any) -> NDArray[np.int8]:
        return np.ones((2, 2), np.int8)

    def finished(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()

        return run

    for product in ({"_int_mm": refused}, {}):
        fake = SimpleNamespace(randint=made, int8=None, **product)
        assert hardware_limit._int8_rate(fake, None, finished) is None
    fake = SimpleNamespace(randint=made, int8=None, _int_mm=np.matmul)
    found = hardware_limit._int8_rate(fake, None, finished)
    assert found is not None
    assert found > 0


def test_cpu_limits_are_measured_and_a_gpu_without_torch_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    missing = measure_limits(Device(gpus=(0,)))
    assert isinstance(missing, NotMeasured)
    assert "torch is not installed" in missing.reason
    assert isinstance(measure_limits(Device(gpus=(0, 1))), NotMeasured)


def test_blas_settings_come_back_after_an_error() -> None:
    settings = load_faiss().cvar
    before = (settings.distance_compute_blas_threshold, settings.distance_compute_blas_database_bs)
    with pytest.raises(ZeroDivisionError), blas_settings(128_000, 4096, 1024):
        assert settings.distance_compute_blas_threshold == 128_000
        assert settings.distance_compute_blas_database_bs == 1024
        raise ZeroDivisionError
    assert (settings.distance_compute_blas_threshold, settings.distance_compute_blas_database_bs) == before


def test_device_names(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [GpuState(0, "NVIDIA H200", "570", 1, 0), GpuState(1, "NVIDIA GeForce RTX 4090", "570", 1, 0)]
    monkeypatch.setattr(results, "gpu_states", lambda: cards)
    named = [device_name(Device(gpus)) for gpus in ((), (0,), (1,), (0, 1), (5,))]
    assert named == ["cpu", "h200", "geforce-rtx-4090", "h200-x2", "gpu"]


def test_results_are_named_by_device_and_type() -> None:
    device = {"name": "h200", "kind": "gpu", "gpus": [0], "float16": False}

    def name(index: dict[str, str]) -> str:
        return made_up(made_up_document(index=index, device=device)).file_name

    assert name({"type": "flat"}) == "bench-search-h200.json"
    assert name({"type": "ivf_flat"}) == "bench-search-h200-ivf_flat.json"
    assert name({"factory": "IVF8,SQ8"}) == "bench-search-h200-factory.json"


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    save_results({"title": "Amélie"}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"title": "Amélie"}
    with pytest.raises(ValueError, match="JSON"):
        save_results({"title": float("nan")}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"title": "Amélie"}
    assert list(path.parent.iterdir()) == [path]


def test_results_in_an_impossible_place_are_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        save_results({}, tmp_path / "file" / "a.json")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no peak resident set")
def test_peak_memory_is_the_childs_own() -> None:
    ballast = np.ones(40 * MB, np.float64)  # 320 MB held by this process must not count
    takes = f"b = bytearray({100 * MB}); b[::4096] = b'x' * len(b[::4096])"
    small = peak_bytes_of_process([sys.executable, "-c", "pass"])
    large = peak_bytes_of_process([sys.executable, "-c", takes])
    assert small is not None
    assert large is not None
    assert small < 60 * MB < ballast.nbytes
    assert 100 * MB <= large < small + 130 * MB


@pytest.mark.slow
def test_a_measured_process_that_fails_is_an_error() -> None:
    failing = [sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(SemrecError, match=r"(?s)exit code 3.*out of luck$"):
        time_process(failing, repeats=1)
    if sys.platform != "win32":
        with pytest.raises(SemrecError, match=r"(?s)exit code 3.*out of luck$"):
            peak_bytes_of_process(failing)


@pytest.mark.slow
def test_processes_are_timed_after_one_that_is_not_counted() -> None:
    told: list[tuple[str, int, int]] = []
    timing = time_process(semrec("--version"), repeats=2, what="version", progress=lambda *step: told.append(step))
    assert len(timing.times_ms) == 2
    assert told == [("version", 1, 3), ("version", 2, 3), ("version", 3, 3)]


def test_command_line_is_as_typed_without_absolute_paths() -> None:
    typed = ["bench", "search", "my index", "--out", "/home/someone/results", "--set=output=/tmp/x/y", "results/a"]
    expected = "semrec bench search 'my index' --out .../results --set=output=.../y results/a"
    assert command_line(typed) == expected
    assert command_line(["C:\\Users\\someone\\index"]) == "semrec .../index"


def test_git_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # temporary folders may lie in a checkout
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) == Git(commit=None, dirty=False)
    (tmp_path / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert git_state(tmp_path) == Git(commit=git("rev-parse", "HEAD"), dirty=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "r.json").write_text("{}")
    assert git_state(tmp_path) == Git(commit=git("rev-parse", "HEAD"), dirty=False)
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path) == Git(commit=git("rev-parse", "HEAD"), dirty=True)


def test_environment_stamp_names_versions_and_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_module, "gpu_states", lambda: [GpuState(0, "NVIDIA H200", "570.1", 140, 7)])
    stamp = stamp_of_this_run(["bench", "search"]).as_json()
    assert stamp["command"] == "semrec bench search"
    assert stamp["versions"]["numpy"] == np.__version__
    assert stamp["versions"]["faiss"] == load_faiss().__version__
    assert stamp["versions"]["faiss_wheel"] in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
    assert stamp["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stamp["gpus"] == [{"name": "NVIDIA H200", "driver": "570.1", "memory_bytes": 140}]
    assert stamp["date"].endswith("+00:00")
    assert stamp["cpu"]["cores"] >= 1
    assert stamp["faiss_threads"] >= 1
    assert set(stamp["blas"]) == {"faiss", "numpy"}
    assert not re.search(r'["= ]/', json.dumps(stamp)), "no absolute path, whatever this machine's folders are called"


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    return bench_search(SearchBench(Config(), titles=500, users=50, dim=16, repeats=2)).as_json()


@pytest.mark.slow
def test_tiny_run_measures_every_section_of_a_cpu(tiny: dict[str, Any]) -> None:
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny
    assert tiny["data"] == {"titles": 500, "users": 50, "dim": 16, "made_by": "semrec dataset synth", "seed": 7}
    assert (tiny["index"]["type"], tiny["k"]) == ("flat", 10)
    assert [row["queries"] for row in tiny["search"]] == [1, 10, 100, 1000, 10_000]
    assert [row["rounds"] for row in tiny["search"]] == [20, 10, 4, 2, 2]
    for row in tiny["search"]:
        assert row["largest_score_difference"] < 1e-5
        for name in ("raw_faiss", "vector_index", "recommender", "recommender_with_titles"):
            assert len(row[name]["times_ms"]) == row["rounds"]
            assert 0 < row[name]["min_ms"] <= row[name]["median_ms"] <= row[name]["p95_ms"]
    assert tiny["faiss_defaults"]["queries"] == 100
    assert [row["queries"] for row in tiny["faiss_defaults"]["batches"]] == [1, 10, 100, 1000, 10_000]
    assert tiny["memory"]["read_users"]["file_bytes"] == 128 + 50 * 16 * 8
    assert tiny["memory"]["build_flat"]["vector_bytes"] == 500 * 16 * 4
    assert tiny["memory"]["build_flat"]["peak_bytes"] > tiny["memory"]["libraries"]["peak_bytes"] > 20 * MB
    assert [row["queries"] for row in tiny["floor"]["batches"]] == [1, 10, 100, 1000, 10_000]
    assert all(isinstance(promise["met"], bool) for promise in tiny["promises"])


@pytest.mark.slow
def test_tiny_run_says_what_a_cpu_leaves_out(tiny: dict[str, Any]) -> None:
    untold = {"others_used_cores"}  # but on Linux
    assert set(tiny["not_measured"]) - untold == {"agreement_with_cpu", "gpu_memory", "processes.similar_gpu"}
    assert tiny["gpu_memory"] is None
    assert tiny["processes"]["similar_gpu"] is None


def test_made_up_queries_are_unit_vectors_and_repeatable(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", titles=60, users=0, dim=8)
    asked = {"index": {"type": "ivf_flat", "search": {"nprobe": 1}}, "device": {"kind": "cpu"}}
    config = config_from_dict(asked).of(tmp_path / "data").model_copy(update={"output": tmp_path / "index"})
    build_index(config)
    index = Recommender.open(tmp_path / "index").index
    queries = made_up_queries(index, 40, seed=3)
    assert queries.shape == (40, 8)
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(queries[:5], made_up_queries(index, 40, seed=3)[:5])
    assert not np.array_equal(queries, made_up_queries(index, 40, seed=4))
