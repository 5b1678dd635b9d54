"""The comparison, memory and profile on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.on_gpu import gpu_resources
from semrec_faiss.measure.guide.config import CompareSettings
from semrec_faiss.measure.guide.run import GuideRun, run_guide
from semrec_faiss.measure.instruments.cuda_time import event_times, time_in_faiss
from semrec_faiss.measure.instruments.gpu_memory import OTHERS
from semrec_faiss.measure.instruments.index_memory import measure_memory
from semrec_faiss.measure.instruments.index_memory_record import GpuMemory
from semrec_faiss.measure.memory.plan import MemoryPlan
from semrec_faiss.measure.memory.run import memory_report
from semrec_faiss.report.guide.report import guide_document
from semrec_faiss.report.page.markdown import markdown_page
from semrec_faiss.search.recommender import Recommender

pytestmark = pytest.mark.gpu

pytest.importorskip("altair", reason="the comparison draws its report")

QUICK = {"repeats": 3, "memory": {"batches": [100, 1000]}, "parity": {"queries": 200, "reference_queries": 50}}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare-gpu")
    write_synthetic(root / "data", titles=20_000, users=2000, dim=128, seed=3, seen_per_user=10)
    settings = {"dataset": str(root / "data"), "output": str(root / "index"), "index": {"type": "flat"}}
    build_index(config_from_dict(settings))
    return root / "index"


def test_both_sides_are_compared_and_agree(index: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    results = run_guide(GuideRun(index, questions=CompareSettings.model_validate(QUICK), trace=trace))
    found = results.as_json()
    assert found["index"]["gpu"] == found["index"]["device"] != "cpu"
    assert found["test_1_similarity"]["gpu_time_ms"] > 0
    assert found["test_2_personalization"]["avg_gpu_time_ms"] > 0
    assert found["test_3_batch"]["batch_1000"]["throughput_qps"] > 0
    filtering = found["test_4_filtering"]
    assert filtering["gpu_time_ms"] >= (filtering["gpu_search_time_ms"] or 0) >= 0, "type fused tells no parts"
    assert found["parity"]["gpu_to_cpu"]["overlap"] == 1.0
    assert found["parity"]["gpu_to_float64"]["overlap"] == 1.0
    untold = [one for one in found["criteria"] if one["met"] is None]
    assert [one["name"] for one in untold if one["reason"] != OTHERS.reason] == []
    assert json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    text = markdown_page(guide_document(results))
    assert f"CPU | {found['index']['gpu'].upper()}" in text or found["index"]["gpu"].upper() in text


def test_kernels_of_faiss_are_seen(index: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch cannot use the GPU")
    questions = CompareSettings.model_validate(QUICK)
    found = run_guide(GuideRun(index, only=(3,), questions=questions, trace=tmp_path / "trace.json")).as_json()
    assert found["profile"]["kernels"], found["not_measured"].get("profile.kernels")
    assert all(kernel["total_ms"] > 0 for kernel in found["profile"]["kernels"])
    for times in found["profile"]["events"].values():
        assert 0 < times["cuda_ms"] <= 1.5 * times["wall_ms"]


def test_faiss_has_its_own_stream_back_afterwards(index: Path) -> None:
    pytest.importorskip("torch")
    recommender = Recommender.open(index, ("device.kind=gpu",))
    resources = gpu_resources(0)
    queries = recommender.users.vectors[:50]
    expected = recommender.index.search(queries, 5, prepared=True)
    faiss = load_faiss()
    before = faiss.cast_cudastream_t_to_integer(resources.handle.getDefaultStream(0))
    event_times(recommender.index, lambda: recommender.index.search(queries, 5, prepared=True))
    assert faiss.cast_cudastream_t_to_integer(resources.handle.getDefaultStream(0)) == before
    again = recommender.index.search(queries, 5, prepared=True)
    np.testing.assert_array_equal(again.rows, expected.rows)


def test_time_in_faiss_covers_plain_and_filtered_searches(index: Path) -> None:
    recommender = Recommender.open(index, ("device.kind=gpu",))
    title = recommender.catalog.media_ids([5])[0]
    for where in (None, "'Sci-Fi' IN genres"):
        with time_in_faiss(recommender.index) as clock:
            answer = recommender.similar(title, 5, where=where)
        assert 0 < clock.elapsed_ms <= answer.elapsed_ms * 1.5


def test_memory_is_measured_by_the_driver(index: Path) -> None:
    pytest.importorskip("pynvml")
    found = measure_memory(index, ["device.kind=gpu"], (1, 1000), 10)
    if found == OTHERS:
        pytest.skip(OTHERS.reason)
    assert isinstance(found, GpuMemory), found
    assert found.context_bytes > 50 << 20
    assert found.base_bytes > (1536 << 20) + found.context_bytes
    assert all(row.peak_bytes >= found.base_bytes for row in found.searches)
    assert sum(found.faiss_counts_bytes.values()) >= 20_000 * 128 * 4


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_sq"])
def test_the_prediction_holds(kind: str) -> None:
    pytest.importorskip("pynvml")
    settings: dict[str, Any] = {"index": {"type": kind}, "device": "gpu"}
    plan = MemoryPlan(config_from_dict(settings), titles=100_000, dim=384, batch=1000)
    report = memory_report(plan, measure=True)
    if report.not_measured.get("measured.gpu") == OTHERS.reason:
        pytest.skip(OTHERS.reason)
    measured = report.measured["gpu"]
    assert measured is not None
    assert measured.holds, measured.judged
