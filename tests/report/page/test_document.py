"""One document on a page and in Markdown: what is shown, what is escaped, that the page needs nothing from outside."""

from __future__ import annotations

import builtins
import re
import struct
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.errors import MissingPackageError, StorageError
from semrec_faiss.measure.documents.results import save_text
from semrec_faiss.report.page import charts
from semrec_faiss.report.page.axes import decades, even_ticks, recall_domain, ticks_between
from semrec_faiss.report.page.charts import legend_columns, load_altair, png, spec_of, titled
from semrec_faiss.report.page.document import Cell, Chart, Column, Document, Facts, Section, Table, Text, Value, shown
from semrec_faiss.report.page.html import html_page
from semrec_faiss.report.page.markdown import markdown_page, markdown_table

SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "data": {"values": [{"x": 1, "y": 10, "name": "</script><b>"}, {"x": 2, "y": 30, "name": "other"}]},
    "width": "container",
    "height": 200,
    "mark": "bar",
    "encoding": {"x": {"field": "name", "type": "nominal"}, "y": {"field": "y", "type": "quantitative"}},
}
ROWS: list[list[Value]] = [
    ["a|b", 1234.5, True],
    ["<i>", None, False],
    ["c", 2.0, Cell("near", 0.5, "bad")],
    ["d", 3, None],
]
TABLE = Table(["name", Column("ms", ",.1f"), "met"], ROWS, caption="Times", name="times")
DOCUMENT = Document(
    "A & B",
    "What <was> measured",
    [
        Section("First part", [Facts([("best", "3 ms", "of ten", "good")]), Text("a *plain* text"), TABLE]),
        Section("Second", [Chart("bars", SPEC, "Bars of y")], folded=True),
    ],
)


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of turn, and collects what a page would load."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_well_formed_and_loads_nothing() -> None:
    page = Balanced()
    page.feed(html_page(DOCUMENT))
    assert page.open == []
    assert page.loads == []


def test_a_page_without_charts_needs_no_chart_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "import_module", lambda name: pytest.fail(f"{name} is imported"))
    page = html_page(Document("t", "s", [Section("one", [TABLE])]))
    assert "vegaEmbed" not in page.replace("vegaEmbed(place", "")


def test_everything_said_is_on_the_page_escaped() -> None:
    page = html_page(DOCUMENT)
    assert "<h1>A &amp; B</h1>" in page
    assert "What &lt;was&gt; measured" in page
    assert '<td class="right short" data-sort="1234.5">1,234.5</td>' in page
    assert '<td class="short">&lt;i&gt;</td>' in page
    assert '<td class="muted right short">–</td>' in page
    assert '<td class="good short" data-sort="1.0">✓</td>' in page
    assert '<td class="bad short" data-sort="0.5">near</td>' in page
    assert page.count("</script>") == page.count("<script"), "a title must not end the script it stands in"
    assert '<a href="#first-part">First part</a>' in page


def test_markdown_says_the_same() -> None:
    assert markdown_page(DOCUMENT, {"bars": "report/bars.png"}) == (
        "# A & B\n\nWhat &lt;was> measured\n\n## First part\n\n- **best: 3 ms** – of ten\n\na \\*plain\\* text\n\n"
        "Times\n\n| name | ms | met |\n| --- | --: | --- |\n| a\\|b | 1,234.5 | ✓ |\n| &lt;i> | – | ✗ |\n"
        "| c | 2.0 | near |\n| d | 3.0 | – |\n\n<details>\n<summary>Second</summary>\n\n"
        "![Bars of y](report/bars.png)\n\n</details>\n"
    )
    assert "bars.png" not in markdown_page(DOCUMENT)


def test_a_row_with_a_cell_too_many_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        markdown_table(Table(["one"], [["a", "b"]]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Cell("–", None, "muted")),
        (True, Cell("✓", 1.0, "good")),
        (False, Cell("✗", 0.0, "bad")),
        (1234, Cell("1,234", 1234.0)),
        ("1234", Cell("1234")),
    ],
)
def test_shown(value: Value, expected: Cell) -> None:
    assert shown(value, Column("n", ",")) == expected


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([3.0, 250.0], [1, 10, 100, 1000]), ([10.0], [10, 100]), ([0.02, 0.9], [0.01, 0.1, 1]), ([], [1, 10])],
)
def test_decades(values: list[float], ticks: list[float]) -> None:
    assert decades(values) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.5, 2000.0), [1, 10, 100, 1000]),
        ((0.5, 12.0), [0.5, 1, 2, 5, 10]),
        ((1.9, 2.9), [1.9 + 0.1, 2.2, 2.4, 2.6, 2.8]),
        ((1900.0, 4100.0), [2000, 3000, 4000]),
    ],
)
def test_no_axis_has_fewer_than_three_ticks(ends: tuple[float, float], ticks: list[float]) -> None:
    assert ticks_between(*ends) == pytest.approx(ticks)


def test_recall_axes_end_at_one_with_room_for_labels_above() -> None:
    assert recall_domain([0.93, None, 1.0]) == pytest.approx((0.9, 1.014))
    assert even_ticks(0.9, 1.0) == [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]


