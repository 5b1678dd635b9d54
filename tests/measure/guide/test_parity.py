"""The parity certificate on answers made by hand, the trace's table, and the clock inside FAISS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.search_result import SearchResult
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.parity import agreement, float64_search
from semrec_faiss.measure.instruments.cuda_time import InFaiss, event_times, time_in_faiss
from semrec_faiss.measure.instruments.trace import largest_kernels, traced


@pytest.fixture(scope="module")
def index(clusters: Any) -> VectorIndex:
    """50 titles of 8 dimensions, of which 10 and 11 are the same vector."""
    vectors = clusters(50, 8, seed=4)
    vectors[11] = vectors[10]
    config = resolve(config_from_dict({}).index, 50, 8)
    return VectorIndex(build_faiss_index(config, lambda: [(0, vectors)], 50, 8, Device()), config)


def result(rows: list[list[int]], scores: list[list[float]]) -> SearchResult:
    return SearchResult(np.array(rows), np.array(scores, np.float32), True, "index")


def test_float64_ranks_as_brute_force_does(index: VectorIndex, truth: Any, clusters: Any) -> None:
    queries = clusters(6, 8, seed=5)
    found = float64_search(index, queries, 7)
    scores, rows = truth(index.vectors(list(range(50))), queries, 7)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-7)


def test_a_title_that_ties_is_as_good_as_the_other(index: VectorIndex) -> None:
    query = index.vectors([10])
    best = float64_search(index, query, 1)
    assert best.rows.tolist() == [[10]]
    tied = agreement(index, query, result([[11]], [[1.0]]), best)
    assert tied.overlap == 1.0
    assert tied.queries_with_all == 1.0
    assert tied.same_place == 0.0


def test_a_worse_title_is_missed_and_a_wrong_score_shows(index: VectorIndex) -> None:
    query = index.vectors([0])
    best = float64_search(index, query, 2)
    worst = int(np.argmin(index.vectors(list(range(50))) @ query[0]))
    found = agreement(index, query, result([[0, worst]], [[1.0, 0.5]]), best)
    true = float(index.vectors([worst])[0] @ query[0])
    assert found.overlap == 0.5
    assert found.queries_with_all == 0.0
    assert found.largest_score_error == pytest.approx(0.5 - true, abs=1e-6)
    assert found.largest_score_difference == pytest.approx(abs(0.5 - float(best.scores[0, 1])), abs=1e-6)


def test_kernels_are_summed_up_by_name() -> None:
    events = [
        {"cat": "kernel", "name": "gemm", "dur": 1500.0},
        {"cat": "kernel", "name": "select", "dur": 2000.0},
        {"cat": "kernel", "name": "gemm", "dur": 1500.0},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH", "dur": 1000.0},
        {"cat": "cpu_op", "name": "aten::mm", "dur": 9000.0},
        {"cat": "kernel", "name": "begins but never ends"},
    ]
    assert [one.as_json() for one in largest_kernels({"traceEvents": events}, 2)] == [
        {"name": "gemm", "calls": 2, "total_ms": 3.0, "share": 0.5},
        {"name": "select", "calls": 1, "total_ms": 2.0, "share": pytest.approx(1 / 3)},
    ]
    assert largest_kernels({}) == []


def test_on_a_cpu_the_trace_holds_spans_and_says_what_is_missing(index: VectorIndex, tmp_path: Path) -> None:
    calls: list[str] = []
    work = {"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}
    found = traced(work, index, tmp_path / "trace.json")
    assert (found.kernels, found.why("kernels")) == (None, "the index is searched on the CPU: no CUDA kernels run")
    assert found.trace == "trace.json"
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert [(event["name"], event["ph"], event["dur"] > 0) for event in events] == [
        ("one", "X", True),
        ("two", "X", True),
    ]
    assert calls == ["one", "two", "one", "two"]
    assert isinstance(event_times(index, lambda: None), NotMeasured)


def test_time_inside_faiss_is_counted_and_the_searcher_put_back(
    index: VectorIndex, clusters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("products", "few"):  # which on some processors would multiply in FAISS's place
        monkeypatch.setattr(f"semrec_faiss.index.cpu.{module}.numpy_is_faster", lambda: False)
    searcher = index.faiss_index
    queries = clusters(4, 8, seed=6)
    expected = index.search(queries, 3)
    with time_in_faiss(index) as clock:
        found = index.search(queries, 3)
        assert index.faiss_index.ntotal == 50
    assert clock.elapsed_ms > 0
    assert index.faiss_index is searcher
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_a_call_that_fails_is_counted_too() -> None:
    clock = InFaiss()

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        clock.timed(fail)()
    assert clock.elapsed_ms > 0
