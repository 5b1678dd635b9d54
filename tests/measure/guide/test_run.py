"""The comparison: the guide's structure, what each test says of a small index, and that no failure loses the rest."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import NotFoundError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.faiss_index import QUERY_BLOCK_ROWS, FaissIndex
from semrec_faiss.index.hardware.device import Device, gpu_count
from semrec_faiss.index.hardware.gpu_memory import GpuState
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.search_result import SearchResult
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide import run as guide_module
from semrec_faiss.measure.guide.batches import KEYS as BATCH_KEYS
from semrec_faiss.measure.guide.batches import batch_criteria, batch_numbers, batch_queries
from semrec_faiss.measure.guide.config import CompareSettings, Prices, load_settings
from semrec_faiss.measure.guide.details import MemoryDetails
from semrec_faiss.measure.guide.filtering import NOT_APART, filter_times, genre_title
from semrec_faiss.measure.guide.gpu_and_cpu import (
    AS_FUSED,
    Side,
    Sides,
    as_fused,
    hearing_of_memory,
    open_sides,
    steady,
)
from semrec_faiss.measure.guide.memory import KEYS, memory_criteria, memory_numbers
from semrec_faiss.measure.guide.personalization import chosen_users, commonest_genres, decades, genre_alignment
from semrec_faiss.measure.guide.record import BatchNumbers, GuideResults, MemoryTest
from semrec_faiss.measure.guide.run import GuideRun, run_guide
from semrec_faiss.measure.guide.similarity import franchise_size, query_titles
from semrec_faiss.measure.instruments.index_memory import JudgedPrediction
from semrec_faiss.measure.instruments.index_memory_record import GpuMemory, HostMemory, SearchPeak
from semrec_faiss.measure.instruments.timing import Timing
from semrec_faiss.progress import silent
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender

CPU = ("device.kind=cpu",)
QUICK = {"repeats": 2, "batch": {"sizes": [10, 100, 200]}, "memory": {"batches": [100]}, "parity": {"queries": 40}}


def compare(asked: GuideRun, **options: Any) -> dict[str, Any]:
    """Run the tests and return what a results file holds."""
    return run_guide(asked, **options).as_json()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 600 titles in franchises and 300 users who have seen some."""
    root = tmp_path_factory.mktemp("compare")
    write_synthetic(root / "data", titles=600, users=300, dim=24, seed=3, seen_per_user=10)
    settings = {"index": {"type": "flat"}, "dataset": str(root / "data"), "output": str(root / "index")}
    build_index(config_from_dict(settings | {"device": "cpu"}))
    return root / "index"


@pytest.fixture(scope="module")
def results(index: Path) -> dict[str, Any]:
    """Everything, on the CPU."""
    return compare(GuideRun(index, CPU, questions=CompareSettings.model_validate(QUICK)))


def test_the_guides_five_objects_have_exactly_its_keys(results: dict[str, Any]) -> None:
    keys = [key for key in results if re.fullmatch(r"test_\d_.*", key)]
    assert keys == [
        "test_1_similarity",
        "test_2_personalization",
        "test_3_batch",
        "test_4_filtering",
        "test_5_memory",
    ]

    def guides(values: dict[str, Any]) -> set[str]:
        return {key for key in values if not key.startswith("cpu_")}

    assert guides(results["test_1_similarity"]) == {"gpu_time_ms", "results"}
    assert guides(results["test_2_personalization"]) == {"avg_gpu_time_ms", "user_results"}
    assert list(results["test_3_batch"]) == ["batch_10", "batch_100", "batch_200"]
    for row in results["test_3_batch"].values():
        assert guides(row) == {"total_time_ms", "time_per_query_ms", "throughput_qps"}
        assert {key for key in row if key.startswith("cpu_")} == {f"cpu_{key}" for key in guides(row)}
    assert guides(results["test_5_memory"]) == set(KEYS)


