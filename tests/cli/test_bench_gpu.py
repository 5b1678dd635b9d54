"""``semrec bench gpu`` prints what was measured, and no number for what was not."""

from __future__ import annotations

import pytest
from conftest import REPO

from semrec_faiss.cli.bench.gpu import _print_gpu
from semrec_faiss.measure.bench.gpu.record import GpuResults

MEASURED = REPO / "results" / "bench-gpu-h200-text.json"


def test_a_search_that_was_not_measured_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    results = GpuResults.model_validate_json(MEASURED.read_text(encoding="utf-8"))
    _print_gpu(results)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = next(line for line in lines if line[:2] == ["titles", "queries"])
    by_bounds = head.index("screened")
    small, large = (
        next(line for line in lines if line[:2] == [titles, "10,000"]) for titles in ("62,423", "4,000,000")
    )
    assert small[by_bounds] == "–"
    assert float(large[by_bounds]) == pytest.approx(40.8, abs=0.05)  # as the file has it
