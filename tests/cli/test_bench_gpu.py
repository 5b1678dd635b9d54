"""``semrec bench gpu`` prints what was measured, and no number for what was not."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPO

from semrec_faiss.cli.bench.gpu import _print_gpu
from semrec_faiss.cli.main import cli
from semrec_faiss.measure.bench.gpu.one import GpuBench
from semrec_faiss.measure.bench.gpu.record import GpuResults
from semrec_faiss.measure.bench.gpu.several_record import GpusResults

SEVERAL = REPO / "results" / "bench-gpu-h200-x2.json"
MEASURED = REPO / "results" / "bench-gpu-h200-text.json"


def test_a_search_that_was_not_measured_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    results = GpuResults.model_validate_json(MEASURED.read_text(encoding="utf-8"))
    *others, last = results.search
    assert last.screened is not None
    lacking = last.model_copy(update={"titles": 77_777, "screened": None})
    _print_gpu(results.model_copy(update={"search": [*others, lacking, last]}))
    lines = [line.replace("int8 codes", "codes").split() for line in capsys.readouterr().out.splitlines()]
    head = next(line for line in lines if line[:2] == ["titles", "queries"])
    by_bounds = head.index("screened")
    without, measured = (
        next(line for line in lines if line[:2] == [f"{its.titles:,}", f"{its.queries:,}"]) for its in (lacking, last)
    )
    assert without[by_bounds] == "–"
    assert float(measured[by_bounds]) == pytest.approx(last.screened.median_ms, rel=0.01)


@pytest.mark.parametrize(("k", "part"), [(10, ""), (100, "-k100")])
def test_lists_of_another_length_go_to_a_file_of_their_own(k: int, part: str) -> None:
    text = MEASURED.read_text(encoding="utf-8")
    one = GpuResults.model_validate_json(text)
    one = one.model_copy(update={"data": one.data.model_copy(update={"k": k})})
    assert one.file_name == f"bench-gpu-h200-text{part}.json"
    several = GpusResults.model_validate_json(SEVERAL.read_text(encoding="utf-8"))
    several = several.model_copy(update={"data": several.data.model_copy(update={"k": k})})
    assert several.file_name == f"bench-gpu-h200-x2{part}.json"


def test_the_length_of_lists_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[GpuBench] = []

    def measured(bench: GpuBench, _: object) -> GpuResults:
        asked.append(bench)
        return GpuResults.model_validate_json(MEASURED.read_text(encoding="utf-8"))

    monkeypatch.setattr("semrec_faiss.measure.bench.gpu.one.bench_gpu", measured)
    words = ["bench", "gpu", "-k", "100", "--titles", "1000", "--queries", "7", "--out", str(tmp_path)]
    cli.main(args=words, prog_name="semrec", standalone_mode=False)
    assert asked == [GpuBench(titles=(1000,), batches=(7,), k=100)]
