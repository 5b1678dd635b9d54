"""A report as one HTML file that needs no network: style, scripts, data and charts are inside."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from semrec_faiss.report.page.charts import config, javascript, spec_of
from semrec_faiss.report.page.document import Block, Chart, Column, Document, Facts, Section, Table, Text, Value, shown
from semrec_faiss.report.page.palette import on_dark

_HERE = Path(__file__).parent
FEW_ROWS = 3
"""Tables of no more rows have nothing to sort."""

STACKED_ROWS = 25
"""Tables of no more rows show each as a card on a screen too narrow for them; longer ones are scrolled."""

NARROW = 38
"""Letters side by side on a narrow screen."""

MANY_COLUMNS = 12
"""Tables of more columns are broader than the text, as broad as the window where they need it, in smaller letters."""

SHORT, LONG = 18, 36
"""Letters of a cell that is never broken into lines, and of one that must keep some width."""


def html_page(document: Document) -> str:
    """Write a document as a page.

    Raises:
        MissingPackageError: it has charts, and altair or vl-convert-python is not installed.
    """
    charts = document.charts()
    scripts = [f"<script>{javascript()}</script>", _chart_data(charts)] if charts else []
    scripts.append(f"<script>{_read('page.js')}</script>")
    sections = "\n".join(_section(section) for section in document.sections)
    return _read("page.html").format_map(
        {
            "title": escape(document.title),
            "summary": escape(document.summary),
            "style": _read("page.css"),
            "contents": _contents(document),
            "sections": sections,
            "scripts": "\n".join(scripts),
        }
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _contents(document: Document) -> str:
    return "".join(f'<a href="#{_anchor(section.title)}">{escape(section.title)}</a>' for section in document.sections)


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    title, anchor = escape(section.title), _anchor(section.title)
    if section.folded:
        unless_narrow = ' class="unless-narrow" open' if section.folded == "narrow" else ""
        return f'<details id="{anchor}"{unless_narrow}><summary><h2>{title}</h2></summary>\n{blocks}\n</details>'
    return f'<section id="{anchor}"><h2>{title}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f'<p class="{block.tone}">{escape(block.text)}</p>'
    if isinstance(block, Facts):
        return _facts(block)
    if isinstance(block, Table):
        return _table(block)
    caption, name = escape(block.caption), escape(block.name)
    return f'<figure><div class="chart" id="chart-{name}" role="img" aria-label="{caption}"></div>\
<figcaption>{caption}</figcaption></figure>'


def _facts(facts: Facts) -> str:
    cards = [
        f'<div class="fact {tone}"><dt>{escape(what)}</dt><dd>{escape(number)}</dd><p>{escape(note)}</p></div>'
        for what, number, note, tone in facts.facts
    ]
    return f'<dl class="facts">{"".join(cards)}</dl>'


def _table(table: Table) -> str:
    columns = [table.column(position) for position in range(len(table.columns))]
    sortable = len(table.rows) > FEW_ROWS
    heads = "".join(_head(column.name, right=column.is_right, sortable=sortable) for column in columns)
    stacked = _stacked(table, columns)
    rows = "\n".join(
        "<tr>" + "".join(_cell(value, column, stacked) for value, column in zip(row, columns, strict=True)) + "</tr>"
        for row in table.rows
    )
    caption = f"<p class='caption'>{escape(table.caption)}</p>" if table.caption else ""
    named = f' id="table-{escape(table.name)}"' if table.name else ""
    table_html = f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>"
    broad = " broad" if len(columns) > MANY_COLUMNS else ""
    return f'{caption}<div class="scroll{stacked}{broad}"{named}>{table_html}</div>'


def _stacked(table: Table, columns: Sequence[Column]) -> str:
    """Say whether and how rows become cards on a narrow screen: below the first cell, two or three stand in a line."""
    fits = sum(_letters(table, place) for place in range(len(columns))) <= NARROW
    if len(table.rows) > STACKED_ROWS or (fits and not any(column.wide for column in columns)):
        return ""
    beside = sum(not column.wide for column in columns[1:])
    return " stacked pairs" if beside in (2, 4) else " stacked"


def _letters(table: Table, place: int) -> int:
    """Count the letters that a column needs at least: its longest word, or its longest cell that is never broken."""
    column = table.column(place)
    cells = [shown(row[place], column).text for row in table.rows]
    whole = [text for text in cells if column.is_right or len(text) <= SHORT]
    return 1 + max(map(len, [*" ".join([column.name, *cells]).split(), *whole]), default=0)


def _head(name: str, *, right: bool, sortable: bool) -> str:
    inside = f"<button type='button'>{escape(name)}</button>" if sortable and name else escape(name)
    return f"<th scope='col'{' class=right' if right else ''}>{inside}</th>"


def _cell(value: Value, column: Column, stacked: str) -> str:
    cell = shown(value, column)
    given = {"right": column.is_right, "wide": column.wide, cell.tone: cell.tone != "plain"}
    given |= {"short": 0 < len(cell.text) <= SHORT, "long": len(cell.text) > LONG and not column.wide}
    classes = sorted(name for name, holds in given.items() if holds)
    marked = f' class="{" ".join(classes)}"' if classes else ""
    sort = "" if cell.sort is None else f' data-sort="{escape(str(cell.sort))}"'
    text = escape(cell.text).replace("\n", "<br>")
    head = f' data-head="{escape(column.name)}"' if stacked and column.name else ""
    return f"<td{marked}{sort}{head}>{text}</td>"


def _chart_data(charts: list[Chart]) -> str:
    data = {
        "charts": {chart.name: spec_of(chart.spec) for chart in charts},
        "config": {scheme: config(scheme) for scheme in ("light", "dark")},
        "dark": on_dark(),
    }
    inlined = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="chart-data">{inlined}</script>'