def test_the_types_are_the_guides(results: dict[str, Any]) -> None:
    similar = results["test_1_similarity"]["results"]
    assert [one["rank"] for one in similar] == list(range(1, 11))
    assert all(set(one) == {"rank", "title", "similarity"} for one in similar)
    assert all(isinstance(one["title"], str) and isinstance(one["similarity"], float) for one in similar)
    assert isinstance(results["test_1_similarity"]["cpu_time_ms"], float)
    users = results["test_2_personalization"]["user_results"]
    assert len(users) == 5
    assert all(len(user["recommendations"]) == 5 for user in users)
    for row in results["test_3_batch"].values():
        assert row["cpu_time_per_query_ms"] > 0
        assert row["cpu_throughput_qps"] == pytest.approx(1e3 / row["cpu_time_per_query_ms"], rel=1e-2)
    memory = results["test_5_memory"]
    assert 0 < memory["cpu_allocated_gb"] <= memory["cpu_peak_allocated_gb"] < memory["cpu_peak_reserved_gb"]
    assert memory["cpu_peak_reserved_gb"] < memory["cpu_total_gb"]
    json.dumps(results, allow_nan=False)


def test_what_no_gpu_measured_is_null_with_a_reason(results: dict[str, Any]) -> None:
    assert results["test_1_similarity"]["gpu_time_ms"] is None
    assert results["test_3_batch"]["batch_100"]["throughput_qps"] is None
    reasons = results["not_measured"]
    for place in (
        "test_1_similarity.gpu_time_ms",
        "test_2_personalization.user_results.4.gpu_time_ms",
        "test_3_batch.batch_100.throughput_qps",
        "test_5_memory.peak_reserved_gb",
        "parity.gpu_to_cpu",
    ):
        assert reasons[place] == "device.kind=cpu was asked for"
    assert reasons["profile"] == "--profile was not given"
    nulls = [one["name"] for one in results["criteria"] if one["met"] is None]
    assert nulls == ["gpu_time", "gpu_time", "headroom", "parity"]
    assert all(one["reason"] for one in results["criteria"] if one["met"] is None)


def test_answers_are_right_and_said_to_be(results: dict[str, Any]) -> None:
    met = {one["name"]: one["met"] for one in results["criteria"]}
    for name in ("all_match", "ordered", "complete", "out_of_memory", "base", "peak", "reference"):
        assert met[name] is True, name
    assert results["parity"]["cpu_to_float64"]["overlap"] == 1.0
    shares = results["details"]["filtering"]["shares"]
    assert [row["share"] for row in shares] == [0.5, 0.1, 0.01, 0.001]
    assert all(row["cpu_returned"] == min(10, row["matching"]) for row in shares)
    assert all("Sci-Fi" in one["genres"] for one in results["test_4_filtering"]["results"])


def test_environment_and_raw_times_are_kept(results: dict[str, Any]) -> None:
    environment = results["environment"]
    assert re.fullmatch(r"[0-9a-f]{64}", environment["data_digest"])
    assert environment["versions"]["faiss"]
    assert environment["seconds"] > 0
    times = results["details"]["batch"]["batch_100"]["cpu_times"]["times_ms"]
    assert len(times) >= 2
    assert results["test_3_batch"]["batch_100"]["cpu_total_time_ms"] == pytest.approx(np.median(times), abs=1e-3)


def test_only_some_tests(index: Path) -> None:
    found = compare(GuideRun(index, CPU, only=(4,), questions=CompareSettings.model_validate(QUICK)))
    assert found["test_4_filtering"]["cpu_time_ms"] > 0
    assert found["test_3_batch"]["batch_10"]["cpu_throughput_qps"] is None
    assert found["not_measured"]["test_3_batch.batch_10.cpu_throughput_qps"] == "not asked for (--only 4)"
    assert found["not_measured"]["details.memory"] == "not asked for (--only 4)"
    with pytest.raises(UsageError, match=r"no test 6"):
        compare(GuideRun(index, CPU, only=(6,)))


