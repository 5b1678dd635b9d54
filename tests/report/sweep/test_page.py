"""A sweep's report: what it says is what was measured, its pictures are pictures, and a browser draws it all."""

from __future__ import annotations

import csv
import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_records
import pytest
import yaml

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.sweep.plan import make_plan
from semrec_faiss.measure.sweep.run import run_sweep
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.report.page.axes import log_axis, log_scale
from semrec_faiss.report.page.document import Chart, Document, Facts, Table, Text, shown
from semrec_faiss.report.page.files import csv_of
from semrec_faiss.report.page.html import html_page
from semrec_faiss.report.page.numbers import as_ms, as_recall
from semrec_faiss.report.page.palette import looks_of
from semrec_faiss.report.sweep.details import trials_table
from semrec_faiss.report.sweep.page import sweep_document, write_report
from semrec_faiss.report.sweep.rows import crossings, representatives, row_of, series_of, where
from semrec_faiss.report.sweep.sections import About, batch_blocks
from semrec_faiss.report.sweep.two_sweeps import compare_document
from tests.report.conftest import section

pytestmark = pytest.mark.slow  # a sweep is run for it

GRID = [
    {"type": "flat", "device": "cpu"},
    {"type": "ivf_flat", "device": ["cpu", "gpu"], "build": {"nlist": 6}, "search": {"nprobe": [1, 2, 6]}},
    {"factory": "IVF4,PQ8x12"},  # cannot be trained on so few titles
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> SweepResults:
    """A sweep over two data folders, one of them with users, one with a name that is no anchor."""
    folder = tmp_path_factory.mktemp("report")
    films = make_folder(folder / "films", titles=200, dim=16, users=20)
    others = make_folder(folder / "old <films>", titles=150, dim=16, users=12, seed=4, word="</script> &")
    data = [films.root, others.root]
    values = {
        "name": "both",
        "dataset": [str(path) for path in data],
        "results": str(folder / "results"),
        "grid": GRID,
        "queries": {"titles": 12, "users": 10},
        "k": 3,
        "batch": [1, 4],
        "repeats": 2,
        "slice": "genres",
        "filters": ["year < 1960", "year > 9999"],
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    plan = make_plan(*load_sweep_file(path))
    run_sweep(plan, isolated=False)
    return SweepResults.read(plan.sweep.folder)


@pytest.fixture(scope="module")
def document(results: SweepResults) -> Document:
    return sweep_document(results)


def test_every_question_has_its_section(document: Document) -> None:
    titles = [one.title for one in document.sections]
    expected = [
        f"{title}: {name}"
        for name in ("films", "old <films>")
        for title in (
            "Recall against speed",
            "Batch sizes",
            "Memory and building",
            "Filters",
            "What the recommender shows",
            "What is missed",
        )
    ]
    assert titles == [*expected, "All trials", "Not measured", "Environment"]


def test_trials_table_holds_every_measured_trial_as_it_was(document: Document, results: SweepResults) -> None:
    table, dashes = section(document, "All trials")
    assert "recall" in dashes.text
    assert "no title matches the filter" in dashes.text
    assert len(table.rows) == len(results.measured) == 2 * 4 * 3 * 2
    names = [table.column(place).name for place in range(len(table.columns))]
    record = next(one for one in results.measured if one.filter is None and one.batch == 4)
    row = dict(zip(names, table.rows[list(results.measured).index(record)], strict=True))
    assert row["recall"] == record.quality.recall
    assert row["p95 ms"] == record.latency.p95_ms
    assert row["index MB"] == record.build.index_bytes / 1e6


def test_memory_is_the_size_of_the_index_at_least(results: SweepResults) -> None:
    one, other = (record.model_copy(deep=True) for record in results.measured[:2])
    one.memory.host_peak_bytes, other.memory.host_peak_bytes = 0, None
    one.build.index_bytes = 2_474_510
    one.others_used_cores, other.others_used_cores = 0.25, None
    table = trials_table([one, other])
    columns = [table.column(place) for place in range(len(table.columns))]
    told = [
        {column.name: shown(cell, column).text for cell, column in zip(row, columns, strict=True)} for row in table.rows
    ]
    assert [row["memory MB"] for row in told] == ["2.5", "–"]
    assert [row["cores others used"] for row in told] == ["0.25", "–"]


def test_what_was_not_measured_is_listed_with_the_reason(document: Document, results: SweepResults) -> None:
    (table,) = section(document, "Not measured")
    kinds = [row[1] for row in table.rows]
    assert kinds.count("failed") == len(results.failed) == 2 * 3 * 2
    assert kinds.count("cannot be") == len(results.plan.invalid) == 2 * 3
    reasons = {str(row[2]) for row in table.rows}
    assert any("FAISS cannot train on" in reason for reason in reasons)
    assert any("GPU 0 was asked for" in reason for reason in reasons) or len(results.plan.invalid) == 0


def test_fastest_that_finds_enough_is_told(document: Document, results: SweepResults) -> None:
    facts = section(document, "Recall against speed: films")[1]
    assert isinstance(facts, Facts)
    plain = where(results.measured, data="films", filter=None, k=3, batch=1)
    best = min((one for one in plain if one.quality.recall >= 0.95), key=lambda one: one.latency.p50_ms)
    assert facts.facts[0][1] == as_ms(best.latency.p50_ms)
    assert f"recall {as_recall(best.quality.recall)}" in facts.facts[0][2]


def test_missed_titles_stand_beside_what_is_given_instead(document: Document) -> None:
    tables = [block for block in section(document, "What is missed: films") if isinstance(block, Table)]
    assert tables
    for asked, exact, missed, instead in tables[0].rows:
        assert isinstance(asked, str)
        assert len(str(exact).splitlines()) == 3
        assert str(exact).count("✗ ") == missed == len(instead.text.splitlines()) > 0


def test_representatives_are_the_fastest_that_find_enough() -> None:
    def record(series: str, nprobe: int, recall: float, p50: float) -> Measured:
        index = {"type": series, "build": {"nlist": 8}, "search": {"nprobe": nprobe}}
        return made_records.measured("x", recall, p50, index=index)

    flat = [record("ivf_flat", 1, 0.9, 1), record("ivf_flat", 2, 0.96, 3), record("ivf_flat", 4, 1.0, 2)]
    found = representatives([*flat, record("ivf_sq", 1, 0.5, 1), record("ivf_sq", 2, 0.7, 9)])
    assert [(one.index.type, one.index.search.nprobe) for one in found] == [("ivf_flat", 4), ("ivf_sq", 2)]


def test_batch_size_at_which_types_cross() -> None:
    def record(kind: str, batch: int, p50: float) -> Measured:
        index = {"type": kind, "build": {"nlist": 8} if kind != "flat" else {}}
        return made_records.measured("x", 1.0, p50, index=index, batch=batch)

    times = {"flat": (5, 6, 7), "ivf_flat": (1, 5, 40), "ivf_sq": (1, 2, 3)}
    records = [
        record(kind, batch, p50) for kind, line in times.items() for batch, p50 in zip((1, 10, 100), line, strict=True)
    ]
    assert crossings(records) == [
        {"faster": "ivf_flat nlist=8", "until": 10, "other": "flat", "from": 100},
        {"faster": "ivf_sq nlist=8 storage=fp16", "until": None, "other": "flat", "from": None},
    ]


def test_a_line_of_two_batch_sizes_is_told_and_not_drawn() -> None:
    flat, hnsw = (
        [
            made_records.measured("x", 1.0, p50, index={"type": kind}, batch=batch)
            for p50, batch in ((2.0, 1), (5.0, 10))
        ]
        for kind in ("flat", "hnsw")
    )
    about = About("films", 10, "films", "one query at a time", looks_of(map(series_of, [*flat, *hnsw])))
    (told,) = batch_blocks(about, flat)
    times = "2.00 ms, one query at a time (flat); 0.500 ms, batches of 10 (flat)"
    assert told == Text(f"At the fastest settings that find 95% a query takes {times}.")
    assert any(isinstance(block, Chart) for block in batch_blocks(about, [*flat, *hnsw]))


def test_shares_of_titles_end_at_all() -> None:
    for shares in ([0.5, 1.0], [0.9, 1.0], [1.0], [0.001, 0.3]):
        domain = log_scale(shares, shares=True).to_dict()["domain"]
        ticks = log_axis(shares, shares=True).to_dict()["values"]
        assert max(*domain, *ticks) <= 1.0
        assert len(ticks) >= 3


def test_csv_has_a_line_a_trial_and_nothing_for_what_was_not_measured(results: SweepResults) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of([row_of(record) for record in results.measured]))))
    assert len(rows) == len(results.measured)
    assert rows[0]["digest"] == results.measured[0].digest
    assert float(rows[0]["p50_ms"]) == results.measured[0].latency.p50_ms
    assert rows[0]["gpu_peak_bytes"] == ""
    nothing = [row for row in rows if row["filter"] == "year > 9999"]
    assert nothing
    assert {row["recall"] for row in nothing} == {""}, "no title matches: null, not 0"


