"""Predicted memory against memory measured in a process of its own, on this CPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, SemrecError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.kernels import CHOICE, SAFE, numpy_is_faster, processor_flags
from semrec_faiss.index.memory.parts import MemoryParts
from semrec_faiss.index.memory.prediction import predict_memory
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments import index_memory as memory_check
from semrec_faiss.measure.instruments.index_memory import NOISE_BYTES, JudgedPrediction, judge, measure_memory
from semrec_faiss.measure.instruments.index_memory_record import HostMemory, SearchPeak
from semrec_faiss.measure.instruments.processes import output_of
from semrec_faiss.measure.memory import measured as memory_measured
from semrec_faiss.measure.memory import run as memory_run
from semrec_faiss.measure.memory.plan import MemoryPlan
from semrec_faiss.measure.memory.run import memory_report

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MB = 1_000_000


@LINUX
@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize(
    ("settings", "titles", "dim"),
    [
        ({"type": "flat", "build": {"directions": 0}}, 24_000, 256),
        ({"type": "flat", "build": {"directions": 64}}, 24_000, 256),
        ({"type": "ivf_flat", "build": {"nlist": 100}}, 16_000, 256),
        ({"type": "ivf_pq", "build": {"nlist": 64, "M": 16}}, 12_000, 128),
        ({"type": "hnsw", "build": {"M": 32, "efConstruction": 10}}, 8_000, 256),
    ],
)
@pytest.mark.slow
def test_predictions_hold_within_a_tenth(
    settings: dict[str, Any],
    titles: int,
    dim: int,
    make_folder: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By two threads, however many cores there are, and FAISS's product: each has scratch of its own."""
    if processor_flags() >= {"avx2", "fma"}:
        monkeypatch.setenv(CHOICE, SAFE)  # for both of them, so that neither is quicker
    for module in ("products", "few"):
        monkeypatch.setattr(f"semrec_faiss.index.cpu.{module}.numpy_is_faster", lambda: False)
    index = config_from_dict({"index": settings}).index
    check_predictions(index, make_folder(tmp_path / "data", titles=titles, dim=dim), 2, monkeypatch)


@LINUX
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.slow
def test_predictions_of_numpys_product_hold_within_a_tenth(
    threads: int, make_folder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread has a buffer of BLAS's too."""
    load_faiss()
    if not numpy_is_faster():
        pytest.skip("FAISS's product is as fast as numpy's on this processor")
    index = config_from_dict({"index": {"type": "flat", "build": {"directions": 0}}}).index
    check_predictions(index, make_folder(tmp_path / "data", titles=48_000, dim=256), threads, monkeypatch)


def check_predictions(index: IndexConfig, made: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that base and peaks are as predicted of an index of a folder that `make_folder` made."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, str(threads))
    titles, dim = made.vectors.shape
    output = made.root.parent / "index"
    config = config_from_dict({"device": "cpu"}).model_copy(update={"index": index, "output": output})
    build_index(config.of(made.root))
    batches = (100, 10_000)
    measured = measure_memory(output, ["device.kind=cpu"], batches, 10)
    assert isinstance(measured, HostMemory)
    hosts = [predict_memory(index, titles, dim, batch=batch, threads=threads).host for batch in batches]
    rows = judge(measured, list(zip(batches, hosts, strict=True)))
    assert [row.what for row in rows] == ["base", "peak at 100 queries", "peak at 10,000 queries"]
    for row in rows:
        assert abs(row.predicted_bytes - row.measured_bytes) <= max(0.10 * row.measured_bytes, NOISE_BYTES), row
    assert rows[2].measured_bytes > rows[0].measured_bytes + 10_000 * dim * 4


def test_a_prediction_holds_up_to_a_tenth_or_the_noise() -> None:
    assert JudgedPrediction.of("base", 110 * MB, 100 * MB).holds
    assert not JudgedPrediction.of("base", 89 * MB, 100 * MB).holds
    assert JudgedPrediction.of("base", NOISE_BYTES + MB, MB).holds
    assert JudgedPrediction.of("base", 110 * MB, 100 * MB).as_json() == {
        "what": "base",
        "predicted_bytes": 110 * MB,
        "measured_bytes": 100 * MB,
        "error": 0.1,
        "holds": True,
    }


def test_judging_pairs_each_batch_with_its_peak() -> None:
    searches = [SearchPeak(batch=9, peak_bytes=70), SearchPeak(batch=1, peak_bytes=60)]
    measured = HostMemory(start_bytes=1, base_bytes=50, available_bytes=None, searches=searches)
    parts = {1: MemoryParts(vectors=40, batch=5), 9: MemoryParts(vectors=40, batch=25)}
    found = [(row.what, row.predicted_bytes, row.measured_bytes) for row in judge(measured, list(parts.items()))]
    assert found == [("base", 40, 50), ("peak at 1 query", 45, 60), ("peak at 9 queries", 65, 70)]


def test_what_the_process_could_not_measure_is_a_reason(tmp_path: Path) -> None:
    found = measure_memory(tmp_path / "nowhere", [], (1,), 10)
    assert isinstance(found, NotMeasured)
    assert "does not exist" in found.reason


def test_a_process_that_fails_says_what_it_said() -> None:
    with pytest.raises(SemrecError, match=r"exit code 3[\s\S]*no luck"):
        output_of([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"])


def plan(index: dict[str, Any], **changes: Any) -> MemoryPlan:
    return MemoryPlan(config_from_dict({"index": index}), titles=1000, dim=64, **changes)


def test_the_report_predicts_every_device_that_the_type_runs_on() -> None:
    document = memory_report(plan({"type": "flat"}, limit_bytes=10**9)).as_json()
    assert list(document["prediction"]) == ["cpu", "gpu"]
    assert document["prediction"]["cpu"]["vectors_bytes"] == 1000 * 64 * 4
    fits = document["prediction"]["cpu"]["largest_catalogue"]
    assert predict_memory(plan({"type": "flat"}).config.index, fits, 64, batch=10_000).host.peak <= 10**9
    assert document["prediction"]["gpu"]["largest_catalogue"] == 0, "FAISS's scratch alone is 1.5 GiB"
    assert "measured" not in document
    assert list(memory_report(plan({"type": "hnsw"})).prediction) == ["cpu"]


def test_a_limit_that_nobody_gives_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_run, "machine_bytes", lambda: None)
    monkeypatch.setattr(memory_run, "smallest_gpu", lambda _: None)
    document = memory_report(plan({"type": "flat"})).as_json()
    assert document["prediction"]["cpu"]["largest_catalogue"] is None
    assert "--limit-gb" in document["not_measured"]["prediction.cpu.largest_catalogue"]
    assert document["prediction"]["gpu"]["limit_bytes"] == 40 * 10**9


def test_without_data_or_size_the_report_is_refused() -> None:
    with pytest.raises(UsageError, match="is not said"):
        memory_report(MemoryPlan(config_from_dict({}), titles=5))
    with pytest.raises(ConfigError, match="runs on CPU only"):
        memory_report(MemoryPlan(config_from_dict({"index": {"factory": "HNSW8"}}, ["device.kind=gpu"]), 9, 8))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"titles": 10**14}, "titles is 100,000,000,000,000; sizes are predicted up to 1,000,000,000,000"),
        ({"dim": 10**11}, "dim is 100,000,000,000; sizes are predicted up to 1,048,576"),
        ({"batch": 10**10}, "batch is 10,000,000,000; "),
        ({"k": 10**10}, "k is 10,000,000,000; "),
        ({"limit_bytes": 10**18}, "limit_bytes is 1,000,000,000,000,000,000; "),
        ({"titles": 10**12, "dim": 2048}, "1,000,000,000,000 titles × 2,048, with 10,000 queries of 10 titles"),
        ({"batch": 10**9, "k": 10**9}, "take over 1,000,000,000,000,000 bytes somewhere"),
    ],
)
@pytest.mark.parametrize("kind", ["flat", "fused", "ivf_pq", "hnsw"])
def test_sizes_that_no_machine_holds_are_refused(kind: str, sizes: dict[str, int], said: str) -> None:
    config = config_from_dict({"index": {"type": kind}}, ["device.kind=cpu"])
    with pytest.raises(UsageError, match=re.escape(said)):
        memory_report(MemoryPlan(config, **{"titles": 1000, "dim": 64, **sizes}))