def test_a_test_that_fails_loses_nothing_else(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a driver's whim")

    tests = guide_module.TESTS | {2: ("test_2_personalization", "personalization", fail)}
    monkeypatch.setattr(guide_module, "TESTS", tests)
    kept: list[GuideResults] = []
    questions = CompareSettings.model_validate(QUICK)
    found = compare(GuideRun(index, CPU, (1, 2, 3), questions), keep=kept.append)
    assert found["test_2_personalization"] == {"avg_gpu_time_ms": None, "cpu_avg_time_ms": None, "user_results": None}
    reason = found["not_measured"]["test_2_personalization.user_results"]
    assert reason == "the test failed: RuntimeError: a driver's whim"
    assert found["test_3_batch"]["batch_100"]["cpu_throughput_qps"] > 0
    assert [one["met"] for one in found["criteria"] if one["test"] == 2] == [None]
    assert kept[0].test_1_similarity.cpu_time_ms == found["test_1_similarity"]["cpu_time_ms"]
    assert kept[0].not_measured["test_3_batch.batch_10.cpu_throughput_qps"] == "the run ended before it"


def test_names_that_do_not_exist_are_refused_before_anything_runs(index: Path) -> None:
    for questions in (
        {"similarity": {"titles": ["no such title at all"]}},
        {"personalization": {"users": ["nobody"]}},
        {"filtering": {"title": "no such title at all"}},
    ):
        with pytest.raises(NotFoundError):
            compare(GuideRun(index, CPU, questions=CompareSettings.model_validate(questions)))


def test_an_approximate_index_is_not_held_to_exact_arithmetic(index: Path, tmp_path: Path) -> None:
    data = index.parent / "data"
    settings = {"index": {"type": "ivf_flat", "build": {"nlist": 12}, "search": {"nprobe": 1}}, "device": "cpu"}
    build_index(config_from_dict(settings | {"dataset": str(data), "output": str(tmp_path / "ivf")}))
    found = compare(GuideRun(tmp_path / "ivf", CPU, (1,), CompareSettings.model_validate(QUICK)))
    (reference,) = [one for one in found["criteria"] if one["name"] == "reference"]
    assert reference["met"] is None
    assert reference["reason"].startswith("the index is approximate; its recall is 0.")


# --- the parts, on values worked out by hand ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recommender(index: Path) -> Recommender:
    return Recommender.open(index, CPU)


def test_query_titles_are_the_earliest_of_the_largest_franchises(recommender: Recommender, index: Path) -> None:
    found = query_titles(recommender.catalog, 3)
    items = next(index.glob("gen-*/items.parquet"))
    rows = duckdb.sql(f"SELECT franchise, media_id, year, _semrec_row AS row FROM '{items}'").fetchall()
    members: dict[str, list[tuple[int, int, str]]] = {}
    for franchise, media_id, year, row in rows:
        if franchise is not None:
            members.setdefault(franchise, []).append((year, row, media_id))
    largest = sorted(members, key=lambda name: (-len(members[name]), name))[:3]
    assert found == [min(members[name])[2] for name in largest]
    assert franchise_size(recommender.catalog, largest[0]) == len(members[largest[0]])


def test_users_are_spread_or_those_named(recommender: Recommender) -> None:
    ids = recommender.users.ids
    assert chosen_users(recommender, 3) == [ids[0], ids[149], ids[299]]
    assert chosen_users(recommender, (ids[7],)) == [ids[7]]
    with pytest.raises(NotFoundError):
        chosen_users(recommender, ("nobody",))


def test_why_genres_are_not_aligned_says_what_is_missing(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", titles=60, users=9, dim=16, seed=3, seen_per_user=0)
    build_index(config_from_dict({"dataset": str(tmp_path / "data"), "output": str(tmp_path / "i"), "device": "cpu"}))
    found = compare(GuideRun(tmp_path / "i", CPU, (2,), CompareSettings.model_validate(QUICK)))
    (reason,) = [one["reason"] for one in found["criteria"] if one["name"] == "genre_alignment"]
    assert reason == "the index does not know what its users have seen"


def test_genres_decades_alignment() -> None:
    seen = [["Drama", "War"], ["Drama"], ["Comedy", "War"], None, ["Action", "Action"]]
    assert commonest_genres(seen) == ["Drama", "War", "Action"]
    by_rating = np.array([0.0, 0.25, 0.5, 1.0, 0.125])
    assert commonest_genres(seen, by_rating) == ["Comedy", "War", "Drama"]
    assert commonest_genres(seen[:2], by_rating[:2]) == ["Drama"], "what was rated lowest says nothing"
    assert genre_alignment(["Drama"], [["Drama", "War"], ["Comedy"], None, ["Drama"]]) == 0.5
    assert genre_alignment([], [["Drama"]]) is None
    assert decades([1999, 1990, 2000, None, 1989]) == [1980, 1990, 2000]


def test_the_filters_title_is_of_the_genre(recommender: Recommender) -> None:
    row = recommender.catalog.row_of(genre_title(recommender, "Sci-Fi"))
    assert "Sci-Fi" in recommender.catalog.records([row])[0]["genres"]
    with pytest.raises(UsageError, match="no title has the genre 'Sky-Fi'"):
        genre_title(recommender, "Sky-Fi")


def test_batches_are_users_where_there_are_enough(recommender: Recommender) -> None:
    vectors, made_by = batch_queries(recommender, 300, 7)
    assert made_by == "users"
    np.testing.assert_array_equal(vectors, recommender.users.vectors)
    assert batch_queries(recommender, 301, 7)[1] == "made up between titles, seed 7"


def test_numbers_of_a_batch() -> None:
    gap = NotMeasured("out of memory")
    found = batch_numbers({"gpu": gap, "cpu": Timing((4.0, 5.0, 9.0))}, 100)
    assert [found.of_side("cpu", key) for key in BATCH_KEYS] == [5.0, 0.05, 20_000.0]
    assert [found.of_side("gpu", key) for key in BATCH_KEYS] == [None, None, None]
    assert {found.why(key) for key in BATCH_KEYS} == {"out of memory"}


@pytest.mark.parametrize(
    ("qps", "heard", "expected"),
    [
        ({10: 900.0, 100: 1000.0, 1000: 900.0}, [], [True, True, True]),
        ({10: 900.0, 100: 999.9, 1000: 899.9}, ["memory on gpu ran out"], [False, False, False]),
        ({10: 900.0, 100: None, 1000: None}, [], [None, None, False]),
    ],
)
def test_batch_criteria(qps: dict[int, float | None], heard: list[str], expected: list[bool | None]) -> None:
    gap = NotMeasured("memory does not suffice")
    rows = {}
    for size, value in qps.items():
        numbers = dict.fromkeys(BatchNumbers.model_fields, gap) | {"throughput_qps": value or gap}
        rows[size] = BatchNumbers.of(**numbers)
    found = batch_criteria(rows, {"gpu": heard}, "gpu", CompareSettings())
    assert [one.met for one in found] == expected


def test_memory_numbers_of_a_gpu_and_of_a_process() -> None:
    searches = [SearchPeak(batch=100, peak_bytes=2_300_000_000), SearchPeak(batch=10_000, peak_bytes=2_500_000_000)]
    gpu = GpuMemory(
        context_bytes=500_000_000,
        base_bytes=2_200_000_000,
        total_bytes=40_000_000_000,
        free_bytes=37_800_000_000,
        faiss_counts_bytes={},
        searches=searches,
    )
    assert memory_numbers("gpu", gpu) == dict(zip(KEYS, (1.7, 2.2, 40.0, 37.8, 2.0, 2.5), strict=True))
    host = HostMemory(start_bytes=60_000_000, base_bytes=100_000_000, available_bytes=None, searches=searches)
    cpu = memory_numbers("cpu", host)
    assert (cpu["cpu_allocated_gb"], cpu["cpu_reserved_gb"], cpu["cpu_peak_reserved_gb"]) == (0.1, 0.16, 2.56)
    assert cpu["cpu_free_gb"] == NotMeasured("this system does not tell")


def test_memory_criteria() -> None:
    no_cpu = dict.fromkeys([f"cpu_{key}" for key in KEYS], NotMeasured("not asked for"))
    guide = MemoryTest.of(**dict(zip(KEYS, (2.0, 2.2, 40.0, 37.8, 5.1, 4.0), strict=True)), **no_cpu)
    memory = GpuMemory(context_bytes=0, base_bytes=0, total_bytes=0, free_bytes=0, faiss_counts_bytes={}, searches=[])
    judged = {"gpu": JudgedPrediction.of("base", 110, 100), "cpu": JudgedPrediction.of("base", 90_000_000, 110_000_000)}
    details = MemoryDetails.of(
        **{kind: {"predicted": {}, "judged": [one], "measured": memory} for kind, one in judged.items()}
    )
    found = memory_criteria(guide, details, "gpu", CompareSettings().memory)
    assert [(one.name, one.measured, one.met) for one in found] == [
        ("base", 2.0, True),
        ("peak", 5.1, False),
        ("headroom", 0.9, True),
        ("prediction", 1.0, False),
    ]


def test_memory_that_runs_out_is_heard_of_and_searching_goes_on(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = open_sides(index, CPU, silent)
    real = FaissIndex.faiss_search

    def short_of_memory(self: FaissIndex, queries: Any, k: int, **options: Any) -> Any:
        if len(queries) > 64:
            raise RuntimeError("Error: out of memory")
        return real(self, queries, k, **options)

    monkeypatch.setattr(FaissIndex, "faiss_search", short_of_memory)
    with hearing_of_memory() as heard:
        found = sides.cpu.recommender.search(sides.cpu.recommender.users.vectors[:200], 5)
    assert len(found) == 200
    assert heard == ["memory on cpu ran out at a block of 200 queries; going on with smaller blocks"]
    sides.cpu.recommender.index.block_rows = QUERY_BLOCK_ROWS
    questions = CompareSettings.model_validate(QUICK)
    outcome = guide_module.batches_test(sides, questions, silent)
    assert outcome.details.memory_ran_out["cpu"] == [
        "memory on cpu ran out at a block of 100 queries; going on with smaller blocks"
    ]
    assert [one.met for one in outcome.criteria if one.name == "out_of_memory"] == [False]


def test_steady_repeats_as_often_as_there_is_time() -> None:
    calls: list[int] = []
    assert len(steady(lambda: calls.append(1), 7).times_ms) == 7
    assert len(calls) == 7 + 2


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_a_machine_without_a_gpu_says_so(index: Path) -> None:
    assert open_sides(index, (), silent).no_gpu == NotMeasured("FAISS sees no GPU on this machine")


# --- type fused where there is one ------------------------------------------------------------------------------------


@pytest.fixture
def seen_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let there seem to be one GPU of a compute capability, and torch and Triton that use it."""

    def see(capability: tuple[int, int] = (9, 0), *, usable: bool = True, packages: bool = True) -> None:
        state = GpuState(0, "NVIDIA Card", "580.1", 80 << 30, 0, capability=capability)
        at = "semrec_faiss.measure.guide.gpu_and_cpu."
        monkeypatch.setattr(at + "gpu_count", lambda: 1)
        monkeypatch.setattr(at + "gpu_states", lambda: [state])
        monkeypatch.setattr(at + "find_spec", lambda name: name if packages else None)
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: usable)))

    return see


def test_an_index_of_type_flat_is_asked_as_type_fused_where_a_gpu_runs_it(
    index: Path, seen_gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_gpu()
    assert as_fused(SavedIndex(index), ()) == (AS_FUSED,)
    assert as_fused(SavedIndex(index), CPU) == ()
    named = ("index.type=flat",)
    assert as_fused(SavedIndex(index, named), named) == ()
    rounded = ("device.kind=auto", "device.float16=true")
    assert as_fused(SavedIndex(index, rounded), rounded) == ()
    seen_gpu((0, 0))
    assert as_fused(SavedIndex(index), ()) == (AS_FUSED,), "the driver does not tell"
    monkeypatch.setattr("semrec_faiss.measure.guide.gpu_and_cpu.FUSED_DIM_LIMIT", 23)
    assert as_fused(SavedIndex(index), ()) == (), "of 24 dimensions"


@pytest.mark.parametrize("lacking", [{"capability": (7, 5)}, {"usable": False}, {"packages": False}])
def test_what_does_not_run_type_fused_is_asked_as_it_is(
    index: Path, seen_gpu: Callable[..., None], lacking: dict[str, Any]
) -> None:
    seen_gpu(**lacking)
    assert as_fused(SavedIndex(index), ()) == ()


def test_the_whole_comparison_is_of_type_fused_then(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_module, "as_fused", lambda *_: (AS_FUSED,))
    real, opened = guide_module.open_sides, []

    def noting(path: Path, settings: Sequence[str], progress: Any) -> Sides:
        opened.append((*settings,))
        return real(path, settings, progress)

    monkeypatch.setattr(guide_module, "open_sides", noting)
    found = compare(GuideRun(index, CPU, (1,), CompareSettings.model_validate(QUICK)))
    assert opened == [(*CPU, AS_FUSED)]
    assert found["index"]["config"]["type"] == "fused"
    assert GuideResults.model_validate(found).index.type == "fused"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_example_files_are_the_defaults(repo: Path) -> None:
    assert load_settings(CompareSettings, repo / "configs" / "compare.yaml") == CompareSettings()
    assert load_settings(Prices, repo / "configs" / "costs.yaml") == Prices()


def test_the_example_file_names_every_key(repo: Path) -> None:
    text = (repo / "configs" / "compare.yaml").read_text(encoding="utf-8")
    for name, field in CompareSettings.model_fields.items():
        assert re.search(rf"^{name}:", text, re.MULTILINE), name
        for inner in getattr(field.annotation, "model_fields", {}):
            assert re.search(rf"^  {inner}:", text, re.MULTILINE), f"{name}.{inner}"


def test_settings_are_read_with_overrides() -> None:
    found = load_settings(CompareSettings, None, ["batch.sizes=[5, 1000, 5]", "similarity.titles=[Alien]"])
    assert found.batch.sizes == (5, 1000)
    assert found.similarity.titles == ("Alien",)


# --- two sides, the second of which stands for a GPU ------------------------------------------------------------------


@pytest.fixture
def two_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU play the GPU's part too, its scores off by a little in one place."""
    real = guide_module.open_sides

    def both(path: Path, settings: Any, progress: Any) -> Sides:
        cpu = real(path, CPU, progress).cpu
        other = Side("gpu", "h200", Recommender.open(path, CPU), 91.5)
        search = other.recommender.index.search

        def nearly(queries: Any, k: int, *, prepared: bool = False) -> SearchResult:
            found = search(queries, k, prepared=prepared)
            if len(queries) == QUICK["parity"]["queries"]:
                found.rows[3, [1, 2]] = found.rows[3, [2, 1]]
                found.scores[0, 0] += np.float32(0.25)
            return found

        monkeypatch.setattr(other.recommender.index, "search", nearly)
        return Sides(cpu, other, NotMeasured(""))

    monkeypatch.setattr(guide_module, "open_sides", both)


@pytest.mark.slow
def test_both_sides_stand_in_every_test(index: Path, two_sides: None) -> None:
    found = compare(GuideRun(index, CPU, (1, 2, 3, 4), CompareSettings.model_validate(QUICK)))
    assert found["test_1_similarity"]["gpu_time_ms"] > 0
    assert found["test_2_personalization"]["avg_gpu_time_ms"] > 0
    assert found["details"]["personalization"]["gpu_first_search_ms"] == 91.5
    for row in found["test_3_batch"].values():
        assert row["throughput_qps"] > 0
        assert row["cpu_throughput_qps"] > 0
    assert found["test_4_filtering"]["gpu_time_ms"] > 0
    apart = [f"test_4_filtering.gpu_{name}_time_ms" for name in ("search", "host")]
    assert [found["not_measured"][name] for name in apart] == [NOT_APART.reason] * 2
    assert [machine["name"] for machine in found["cost"]["machines"]][1:] == [
        "H200 on demand",
        "H200 preemptible",
        "H200 committed",
    ]
    first = [found["details"][name]["gpu_first_times"]["times_ms"] for name in ("similarity", "personalization")]
    reached = [one["measured"] for one in found["criteria"] if one["name"] == "gpu_time"]
    expected = [np.median(first[0]), np.mean(first[1])]
    assert reached == pytest.approx(expected, abs=1e-3), "of titles and users that are asked for the first time"
    met = {one["name"]: one["met"] for one in found["criteria"]}
    assert isinstance(met["gpu_time"], bool), "whether it is met hangs on the machine"
    assert met["parity"] is True


@pytest.mark.parametrize(("fused", "apart"), [(None, {"gpu_search_ms", "gpu_host_ms"}), (object(), set())])
def test_time_in_faiss_is_told_only_where_faiss_searches(fused: Any, apart: set[str]) -> None:
    index = SimpleNamespace(device=Device((0,)), fused=fused, faiss_index=SimpleNamespace(search=lambda: None))
    recommender = SimpleNamespace(index=index, similar=lambda title, k, where: SimpleNamespace(strategy="masked"))
    side: Any = SimpleNamespace(kind="gpu", recommender=recommender)
    times = filter_times(side, "Alien", Filter(), CompareSettings(repeats=3))
    assert times.keys() - apart == {"gpu_time_ms", "gpu_unfiltered_ms", "gpu_strategy", "gpu_times"}
    assert apart <= times.keys()


@pytest.mark.slow
def test_near_ties_and_wrong_scores_are_listed(index: Path, two_sides: None) -> None:
    found = compare(GuideRun(index, CPU, (1,), CompareSettings.model_validate(QUICK)))["parity"]
    swapped = found["gpu_to_cpu"]
    assert swapped["overlap"] == 1.0
    assert swapped["same_place"] == pytest.approx(1 - 2 / (40 * 10))
    assert swapped["largest_score_difference"] == pytest.approx(0.25)
    assert swapped["largest_score_error"] == pytest.approx(0.25, abs=1e-6)
    assert [(one["query"], one["rank"]) for one in swapped["differences"]] == [(3, 2), (3, 3)]
    first, second = swapped["differences"]
    assert (first["gpu_title"], first["cpu_title"]) == (second["cpu_title"], second["gpu_title"])