@pytest.mark.slow
def test_files_are_written(results: SweepResults, tmp_path: Path) -> None:
    written = write_report(results, tmp_path / "out")
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert sorted(path.name for path in written) == [
        "latency-films.png",
        "latency-old-films-.png",
        "report.html",
        "summary.csv",
        "throughput-films.png",
        "throughput-old-films-.png",
    ]
    for path in written:
        if path.suffix == ".png":
            content = path.read_bytes()
            width, height = struct.unpack(">II", content[16:24])
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
            assert width > 1200 < 3 * height, "two panels side by side"


def test_nothing_measured_makes_no_page(results: SweepResults) -> None:
    empty = SweepResults(results.folder, results.plan, tuple(results.failed))
    with pytest.raises(UsageError, match=r"nothing was measured in .*FAISS cannot train"):
        sweep_document(empty)


def test_a_data_folder_says_how_many_of_its_trials_were_measured(results: SweepResults, document: Document) -> None:
    told = section(document, "Recall against speed: films")[0]
    assert isinstance(told, Text)
    assert told.text.startswith("24 of 30 trials measured"), "the factory string cannot be trained"
    chart = next(one for one in section(document, "Recall against speed: films") if isinstance(one, Chart))
    assert chart.spec.to_dict()["title"]["subtitle"] == (
        "films: 188 titles × 16, k = 3, on CPU; 24 of 30 trials measured; the broad grey line joins the best"
    )
    few = SweepResults(results.folder, results.plan, tuple(where(results.records, data="films")[:2]))
    assert sweep_document(few).summary.startswith("2 of 60 trials measured")
    reasons = [row for row in section(sweep_document(few), "Not measured")[0].rows if row[1] == "not reached"]
    assert len(reasons) == 58
    assert all(str(row[2]).startswith("the sweep ended first") for row in reasons)


