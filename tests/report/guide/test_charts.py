"""Charts of a comparison leave room for what is written in them."""

from __future__ import annotations

from typing import Any

import pytest

from semrec_faiss.report.guide.charts import cost_chart, memory_chart

pytest.importorskip("altair")


def ends_of(chart: Any) -> list[float]:
    """Return the ends of the x axis of bars and labels, which are the same."""
    layers = chart.spec.to_dict()["layer"]
    ends = [layer["encoding"]["x"]["scale"]["domain"] for layer in layers]
    assert ends[0] == ends[1]
    return list(ends[0])


def test_the_number_after_the_longest_bar_has_room() -> None:
    """Once a fault: it touched the edge of the picture."""
    memory = memory_chart(
        [{"what": "CPU", "kind": kind, "mb": mb} for kind, mb in (("predicted", 50), ("measured", 4))]
    )
    assert ends_of(memory) == [0, pytest.approx(56)]
    cost = cost_chart([{"name": "CPU", "kind": "cpu", "cost": 0.25}], "USD", "note")
    assert ends_of(cost) == [0, pytest.approx(0.28)]
