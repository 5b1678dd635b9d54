"""``semrec bench gpu`` on a GPU at small sizes: all it promises is in the document, and its answers are right."""

from __future__ import annotations

import pytest

from semrec_faiss.errors import DeviceError, UsageError
from semrec_faiss.measure.bench.gpu.one import GpuBench, bench_gpu
from semrec_faiss.measure.bench.gpu.several import bench_gpus


@pytest.mark.gpu
def test_everybody_is_measured_in_one_run() -> None:
    pytest.importorskip("torch")
    document = bench_gpu(GpuBench(titles=(3000, 20_000), batches=(1, 300, 1000), dim=64, seconds=0.01)).as_json()
    assert [row["queries"] for row in document["search"]] == 2 * [1, 300, 1000]
    for row in document["search"]:
        for name in ("fused", "faiss_float32", "faiss_float16", "torch_float16", "numpy"):
            assert row[name]["median_ms"] > 0
            assert len(row[name]["times_ms"]) >= 3
        assert row["largest_error"] < 1e-5
        assert row["fused_to_limit"] == pytest.approx(row["fused"]["median_ms"] / row["limit_ms"], rel=1e-2)
    assert {row["share"] for row in document["masked"]} == {0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0001}
    for row in document["masked"]:
        assert row["filtered"]["median_ms"] > 0
        assert len(row["first_filtered"]["times_ms"]) == 20
        if row["titles"] == 3000:  # a shelf would have to hold them all
            assert row["filtered_kernels"] is row["first_filtered_kernels"] is row["filtered_unproven"] is None
        elif row["share"] > 0.001:
            assert row["filtered_kernels"]["median_ms"] > 0
            assert row["filtered_unproven"] <= row["queries"]
            assert len(row["first_filtered_kernels"]["times_ms"]) == 20
    assert document["memory"][0]["vector_bytes"] == 3000 * 64 * 6


@pytest.mark.gpu
def test_several_gpus_are_measured_beside_one() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    document = bench_gpus(GpuBench(titles=(3000,), batches=(1, 1200), dim=64, seconds=0.01, gpus=(0, 1))).as_json()
    for row in document["search"]:
        assert row["same_answers"]
        for kind in ("fused", "users", "faiss"):
            one, shards = row[kind]["one_gpu"], row[kind]["shards"]
            assert shards["speedup"] == pytest.approx(one["median_ms"] / shards["median_ms"], rel=0.5)


def test_one_gpu_is_not_compared_with_itself() -> None:
    with pytest.raises(UsageError, match="one GPU is named"):
        bench_gpus(GpuBench())


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.hardware.device.gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="GPU 0 was asked for"):
        bench_gpu(GpuBench())
