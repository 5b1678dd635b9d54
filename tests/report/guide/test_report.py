"""The report of a comparison, made from results that a run on a CPU gave and from ones with a GPU's numbers added."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import MissingPackageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.record import GuideResults
from semrec_faiss.measure.guide.run import GuideRun, run_guide
from semrec_faiss.report.guide import files as guide_files
from semrec_faiss.report.guide import report as guide_report
from semrec_faiss.report.guide.charts import filters_chart
from semrec_faiss.report.guide.files import save_comparison
from semrec_faiss.report.page.document import Cell, Chart, Document, Table
from semrec_faiss.report.page.markdown import markdown_page
from semrec_faiss.report.page.names import one_percent_sign
from semrec_faiss.report.page.numbers import (
    as_change,
    as_gb,
    as_money,
    as_ms,
    as_qps,
    as_recall,
    as_share,
    as_times,
    as_unit,
)

pytestmark = pytest.mark.slow  # a comparison is run for it

QUICK = {"repeats": 2, "batch": {"sizes": [10, 100]}, "memory": {"batches": [100]}, "parity": {"queries": 20}}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All tests on the CPU, on 300 titles."""
    root = tmp_path_factory.mktemp("report")
    write_synthetic(root / "data", titles=300, users=100, dim=16, seed=5, seen_per_user=8)
    settings = {"dataset": str(root / "data"), "output": str(root / "index"), "device": "cpu"}
    build_index(config_from_dict(settings))
    questions = CompareSettings.model_validate(QUICK)
    return run_guide(GuideRun(root / "index", ("device.kind=cpu",), questions=questions)).as_json()


@pytest.fixture
def with_gpu(results: dict[str, Any]) -> dict[str, Any]:
    """The same with a GPU's numbers beside the CPU's, made up."""
    found = copy.deepcopy(results)
    found["index"] |= {"device": "h200", "gpu": "h200"}
    found["test_1_similarity"] |= {"gpu_time_ms": 0.25, "cpu_time_ms": 20.0}
    found["test_2_personalization"]["avg_gpu_time_ms"] = 0.3
    for query in found["details"]["similarity"]["queries"]:
        query["gpu_time_ms"] = 0.25
    for user in found["details"]["personalization"]["users"]:
        user["gpu_time_ms"] = 0.3
    found["details"]["personalization"]["gpu_first_search_ms"] = 91.5
    for name, times in (("similarity", [0.5, 0.9, 0.4]), ("personalization", [0.8, 0.3, 0.4])):
        told = {"median_ms": sorted(times)[1], "p95_ms": max(times), "min_ms": min(times), "times_ms": times}
        found["details"][name]["gpu_first_times"] = told
    found["test_3_batch"]["batch_100"] |= {"throughput_qps": 200_000.0, "cpu_throughput_qps": 2000.0}
    filtering = found["details"]["filtering"]
    filtering |= {
        "gpu_time_ms": 0.6,
        "gpu_unfiltered_ms": 0.3,
        "gpu_search_ms": 0.4,
        "gpu_host_ms": 0.2,
        "gpu_strategy": "overfetch",
    }
    for share in filtering["shares"]:
        share |= {"gpu_time_ms": 0.5, "gpu_strategy": "subset", "gpu_returned": 10}
    judged = {"what": "base", "predicted_bytes": 2_000_000_000, "measured_bytes": 2_500_000_000, "error": -0.2}
    counts = {"FlatData": 96_000_000, "TemporaryMemoryBuffer": 1_610_612_736}
    searches = [{"batch": 100, "peak_bytes": 1}]
    sizes = dict.fromkeys(("context_bytes", "base_bytes", "total_bytes", "free_bytes"), 1)
    measured = {**sizes, "faiss_counts_bytes": counts, "searches": searches}
    found["details"]["memory"]["gpu"] = {
        "predicted": {},
        "judged": [judged | {"holds": False}],
        "measured": measured,
    }
    near = {"query": 3, "rank": 7, "gpu_title": "A", "cpu_title": "B", "gpu_score": 0.5, "cpu_score": 0.4999999}
    near["score_difference"] = 1e-7
    differences = {"largest_score_difference": 1e-7, "largest_score_error": 1e-7}
    agreement = {"overlap": 1.0, "queries_with_all": 1.0, "same_place": 0.995, **differences}
    found["parity"]["gpu_to_cpu"] = agreement | {"differences": [near]}
    kernel = {"name": "sgemm<128>", "calls": 4, "total_ms": 0.5, "share": 0.75}
    times = {"cuda_times_ms": [0.2], "wall_times_ms": [0.25]}
    events = {"test 1: one title": {"cuda_ms": 0.2, "wall_ms": 0.25, **times}}
    found["profile"] = {"trace": "trace.json", "traced_by": "torch.profiler", "kernels": [kernel], "events": events}
    return found


