"""``semrec compare`` and ``semrec memory``: what they print, write and end with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

from semrec_faiss.cli.process.exit import INTERRUPTED
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import StorageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import gpu_count
from semrec_faiss.measure.guide import run as measuring
from semrec_faiss.measure.instruments.index_memory_record import HostMemory, SearchPeak
from semrec_faiss.measure.memory import measured as memory_measured

CPU = ("--set", "device.kind=cpu")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli-compare")
    write_synthetic(root / "data", titles=200, users=40, dim=16, seed=6, seen_per_user=5)
    settings = {"dataset": str(root / "data"), "output": str(root / "index"), "device": "cpu"}
    build_index(config_from_dict(settings))
    return root / "index"


@pytest.mark.slow
def test_compare_prints_criteria_and_writes_the_files(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    result = semrec("compare", index, *CPU, "--only", "1,3", "--set", "repeats=2", "--out", str(tmp_path))
    assert result.code == 0
    assert result.code == 0
    lines = result.lines
    assert lines[0] == "flat index of 200 titles × 16 on CPU:"
    assert "✓ 3 batches for which memory ran out 0 at most 0" in lines
    assert "– 1 one title on the GPU not measured device.kind=cpu was asked for" in lines
    assert any(line.startswith("1,000 at once ") for line in lines)
    assert "test_results.json" in result.err
    assert {path.name for path in tmp_path.iterdir()} == {
        "cpu_test_results.json",
        "cpu_test_results.html",
        "CPU_TEST_RESULTS.md",
        "cpu_test_results",
    }


@pytest.mark.slow
def test_compare_json_trace_users_and_batches(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    trace = tmp_path / "traces" / "trace.json"
    result = semrec(
        "compare",
        index,
        *CPU,
        "--only",
        "2,3",
        "--set",
        "repeats=2",
        "--out",
        str(tmp_path / "out"),
        "--json",
        "--users",
        "user_00000001, user_00000004",
        "--batch",
        "7",
        "--batch",
        "50",
        "--profile",
        str(trace),
    )
    assert result.code == 0
    document = result.document
    users = [user["user_id"] for user in document["test_2_personalization"]["user_results"]]
    assert users == ["user_00000001", "user_00000004"]
    assert list(document["test_3_batch"]) == ["batch_7", "batch_10", "batch_50", "batch_100", "batch_1000"]
    assert document["profile"]["traced_by"] == "the wall clock"
    names = [event["name"] for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]]
    assert names == ["test 1: one title", "test 2: one user", "test 3: 1,000 queries", "test 4: one genre"]
    assert document == json.loads((tmp_path / "out" / "cpu_test_results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_tests_and_users_that_are_named_one_by_one_add_up(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    # Once a fault: the last --only was all that counted.
    quick = ["--set", "repeats=2", "--out", str(tmp_path), "--json"]
    named = ["--only", "1", "--only", "2", "--users", "user_00000004", "--users", "user_00000001"]
    document = semrec("compare", index, *CPU, *named, *quick).document
    assert document["test_1_similarity"]["cpu_time_ms"] is not None
    users = [user["user_id"] for user in document["test_2_personalization"]["user_results"]]
    assert users == ["user_00000004", "user_00000001"]
    assert document["test_4_filtering"]["cpu_time_ms"] is None


@pytest.mark.parametrize(("option", "path"), [("--profile", "."), ("--profile", "file/x"), ("--out", "file")])
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, path: str, semrec: Semrec
) -> None:
    # Once a fault: only the JSON told that the trace was not written.
    monkeypatch.setattr(measuring, "open_sides", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    given = [option, str(tmp_path / path)]
    result = semrec("compare", index, *CPU, *given, *([] if option == "--out" else ["--out", str(tmp_path / "out")]))
    assert result.code == 2
    assert sorted(place.name for place in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--check"], 1)])
def test_a_criterion_missed_ends_with_1_only_when_checked(
    index: Path, tmp_path: Path, options: list[str], code: int, semrec: Semrec
) -> None:
    asked = ["--only", "1", "--set", "repeats=2", "--set", "similarity.target_similarity=1.0", "--out", str(tmp_path)]
    result = semrec("compare", index, *CPU, *asked, *options)
    assert result.code == code
    assert any(line.startswith("✗ 1 similarity of the best result") for line in result.lines)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--only", "1;2"], 2, "not a list of tests"),
        (["--only", "7"], 2, r"no test 7"),
        (["--users", " , "], 2, "names nobody"),
        (["--users", "nobody"], 4, "no user 'nobody'"),
        (["--config", "nowhere.yaml"], 4, "nowhere.yaml does not exist"),
        (["--costs", "nowhere.yaml"], 4, "nowhere.yaml does not exist"),
        (["--set", "batch.k=0"], 2, "batch.k"),
        (["--set", "filtering.shares=[2]"], 2, "shares"),
        (["--set", "index.build.nlist=3"], 2, "fixed when the index is built"),
        (["--set", "output=x"], 2, "fixed when the index is built"),
        (["--set", "k=3"], 2, "unknown key 'k'; known here: batch, device, filtering, index, memory, .*, similarity$"),
        (["--set", "simularity.k=3"], 2, "--set 'simularity.k=3': unknown key .*; did you mean 'similarity'"),
        (["--set", "batch.kk=3"], 2, "unknown key 'batch.kk'; .*known here: k, sizes, target_qps_at_100"),
        (["--set", "seed"], 2, "not of the form KEY.KEY=VALUE"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_file(
    index: Path, tmp_path: Path, arguments: list[str], code: int, said: str, semrec: Semrec
) -> None:
    result = semrec("compare", index, *arguments, "--out", str(tmp_path / "out"))
    assert (result.code, re.search(said, result.err, re.MULTILINE) is not None) == (code, True), result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_a_gpu_asked_for_by_name_must_be_there(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    result = semrec("compare", index, "--set", "device.kind=gpu", "--out", str(tmp_path / "out"))
    assert result.code == 6
    assert not (tmp_path / "out").exists()


def test_no_index_no_comparison(tmp_path: Path, semrec: Semrec) -> None:
    assert semrec("compare", tmp_path / "none").code == 4


def test_memory_prints_parts_and_what_fits(repo: Path, semrec: Semrec) -> None:
    config = str(repo / "configs" / "flat.yaml")
    result = semrec("memory", config, "--titles", "1000000", "--dim", "384", "--batch", "1", "--limit-gb", "40")
    assert result.code == 0
    lines = result.lines
    assert lines[0] == "flat index of 1,000,000 titles × 384, 1 query, k = 10:"
    assert lines[2].startswith("vectors or codes 1.5 GB 1.5 GB")
    # A title takes 384 · 4 bytes, 192 bounds of two bytes and a score of four; 191 directions 384 · 4 bytes, twice;
    # a query 1,536, ten results twice 240, the program 5.5 MiB.
    fit = (40_000_000_000 - 2 * 191 * 384 * 4 - 1536 - 240 - 5_767_168) // (384 * 4 + 192 * 2 + 4)
    assert lines[-2] == f"CPU: {fit:,} titles fit 40.0 GB (as given)"
    assert lines[-1].endswith("titles fit 40.0 GB (as given)")


def test_memory_predicts_titles_that_come_as_float16(repo: Path, semrec: Semrec) -> None:
    """Of these type fused keeps copies and codes and no originals: 3 bytes a component, as the README measures."""
    asked = (
        "memory",
        str(repo / "configs" / "fused.yaml"),
        "--titles",
        "100000000",
        "--dim",
        "384",
        "--limit-gb",
        "141",
    )
    found = semrec(*asked, "--float16", "--set", "index.build.directions=0", "--json").document
    assert found["float16"]
    assert found["prediction"]["gpu"]["vectors_bytes"] == pytest.approx(3 * 384 * 100_000_000, rel=0.02)
    told = semrec(*asked, "--float16", "--batch", "1").lines
    assert told[0] == "fused index of 100,000,000 titles × 384 that come as float16, 1 query, k = 10:"
    assert not semrec(*asked, "--json").document["float16"]


def test_memory_tells_how_titles_that_come_as_float16_are_kept(semrec: Semrec) -> None:
    asked = ("memory", "fused", "--titles", "100000000", "--dim", "384", "--float16", "--batch", "1")
    for limit, kept, told, *more in (
        ("200", "bounded", ["beside bounds and the codes of these"]),
        ("120", "uncoded", ["beside bounds without codes, which have no room"]),
        ("120", "halves", ["without bounds"], "--set", "index.build.directions=0"),
        ("50", "halves", []),  # they do not fit
    ):
        lines = semrec(*asked, "--limit-gb", limit, *more).lines
        assert [line for line in lines if "kept" in line] == [
            f"GPU: titles are kept as they came, {how}" for how in told
        ]
        predicted = semrec(*asked, "--limit-gb", limit, *more, "--json").document["prediction"]
        assert (predicted["gpu"]["kept"], predicted["cpu"]["kept"]) == (kept, None)


def test_memory_tells_what_originals_take_of_the_host(repo: Path, semrec: Semrec) -> None:
    asked = ("memory", "fused", "--titles", "40000000", "--dim", "384", "--limit-gb", "80")
    asked += ("--set", "index.build.directions=0")
    lines = semrec(*asked).out.splitlines()
    assert "GPU: 61.4 GB of originals page-locked in the host's memory besides" in lines
    fits = next(line for line in lines if line.startswith("GPU: ") and "fit 80.0 GB" in line)
    assert fits.endswith("(as given), with 99.9 GB of originals page-locked in the host's memory")
    told = semrec(*asked, "--json").document["prediction"]["gpu"]
    assert told["host"]["locked_bytes"] == 40_000_000 * 384 * 4
    assert told["largest_locked_bytes"] == told["largest_catalogue"] * 384 * 4
    assert "page-locked" not in semrec(*asked, "--set", "device.originals=gpu").out


def test_memory_measures_what_it_predicts(repo: Path, semrec: Semrec, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def ends(*_: Any, media_dtype: str, **__: Any) -> None:
        made.append(media_dtype)
        raise StorageError("this is all that was wanted")

    monkeypatch.setattr(memory_measured, "write_synthetic", ends)
    asked = ("memory", str(repo / "configs" / "fused.yaml"), "--titles", "500", "--dim", "32", "--measure")
    assert [semrec(*asked, *more).code for more in ((), ("--float16",))] == [8, 8]
    assert made == ["float32", "float16"]


def test_memory_takes_the_configs_data(repo: Path, semrec: Semrec) -> None:
    arguments = ["--dataset", str(repo / "data" / "demo"), "--json", "--set", "device.kind=cpu"]
    document = semrec("memory", str(repo / "configs" / "flat.yaml"), *arguments).document
    assert (document["titles"], document["dim"]) == (1519, 384)
    assert list(document["prediction"]) == ["cpu"]


def test_memory_tells_what_it_takes_from_the_data_when_one_size_is_given(repo: Path, semrec: Semrec) -> None:
    """Once without a word: the demo's dimensions, and that they come as float16, of a million titles of nobody's."""
    asked = ("memory", str(repo / "configs" / "fused.yaml"), "--dataset", str(repo / "data" / "demo"))
    told = f"is that of {repo / 'data' / 'demo'}"
    more = ", and so is whether they come as float16"
    assert f"note: --dim {told}{more}" in semrec(*asked, "--titles", "1000000").err
    assert f"note: --titles {told}\n" in semrec(*asked, "--dim", "64", "--float16").err
    assert all("note:" not in semrec(*asked, *sizes).err for sizes in ((), ("--titles", "9", "--dim", "64")))


def test_memory_takes_an_index_as_build_does(repo: Path, tmp_path: Path, semrec: Semrec) -> None:
    demo = ("--dataset", str(repo / "data" / "demo"))
    built = semrec("build", "hnsw", *demo, "--output", tmp_path / "index", "--set", "index.build.M=8")
    assert built.code == 0, built.err
    of_index = semrec("memory", tmp_path / "index", "--json").document
    of_config = semrec("memory", "hnsw", *demo, "--set", "index.build.M=8", "--json").document
    assert of_index["prediction"] == of_config["prediction"] and of_index["titles"] == 1519
    nothing = semrec("memory", tmp_path)
    assert (nothing.code, f"{tmp_path} is a folder, not a config file" in nothing.err) == (4, True)


def test_memory_without_a_config_predicts_the_default_index(repo: Path, semrec: Semrec) -> None:
    """As build takes none; it was told that CONFIG is missing."""
    sizes = ("--titles", "1000", "--dim", "64", "--json")
    document = semrec("memory", *sizes).document
    assert (
        document["prediction"] == semrec("memory", str(repo / "configs" / "flat.yaml"), *sizes).document["prediction"]
    )


def test_memory_counts_the_users_that_type_fused_takes_to_a_gpu(repo: Path, semrec: Semrec) -> None:
    config, data = str(repo / "configs" / "fused.yaml"), repo / "data" / "demo"
    users, dim = np.load(data / "users" / "preference_vectors.npy", mmap_mode="r").shape
    seen = pq.read_table(data / "users" / "seen.parquet").num_rows
    needed = 4 * users * dim + 8 * (users + 1) + 4 * seen  # vectors in float32, where each list ends, the lists
    assert semrec("memory", config, "--dataset", str(data), "--json").document["gpu_users_bytes"] == needed
    flat = str(repo / "configs" / "flat.yaml")
    assert semrec("memory", flat, "--dataset", str(data), "--json").document.get("gpu_users_bytes") is None


@pytest.mark.parametrize("made_up", [("--titles", "2000", "--dim", "64"), ("--titles", "2000"), ("--dim", "64")])
def test_memory_counts_no_users_beside_titles_that_are_not_the_datasets(
    made_up: tuple[str, ...], repo: Path, semrec: Semrec
) -> None:
    asked = ("memory", str(repo / "configs" / "fused.yaml"), "--dataset", str(repo / "data" / "demo"), *made_up)
    document = semrec(*asked, "--json").document
    assert (document["titles"], document["dim"]) == (
        2000 if "--titles" in made_up else 1519,
        64 if "--dim" in made_up else 384,
    )
    assert document.get("gpu_users_bytes") is None
    assert not any("users" in line for line in semrec(*asked).lines)


@pytest.mark.parametrize(("measured", "code"), [(2_000_000_000, 1), (6_000_000, 0)])
def test_memory_check_ends_with_1_when_a_prediction_is_off(
    repo: Path, monkeypatch: pytest.MonkeyPatch, measured: int, code: int, semrec: Semrec
) -> None:
    def found(_: Path, settings: Any, batches: Any, k: int) -> HostMemory:
        searches = [SearchPeak(batch=batch, peak_bytes=measured) for batch in batches]
        return HostMemory(start_bytes=0, base_bytes=measured, available_bytes=None, searches=searches)

    monkeypatch.setattr(memory_measured, "measure_memory", found)
    asked = ["--titles", "50", "--dim", "8", "--batch", "2", "--measure", "--check", "--set", "device.kind=cpu"]
    result = semrec("memory", str(repo / "configs" / "flat.yaml"), *asked)
    assert result.code == code
    assert any(line.startswith(("✗ base", "✓ base")) for line in result.lines)


def test_a_kept_document_is_on_disk_before_the_next_test(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semrec: Semrec
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    tests = measuring.TESTS | {3: ("test_3_batch", "batch", die)}
    monkeypatch.setattr(measuring, "TESTS", tests)
    result = semrec("compare", index, *CPU, "--only", "1,3", "--set", "repeats=2", "--out", str(tmp_path))
    assert result.code == INTERRUPTED
    kept = json.loads((tmp_path / "cpu_test_results.json").read_text(encoding="utf-8"))
    assert kept["test_1_similarity"]["cpu_time_ms"] > 0