def test_disturbed_trials_are_marked_where_they_are_chosen(results: SweepResults) -> None:
    def beside(cores: float) -> SweepResults:
        records = [record.model_copy(update={"others_used_cores": cores}) for record in results.measured]
        return dataclasses.replace(results, records=records)

    busy, count = beside(1.84), len(results.measured)
    facts, text, *_ = section(sweep_document(busy), "Recall against speed: films")[1:]
    assert facts.facts[0][2].endswith("; disturbed: other programs kept 1.8 cores busy")
    assert text.text.startswith("Other programs kept up to 1.8 cores busy during ")
    _, filters = section(sweep_document(busy), "Filters: films")
    assert all(str(row[-1]).endswith(", disturbed") for row in filters.rows if row[-2] is not None)
    speed = compare_document(beside(0.0), busy).sections[0]  # the fixture's may have been disturbed, too
    (told,) = (one.text for one in speed.blocks if isinstance(one, Text))
    assert f"{count} of {count} trials of the second" in told


def test_two_sweeps_side_by_side(results: SweepResults) -> None:
    document = compare_document(results, results)
    facts = document.sections[0].blocks[0]
    assert isinstance(facts, Facts)
    assert facts.facts[0][:2] == ("median of the time ratios", "1.000 ×")
    table = next(one.blocks[0] for one in document.sections if one.title == "Trials")
    assert isinstance(table, Table)
    assert len(table.rows) == len(results.measured)
    assert "compare" not in html_page(document)[:15]


def test_axes_of_logarithmic_scales() -> None:
    assert log_scale([1.0, 10.0]).to_dict()["domain"] == pytest.approx([1 / 1.2023, 12.023], rel=1e-3)
    assert {0.5, 1.0, 2.0, 5.0, 10.0} <= set(log_axis([0.5, 10.0]).to_dict()["values"])
    assert 2.0 not in log_axis([0.001, 10.0]).to_dict()["values"], "powers of ten alone over many decades"
    assert log_scale([0.0]).to_dict()["domain"][0] > 0


def test_records_flatten_without_loss(results: SweepResults) -> None:
    record = results.measured[0].model_copy(deep=True)
    record.build.index_bytes = 12_077
    for host_peak, memory in ((5_000_000, 5_000_000), (8_192, 12_077), (None, None)):
        record.memory.host_peak_bytes = host_peak
        row = row_of(record)
        assert (row["series"], row["setting"], row["device"]) == ("flat", "", "cpu")
        assert (row["host_peak_bytes"], row["memory_bytes"], row["index_bytes"]) == (host_peak, memory, 12_077)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["report", "compare"])
def test_a_browser_draws_every_chart(results: SweepResults, open_page: Callable[..., Any], page: str) -> None:
    document = sweep_document(results) if page == "report" else compare_document(results, results)
    assert len(document.charts()) == (14 if page == "report" else 1)
    open_page(document).assert_drawn(document)