def guide_document(results: dict[str, Any]) -> Document:
    return guide_report.guide_document(GuideResults.model_validate(results))


def performance_table(results: dict[str, Any]) -> Table:
    return guide_report.performance_table(GuideResults.model_validate(results))


def rows_of(document: Document, section: str, place: int = 0) -> list[list[str]]:
    """Return a table of a section as Markdown shows it."""
    (found,) = [one for one in document.sections if one.title == section]
    table = [block for block in found.blocks if isinstance(block, Table)][place]
    text = markdown_page(Document("", "", [type(found)("", [Table(table.columns, table.rows)])]))
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_part_has_its_section(results: dict[str, Any]) -> None:
    titles = [section.title for section in guide_document(results).sections]
    assert titles == [
        "At a glance",
        "Performance",
        "Quality",
        "1 · Similar titles",
        "2 · Recommendations for users",
        "3 · Batches",
        "4 · Filters",
        "5 · Memory",
        "Parity",
        "Cost",
        "Environment",
        "What was not measured, and why",
    ]
    assert [chart.name for chart in guide_document(results).charts()] == [
        "times",
        "throughput",
        "filters",
        "memory",
        "cost",
    ]


def test_the_performance_table_divides_the_right_way_round(with_gpu: dict[str, Any]) -> None:
    rows = rows_of(guide_document(with_gpu), "Performance")
    assert rows[0] == ["one title", "20.0 ms", "under 1.00 ms", "0.250 ms", "80 ×"]
    assert rows[-1] == ["100 at once", "2,000/s", "over 1,000/s", "200,000/s", "100 ×"]


def test_questions_for_the_first_time_are_told_apart_from_those_asked_again(with_gpu: dict[str, Any]) -> None:
    """The median of titles and the mean of users, as they are judged; a document from before has none."""
    rows = {row[0]: row for row in rows_of(guide_document(with_gpu), "Performance")}
    assert rows["one title, for the first time"][2:4] == ["under 1.00 ms", "0.500 ms"]
    assert rows["one user"][2:4] == ["under 2.00 ms", "0.300 ms"]
    assert rows["one user, for the first time"][2:4] == ["under 2.00 ms", "0.500 ms"]
    assert rows["one title, for the first time"][1] != "–"
    said = "Targets of one title and one user are held against those that were asked for the first time."
    assert said in markdown_page(guide_document(with_gpu))
    for name in ("similarity", "personalization"):
        for kind in ("gpu", "cpu"):
            with_gpu["details"][name][f"{kind}_first_times"] = None
    document = guide_document(with_gpu)
    assert [row[0] for row in rows_of(document, "Performance")][:2] == ["one title", "one user"]
    assert said not in markdown_page(document)


def test_rows_that_nothing_is_known_of_are_left_out(results: dict[str, Any]) -> None:
    bare = copy.deepcopy(results)
    bare["test_1_similarity"]["cpu_time_ms"] = bare["details"]["similarity"]["cpu_first_times"] = None
    assert performance_table(bare).rows[0][0] == "one user"


def test_the_quality_table_has_every_criterion_that_is_not_about_time(results: dict[str, Any]) -> None:
    rows = rows_of(guide_document(results), "Quality")
    expected = [one["what"] for one in results["criteria"] if one["unit"] not in ("ms", "qps")]
    assert [row[0] for row in rows] == [one_percent_sign(what).replace("_", "\\_") for what in expected]
    assert rows[-2][3] == "not measured: device.kind=cpu was asked for"
    assert rows[-1][1:] == ["at least 99.90%", "100%", "✓ met"]