def test_legends_take_the_columns_that_fit() -> None:
    assert legend_columns(["flat", "hnsw"], 640) == 2
    assert legend_columns(["x" * 40] * 5, 640) == 2
    assert legend_columns(["x" * 200], 100) == 1


def test_shares_below_one_are_never_shown_as_one() -> None:
    recall = Column("recall", ".3f", at_most_one=True)
    assert [shown(value, recall).text for value in (1.0, 0.9998, 0.9994, 0.5)] == ["1.000", "> 0.999", "0.999", "0.500"]
    assert shown(0.99999, Column("share", ".2%", at_most_one=True)).text == "> 99.99%"
    assert shown(0.9998, Column("ms", ".3f")).text == "1.000", "a time may be rounded up"


def test_png_of_a_chart_that_fills_the_page_has_a_width() -> None:
    drawn = png(SPEC, scale=1.0)
    width, height = struct.unpack(">II", drawn[16:24])
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert 640 <= width <= 760
    assert 200 <= height <= 320
    assert SPEC["width"] == "container", "the chart itself is left as it is"


def test_altair_charts_are_taken_as_they_are() -> None:
    alt = load_altair()
    chart = alt.Chart(alt.Data(values=[{"a": 1}])).mark_point().encode(x="a:Q")
    assert spec_of(chart)["encoding"]["x"] == {"field": "a", "type": "quantitative"}
    assert "config" not in spec_of(chart)


def test_without_altair_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str) -> Any:
        if name in ("altair", "vl_convert"):
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(charts, "import_module", refuse)
    with pytest.raises(MissingPackageError, match="altair is not installed") as error:
        load_altair()
    assert error.value.fix == "pip install 'semrec-faiss[report]'"


def test_a_page_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        save_text("x", tmp_path / "file" / "page.html")


@pytest.mark.slow
def test_a_browser_draws_the_chart_without_the_network(open_page: Callable[..., Any]) -> None:
    opened = open_page(DOCUMENT)
    opened.assert_drawn(DOCUMENT)
    assert "other" in opened.chart("bars")


@pytest.mark.slow
def test_on_a_narrow_screen_no_name_is_cut(open_page: Callable[..., Any]) -> None:
    """Names beside an axis, in a legend and in a title that a telephone has no room for in one line."""
    names = [f"half_life_days={days}, interests=16, centre=positive, popularity=0.45" for days in (30, 365)]
    rows = [{"what": name, "kind": f"a rather long name of kind {place}", "x": 3} for place, name in enumerate(names)]
    alt = load_altair()
    chart = (
        alt.Chart(alt.Data(values=rows), width="container", height=40)
        .mark_bar()
        .encode(
            x="x:Q",
            y=alt.Y("what:N", title=None, axis=alt.Axis(labelLimit=420)),
            color=alt.Color("kind:N", scale=alt.Scale(domain=[row["kind"] for row in rows], range=["red", "blue"])),
        )
    )
    title = "A title that says at length what is seen in this chart"
    document = Document("x", "y", [Section("z", [Chart("long", titled(chart, title), "Long names.")])])
    opened = open_page(document, width=390)
    opened.assert_drawn(document)
    drawn = opened.chart("long")
    assert "…" not in drawn, re.findall("[^>]*…[^<]*", drawn)
    letters = " ".join(re.sub(r"<[^>]*>", " ", drawn).split())
    for text in (*names, *(row["kind"] for row in rows), title):
        assert text in letters


def test_tables_of_many_columns_take_the_width_of_the_window() -> None:
    for count, broad in ((12, False), (13, True)):
        table = Table([f"column {place}" for place in range(count)], [list(range(count))])
        assert ('class="scroll stacked broad"' in html_page(Document("", "", [Section("", [table])]))) == broad


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_a_section_of_much_is_folded_on_narrow_screens_only(open_page: Callable[..., Any], width: int) -> None:
    document = Document("x", "y", [Section("All of them", [TABLE], folded="narrow")])
    (tag,) = re.findall('<details id="all-of-them"[^>]*>', open_page(document, width=width).dom)
    assert ("open" in tag) == (width > 544)
    assert "<details" not in markdown_page(document)


def test_tables_too_wide_for_a_narrow_screen_become_cards() -> None:
    criteria = Table(
        ["criterion", "target", "achieved", "status"], [["a long criterion", "at least 95%", "96%", "✓ met"]]
    )
    assert 'class="scroll stacked"' in html_page(Document("", "", [Section("", [criteria])]))
    five = Table(["a question", *["measured number"] * 4], [["one title", 1, 2, 3, 4]])
    assert 'class="scroll stacked pairs"' in html_page(Document("", "", [Section("", [five])]))
    narrow = Table(["rank", "title"], [[1, "Alien"]])
    long = Table(criteria.columns, criteria.rows * 30)
    for table in (narrow, long):
        assert 'class="scroll"' in html_page(Document("", "", [Section("", [table])]))
    assert '<td class="short" data-head="achieved">96%</td>' in html_page(Document("", "", [Section("", [criteria])]))
