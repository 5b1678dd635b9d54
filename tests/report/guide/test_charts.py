"""Charts of a comparison leave room for what is written in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from semrec_faiss.report.guide.charts import cost_chart, memory_chart
from semrec_faiss.report.page.document import Document, Section

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
    cost = cost_chart([{"name": "CPU", "kind": "cpu", "cost": 0.25}], "USD")
    assert ends_of(cost) == [0, pytest.approx(0.28)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_on_a_screen_of_any_width_the_number_is_within_the_picture(open_page: Callable[..., Any], width: int) -> None:
    """Once a fault: on a telephone 2,329.5 was cut to 2,329."""
    kinds = (("predicted", 2246.0), ("measured", 2329.5))
    chart = memory_chart([{"what": "H200, peak at 10,000 queries", "kind": kind, "mb": mb} for kind, mb in kinds])
    document = Document("x", "y", [Section("z", [chart])])
    opened = open_page(document, width=width)
    opened.assert_drawn(document)
    drawn = opened.chart("memory")
    whole, left = re.findall(r'width="([\d.]+)" .*?<g [^>]*transform="translate\(([\d.]+),', drawn)[0]
    at = re.findall(r'transform="translate\(([\d.]+),[^>]*>2,329\.5<', drawn)[0]
    assert float(left) + float(at) + 42 <= float(whole)  # seven letters of six pixels


@pytest.mark.slow
def test_numbers_of_an_axis_are_written_out(open_page: Callable[..., Any]) -> None:
    """Once a fault: beside 2, 4, 6 and 8 stood 1e+1."""
    prices = [{"name": name, "kind": "cpu", "cost": cost} for name, cost in (("CPU", 8.2), ("two of them", 9.1))]
    document = Document("x", "y", [Section("z", [cost_chart(prices, "USD")])])
    drawn = open_page(document).chart("cost")
    assert {">2<", ">8<", ">10<"} <= set(re.findall(r">[\d.,e+]+<", drawn))