def test_a_gpu_is_in_every_section(with_gpu: dict[str, Any]) -> None:
    document = guide_document(with_gpu)
    text = markdown_page(document)
    assert document.title == "Test results: H200"
    assert "H200: 91.5 ms cold, 0.300 ms a user warm" in text
    assert "H200: 0.600 ms (unfiltered 0.300 ms), of which 0.400 ms on the GPU and 0.200 ms on the host" in text
    assert "| H200, base | 2,000.0 | 2,500.0 | -20.0% | ✗ off |" in text
    assert "leaves out the CUDA context: FlatData 96.0 MB, TemporaryMemoryBuffer 1.61 GB." in text
    assert "| 3 | 7 | A | B | 0.5000000 | 0.4999999 |" in text
    assert "| sgemm&lt;128> | 4 | 0.5000 | 75% |" in text
    assert "| test 1: one title | 0.2000 | 0.2500 |" in text


def test_a_test_that_failed_says_so_and_the_rest_stands(results: dict[str, Any]) -> None:
    failed = copy.deepcopy(results)
    failed["details"]["filtering"] = {"failed": "no title has the genre 'Sci-Fi'"}
    failed["test_4_filtering"] = dict.fromkeys(failed["test_4_filtering"])
    failed["details"]["batch"] = None
    failed["not_measured"]["details.batch"] = "not asked for (--only 1)"
    text = markdown_page(guide_document(failed))
    assert "The test failed: no title has the genre 'Sci-Fi'" in text
    assert "not asked for (--only 1)." in text