@pytest.mark.parametrize(
    ("index", "limit", "fix"),
    [
        ({"type": "fused"}, 2048, "lower k, or take type flat, or set device.kind=cpu"),
        ({"type": "flat"}, 2048, "lower k or set device.kind=cpu"),
        ({"type": "ivf_pq"}, 512, "lower k or set device.kind=cpu"),  # 2048 candidates, rescored 4 for 1
        ({"type": "ivf_sq", "build": {"storage": "8bit"}}, 512, "lower k or set device.kind=cpu"),
        ({"factory": "IVF8,Flat"}, 2048, "lower k or set device.kind=cpu"),
    ],
)
def test_k_that_a_gpu_refuses_is_not_predicted_for(index: dict[str, Any], limit: int, fix: str) -> None:
    def asked(k: int, *settings: str, titles: int = 5000) -> MemoryPlan:
        return MemoryPlan(config_from_dict({"index": index}, settings), titles=titles, dim=64, k=k)

    kind = index.get("type", "factory")
    with pytest.raises(UsageError, match=f"k is {limit + 1}, over type {kind}'s limit of {limit} on a GPU") as caught:
        memory_report(asked(limit + 1))
    assert caught.value.fix == fix
    assert memory_report(asked(limit)).k == limit
    assert list(memory_report(asked(limit + 1, "device.kind=cpu")).prediction) == ["cpu"]
    assert memory_report(asked(limit + 1, titles=limit)).k == limit + 1, "more than there are is all of them"


def test_measuring_builds_such_an_index_and_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(path: Path, settings: Any, batches: Any, k: int) -> HostMemory:
        asked.append((path.is_dir(), list(settings), list(batches), k))
        searches = [SearchPeak(batch=batch, peak_bytes=9 * MB) for batch in batches]
        return HostMemory(start_bytes=1, base_bytes=5 * MB, available_bytes=None, searches=searches)

    monkeypatch.setattr(memory_measured, "measure_memory", measured)
    document = memory_report(plan({"type": "hnsw"}, batch=50, k=3), measure=True).as_json()
    assert asked == [(True, ["device.kind=cpu"], [1, 50], 3)]
    assert [row["what"] for row in document["measured"]["cpu"]["judged"]][1:] == [
        "peak at 1 query",
        "peak at 50 queries",
    ]
    assert document["measured"]["cpu"]["holds"] is all(row["holds"] for row in document["measured"]["cpu"]["judged"])
    assert memory_check.TOLERANCE == document["measured"]["cpu"]["tolerance"] == 0.10