@pytest.mark.slow
def test_all_files_are_written_and_the_markdown_shows_the_pictures(results: dict[str, Any], tmp_path: Path) -> None:
    written, missing = save_comparison(GuideResults.model_validate(results), tmp_path)
    assert missing is None
    names = sorted(path.relative_to(tmp_path).as_posix() for path in written)
    pictures = [f"cpu_test_results/{name}.png" for name in ("cost", "filters", "memory", "throughput", "times")]
    assert names == sorted(["CPU_TEST_RESULTS.md", "cpu_test_results.html", "cpu_test_results.json", *pictures])
    assert json.loads((tmp_path / "cpu_test_results.json").read_text(encoding="utf-8")) == results
    text = (tmp_path / "CPU_TEST_RESULTS.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in text and (tmp_path / name).is_file() for name in pictures)


def test_without_the_chart_packages_the_results_are_written(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> bytes:
        raise MissingPackageError("altair is not installed", fix="pip install 'semrec-faiss[report]'")

    monkeypatch.setattr(guide_files, "png", refuse)
    written, missing = save_comparison(GuideResults.model_validate(results), tmp_path)
    assert [path.name for path in written] == ["cpu_test_results.json"]
    assert missing is not None
    assert missing.fix == "pip install 'semrec-faiss[report]'"


def test_every_chart_has_a_caption_and_data(with_gpu: dict[str, Any]) -> None:
    for chart in guide_document(with_gpu).charts():
        assert isinstance(chart, Chart)
        assert chart.caption.endswith(".")
        spec = chart.spec.to_dict()
        assert spec["title"]["text"]
        assert '"values": [{' in json.dumps(spec)


def costs(results: dict[str, Any], prices_of: str) -> str:
    """Return the cost section in Markdown, a CPU beside a GPU whose prices are those of another one, or its own."""
    found = copy.deepcopy(results)
    gpu = found["cost"]["machines"][0] | {"name": "H200 on demand", "cost_a_million": 0.002}
    found["cost"] |= {"machines": [*found["cost"]["machines"], gpu], "prices_of": prices_of, "break_even": []}
    (section,) = [one for one in guide_document(found).sections if one.title == "Cost"]
    drawn = [json.dumps(block.spec.to_dict()) for block in section.blocks if isinstance(block, Chart)]
    return "".join([markdown_page(Document("", "", [section])), *drawn])


def test_costs_at_the_prices_of_another_gpu_say_so_and_are_not_drawn(with_gpu: dict[str, Any]) -> None:
    text = costs(with_gpu, "a100")
    assert "| H200 on demand, at A100 prices |" in text
    assert "has no price of H200" in text
    assert "a million queries on a machine that is always busy" not in text


def test_costs_at_own_prices_name_no_other_gpu(with_gpu: dict[str, Any]) -> None:
    text = costs(with_gpu, "h200")
    assert "| H200 on demand |" in text
    assert "A100" not in text
    assert "a million queries on a machine that is always busy" in text


def test_a_slow_down_stands_out_and_a_speed_up_does_not(with_gpu: dict[str, Any]) -> None:
    with_gpu["test_4_filtering"] |= {"gpu_time_ms": 20.0, "cpu_time_ms": 10.0}
    ratios = {row[0]: row[-1] for row in performance_table(with_gpu).rows}
    assert ratios["one title, one genre only"] == Cell("0.50 ×", 0.5, "bad")
    assert ratios["one title"] == Cell("80 ×", 80.0, "plain")


def test_made_up_titles_are_called_so_beside_the_criteria(with_gpu: dict[str, Any]) -> None:
    glance = guide_document(with_gpu).sections[0].blocks
    assert glance[0].facts[0][2].endswith("on made-up titles")
    assert "made up" in glance[1].text
    for query in with_gpu["details"]["similarity"]["queries"]:
        query["media_id"] = "film_0001"
    glance = guide_document(with_gpu).sections[0].blocks
    assert "made-up" not in glance[0].facts[0][2]
    assert "made up" not in glance[1].text


def test_labels_of_two_devices_are_on_different_sides_of_their_points() -> None:
    rows = [
        {"share": 1.0, "device": "H200", "ms": 0.9, "strategy": "none"},
        {"share": 1.0, "device": "CPU", "ms": 1.0, "strategy": "none"},
    ]
    spec = filters_chart(rows, {"gpu": "H200", "cpu": "CPU"}).spec.to_dict()
    assert spec["layer"][0]["encoding"]["y"]["title"] == "milliseconds (log scale)"
    labels = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text"]
    sides = {row["device"]: layer["mark"]["dy"] for layer in labels for row in layer["data"]["values"]}
    assert sides == {"H200": 15, "CPU": -13}
    alone = filters_chart(rows[1:], {"cpu": "CPU"}).spec.to_dict()
    texts = [layer for layer in alone["layer"] if layer["mark"]["type"] == "text"]
    assert [layer["mark"]["dy"] for layer in texts] == [-13, -13], "no layer without rows, of which Vega complains"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (as_ms(0.26214), "0.262 ms"),
        (as_ms(14.72), "14.7 ms"),
        (as_ms(1250.4), "1,250 ms"),
        (as_ms(None), "–"),
        (as_qps(702_104.4), "702,104/s"),
        (as_gb(1.7142), "1.71 GB"),
        (as_gb(0.0067), "6.7 MB"),
        (as_share(0.96), "96%"),
        (as_share(0.9995), "99.95%"),
        (as_share(1.0), "100%"),
        (as_share(0.99996), "> 99.99%"),
        (as_share(None), "–"),
        (as_recall(1.0), "1.0000"),
        (as_recall(0.9998), "0.9998"),
        (as_recall(0.9998, 3), "> 0.999"),
        (as_recall(0.99996), "> 0.9999"),
        (as_recall(None), "–"),
        (as_change(-0.0004), "0.0%"),
        (as_change(0.036), "+3.6%"),
        (as_ms(0.04223), "0.0422 ms"),
        (as_times(81.3), "81 ×"),
        (as_times(1.006), "1.01 ×"),
        (as_money(1408.0, "USD"), "1,408.00 USD"),
        (as_money(0.001699, "USD"), "0.0017 USD"),
        (as_unit(3.0, "count"), "3"),
        (as_unit(0.5, "score"), "0.500"),
        (as_unit(None, "score"), "–"),
    ],
)
def test_numbers(written: str, expected: str) -> None:
    assert written == expected
